/** What unmodified clients and applications say, and expect to be served with, though it is old, odd or repeated. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventually } from '../../support/eventually.ts';
import { HTTP_DIRECTIONS, type HttpDirection } from '../../support/http/http-directions.ts';
import { startHttpInbound, startRawApplication } from '../../support/http/http-stage.ts';
import { request, startClient } from '../../support/http/http2-stage.ts';

const crlf = (...lines: readonly string[]): string => `${lines.join('\r\n')}\r\n\r\n`;
const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const CLOSING_OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok';
const LAST = crlf('GET /last HTTP/1.1', 'Host: a', 'Connection: close');
const LAST_SENT = LAST;
const toWholeHeads = (received: string): string | undefined => (received.endsWith('\r\n\r\n') ? OK : undefined);

/** Of each request: what the log says that the client asked, and how that went. */
async function logged({ sidecar }: HttpDirection, count: number): Promise<unknown[]> {
  return eventually(() => {
    const lines = sidecar.log().filter(({ message }) => message === 'request finished');
    assert.equal(lines.length, count);
    return Promise.resolve(lines.map(({ host, path, status, result }) => [host, path, status, result]));
  });
}

for (const { name, start } of HTTP_DIRECTIONS) {
  test(`${name}: a health check of HTTP/1.0 needs no Host, and no field at all`, async (t) => {
    const stage = await start(t, toWholeHeads);

    for (const asked of [crlf('GET /health HTTP/1.0'), crlf('GET /health HTTP/1.0', 'User-Agent: check', 'Host:')]) {
      const { text } = await (await stage.say(asked)).over();
      assert.equal(text, CLOSING_OK);
    }

    const close = 'Connection: close';
    assert.equal(stage.received(), crlf('GET /health HTTP/1.0', close) + crlf('GET /health HTTP/1.0', 'User-Agent: check', 'Host:', close));
    assert.deepEqual(
      await logged(stage, 2),
      Array.from({ length: 2 }, () => ['', '/health', 200, 'forwarded']),
    );
  });

  test(`${name}: an empty Host is a Host, and none in HTTP/1.1 is a bad request`, async (t) => {
    const stage = await start(t, toWholeHeads);

    const { text } = await (await stage.say(crlf('GET /a HTTP/1.1', 'Host:') + LAST)).over();
    assert.equal(text, OK + CLOSING_OK);
    assert.match((await (await stage.say(crlf('GET /a HTTP/1.1'))).over()).text, /^HTTP\/1\.1 400 [^]*there is not one valid Host/);

    assert.equal(stage.received(), crlf('GET /a HTTP/1.1', 'Host:') + LAST_SENT);
    assert.deepEqual(await logged(stage, 3), [
      ['', '/a', 200, 'forwarded'],
      ['a', '/last', 200, 'forwarded'],
      ['', '', 400, 'bad_request'],
    ]);
  });

  test(`${name}: a target in absolute form is a path of its authority, to the application and in the log`, async (t) => {
    const stage = await start(t, toWholeHeads);
    const asked = [
      crlf('GET http://Api:80/a//b?c=d HTTP/1.1', 'Accept: x', 'hOst: aPI', 'X: y'),
      crlf('OPTIONS https://[::1] HTTP/1.1', 'Host: [::1]:443', 'Proxy-Connection: keep-alive'),
      crlf('GET HTTP://a?b HTTP/1.1', 'Host: a:80'),
      crlf('GET http://a.example:8080 HTTP/1.0'),
    ];

    const { text } = await (await stage.say(asked.join(''))).over();

    assert.equal(text, OK.repeat(3) + CLOSING_OK);
    assert.equal(
      stage.received(),
      [
        crlf('GET /a//b?c=d HTTP/1.1', 'Host: Api:80', 'Accept: x', 'X: y'),
        crlf('OPTIONS * HTTP/1.1', 'Host: [::1]'),
        crlf('GET /?b HTTP/1.1', 'Host: a'),
        crlf('GET / HTTP/1.0', 'Host: a.example:8080', 'Connection: close'),
      ].join(''),
    );
    assert.deepEqual(await logged(stage, 4), [
      ['Api:80', '/a//b', 200, 'forwarded'],
      ['[::1]', '*', 200, 'forwarded'],
      ['a', '/', 200, 'forwarded'],
      ['a.example:8080', '/', 200, 'forwarded'],
    ]);
  });

  test(`${name}: who names one authority in the target and another in Host is refused, with the reason`, async (t) => {
    const stage = await start(t, toWholeHeads);
    const asked = [
      ['http://a/', 'b', /Host is not the authority of the request target/],
      ['http://a/', 'a:443', /Host is not the authority of the request target/],
      ['https://a/', 'a:80', /Host is not the authority of the request target/],
      ['http://a/', '', /Host is not the authority of the request target/],
      ['http://user@a/', 'a', /neither a path nor a valid URI of http or https/],
      ['ftp://a/', 'a', /neither a path nor a valid URI of http or https/],
      ['http:///a', '', /neither a path nor a valid URI of http or https/],
      ['http://a/#b', 'a', /a byte that it may not have/],
    ] as const;

    for (const [target, host, reason] of asked) {
      const { text } = await (await stage.say(crlf(`GET ${target} HTTP/1.1`, `Host: ${host}`))).over();
      assert.match(text, /^HTTP\/1\.1 400 Bad Request\r\n/, target);
      assert.match(text, reason, target);
    }

    assert.equal(stage.received(), '');
    assert.deepEqual(
      await logged(stage, asked.length),
      Array.from({ length: asked.length }, () => ['', '', 400, 'bad_request']),
    );
  });

  test(`${name}: one empty line ahead of a request is no part of it, and two are refused`, async (t) => {
    const stage = await start(t, toWholeHeads);
    const post = (body: string): string => crlf('POST /a HTTP/1.1', 'Host: a', `Content-Length: ${body.length}`) + body;

    const { text } = await (await stage.say(`\r\n${post('a\r\n\r\n')}\r\n${LAST}`)).over();
    assert.equal(text, OK + CLOSING_OK);
    assert.equal(stage.received(), post('a\r\n\r\n') + LAST_SENT);
    for (const bad of ['\r\n\r\n', '\n', '\r\n\n', '\r', '\r\n \r\n']) {
      const answer = await (await stage.say(bad + LAST)).over();
      assert.match(answer.text, /^HTTP\/1\.1 400 Bad Request\r\n/, JSON.stringify(bad));
    }
    assert.equal(stage.received(), post('a\r\n\r\n') + LAST_SENT);
  });

  test(`${name}: a length that the server says several times is said once`, async (t) => {
    const head = (...lengths: readonly string[]): string =>
      `${crlf('HTTP/1.1 200 OK', ...lengths.map((length) => `Content-Length: ${length}`), 'X: y')}ok`;
    const answers = [head('2', '2'), head('2, 2'), head('2', '02,2 ,\t2'), head('2, 3'), head('2', '2,')];
    const stage = await start(t, (received) => (received.endsWith('\r\n\r\n') ? answers.shift() : undefined));

    const asked = crlf('GET /a HTTP/1.1', 'Host: a');
    const { text } = await (await stage.say(asked.repeat(4))).over();
    const once = `${crlf('HTTP/1.1 200 OK', 'X: y', 'Content-Length: 2')}ok`;
    assert.equal(text.slice(0, 3 * once.length), once.repeat(3));
    assert.match(text.slice(3 * once.length), /^HTTP\/1\.1 502 [^]*Content-Length is not one number/);
    assert.match((await (await stage.say(asked)).over()).text, /^HTTP\/1\.1 502 [^]*Content-Length is not one number/);
  });

  test(`${name}: a 204 or 304 that speaks of chunks loses the word, and its connection is not used again`, async (t) => {
    let status = '';
    const stage = await start(t, (received) => {
      if (!received.endsWith('\r\n\r\n')) return undefined;
      return received.includes('/last') ? OK : crlf(`HTTP/1.1 ${status}`, 'Transfer-Encoding: chunked', 'X: y');
    });

    for (const [index, each] of ['204 No Content', '304 Not Modified'].entries()) {
      status = each;
      const { text } = await (await stage.say(crlf('GET /a HTTP/1.1', 'Host: a') + LAST)).over();
      assert.equal(text, crlf(`HTTP/1.1 ${each}`, 'X: y') + CLOSING_OK);
      assert.equal(stage.connections(), 2 * (index + 1));
    }
  });

  test(`${name}: a thousand fields pass both ways, and one more is refused`, async (t) => {
    const fields = (count: number): string[] => Array.from({ length: count }, (_, index) => `X-${index}: y`);
    let count = 999;
    const stage = await start(t, (received) =>
      received.endsWith('\r\n\r\n') ? crlf('HTTP/1.1 200 OK', 'Content-Length: 0', ...fields(count)) : undefined,
    );

    const most = await stage.say(crlf('GET /a HTTP/1.1', 'Host: a', ...fields(999)));
    await most.until(`X-998: y\r\n\r\n`);
    assert.equal(most.text(), crlf('HTTP/1.1 200 OK', 'Content-Length: 0', ...fields(999)));
    assert.equal(stage.received(), crlf('GET /a HTTP/1.1', 'Host: a', ...fields(999)));
    most.socket.end();

    count = 1000;
    assert.match((await (await stage.say(LAST)).over()).text, /^HTTP\/1\.1 502 [^]*too many fields/);
    const { text } = await (await stage.say(crlf('GET /a HTTP/1.1', 'Host: a', ...fields(1000)))).over();
    assert.match(text, /^HTTP\/1\.1 431 [^]*the head has too many fields/);
  });
}

test('over HTTP/2, a 204 or 304 that speaks of chunks passes, and its connection is not used again', async (t) => {
  const application = await startRawApplication(t, (received) =>
    received.endsWith('\r\n\r\n')
      ? crlf(`HTTP/1.1 ${/\/204 /.test(received) ? '204 No Content' : '304 Not Modified'}`, 'Transfer-Encoding: chunked', 'X: y')
      : undefined,
  );
  const client = await startClient(t, await startHttpInbound(t, application.address));

  for (const [index, status] of [204, 304, 204].entries()) {
    const answer = await request(client, { ':path': `/${status}` });
    assert.deepEqual([answer.status, answer.headers['x'], answer.reset], [status, 'y', undefined]);
    assert.equal(application.connections(), index + 1);
  }
});

test('over HTTP/2, a thousand fields pass both ways', async (t) => {
  const fields = Array.from({ length: 990 }, (_, index): [string, string] => [`x-${index}`, 'y']);
  const application = await startRawApplication(t, (received) =>
    received.endsWith('\r\n\r\n') ? crlf('HTTP/1.1 200 OK', 'Content-Length: 0', ...fields.map((field) => field.join(': '))) : undefined,
  );
  const client = await startClient(t, await startHttpInbound(t, application.address));

  const { status, headers } = await request(client, { ':path': '/', ...Object.fromEntries(fields) });

  assert.equal(status, 200);
  assert.ok(fields.every(([name]) => headers[name] === 'y'));
  assert.ok(fields.every(([name]) => application.received().includes(`\r\n${name}: y\r\n`)));
});
