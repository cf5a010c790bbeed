// ghostunnel: server-idle-reaper, server-max-conn-lifetime
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { startInbound, startOutboundToApi } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { closed, dial, startEcho } from '../../support/tcp.ts';

test('connections over which nothing passes are closed after the idle timeout, one that is used is not', async (t) => {
  const application = await startEcho(t);
  const { sidecar, connect } = await startInbound(t, application.address, { listener: { limits: { idleTimeout: '400ms' } } });
  const idle = await Promise.all([connect(), connect(), connect()]);
  const used = await connect();
  const startedAt = performance.now();
  const using = setInterval(() => used.write('!'), 50);
  t.after(() => clearInterval(using));
  used.resume();

  const ends = await Promise.all(idle.map((socket) => closed(socket)));
  const tookMs = performance.now() - startedAt;

  assert.deepEqual(ends, ['ECONNRESET', 'ECONNRESET', 'ECONNRESET']);
  assert.ok(tookMs > 300 && tookMs < 20_000, `${Math.round(tookMs)} ms`);
  assert.equal(await sidecar.metric('scute_tcp_open_connections'), 1);
  assert.equal(await sidecar.metric('scute_tcp_close_total', { reason: 'idle_timeout' }), 3);
  assert.equal(application.connections.size, 1);
});

test('bytes in one direction alone keep a connection from being idle', async (t) => {
  const { sidecar, address } = await startOutboundToApi(
    t,
    (socket) => {
      const sending = setInterval(() => socket.write('!'), 50);
      socket.on('close', () => clearInterval(sending));
    },
    { listener: { limits: { idleTimeout: '300ms' } } },
  );
  const caller = await dial(t, address);
  let heard = 0;
  caller.on('data', (chunk: Buffer) => (heard += chunk.length));

  await eventually(() => assert.ok(heard > 20));

  assert.equal(await sidecar.metric('scute_tcp_open_connections'), 1);
  caller.destroy();
});

test('a connection is closed when it is as old as it may get, however much it is used', async (t) => {
  const application = await startEcho(t);
  const { sidecar, connect } = await startInbound(t, application.address, { listener: { limits: { maxLifetime: '400ms' } } });
  const socket = await connect();
  const startedAt = performance.now();
  const using = setInterval(() => socket.write('!'), 30);
  t.after(() => clearInterval(using));

  assert.match((await closed(socket)) ?? '', /ECONNRESET|EPIPE/);

  const tookMs = performance.now() - startedAt;
  assert.ok(tookMs > 300 && tookMs < 20_000, `${Math.round(tookMs)} ms`);
  assert.equal((await sidecar.connection())['close_reason'], 'lifetime');
});

test('limits on time that a reload brings hold for connections that are open already', async (t) => {
  const application = await startEcho(t);
  const {
    sidecar,
    connect,
    with: settings,
  } = await startInbound(t, application.address, {
    listener: { limits: { idleTimeout: 'off', maxLifetime: 'off' } },
  });
  const socket = await connect();
  socket.write('!');
  await once(socket, 'data');
  const ended = closed(socket);

  await sidecar.reload(settings({ limits: { idleTimeout: '100ms' } }));

  assert.equal(await ended, 'ECONNRESET');
  assert.equal((await sidecar.connection())['close_reason'], 'idle_timeout');
});
