import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { API, presented, startExampleDomain, WEB } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { ask } from '../../support/http/http.ts';
import { openSockets } from '../../support/open-files.ts';
import { startScute } from '../../support/scute-process.ts';
import { openSotw, sdsClient } from '../../support/sds.ts';
import { dial, dialling, ping, startEcho } from '../../support/tcp.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { tlsClient, tlsServer } from '../../support/tls-peer.ts';

const OPEN_FILES = 512;

/** A process with few descriptors that serves everything, and ways to see that each part of it answers. */
async function startTight(t: TestContext) {
  const spiffe = await startExampleDomain(t);
  const application = await startEcho(t);
  const server = await tlsServer(t, presented(await spiffe.issue(API)), (socket) => socket.pipe(socket));
  const folder = await temporaryFolder(t);
  const sds = `unix://${join(folder, 'sds.sock')}`;
  const admin = `unix://${join(folder, 'admin.sock')}`;
  const limits = { handshakeTimeout: '500s' };
  const listener = { listen: '127.0.0.1:0', to: application.address, allow: [WEB], limits };
  const scute = await startScute({
    openFiles: OPEN_FILES,
    config: {
      workloadApi: { endpoint: spiffe.endpoint('api') },
      inbound: [
        { name: 'one', ...listener },
        { name: 'two', ...listener },
      ],
      outbound: [{ name: 'out', listen: '127.0.0.1:0', to: server.address, expect: [API] }],
      sds: { listen: sds },
      metrics: { listen: '127.0.0.1:0' },
      admin: { listen: admin },
      drainTimeout: '0s',
    },
  });
  t.after(() => scute.stop());
  await scute.ready('one', 'two', 'out', 'sds', 'metrics', 'admin');
  const metrics = { kind: 'tcp', host: '127.0.0.1', port: await scute.port('metrics') } as const;
  const text = async (): Promise<string> => (await ask(metrics, '/metrics')).body;
  const web = presented(await spiffe.issue(WEB));
  const addresses = { one: await scute.address('one'), two: await scute.address('two'), out: await scute.address('out') };
  return {
    scute,
    addresses,
    sds,
    admin,
    metrics: `127.0.0.1:${metrics.port}`,
    web,
    text,
    /** Its value in `scute_file_descriptors…`. */
    files: async (
      series: 'scute_file_descriptors' | 'scute_file_descriptors_kept' | 'scute_file_descriptors_max',
      use: string,
    ): Promise<number> => {
      return Number(new RegExp(`^${series}\\{use="${use}"\\} (\\d+)$`, 'm').exec(await text())?.[1]);
    },
    /** Outbound, SDS, metrics and admin do what they are for. */
    othersAnswer: async (): Promise<void> => {
      const caller = await dial(t, addresses.out);
      await ping(caller);
      caller.destroy();
      const client = sdsClient(t, sds);
      const stream = openSotw(client);
      stream.send({ resourceNames: ['default'], node: { id: 'envoy' } });
      assert.equal((await stream.next()).resources.length, 1);
      client.close();
      assert.equal((await ask({ kind: 'unix', path: admin.slice('unix://'.length) }, '/readyz')).status, 200);
      assert.match(await text(), /^process_open_fds \d+$/m);
    },
  };
}

/** So many connections, held, however they fare. */
async function crowd(t: TestContext, address: string, count: number): Promise<readonly Socket[]> {
  const sockets = Array.from({ length: count }, () => dialling(t, address));
  await eventually(() => assert.ok(sockets.every((socket) => !socket.connecting)));
  return sockets;
}

test('strangers at two listeners hold half of the descriptors for traffic at most, and outbound, SDS, metrics and admin all answer', async (t) => {
  const { scute, addresses, web, text, files, othersAnswer } = await startTight(t);
  const most = await files('scute_file_descriptors_max', 'strangers');
  assert.ok(most > 100 && most <= OPEN_FILES / 2, `${most}`);

  const strangers = [...(await crowd(t, addresses.one, 300)), ...(await crowd(t, addresses.two, 300))];

  await eventually(async () => assert.ok((await files('scute_file_descriptors', 'strangers')) > most - 2));
  await othersAnswer();
  assert.ok((await files('scute_file_descriptors', 'strangers')) <= most);
  assert.ok(openSockets(scute.child.pid) < OPEN_FILES / 2 + 50);
  const refused = [...(await text()).matchAll(/^scute_accept_refused_total\{.*reason="file_limit"\} (\d+)$/gm)];
  assert.equal(
    refused.reduce((sum, [, count]) => sum + Number(count), 0),
    600 - Math.floor(most / 2),
  );
  const line = await scute.logged(({ reason }) => reason === 'file_limit');
  assert.match(String(line['detail']), /are held by peers that are not admitted yet$/);

  for (const stranger of strangers) stranger.destroy();
  await eventually(async () => assert.equal(await files('scute_file_descriptors', 'strangers'), 0));
  const client = tlsClient(t, addresses.two, web);
  await ping(client);
  assert.equal(await files('scute_file_descriptors', 'inbound'), 2);
});

test('whoever takes all that one use may have leaves the others theirs', async (t) => {
  const { scute, addresses, web, files, sds, admin, metrics, othersAnswer } = await startTight(t);
  const kept = await files('scute_file_descriptors_kept', 'outbound');
  const status = await files('scute_file_descriptors_max', 'metrics');
  assert.ok(kept > 50 && status === 16, `${kept}, ${status}`);
  // Of those that answer to whoever can connect.
  await crowd(t, sds, 300);
  await crowd(t, admin, 300);
  await crowd(t, metrics, 300);
  await eventually(async () => {
    assert.equal(await files('scute_file_descriptors', 'sds'), 128);
    // An eighth is kept for the streams of dashboards.
    assert.equal(await files('scute_file_descriptors', 'admin'), (status * 7) / 8);
    assert.equal(await files('scute_file_descriptors', 'metrics'), status);
  });
  // Of peers that are admitted, as many as there may be.
  const most = await files('scute_file_descriptors_max', 'inbound');
  const peers = [];
  for (let i = 0; i < Math.floor(most / 2); i++) {
    const peer = tlsClient(t, i % 2 === 0 ? addresses.one : addresses.two, web);
    await ping(peer);
    peers.push(peer);
  }
  assert.equal(await files('scute_file_descriptors', 'inbound'), 2 * Math.floor(most / 2));
  await othersAnswer();
  const callers = [];
  for (let i = 0; i < Math.floor(kept / 2); i++) {
    const caller = await dial(t, addresses.out);
    await ping(caller);
    callers.push(caller);
  }
  assert.equal(scute.log().filter(({ reason }) => reason === 'accept_error').length, 0);
  for (const peer of peers) peer.destroy();
  await eventually(async () => assert.equal(await files('scute_file_descriptors', 'inbound'), 0));

  // And of applications: peers still get in.
  await crowd(t, addresses.out, 300);
  await eventually(async () =>
    assert.ok((await files('scute_file_descriptors', 'outbound')) >= (await files('scute_file_descriptors_max', 'outbound')) - 1),
  );
  for (let i = 0; i < Math.floor((await files('scute_file_descriptors_kept', 'inbound')) / 2); i++)
    await ping(tlsClient(t, addresses.one, web));
  assert.equal(scute.log().filter(({ reason }) => reason === 'accept_error').length, 0);
});
