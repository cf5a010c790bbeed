import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startInbound } from '../support/data-path.ts';
import { eventually } from '../support/eventually.ts';
import { closed, dial, startEcho } from '../support/tcp.ts';
import { openSockets } from '../support/open-files.ts';

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

test('connections that were reset while they waited cost those behind them nothing', async (t) => {
  const application = await startEcho(t);
  const { sidecar, address, connect } = await startInbound(t, application.address, {
    listener: { limits: { maxHandshakes: 2, handshakeTimeout: '2s' } },
  });
  // Two hold both places, until the handshake timeout.
  const holders = [await dial(t, address), await dial(t, address)];
  for (const holder of holders) holder.write('\x16');
  await eventually(async () => assert.equal(await sidecar.metric('scute_tls_handshaking_connections'), 2));

  for (let i = 0; i < 20; i++) {
    const quitter = await dial(t, address);
    quitter.write('\x16');
    await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_waiting_connections'), i + 1));
    quitter.resetAndDestroy();
  }
  const startedAt = performance.now();
  const client = await connect();
  const tookMs = performance.now() - startedAt;

  client.end('hello');
  assert.ok(tookMs < 15_000, `${Math.round(tookMs)} ms`);
});

test('thousands of waiting connections are refused one by one when identity is withdrawn meanwhile', async (t) => {
  const application = await startEcho(t);
  const { spiffe, sidecar, address, connect } = await startInbound(t, application.address, {
    listener: { limits: { maxHandshakes: 1, handshakeTimeout: '50s' } },
  });
  const COUNT = 5000;
  const holder = await dial(t, address);
  holder.write('\x16');
  await eventually(async () => assert.equal(await sidecar.metric('scute_tls_handshaking_connections'), 1));
  const sockets = await Promise.all(Array.from({ length: COUNT }, () => dial(t, address)));
  for (const socket of sockets) socket.write('\x16');
  await spiffe.withdraw('api');
  await eventually(() => assert.deepEqual(sidecar.app.notReady(), ['identity']));
  // The one place among the handshakes becomes free, and it is the turn of all that wait.
  holder.destroy();

  await eventually(async () => assert.equal(await sidecar.metric('scute_accept_refused_total', { reason: 'identity_not_ready' }), COUNT));

  await spiffe.restore('api');
  await sidecar.ready();
  (await connect()).end();
});
