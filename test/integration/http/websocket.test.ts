import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { test, type TestContext } from 'node:test';
import { WebSocket, WebSocketServer, type ClientOptions, type RawData, type ServerOptions } from 'ws';
import { startPair, WEB } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { startHttpApplication, startHttpInbound } from '../../support/http/http-stage.ts';

const MIB = 1024 * 1024;
const SIZES = [0, 1, 125, 126, 127, 65_535, 65_536, MIB, 16 * MIB];
const MAX_PAYLOAD = 32 * MIB;

/** A server of WebSockets that says everything back, as it came. */
async function startEcho(t: TestContext, options: ServerOptions = {}) {
  const { address, server } = await startHttpApplication(t, (_, response) => response.writeHead(404).end());
  const peers: WebSocket[] = [];
  const callers: (string | string[] | undefined)[] = [];
  const sockets = new WebSocketServer({ server, maxPayload: MAX_PAYLOAD, perMessageDeflate: false, ...options });
  t.after(() => {
    for (const peer of peers) peer.terminate();
  });
  sockets.on('connection', (peer, request) => {
    peers.push(peer);
    peer.on('error', () => undefined);
    callers.push(request.headers['x-peer']);
    peer.on('message', (message, isBinary) => peer.send(message, { binary: isBinary }));
  });
  return { address, peers, callers };
}

async function open(t: TestContext, url: string, options: ClientOptions = {}): Promise<WebSocket> {
  const socket = new WebSocket(url, { perMessageDeflate: false, maxPayload: MAX_PAYLOAD, rejectUnauthorized: false, ...options });
  t.after(() => socket.terminate());
  await once(socket, 'open');
  return socket;
}

function sum(data: RawData | string): string {
  return createHash('sha256')
    .update(Array.isArray(data) ? Buffer.concat(data) : Buffer.isBuffer(data) || typeof data === 'string' ? data : Buffer.from(data))
    .digest('hex');
}

/** Sends messages without waiting for their answers, which must be the same. */
async function exchange(socket: WebSocket, messages: readonly (Buffer | string)[]): Promise<void> {
  const heard: [sum: string, isBinary: boolean][] = [];
  const { promise: all, resolve } = Promise.withResolvers<void>();
  socket.on('message', (message, isBinary) => {
    heard.push([sum(message), isBinary]);
    if (heard.length === messages.length) resolve();
  });
  for (const message of messages) socket.send(message);
  await all;
  assert.deepEqual(
    heard,
    messages.map((message) => [sum(message), typeof message !== 'string']),
  );
}

test('a WebSocket carries messages of 0 bytes to 16 MiB both ways', async (t) => {
  const { address, peers, callers } = await startEcho(t);
  const stage = await startHttpInbound(t, address, { http: { spiffeIdHeader: 'X-Peer' } });
  const socket = await open(t, `wss://${stage.address}/socket`, { ...stage.web });

  for (const size of SIZES)
    await exchange(socket, [randomBytes(size), 'x'.repeat(size)]).finally(() => socket.removeAllListeners('message'));
  await exchange(
    socket,
    SIZES.toReversed().map((size) => randomBytes(size)),
  );

  assert.deepEqual(callers, [WEB]);
  socket.close(4000, 'enough');
  const [[code, reason]] = (await Promise.all([once(socket, 'close'), ...peers.map((peer) => once(peer, 'close'))])) as [[number, Buffer]];
  assert.deepEqual([code, reason.toString()], [4000, 'enough']);
  const line = await eventually(() => {
    const found = stage.sidecar.log().find(({ message }) => message === 'request finished');
    assert.ok(found !== undefined);
    return found;
  });
  assert.deepEqual([line['status'], line['result'], line['path']], [101, 'forwarded', '/socket']);
  const total = 2 * 2 * SIZES.reduce((all, size) => all + size, 0);
  assert.ok(Number(line['bytes_from_downstream']) > total / 2 && Number(line['bytes_to_downstream']) > total / 2);
});

test('a WebSocket carries the same through two sidecars that forward HTTP, from a caller that knows nothing of TLS', async (t) => {
  const { address } = await startEcho(t);
  const pair = await startPair(t, address, {
    inbound: { protocol: 'http', http: { spiffeIdHeader: 'X-Peer' } },
    outbound: { protocol: 'http' },
  });
  const socket = await open(t, `ws://${pair.address}/socket`);

  await exchange(
    socket,
    SIZES.map((size) => randomBytes(size)),
  );
});

test('pings, pongs, fragments, compression and the end of a WebSocket pass, whoever begins', async (t) => {
  const { address, peers } = await startEcho(t, { perMessageDeflate: { threshold: 0 } });
  const stage = await startHttpInbound(t, address);
  const socket = await open(t, `wss://${stage.address}/`, { ...stage.web, perMessageDeflate: { threshold: 0 } });
  const [peer] = peers;
  assert.ok(peer !== undefined);
  assert.match(socket.extensions, /permessage-deflate/);

  for (const [one, other] of [
    [socket, peer],
    [peer, socket],
  ] as const) {
    const heard = Promise.all([once(other, 'ping'), once(one, 'pong')]);
    one.ping('are you there');
    const [[ping], [pong]] = (await heard) as [[Buffer], [Buffer]];
    assert.deepEqual([ping.toString(), pong.toString()], ['are you there', 'are you there']);
  }
  const said = once(socket, 'message');
  socket.send('a message ', { fin: false });
  socket.send('in parts', { fin: true });
  assert.equal(String((await said)[0]), 'a message in parts');
  await exchange(socket, ['x'.repeat(MIB)]);

  peer.close(1001, 'bye');
  const [code, reason] = (await once(socket, 'close')) as [number, Buffer];
  assert.deepEqual([code, reason.toString()], [1001, 'bye']);
});

test('a server that refuses a WebSocket is heard, and so is a peer that is not allowed', async (t) => {
  const { address } = await startEcho(t, { verifyClient: (_: unknown, done: (ok: boolean, code: number) => void) => done(false, 401) });
  for (const [allow, status] of [
    [['spiffe://example.org/web'], 401],
    [[], 403],
  ] as const) {
    const stage = await startHttpInbound(t, address, { listener: { allow } });
    const socket = new WebSocket(`wss://${stage.address}/`, { ...stage.web, rejectUnauthorized: false });
    socket.on('error', () => undefined);
    const [, response] = (await once(socket, 'unexpected-response')) as [unknown, { readonly statusCode: number }];
    assert.equal(response.statusCode, status);
    socket.terminate();
  }
});

test('fifty WebSockets at once are not mixed up, and one that breaks takes no other with it', async (t) => {
  const { address, peers } = await startEcho(t);
  const stage = await startHttpInbound(t, address);
  const sockets = await Promise.all(Array.from({ length: 50 }, () => open(t, `wss://${stage.address}/`, { ...stage.web })));

  peers[10]?.terminate();
  const broken = await Promise.race(sockets.map(async (socket) => (await once(socket, 'close'), socket)));
  await Promise.all(
    sockets
      .filter((socket) => socket !== broken)
      .map((socket, number) =>
        exchange(
          socket,
          Array.from({ length: 20 }, (_, part) => `${number} ${part} ${'.'.repeat(part * 1000)}`),
        ),
      ),
  );
});
