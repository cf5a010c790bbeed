// ghostunnel: client-/server-shutdown-sigterm, -shutdown-timeout, -shutdown-http, server-shutdown-drains-under-load, server-sighup-during-drain
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import type { TLSSocket } from 'node:tls';
import type { DevDomain } from '../../../src/devdomain/dev-domain.ts';
import { API, presented, startExampleDomain, startInbound, WEB } from '../../support/data-path.ts';
import { startDenyFile } from '../../support/policy/deny-file.ts';
import { eventually } from '../../support/eventually.ts';
import { ask } from '../../support/http/http.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { readyz, startScute, type ScuteProcess } from '../../support/scute-process.ts';
import { closed, dial, dialling, readAll, startEcho, startTcpServer } from '../../support/tcp.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { outcome, tlsClient, type Presented } from '../../support/tls-peer.ts';

interface Running {
  readonly spiffe: DevDomain;
  readonly scute: ScuteProcess;
  readonly config: object;
  readonly web: Presented;
  readonly address: string;
  readonly metrics: number;
}

async function run(t: TestContext, to: string, more: object = {}): Promise<Running> {
  const spiffe = await startExampleDomain(t);
  const config = {
    workloadApi: { endpoint: spiffe.endpoint('api') },
    inbound: [{ name: 'in', listen: '127.0.0.1:0', to, allow: [WEB] }],
    metrics: { listen: '127.0.0.1:0' },
    ...more,
  };
  const scute = await startScute({ config });
  t.after(() => scute.stop());
  await scute.ready('in', 'metrics');
  const metrics = await scute.port('metrics');
  await readyz(metrics);
  return { spiffe, scute, config, web: presented(await spiffe.issue(WEB)), address: await scute.address('in'), metrics };
}

/** A connection over which a byte went there and back. */
async function open(t: TestContext, { address, web }: Running): Promise<TLSSocket> {
  const client = tlsClient(t, address, web);
  client.write('!');
  await once(client, 'data');
  return client;
}

test('SIGTERM waits for an open connection, takes no new one, and ends with exit code 0', async (t) => {
  const application = await startEcho(t);
  const running = await run(t, application.address);
  const { scute, address, metrics } = running;
  const client = await open(t, running);

  scute.child.signal('SIGTERM');
  await scute.logged(({ message }) => message === 'stopping');
  assert.equal(await closed(dialling(t, address)), 'ECONNREFUSED');
  const { status } = await fetch(`http://127.0.0.1:${metrics}/readyz`);
  client.write('still here');
  const [answer] = (await once(client, 'data')) as [Buffer];
  client.end();

  assert.deepEqual(await scute.exited, { code: 0, signal: null });
  assert.equal(status, 503);
  assert.equal(answer.toString(), 'still here');
  assert.deepEqual(scute.log().find(({ message }) => message === 'stopped')?.['drained'], true);
});

test('without open connections SIGINT ends it at once, with exit code 0', async (t) => {
  const { scute } = await run(t, '127.0.0.1:1');
  const startedAt = performance.now();

  scute.child.signal('SIGINT');

  assert.deepEqual(await scute.exited, { code: 0, signal: null });
  assert.ok(performance.now() - startedAt < 20_000);
});

test('a handshake under way does not hold the drain up', async (t) => {
  const running = await run(t, '127.0.0.1:1');
  const silent = await dial(t, running.address);
  const ended = closed(silent);

  running.scute.child.signal('SIGTERM');

  assert.deepEqual(await running.scute.exited, { code: 0, signal: null });
  assert.equal(await ended, 'ECONNRESET');
});

test('transfers under way when SIGTERM comes are finished, and the exit code is 0', async (t) => {
  const bytes = randomBytes(8 * 1024 * 1024);
  const application = await startTcpServer(t, (socket) => socket.end(bytes));
  const running = await run(t, application.address);
  const { scute, address } = running;
  const clients = Array.from({ length: 6 }, () => tlsClient(t, address, running.web));
  const hashes = clients.map(async (client) => {
    const hash = createHash('sha256');
    client.on('data', (chunk: Buffer) => hash.update(chunk));
    await once(client, 'end');
    client.end();
    return hash.digest('hex');
  });
  // Mid-transfer: some was read, and the rest cannot fit into buffers.
  await Promise.all(clients.map((client) => once(client, 'data')));
  for (const client of clients) client.pause();

  scute.child.signal('SIGTERM');
  await scute.logged(({ message }) => message === 'stopping');
  assert.equal(await closed(dialling(t, address)), 'ECONNREFUSED');
  for (const client of clients) client.resume();

  const expected = createHash('sha256').update(bytes).digest('hex');
  assert.deepEqual(
    await Promise.all(hashes),
    clients.map(() => expected),
  );
  assert.deepEqual(await scute.exited, { code: 0, signal: null });
});

test('what is still open at the drain deadline is reset and told, and the exit code is 1', async (t) => {
  const application = await startEcho(t);
  const running = await run(t, application.address, { drainTimeout: '300ms' });
  const { scute } = running;
  const ended = closed(await open(t, running));

  scute.child.signal('SIGTERM');

  assert.deepEqual(await scute.exited, { code: 1, signal: null });
  assert.equal(await ended, 'ECONNRESET');
  const line = scute.log().find(({ message }) => message === 'connection closed');
  assert.equal(line?.['close_reason'], 'shutdown');
  const stopped = scute.log().find(({ message }) => message === 'stopped');
  assert.deepEqual([stopped?.['drained'], stopped?.['forced_connections']], [false, 1]);
});

test('a drain timeout of zero drops connections at once', async (t) => {
  const application = await startEcho(t);
  const running = await run(t, application.address, { drainTimeout: '0s' });
  const ended = closed(await open(t, running));

  running.scute.child.signal('SIGTERM');

  assert.deepEqual(await running.scute.exited, { code: 1, signal: null });
  assert.equal(await ended, 'ECONNRESET');
});

test('a second signal ends it at once, with the exit code of the signal', async (t) => {
  const application = await startEcho(t);
  const running = await run(t, application.address);
  await open(t, running);
  running.scute.child.signal('SIGTERM');
  await running.scute.logged(({ message }) => message === 'stopping');

  running.scute.child.signal('SIGTERM');

  assert.deepEqual(await running.scute.exited, { code: 143, signal: null });
});

test('POST /shutdown on the admin socket drains, and GET does not', async (t) => {
  const application = await startEcho(t);
  const folder = await temporaryFolder(t);
  const path = `${folder}/admin.sock`;
  const running = await run(t, application.address, { admin: { listen: `unix://${path}` } });
  const client = await open(t, running);
  const admin = { kind: 'unix', path } as const;

  assert.equal((await ask(admin, '/shutdown')).status, 405);
  const answer = await ask(admin, '/shutdown', { method: 'POST', headers: [['content-type', 'application/json']] });
  await running.scute.logged(({ message }) => message === 'stopping');
  assert.equal(await closed(dialling(t, running.address)), 'ECONNREFUSED');
  client.end();

  assert.ok(answer.status >= 200 && answer.status < 300, String(answer.status));
  assert.deepEqual(await running.scute.exited, { code: 0, signal: null });
});

test('SIGHUP during the drain does not end it, nor does a broken file', async (t) => {
  const application = await startEcho(t);
  const running = await run(t, application.address);
  const { scute } = running;
  const client = await open(t, running);
  scute.child.signal('SIGTERM');
  await scute.logged(({ message }) => message === 'stopping');

  await writeFile(scute.configFile ?? '', 'broken: [');
  for (let i = 0; i < 3; i++) scute.child.signal('SIGHUP');
  client.write('still here');
  const [answer] = (await once(client, 'data')) as [Buffer];
  client.end();

  assert.equal(answer.toString(), 'still here');
  assert.deepEqual(await scute.exited, { code: 0, signal: null });
});

test('while it drains, Scute still hears of authorities that are gone', async (t) => {
  const application = await startEcho(t);
  const { spiffe, sidecar, connect } = await startInbound(t, application.address);
  const client = await connect();
  client.write('!');
  await once(client, 'data');
  const ended = outcome(client);
  const deadline = new AbortController();
  const stopping = sidecar.stop(deadline.signal);

  await spiffe.rotateRoot('example.org');
  await spiffe.retireRoots('example.org');

  assert.equal((await ended).error, 'ECONNRESET');
  assert.equal(await stopping, 0);
  assert.equal((await sidecar.connection())['close_reason'], 'authority_removed');
});

test('while it drains, Scute still hears of who is revoked', async (t) => {
  const application = await startEcho(t);
  const list = await startDenyFile(t, {});
  const clock = new FakeClock();
  const { sidecar, connect } = await startInbound(t, application.address, {
    file: { ...list.file, sds: { listen: `unix://${join(await temporaryFolder(t), 'sds.sock')}` } },
    sidecar: { clock },
  });
  const client = await connect();
  client.write('!');
  await once(client, 'data');
  const deadline = new AbortController();
  t.after(() => deadline.abort());
  const stopping = sidecar.stop(deadline.signal);

  await list.become({ ids: [WEB] });

  assert.equal(await closed(client), 'ECONNRESET');
  assert.equal((await sidecar.connection())['close_reason'], 'revoked');
  assert.equal(await stopping, 0);
  // Nobody looks at the clock any more.
  clock.advance(60_000);
  assert.equal(clock.armed, 0);
});

test('an outbound listener goes on for what inbound connections need until they are drained', async (t) => {
  const spiffe = await startExampleDomain(t);
  const back = await startInbound(t, (await startEcho(t)).address, { spiffe });
  const { promise: served, resolve } = Promise.withResolvers<Socket>();
  const application = await startTcpServer(t, resolve);
  const { sidecar, connect } = await startInbound(t, application.address, {
    spiffe,
    file: {
      workloadApi: { endpoint: spiffe.endpoint('web') },
      outbound: [{ name: 'out', listen: '127.0.0.1:0', to: back.address, expect: [API] }],
    },
  });
  const out = sidecar.address('out');
  const client = await connect();
  client.write('!');
  await once(await served, 'data');
  const stopping = sidecar.stop(new AbortController().signal);
  await eventually(() => assert.ok(!sidecar.app.addresses().has('in')));

  const asking = await dial(t, out);
  asking.end('needed for the answer');
  const heard = await readAll(asking);
  client.end();
  (await served).end();

  assert.equal(heard.toString(), 'needed for the answer');
  assert.equal(await stopping, 0);
});
