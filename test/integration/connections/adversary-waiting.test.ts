import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { startInbound } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { closed, dial, startEcho } from '../../support/tcp.ts';

const STRANGERS = 200;

test('strangers that wait are not held in memory, however much they say', async (t) => {
  const application = await startEcho(t);
  const { sidecar, address, connect } = await startInbound(t, application.address, {
    listener: { limits: { maxHandshakes: 2, handshakeTimeout: '5s' } },
  });
  const holders = [await dial(t, address), await dial(t, address)];
  for (const holder of holders) holder.write('\x16');
  await eventually(async () => assert.equal(await sidecar.metric('scute_tls_handshaking_connections'), 2));

  // The same bytes for all of them: what grows is what Scute keeps.
  const flood = Buffer.alloc(1_000_000, 0x16);
  const strangers = await Promise.all(Array.from({ length: STRANGERS }, () => dial(t, address)));
  for (const stranger of strangers) stranger.write('\x16');
  await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_waiting_connections'), STRANGERS));
  const before = process.memoryUsage().arrayBuffers;
  for (const stranger of strangers) stranger.write(flood);
  // Time for all to be read: those who come later were heard.
  for (let i = 0; i < 3; i++) {
    const next = await dial(t, address);
    next.write('\x16');
    await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_waiting_connections'), STRANGERS + 1 + i));
  }
  const grown = process.memoryUsage().arrayBuffers - before;
  assert.ok(grown < STRANGERS * 16_384, `${grown} bytes for ${STRANGERS} strangers`);
  assert.ok((await sidecar.metric('scute_tcp_waiting_bytes')) <= (STRANGERS + 3) * 4096);

  for (const stranger of [...holders, ...strangers]) stranger.destroy();
  const client = await connect();
  client.write('!');
  const [echoed] = (await once(client, 'data')) as [Buffer];
  assert.equal(echoed.toString(), '!');
});

test('a stranger that says at once more than a TLS client may is held to what is kept of each, and refused at its turn', async (t) => {
  const application = await startEcho(t);
  const { sidecar, address } = await startInbound(t, application.address, {
    listener: { limits: { maxHandshakes: 1, handshakeTimeout: '500s' } },
  });
  const holder = await dial(t, address);
  holder.write('\x16');
  await eventually(async () => assert.equal(await sidecar.metric('scute_tls_handshaking_connections'), 1));
  const stranger = await dial(t, address);
  stranger.write(Buffer.alloc(60_000, 0x16));
  await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_waiting_bytes'), 4096));
  holder.destroy();
  await closed(stranger);
  await eventually(async () =>
    assert.deepEqual(
      [
        await sidecar.metric('scute_tcp_waiting_connections'),
        await sidecar.metric('scute_tcp_waiting_bytes'),
        await sidecar.metric('scute_tls_handshakes_total', { reason: 'protocol_error' }),
      ],
      [0, 0, 2],
    ),
  );
});
