/** Responses before the final one, and those without a body, as Node's own client and server make them. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { ClientRequest, IncomingMessage, InformationEvent, RequestOptions } from 'node:http';
import { Agent, request } from 'node:https';
import { test, type TestContext } from 'node:test';
import type { InboundStage } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { startHttpApplication, startHttpInbound } from '../../support/http/http-stage.ts';

interface Client {
  ask(path: string, options?: RequestOptions): ClientRequest;
  /** The connections that it has opened. */
  connections(): number;
}

function startClient(t: TestContext, stage: InboundStage): Client {
  const agent = new Agent({ keepAlive: true, maxSockets: 1, ...stage.web, rejectUnauthorized: false });
  t.after(() => agent.destroy());
  const connections = new Set<unknown>();
  const [host, port] = stage.address.split(':');
  return {
    ask(path, options) {
      const asked = request({ host, port, path, agent, ...options });
      asked.on('socket', (socket) => connections.add(socket));
      return asked;
    },
    connections: () => connections.size,
  };
}

async function answerTo(asked: ClientRequest): Promise<{ readonly response: IncomingMessage; readonly body: string }> {
  const [response] = (await once(asked, 'response')) as [IncomingMessage];
  let body = '';
  response.setEncoding('utf8').on('data', (text: string) => (body += text));
  await once(response, 'end');
  return { response, body };
}

test('several early hints pass as they came, and the answer after them', async (t) => {
  const application = await startHttpApplication(t, (_, response) => {
    response.writeEarlyHints({ link: '</style.css>; rel=preload; as=style', 'x-part': '1' });
    response.writeProcessing();
    response.writeEarlyHints({ link: ['</a.js>; rel=preload', '</b.js>; rel=preload'] }, () => response.end('page'));
  });
  const client = startClient(t, await startHttpInbound(t, application.address));

  for (let time = 0; time < 3; time++) {
    const hints: InformationEvent[] = [];
    const asked = client.ask('/').on('information', (hint: InformationEvent) => hints.push(hint));
    asked.end();
    const { response, body } = await answerTo(asked);

    assert.deepEqual([response.statusCode, body], [200, 'page']);
    assert.deepEqual(
      hints.map(({ statusCode, headers }) => [statusCode, headers['link'], headers['x-part']]),
      [
        [103, '</style.css>; rel=preload; as=style', '1'],
        [102, undefined, undefined],
        [103, '</a.js>; rel=preload, </b.js>; rel=preload', undefined],
      ],
    );
  }
  assert.equal(client.connections(), 1);
});

for (const framing of ['a length', 'chunks'] as const) {
  test(`a body of ${framing} that waits for 100 Continue is sent when it came, once`, async (t) => {
    const heads: string[][] = [];
    const application = await startHttpApplication(t, (asked, response) => {
      heads.push(asked.rawHeaders.filter((_, index) => index % 2 === 0));
      asked.pipe(response);
    });
    application.server.on('checkContinue', () => assert.fail('the application was asked'));
    const client = startClient(t, await startHttpInbound(t, application.address));
    const body = 'x'.repeat(100_000);

    for (let time = 0; time < 3; time++) {
      let continues = 0;
      const headers = { expect: '100-continue', ...(framing === 'a length' ? { 'content-length': body.length } : {}) };
      const asked = client.ask('/', { method: 'POST', headers });
      asked.flushHeaders();
      asked.on('information', () => continues++);
      await once(asked, 'continue');
      asked.end(body);
      const { response, body: echoed } = await answerTo(asked);

      assert.deepEqual([response.statusCode, echoed.length, continues], [200, body.length, 1]);
    }
    assert.ok(heads.every((names) => !names.includes('Expect')));
    assert.equal(client.connections(), 1);
  });
}

test('HEAD, 204, 304 and 205 are followed by the next on the same connection, with what they say of their body', async (t) => {
  const application = await startHttpApplication(t, (asked, response) => {
    if (asked.url === '/chunked') response.writeHead(200, { 'Transfer-Encoding': 'chunked' });
    else if (asked.url === '/length') response.writeHead(200, { 'Content-Length': 12_345 });
    else if (asked.url === '/304') response.writeHead(304, { 'Content-Length': 12_345, ETag: '"a"' });
    else response.writeHead(Number(asked.url?.slice(1)));
    response.end();
  });
  const client = startClient(t, await startHttpInbound(t, application.address));

  const seen: unknown[] = [];
  for (const [method, path] of [
    ['HEAD', '/length'],
    ['HEAD', '/chunked'],
    ['GET', '/204'],
    ['GET', '/304'],
    ['HEAD', '/304'],
    ['GET', '/205'],
    ['DELETE', '/204'],
    ['GET', '/404'],
  ] as const) {
    const asked = client.ask(path, { method });
    asked.end();
    const { response, body } = await answerTo(asked);
    seen.push([response.statusCode, response.headers['content-length'], response.headers['transfer-encoding'], body]);
  }

  assert.deepEqual(seen, [
    [200, '12345', undefined, ''],
    [200, undefined, 'chunked', ''],
    [204, undefined, undefined, ''],
    [304, '12345', undefined, ''],
    [304, '12345', undefined, ''],
    [205, undefined, 'chunked', ''],
    [204, undefined, undefined, ''],
    [404, undefined, 'chunked', ''],
  ]);
  assert.equal(client.connections(), 1);
});

test('a body that is refused before it is sent is not waited for', async (t) => {
  const application = await startHttpApplication(t, (_, response) => response.writeHead(413, { Connection: 'close' }).end('too much'));
  const stage = await startHttpInbound(t, application.address);
  const client = startClient(t, stage);

  const asked = client.ask('/', { method: 'POST', headers: { 'content-length': 1_000_000_000 } });
  asked.on('error', () => undefined);
  asked.flushHeaders();
  const { response, body } = await answerTo(asked);
  asked.destroy();

  assert.deepEqual([response.statusCode, body], [413, 'too much']);
  const line = await eventually(() => {
    const found = stage.sidecar.log().find(({ message }) => message === 'request finished');
    assert.ok(found !== undefined);
    return found;
  });
  assert.deepEqual([line['status'], line['result']], [413, 'forwarded']);
});
