// ghostunnel: server-accept-error-recovery
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { presented, startExampleDomain, WEB } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { startScute } from '../../support/scute-process.ts';
import { dialling, startEcho } from '../../support/tcp.ts';
import { outcome, tlsClient } from '../../support/tls-peer.ts';

/** Leaves 36 connections: 42 files are kept for the process and 8 for metrics, and each connection needs two. */
const OPEN_FILES = 122;

test('when file descriptors run out, Scute refuses, counts, lives on, and serves again as soon as some are free', async (t) => {
  const spiffe = await startExampleDomain(t);
  const application = await startEcho(t);
  const web = presented(await spiffe.issue(WEB));
  const scute = await startScute({
    openFiles: OPEN_FILES,
    config: {
      workloadApi: { endpoint: spiffe.endpoint('api') },
      inbound: [{ name: 'in', listen: '127.0.0.1:0', to: application.address, allow: [WEB] }],
      metrics: { listen: '127.0.0.1:0' },
    },
  });
  t.after(() => scute.stop());
  await scute.ready('in', 'metrics');
  const [address, metrics] = [await scute.address('in'), await scute.port('metrics')];

  const admitted = [];
  for (let i = 0; i < 36; i++) {
    const client = tlsClient(t, address, web);
    client.write('!');
    await once(client, 'data');
    admitted.push(client);
  }
  const refused = await Promise.all(Array.from({ length: 20 }, () => outcome(tlsClient(t, address, web))));
  const text = await (await fetch(`http://127.0.0.1:${metrics}/metrics`)).text();
  // Beyond the budget too: what is left is used up by connections to the metrics.
  const others = Array.from({ length: 120 }, () => dialling(t, `127.0.0.1:${metrics}`));
  await eventually(() => assert.ok(others.every((socket) => !socket.connecting)));
  for (const client of admitted) {
    client.write('!');
    await once(client, 'data');
  }
  for (const socket of [...admitted, ...others]) socket.destroy();

  assert.ok(
    refused.every(({ error }) => error === 'ECONNRESET'),
    JSON.stringify(refused),
  );
  assert.match(text, /scute_accept_refused_total\{[^}]*reason="file_limit"\} 20\n/);
  await eventually(async () => {
    const client = tlsClient(t, address, web);
    client.end('back');
    assert.deepEqual(await outcome(client), { text: 'back', error: undefined });
  });
  assert.equal((await scute.stop()).code, 0);
});
