import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { test, type TestContext } from 'node:test';
import type { TLSSocket } from 'node:tls';
import { startInbound, startOutbound, startOutboundToApi, startExampleDomain } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { startHttpApplication, startHttpInbound } from '../../support/http/http-stage.ts';
import { connectClient, request } from '../../support/http/http2-stage.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import type { Sidecar, SidecarOptions } from '../../support/sidecar.ts';
import { closed, dial, ping, readAll, startEcho, startTcpServer } from '../../support/tcp.ts';
import { openSockets } from '../../support/open-files.ts';

/** Long enough that what ends is not ended by it. */
const LONG = { handshakeTimeout: '500s' };

function echo(socket: Socket): void {
  socket.pipe(socket);
}

function waiting(sidecar: Sidecar, count: number): Promise<void> {
  return eventually(async () => assert.equal(await sidecar.metric('scute_tcp_waiting_connections'), count));
}

function handshaking(sidecar: Sidecar, count: number): Promise<void> {
  return eventually(async () => assert.equal(await sidecar.metric('scute_tls_handshaking_connections'), count));
}

test('a silent connection that waits for a place and then ends in order is let go, with its socket', async (t) => {
  const application = await startEcho(t);
  const { sidecar, address } = await startInbound(t, application.address, { listener: { limits: { maxHandshakes: 1 } } });
  const holder = await dial(t, address);
  holder.write('\x16');
  await eventually(async () => assert.equal(await sidecar.metric('scute_tls_handshaking_connections'), 1));
  const before = openSockets();

  for (let i = 0; i < 20; i++) {
    const silent = await dial(t, address);
    silent.end();
    await closed(silent);
  }

  await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_waiting_connections'), 0));
  await eventually(() => assert.ok(openSockets() <= before + 2, `${openSockets()} sockets are open, ${before} were before`));
});

test('connections that are reset while they wait are let go at once, and cost those behind them nothing', async (t) => {
  const application = await startEcho(t);
  const { sidecar, address, connect } = await startInbound(t, application.address, {
    listener: { limits: { ...LONG, maxHandshakes: 2 } },
  });
  // Two hold both places.
  const holders = [await dial(t, address), await dial(t, address)];
  for (const holder of holders) holder.write('\x16');
  await eventually(async () => assert.equal(await sidecar.metric('scute_tls_handshaking_connections'), 2));
  const before = openSockets();

  const quitters = await Promise.all(Array.from({ length: 20 }, () => dial(t, address)));
  for (const quitter of quitters) quitter.write('\x16');
  await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_waiting_connections'), 20));
  for (const quitter of quitters) quitter.resetAndDestroy();
  await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_waiting_connections'), 0));
  await eventually(() => assert.ok(openSockets() <= before + 2, `${openSockets()} sockets are open, ${before} were before`));
  const connecting = connect();
  await waiting(sidecar, 1);
  for (const holder of holders) holder.destroy();

  const client = await connecting;
  client.end('hello');
  assert.equal((await readAll(client)).toString(), 'hello');
});

test('thousands of waiting connections are refused one by one when identity is withdrawn meanwhile', async (t) => {
  const application = await startEcho(t);
  const { spiffe, sidecar, address, connect } = await startInbound(t, application.address, {
    listener: { limits: { maxHandshakes: 1, handshakeTimeout: '50s' } },
  });
  // Each takes two files of the half that strangers have, so a limit of 10,000 open files has room for them all.
  const COUNT = 2000;
  const holder = await dial(t, address);
  holder.write('\x16');
  await eventually(async () => assert.equal(await sidecar.metric('scute_tls_handshaking_connections'), 1));
  const sockets = await Promise.all(Array.from({ length: COUNT }, () => dial(t, address)));
  for (const socket of sockets) socket.write('\x16');
  await waiting(sidecar, COUNT);
  await spiffe.withdraw('api');
  await eventually(() => assert.deepEqual(sidecar.app.notReady(), ['identity']));
  // The one place among the handshakes becomes free, and it is the turn of all that wait.
  holder.destroy();

  await eventually(async () => assert.equal(await sidecar.metric('scute_accept_refused_total', { reason: 'identity_not_ready' }), COUNT));

  await spiffe.restore('api');
  await sidecar.ready();
  (await connect()).end();
});

for (const [how, leave] of [
  ['are reset', (socket: Socket) => socket.resetAndDestroy()],
  ['end, which in TLS is no half of anything', (socket: Socket) => socket.end()],
] as const) {
  test(`six hundred clients that ${how} at maxConnections are let go, and those behind them are served`, async (t) => {
    const application = await startEcho(t);
    const { sidecar, address, connect } = await startInbound(t, application.address, {
      listener: { limits: { ...LONG, maxConnections: 1 } },
    });
    const only = await connect();
    await ping(only);
    const before = openSockets();
    const clients = await Promise.all(Array.from({ length: 600 }, () => dial(t, address)));
    // Some are silent, and some have begun.
    for (const [index, client] of clients.entries()) if (index % 2 === 0) client.write('\x16\x03\x01');
    await waiting(sidecar, 600);

    for (const client of clients) leave(client);

    await waiting(sidecar, 0);
    await Promise.all(clients.map((client) => closed(client)));
    await eventually(() => assert.ok(openSockets() <= before + 2, `${openSockets()} sockets are open, ${before} were before`));
    assert.equal(await sidecar.metric('scute_tcp_waiting_bytes'), 0);
    only.destroy();
    await ping(await connect());
  });
}

/** An outbound sidecar with one place, which is taken. */
async function startFullOutbound(t: TestContext, options: { readonly listener?: object; readonly sidecar?: SidecarOptions } = {}) {
  const stage = await startOutboundToApi(t, echo, {
    tls: { allowHalfOpen: true },
    sidecar: options.sidecar ?? {},
    listener: { limits: { ...LONG, maxConnections: 1 }, ...options.listener },
  });
  const only = await dial(t, stage.address);
  await ping(only);
  return { ...stage, only };
}

test('a half-closed client of an outbound listener waits on, and is served', async (t) => {
  const { sidecar, address, only } = await startFullOutbound(t);
  const second = await dial(t, address);
  second.end('hello');
  await eventually(async () => assert.ok((await sidecar.metric('scute_tcp_waiting_bytes', { direction: 'outbound' })) > 0));
  const silent = await dial(t, address);
  silent.end();
  await waiting(sidecar, 2);

  only.end();

  assert.equal((await readAll(second)).toString(), 'hello');
  assert.equal((await readAll(silent)).toString(), '');
  await waiting(sidecar, 0);
  assert.equal(await sidecar.metric('scute_tcp_close_total', { reason: 'finished' }), 3);
});

test('a client of an outbound listener that is reset while it waits is let go', async (t) => {
  const { sidecar, address } = await startFullOutbound(t);
  const second = await dial(t, address);
  second.write('hello');
  await waiting(sidecar, 1);
  second.resetAndDestroy();
  await waiting(sidecar, 0);
  assert.equal(await sidecar.metric('scute_tcp_waiting_bytes'), 0);
});

test('of a client that waits and says a MiB 4 KiB are kept, and it arrives whole when its turn comes', async (t) => {
  const { sidecar, address, only } = await startFullOutbound(t);
  const said = randomBytes(1024 * 1024);
  const second = await dial(t, address);
  second.end(said);
  await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_waiting_bytes', { direction: 'outbound' }), 4096));
  // It has no way to be read further.
  assert.ok(second.writableLength > 0 || second.bytesWritten > 0);
  only.end();

  assert.ok((await readAll(second)).equals(said));
  assert.equal(await sidecar.metric('scute_tcp_waiting_bytes'), 0);
});

test('a client that waits and speaks a byte at a time is kept whole, and no more memory than 4 KiB is held for it', async (t) => {
  const { sidecar, address, only } = await startFullOutbound(t);
  const said = randomBytes(3000);
  const second = await dial(t, address);
  second.setNoDelay(true);
  for (const byte of said) {
    second.write(Buffer.of(byte));
    await new Promise(setImmediate);
  }
  await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_waiting_bytes', { direction: 'outbound' }), 4096));
  second.end();
  only.end();
  assert.ok((await readAll(second)).equals(said));
});

test('of all that wait together so much is kept, and beyond it the longest wait is dropped', async (t) => {
  const { sidecar, address, only } = await startFullOutbound(t, { sidecar: { maxKeptBytes: 4 * 4096 } });
  const said = randomBytes(100_000);
  const clients: Socket[] = [];
  for (let i = 0; i < 6; i++) {
    const client = await dial(t, address);
    clients.push(client);
    client.end(said);
    const kept = Math.min(i + 1, 4);
    await eventually(async () =>
      assert.deepEqual(
        [await sidecar.metric('scute_tcp_waiting_bytes'), await sidecar.metric('scute_tcp_waiting_connections')],
        [kept * 4096, kept],
      ),
    );
  }

  const [first, second, ...others] = clients as [Socket, Socket, ...Socket[]];
  assert.match((await closed(first)) ?? '', /ECONNRESET|EPIPE/);
  assert.match((await closed(second)) ?? '', /ECONNRESET|EPIPE/);
  assert.equal(await sidecar.metric('scute_accept_refused_total', { reason: 'waiting_limit' }), 2);
  only.end();
  for (const client of others) assert.ok((await readAll(client)).equals(said));
});

test('a TLS client whose first flight is longer than what is kept of it is served when its turn comes', async (t) => {
  const application = await startEcho(t);
  const { sidecar, connect } = await startInbound(t, application.address, { listener: { limits: { ...LONG, maxConnections: 1 } } });
  const only = await connect();
  await ping(only);
  const names = Array.from({ length: 40 }, (_, index) => `${index}`.padStart(250, 'x'));
  const second = connect({ ALPNProtocols: names });
  await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_waiting_bytes', { direction: 'inbound' }), 4096));
  only.destroy();
  await ping(await second);
});

test('silent connections that came while there was no place get none of the handshakes that others need', async (t) => {
  const application = await startEcho(t);
  const { sidecar, address, connect } = await startInbound(t, application.address, {
    listener: { limits: { ...LONG, maxConnections: 1, maxHandshakes: 4 } },
  });
  const only = await connect();
  await ping(only);
  for (let i = 0; i < 10; i++) await dial(t, address);
  await waiting(sidecar, 10);
  const second = connect();
  await waiting(sidecar, 11);

  only.destroy();

  await ping(await second);
  await waiting(sidecar, 10);
});

test('nobody waits longer at maxConnections than twice the handshake timeout, at either side', async (t) => {
  const clock = new FakeClock();
  const application = await startEcho(t);
  const limits = { handshakeTimeout: '3s', maxConnections: 1 };
  const inbound = await startInbound(t, application.address, { listener: { limits }, sidecar: { clock } });
  await ping(await inbound.connect());
  const outbound = await startFullOutbound(t, { listener: { limits }, sidecar: { clock } });
  const clients = [];
  for (const { sidecar, address } of [inbound, outbound]) {
    const client = await dial(t, address);
    client.write('\x16');
    await waiting(sidecar, 1);
    clients.push(client);
  }

  clock.advance(5999);
  await waiting(inbound.sidecar, 1);
  await waiting(outbound.sidecar, 1);
  clock.advance(1);

  for (const client of clients) assert.equal(await closed(client), 'ECONNRESET');
  for (const { sidecar } of [inbound, outbound]) {
    await waiting(sidecar, 0);
    assert.equal(await sidecar.metric('scute_accept_refused_total', { reason: 'connection_limit' }), 1);
    const line = sidecar.log().find(({ message }) => message === 'connections refused unread');
    assert.equal(line?.['detail'], 'no place was free within 6000 ms');
  }
});

/** An inbound sidecar with one place, which is taken, and two peers that have proven themselves and wait for it. */
async function startAdmitted(t: TestContext, options: { readonly sidecar?: SidecarOptions; readonly limits?: object } = {}) {
  const application = await startEcho(t);
  const stage = await startInbound(t, application.address, {
    listener: { limits: { ...LONG, maxConnections: 1, ...options.limits } },
    sidecar: options.sidecar ?? {},
  });
  // All three begin before any of them is open.
  const transports = await Promise.all([0, 1, 2].map(() => dial(t, stage.address)));
  const sockets = await Promise.all(transports.map((socket) => stage.connect({ socket })));
  const served = await Promise.race(
    sockets.map(async (socket) => {
      socket.on('error', () => undefined);
      await ping(socket);
      return socket;
    }),
  );
  await handshaking(stage.sidecar, 2);
  const [first, second] = sockets.filter((socket) => socket !== served) as [TLSSocket, TLSSocket];
  const transport = transports[sockets.indexOf(first)];
  return { ...stage, served, first, second, reset: () => transport?.resetAndDestroy() };
}

test('a peer that has proven itself and is reset while it waits for a place is let go', async (t) => {
  const { sidecar, served, second, reset } = await startAdmitted(t);
  reset();
  await handshaking(sidecar, 1);
  assert.equal(
    (await sidecar.connection(({ close_reason: reason }) => reason === 'downstream_reset'))['peer_id'],
    'spiffe://example.org/web',
  );
  second.resume();
  const answered = once(second, 'data');
  served.destroy();
  await answered;
  await handshaking(sidecar, 0);
});

test('a peer that has proven itself, says something and ends while it waits for a place is answered', async (t) => {
  const { served, first, second } = await startAdmitted(t);
  const answers = [readAll(first), readAll(second)];
  first.end('and');
  second.end('more');
  served.destroy();
  assert.deepEqual((await Promise.all(answers)).map(String), ['!and', '!more']);
});

test('a peer that has proven itself waits for a place for the handshake timeout at most', async (t) => {
  const clock = new FakeClock();
  const { sidecar, first, second } = await startAdmitted(t, { sidecar: { clock }, limits: { handshakeTimeout: '3s' } });
  clock.advance(3000);
  assert.deepEqual(await Promise.all([closed(first), closed(second)]), ['ECONNRESET', 'ECONNRESET']);
  await handshaking(sidecar, 0);
  assert.equal(await sidecar.metric('scute_tcp_close_total', { reason: 'waiting_limit' }), 2);
  assert.equal((await sidecar.connection())['detail'], 'no place among the connections was free within 3000 ms');
});

test('what is kept of peers that have proven themselves counts, and beyond the limit the longest wait is dropped', async (t) => {
  const { sidecar, first } = await startAdmitted(t, { sidecar: { maxKeptBytes: 1000 } });
  first.write(randomBytes(3000));
  assert.equal(await closed(first), 'ECONNRESET');
  const line = await sidecar.connection(({ bytes_from_downstream: bytes, close_reason: reason }) => bytes === 0 && reason !== 'finished');
  assert.deepEqual([line['close_reason'], line['detail']], ['waiting_limit', 'more than 1000 bytes are kept of connections that wait']);
});

test('a client of an outbound listener that leaves while its server is slow is let go, with the connection to the server', async (t) => {
  const clock = new FakeClock();
  // It accepts, and never says a word: as one does that has no place for another handshake.
  const server = await startTcpServer(t, () => undefined);
  const { sidecar, address } = await startOutbound(t, server.address, {
    spiffe: await startExampleDomain(t),
    listener: { limits: LONG },
    sidecar: { clock },
  });
  const client = await dial(t, address);
  client.write('hello');
  await eventually(() => assert.equal(server.connections.size, 1));
  clock.advance(2000);
  await eventually(async () => assert.ok((await sidecar.metric('scute_tcp_waiting_bytes', { direction: 'outbound' })) > 0));

  client.resetAndDestroy();

  assert.equal((await sidecar.connection())['close_reason'], 'downstream_reset');
  await eventually(() => assert.equal(server.connections.size, 0));
  assert.equal(await sidecar.metric('scute_tcp_waiting_bytes'), 0);
});

test('what is kept of a client while its server is slow counts', async (t) => {
  const clock = new FakeClock();
  const server = await startTcpServer(t, () => undefined);
  const { sidecar, address } = await startOutbound(t, server.address, {
    spiffe: await startExampleDomain(t),
    listener: { limits: LONG },
    sidecar: { clock, maxKeptBytes: 100 },
  });
  const client = await dial(t, address);
  client.write('hello');
  await eventually(() => assert.equal(server.connections.size, 1));
  clock.advance(2000);
  assert.equal(await closed(client), 'ECONNRESET');
  assert.equal((await sidecar.connection())['close_reason'], 'waiting_limit');
});

test('a client that was listened to while its server was slow is served, every byte', async (t) => {
  const clock = new FakeClock();
  const said = randomBytes(500_000);
  const sluggish = await startTcpServer(t, (socket) => socket.pause());
  const stage = await startOutboundToApi(t, echo, { tls: { allowHalfOpen: true } });
  const { sidecar, address } = await startOutbound(t, sluggish.address, {
    spiffe: stage.spiffe,
    listener: { limits: LONG },
    sidecar: { clock },
  });
  const client = await dial(t, address);
  client.end(said);
  await eventually(() => assert.equal(sluggish.connections.size, 1));
  clock.advance(2000);
  await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_waiting_bytes', { direction: 'outbound' }), 4096));

  const [slow] = sluggish.connections;
  const onward = await dial(t, stage.server.address);
  slow?.pipe(onward).pipe(slow);

  assert.ok((await readAll(client)).equals(said));
});

test('a peer that has proven itself and says a MiB while it waits for a place is held to 128 KiB of it, and all of it arrives', async (t) => {
  const { sidecar, served, first, second } = await startAdmitted(t);
  const said = randomBytes(1024 * 1024);
  const answers = [readAll(first), readAll(second)];
  first.end(said);
  second.end(said);
  // Both have said a byte before.
  await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_waiting_bytes', { direction: 'inbound' }), 2 * 131_072));
  served.destroy();

  for (const answer of await Promise.all(answers)) assert.ok(answer.equals(Buffer.concat([Buffer.from('!'), said])));
  assert.equal(await sidecar.metric('scute_tcp_waiting_bytes'), 0);
});

test('peers that speak HTTP/2 and ask at once while they wait for a place are answered, every byte', async (t) => {
  const { promise: mayAnswer, resolve: answerAll } = Promise.withResolvers<void>();
  const application = await startHttpApplication(t, (asked, response) => void mayAnswer.then(() => asked.pipe(response)));
  const stage = await startHttpInbound(t, application.address, { listener: { limits: { ...LONG, maxConnections: 1 } } });
  const said = randomBytes(300_000);
  const clients = await Promise.all([0, 1, 2].map(() => connectClient(t, stage.address, stage.web)));

  const answers = clients.map(async (client) => {
    const answer = await request(client, { ':method': 'POST', ':path': '/' }, said);
    client.close();
    return answer;
  });
  await handshaking(stage.sidecar, 2);
  await eventually(async () => assert.ok((await stage.sidecar.metric('scute_tcp_waiting_bytes', { direction: 'inbound' })) > 2 * 4096));
  answerAll();

  for (const { status, body } of await Promise.all(answers)) assert.ok(status === 200 && body.equals(said));
});

test('a PROXY header of which a part comes while its connection waits is read whole, and TLS behind it', async (t) => {
  const application = await startEcho(t);
  const { sidecar, address, connect } = await startInbound(t, application.address, {
    listener: { limits: { ...LONG, maxConnections: 1 }, proxyProtocol: { acceptFrom: ['127.0.0.1/32'] } },
  });
  const [firstHeader, header] = [1, 2].map((port) => `PROXY TCP4 192.0.2.1 192.0.2.2 ${port} 443\r\n`) as [string, string];
  const announced = async (first: string): Promise<Socket> => {
    const socket = await dial(t, address);
    socket.write(first);
    return socket;
  };
  const only = await connect({ socket: await announced(firstHeader) });
  await ping(only);
  const transport = await announced(header.slice(0, 20));
  await eventually(async () => assert.ok((await sidecar.metric('scute_tcp_waiting_bytes', { direction: 'inbound' })) > 0));
  only.destroy();
  await handshaking(sidecar, 1);
  transport.write(header.slice(20));
  const second = await connect({ socket: transport });
  await ping(second);
  second.end();
  await sidecar.connection(({ downstream_address: from }) => from === '192.0.2.1:2');
});

test('a load balancer that is reset before its header was read whole is let go', async (t) => {
  const application = await startEcho(t);
  const { sidecar, address } = await startInbound(t, application.address, {
    listener: { limits: LONG, proxyProtocol: { acceptFrom: ['127.0.0.1/32'] } },
  });
  const before = openSockets();
  const sockets = await Promise.all(Array.from({ length: 20 }, () => dial(t, address)));
  for (const socket of sockets) socket.write('PROXY TCP4');
  await handshaking(sidecar, 20);
  for (const socket of sockets) socket.resetAndDestroy();
  await handshaking(sidecar, 0);
  await eventually(() => assert.ok(openSockets() <= before + 2));
});
