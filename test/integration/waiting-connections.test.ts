import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startInbound } from '../support/data-path.ts';
import { eventually } from '../support/eventually.ts';
import { closed, dial, readAll, startEcho } from '../support/tcp.ts';
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

test('connections that are reset while they wait are let go at once, and cost those behind them nothing', async (t) => {
  const application = await startEcho(t);
  const { sidecar, address, connect } = await startInbound(t, application.address, {
    listener: { limits: { maxHandshakes: 2, handshakeTimeout: '2s' } },
  });
  // Two hold both places, until the handshake timeout.
  const holders = [await dial(t, address), await dial(t, address)];
  for (const holder of holders) holder.write('\x16');
  await eventually(async () => assert.equal(await sidecar.metric('scute_tls_handshaking_connections'), 2));
  const before = openSockets();

  const quitters = await Promise.all(Array.from({ length: 20 }, () => dial(t, address)));
  for (const quitter of quitters) quitter.write('\x16');
  await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_waiting_connections'), 20));
  for (const quitter of quitters) quitter.resetAndDestroy();
  await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_waiting_connections'), 0));
  assert.ok(openSockets() <= before + 2, `${openSockets()} sockets are open, ${before} were before`);
  const client = await connect();

  client.end('hello');
  assert.equal((await readAll(client)).toString(), 'hello');
});

test('thousands of waiting connections are refused one by one when identity is withdrawn meanwhile', { timeout: 60_000 }, async (t) => {
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

  await eventually(async () => assert.equal(await sidecar.metric('scute_accept_refused_total', { reason: 'identity_not_ready' }), COUNT), {
    withinMs: 20_000,
  });

  await spiffe.restore('api');
  await sidecar.ready();
  (await connect()).end();
});
