// ghostunnel: client-handles-no-server, server-handles-no-server, server-backend-flapping
import assert from 'node:assert/strict';
import { once } from 'node:events';
import dns from 'node:dns/promises';
import { syncBuiltinESMExports } from 'node:module';
import { createServer, isIP } from 'node:net';
import { test } from 'node:test';
import { startExampleDomain, startInbound, startOutbound, startOutboundToApi, startPair } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { fillBacklog } from '../../support/full-backlog.ts';
import { closed, dial, dialling, freePort, readAll, startEcho, startTcpServer } from '../../support/tcp.ts';
import { outcome } from '../../support/tls-peer.ts';

test('a peer whose application is down sees its connection end in order, and the next one works when it is back', async (t) => {
  const port = await freePort();
  const { sidecar, connect } = await startInbound(t, `127.0.0.1:${port}`);

  const refused = await outcome(await connect());
  const application = createServer((socket) => socket.pipe(socket)).listen(port, '127.0.0.1');
  await once(application, 'listening');
  t.after(() => application.close());
  const served = await connect();
  served.end('hello');
  const answered = await outcome(served);

  assert.deepEqual(refused, { text: '', error: undefined });
  assert.deepEqual(answered, { text: 'hello', error: undefined });
  assert.equal(await sidecar.metric('scute_tcp_close_total', { reason: 'upstream_refused' }), 1);
  const line = await sidecar.connection((found) => found['close_reason'] === 'upstream_refused');
  assert.match(String(line['detail']), new RegExp(`127\\.0\\.0\\.1:${port}.*ECONNREFUSED`));
});

test('a caller whose server is down is told at once, and the next connection works when it is back', async (t) => {
  const { sidecar, address, server } = await startOutboundToApi(t, (socket) => socket.end('hello'));
  const caller = await dial(t, address);
  assert.equal((await readAll(caller)).toString(), 'hello');
  caller.end();
  await server.close();

  assert.equal(await closed(dialling(t, address)), 'ECONNRESET');

  assert.equal((await sidecar.connection((line) => line['close_reason'] !== 'finished'))['close_reason'], 'upstream_refused');
});

test('an application that flaps between serving, resetting and being down costs nothing but the connections of the time', async (t) => {
  let mood: 'serve' | 'reset' = 'serve';
  const { sidecar, connect, port } = await startFlapping(t, () => mood);
  const results: (string | undefined)[] = [];

  for (let round = 0; round < 5; round++) {
    for (mood of ['serve', 'reset', 'serve'] as const) {
      const socket = await connect();
      socket.write('ping');
      if (mood === 'serve') socket.end();
      const { text, error } = await outcome(socket);
      results.push(mood === 'serve' ? text : error);
    }
  }

  assert.deepEqual(results, Array.from({ length: 5 }, () => ['ping', 'ECONNRESET', 'ping']).flat(), `application at port ${port}`);
  await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_open_connections'), 0));
  assert.equal(await sidecar.metric('scute_tcp_close_total', { reason: 'finished' }), 10);
  assert.equal(await sidecar.metric('scute_tcp_close_total', { reason: 'upstream_reset' }), 5);
});

async function startFlapping(t: Parameters<typeof dial>[0], mood: () => 'serve' | 'reset') {
  const application = await startTcpServer(t, (socket) => {
    if (mood() === 'serve') socket.pipe(socket);
    else socket.once('data', () => socket.resetAndDestroy());
  });
  return { ...(await startInbound(t, application.address)), port: application.port };
}

test('an application that does not accept is given up at the connect timeout', async (t) => {
  const port = await fillBacklog(t);
  const { sidecar, connect } = await startInbound(t, `127.0.0.1:${port}`, { listener: { limits: { connectTimeout: '300ms' } } });

  const startedAt = performance.now();
  const ended = await outcome(await connect());
  const tookMs = performance.now() - startedAt;

  assert.deepEqual(ended, { text: '', error: undefined });
  assert.ok(tookMs > 250 && tookMs < 20_000, `${Math.round(tookMs)} ms`);
  const line = await sidecar.connection();
  assert.equal(line['close_reason'], 'upstream_timeout');
  assert.equal(line['detail'], `127.0.0.1:${port} did not accept within 300 ms`);
});

test('each address of a name is tried: ::1 and 127.0.0.2 refuse, 127.0.0.1 accepts', async (t) => {
  const application = await startEcho(t);
  const spiffe = await startExampleDomain(t);
  const server = await startInbound(t, application.address, { spiffe });
  // What a name leads to is the system's; only this one is ours.
  const { lookup } = dns;
  t.after(() => setLookup(lookup));
  const addresses = ['::1', '127.0.0.2', '127.0.0.1'].map((address) => ({ address, family: isIP(address) }));
  setLookup(((name: string, options: object) =>
    name === 'three.test' ? Promise.resolve(addresses) : lookup(name, options)) as typeof dns.lookup);
  const { sidecar, address } = await startOutbound(t, server.address.replace('127.0.0.1', 'three.test'), { spiffe });

  const caller = await dial(t, address);
  caller.end('hello');

  assert.equal((await readAll(caller)).toString(), 'hello');
  assert.equal((await sidecar.connection())['upstream_address'], server.address);
});

function setLookup(lookup: typeof dns.lookup): void {
  dns.lookup = lookup;
  syncBuiltinESMExports();
}

test('a name that cannot be resolved does not keep Scute from starting, and is told by its own reason', async (t) => {
  const spiffe = await startExampleDomain(t);
  const { sidecar, address } = await startOutbound(t, 'no-such-host.invalid:443', { spiffe });

  assert.equal(await closed(dialling(t, address)), 'ECONNRESET');

  const line = await sidecar.connection();
  assert.equal(line['close_reason'], 'upstream_unresolved');
  assert.match(String(line['detail']), /"no-such-host\.invalid" cannot be resolved/);
});

test('a peer that leaves while the application is being connected to leaves nothing open', async (t) => {
  const port = await fillBacklog(t);
  const { sidecar, connect } = await startInbound(t, `127.0.0.1:${port}`, { listener: { limits: { connectTimeout: '1s' } } });

  const socket = await connect();
  await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_open_connections'), 1));
  socket.destroy();

  await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_open_connections'), 0));
  assert.equal((await sidecar.connection())['verdict'], 'allow');
});

test('a caller that leaves while the server is being connected to leaves nothing open', async (t) => {
  const port = await fillBacklog(t);
  const spiffe = await startExampleDomain(t);
  const { sidecar, address } = await startOutbound(t, `127.0.0.1:${port}`, { spiffe, listener: { limits: { connectTimeout: '500ms' } } });

  const caller = await dial(t, address);
  await eventually(async () => assert.equal(await sidecar.metric('scute_tls_handshaking_connections'), 1));
  caller.resetAndDestroy();

  await eventually(async () => assert.equal(await sidecar.metric('scute_tls_handshaking_connections'), 0));
  assert.equal((await sidecar.connection())['close_reason'], 'upstream_timeout');
});

test('a server that is reached through two sidecars and is down ends the connection of the caller in order', async (t) => {
  const { inbound, outbound, address } = await startPair(t, `127.0.0.1:${await freePort()}`);

  const caller = await dial(t, address);
  caller.end('question');

  assert.equal(await closed(caller), undefined);
  assert.equal((await inbound.connection())['close_reason'], 'upstream_refused');
  assert.equal((await outbound.connection())['close_reason'], 'finished');
});
