/** What an application says to its own connection stays there; what we say to the client's is said once (RFC 9110, section 7.6.1). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventually } from '../../support/eventually.ts';
import { HTTP_DIRECTIONS } from '../../support/http/http-directions.ts';
import { send, startHttpApplication, startHttpInbound, startRawApplication } from '../../support/http/http-stage.ts';
import { request, startClient } from '../../support/http/http2-stage.ts';
import { byTranslation } from '../../support/http/translation.ts';

const crlf = (...lines: readonly string[]): string => `${lines.join('\r\n')}\r\n\r\n`;
const GET = crlf('GET / HTTP/1.1', 'Host: a');
const CLOSE = crlf('GET / HTTP/1.1', 'Host: a', 'Connection: close');
const HOP_BY_HOP = [
  'Connection: keep-alive, X-Hop',
  'Keep-Alive: timeout=5, max=100',
  'Proxy-Connection: close',
  'TE: trailers',
  'Upgrade: h2c, websocket',
  'X-Hop: 1',
  'x-hop: 2',
];
/** It takes the third one for an end of the connection, which no interim response may have. */
const HOP_BY_HOP_OF_NODE = HOP_BY_HOP.map((field) => field.replace('Proxy-Connection: close', 'Proxy-Connection: keep-alive'));

for (const { name, start } of HTTP_DIRECTIONS) {
  test(`${name}: fields between the server and us do not reach the client, those that are nominated among them`, async (t) => {
    const stage = await start(t, (received) =>
      received.endsWith('\r\n\r\n')
        ? `${crlf('HTTP/1.1 200 OK', 'A: 1', ...HOP_BY_HOP.slice(0, 4), 'Proxy-Authenticate: Basic', ...HOP_BY_HOP.slice(4), 'Content-Length: 2', 'X-Hops: 3')}ok`
        : undefined,
    );

    const line = await stage.say(GET.repeat(2) + CLOSE);

    const left = ['HTTP/1.1 200 OK', 'A: 1', 'Proxy-Authenticate: Basic', 'Content-Length: 2', 'X-Hops: 3'];
    assert.equal((await line.over()).text, `${crlf(...left)}ok`.repeat(2) + `${crlf(...left, 'Connection: close')}ok`);
    assert.equal(stage.connections(), 1);
  });

  test(`${name}: interim responses and trailers leave them behind, too`, async (t) => {
    const stage = await start(t, (received) =>
      received.endsWith('\r\n\r\n')
        ? `${crlf('HTTP/1.1 103 Early Hints', 'Link: </a>', ...HOP_BY_HOP)}${crlf('HTTP/1.1 200 OK', 'Connection: x-hop', 'Trailer: X-Sum', 'Transfer-Encoding: chunked')}2\r\nok\r\n0\r\n${crlf('Keep-Alive: timeout=5', 'X-Sum: 1', 'X-Hop: 2', 'TE: x')}`
        : undefined,
    );

    const { text } = await (await stage.say(CLOSE)).over();

    assert.equal(
      text,
      `${crlf('HTTP/1.1 103 Early Hints', 'Link: </a>')}${crlf('HTTP/1.1 200 OK', 'Trailer: X-Sum', 'Transfer-Encoding: chunked', 'Connection: close')}2\r\nok\r\n0\r\n${crlf('X-Sum: 1')}`,
    );
  });

  test(`${name}: no nomination takes a response apart, and one that is no list is refused`, async (t) => {
    let fields: readonly string[] = [];
    let body = 'ok';
    const stage = await start(t, (received) => (received.endsWith('\r\n\r\n') ? crlf('HTTP/1.1 200 OK', ...fields) + body : undefined));

    fields = ['Connection: Content-Length, Set-Cookie', 'Set-Cookie: a=b', 'Content-Length: 2'];
    assert.equal((await (await stage.say(CLOSE)).over()).text, `${crlf('HTTP/1.1 200 OK', 'Content-Length: 2', 'Connection: close')}ok`);
    fields = ['Connection: transfer-encoding', 'Transfer-Encoding: chunked'];
    body = '2\r\nok\r\n0\r\n\r\n';
    assert.equal(
      (await (await stage.say(CLOSE)).over()).text,
      crlf('HTTP/1.1 200 OK', 'Transfer-Encoding: chunked', 'Connection: close') + body,
    );
    for (const bad of [['Connection: a b'], ['Connection: "close"'], Array.from({ length: 65 }, (_, index) => `Connection: x-${index}`)]) {
      fields = [...bad, 'Content-Length: 0'];
      assert.match((await (await stage.say(CLOSE)).over()).text, /^HTTP\/1\.1 502 [^]*Connection names no valid fields/);
    }
  });

  test(`${name}: an application that ends its connection, or speaks HTTP/1.0, does not end the client's`, async (t) => {
    const answers = [
      ['HTTP/1.1 200 OK', 'Connection: close', 'Content-Length: 2'],
      ['HTTP/1.0 200 OK', 'Content-Length: 2'],
      ['HTTP/1.0 200 OK', 'Connection: Keep-Alive', 'Content-Length: 2'],
      ['HTTP/1.1 200 OK', 'Content-Length: 2'],
    ];
    const stage = await start(t, (received, socket) => {
      if (!received.endsWith('\r\n\r\n')) return undefined;
      const answer = answers.shift() ?? [];
      if (answer[1] === 'Connection: close') socket.end(`${crlf(...answer)}ok`);
      return answer[1] === 'Connection: close' ? undefined : `${crlf(...answer)}ok`;
    });

    const { text } = await (await stage.say(GET.repeat(3) + CLOSE)).over();

    const ok = `${crlf('HTTP/1.1 200 OK', 'Content-Length: 2')}ok`;
    assert.equal(text, ok.repeat(3) + ok.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n'));
    assert.equal(stage.connections(), 3);
  });
}

test('a drain says Connection: close once, whatever the application says', async (t) => {
  for (const says of ['keep-alive', 'close', undefined]) {
    const { promise: released, resolve: release } = Promise.withResolvers<void>();
    let asked = 0;
    // As Node's servers do it: Connection and Keep-Alive in each response.
    const application = await startHttpApplication(t, (_, response) => {
      asked++;
      if (says !== undefined) response.setHeader('Connection', says);
      void released.then(() => response.end('ok'));
    });
    const stage = await startHttpInbound(t, application.address);
    const line = await send(stage, GET);
    await eventually(() => assert.equal(asked, 1));

    const drained = stage.sidecar.stop(AbortSignal.timeout(60_000));
    // The listener has heard of it when it takes nobody new.
    await eventually(() => assert.rejects(stage.connect()));
    release();
    const { text } = await line.over();
    await drained;

    assert.match(text, /^HTTP\/1\.1 200 OK\r\n/);
    assert.deepEqual(text.match(/^(?:connection|keep-alive):.*$/gim), ['Connection: close']);
    assert.ok(text.endsWith('ok'));
  }
});

test('over HTTP/2, none of them reaches the client, in heads, interim ones and trailers', async (t) => {
  const application = await startRawApplication(t, (received) =>
    received.endsWith('\r\n\r\n')
      ? `${crlf('HTTP/1.1 103 Early Hints', 'Link: </a>', ...HOP_BY_HOP_OF_NODE)}${crlf('HTTP/1.1 200 OK', ...HOP_BY_HOP_OF_NODE, 'X-Hops: 3', 'Transfer-Encoding: chunked')}2\r\nok\r\n0\r\n${crlf('X-Sum: 1', 'X-Hop: 2', 'Keep-Alive: 1')}`
      : undefined,
  );
  const client = await startClient(t, await startHttpInbound(t, application.address));

  const { status, headers, interim, trailers, body } = await request(client, { ':path': '/' });

  assert.deepEqual([status, body.toString()], [200, 'ok']);
  // Node says when it is, if nobody does.
  assert.deepEqual(Object.keys(headers), byTranslation([':status', 'x-hops'], [':status', 'x-hops', 'date']));
  assert.deepEqual(
    interim.map((each) => Object.keys(each)),
    [[':status', 'link']],
  );
  assert.deepEqual(Object.entries(trailers), [['x-sum', '1']]);
});
