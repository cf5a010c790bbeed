/** WebSockets over HTTP/2 (RFC 8441) to an application that has them over HTTP/1.1. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test, type TestContext } from 'node:test';
import { WebSocketServer, type RawData } from 'ws';
import { WEB } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { EXTENDED, switchTo, webSocketOn } from '../../support/http/extended-connect.ts';
import { startHttpInbound } from '../../support/http/http-stage.ts';
import { request, startClient } from '../../support/http/http2-stage.ts';

const SIZES = [0, 1, 125, 126, 65_536, 1024 * 1024];

/** An application that says every message back, and answers other requests with `ok`. */
async function startEcho(t: TestContext) {
  const asked: IncomingMessage[] = [];
  const closed: (number | string)[] = [];
  const server = createServer((_, response) => response.end('ok'));
  const sockets = new WebSocketServer({ server, verifyClient: ({ req }: { req: IncomingMessage }) => req.url !== '/no' });
  sockets.on('connection', (socket, incoming) => {
    asked.push(incoming);
    socket.on('error', () => undefined);
    socket.on('message', (data: RawData, isBinary) => socket.send(data as Buffer, { binary: isBinary }));
    socket.on('close', (code, reason) => closed.push(code, reason.toString()));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    for (const socket of sockets.clients) socket.terminate();
    server.closeAllConnections();
    server.close();
  });
  return { address: `127.0.0.1:${(server.address() as AddressInfo).port}`, asked, closed };
}

test('a WebSocket over HTTP/2 is one over HTTP/1.1 for the application, and carries messages of any size both ways', async (t) => {
  const application = await startEcho(t);
  const stage = await startHttpInbound(t, application.address, { http: { ...EXTENDED, spiffeIdHeader: 'X-Peer' } });
  const client = await startClient(t, stage);
  const { stream, status } = await switchTo(client, { 'x-peer': 'forged', 'sec-websocket-version': '13' });
  assert.equal(status, 200);
  const socket = webSocketOn(stream, false);

  for (const size of [...SIZES, ...SIZES.toReversed()]) {
    const message = randomBytes(size);
    const answer = once(socket, 'message');
    socket.send(message);
    assert.ok(message.equals(((await answer) as [Buffer])[0]), `${size} bytes`);
  }
  assert.equal((await request(client, { ':path': '/beside' })).body.toString(), 'ok');
  socket.close(4000, 'enough');

  await eventually(() => assert.deepEqual(application.closed, [4000, 'enough']));
  assert.deepEqual([application.asked[0]?.url, application.asked[0]?.headers['x-peer']], ['/socket', WEB]);
  const line = await eventually(() => {
    const found = stage.sidecar.log().find(({ message, path }) => message === 'request finished' && path === '/socket');
    assert.ok(found !== undefined);
    return Promise.resolve(found);
  });
  assert.deepEqual(
    ['method', 'status', 'http_version'].map((name) => line[name]),
    ['GET', 101, '2'],
  );
  // It lasts as long as it is wanted, which says nothing of how fast anybody is.
  assert.equal(await stage.sidecar.metric('scute_http_request_duration_seconds_count', { listener: 'in' }), 1);
});

test('a WebSocket over HTTP/2 that the application does not want is answered with its answer', async (t) => {
  const application = await startEcho(t);
  const stage = await startHttpInbound(t, application.address, { http: EXTENDED });
  const client = await startClient(t, stage);

  const { status } = await switchTo(client, { ':path': '/no', 'sec-websocket-version': '13' });

  assert.equal(status, 401);
  assert.equal((await request(client, { ':path': '/' })).status, 200);
});

test('a rule that looks at the method takes a WebSocket over HTTP/2 for the GET that its application gets', async (t) => {
  const application = await startEcho(t);
  const stage = await startHttpInbound(t, application.address, {
    http: EXTENDED,
    listener: { allow: [{ peer: WEB }], deny: [{ peer: WEB, methods: ['GET'], paths: ['/socket'] }] },
  });
  const client = await startClient(t, stage);

  const { status } = await switchTo(client, { 'sec-websocket-version': '13' });

  assert.equal(status, 403);
  assert.equal((await switchTo(client, { ':path': '/other', 'sec-websocket-version': '13' })).status, 200);
  assert.equal(application.asked.length, 1);
});
