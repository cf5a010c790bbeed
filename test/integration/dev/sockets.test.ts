import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { type DevConfigInput, devConfigSchema } from '../../../src/devdomain/config.ts';
import { createDevDomain, type DevDomain } from '../../../src/devdomain/dev-domain.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { workloadApiClient } from '../../support/workload-api-client.ts';

const WEB = 'spiffe://example.org/web';

type WorkloadInput = NonNullable<DevConfigInput['trustDomains'][number]['workloads']>[number];

async function temporaryFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'scute-dev-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

function devDomain(t: TestContext, workloads: readonly WorkloadInput[], more: { readonly bundleFile?: string } = {}): DevDomain {
  const config = devConfigSchema.parse({ trustDomains: [{ name: 'example.org', workloads, ...more }] });
  const domain = createDevDomain(config, { clock: systemClock, onFailure: (failure) => assert.ifError(failure) });
  t.after(() => domain.stop(AbortSignal.abort()));
  return domain;
}

test('sockets have their mode, in folders that are made for this user only, and everything is removed at the end', async (t) => {
  const folder = await temporaryFolder(t);
  const domain = devDomain(t, [
    { socket: join(folder, 'new/deep/web.sock'), ids: [WEB] },
    { socket: join(folder, 'group.sock'), socketMode: '0660', ids: [WEB] },
  ]);

  await domain.start(new AbortController().signal);

  assert.equal((await stat(join(folder, 'new/deep/web.sock'))).mode & 0o777, 0o600);
  assert.equal((await stat(join(folder, 'group.sock'))).mode & 0o777, 0o660);
  assert.equal((await stat(join(folder, 'new'))).mode & 0o777, 0o700);
  assert.deepEqual((await readdir(folder)).toSorted(), ['group.sock', 'new']);
  await domain.stop(AbortSignal.timeout(60_000));
  assert.deepEqual(await readdir(folder), []);
});

test('a live socket is refused, left working, and nothing else stays behind', async (t) => {
  const folder = await temporaryFolder(t);
  const other = createServer((socket) => socket.on('error', () => {}).end());
  t.after(() => other.close());
  other.listen(join(folder, 'live.sock'));
  await once(other, 'listening');
  const domain = devDomain(
    t,
    [
      { socket: join(folder, 'new/web.sock'), ids: [WEB] },
      { socket: join(folder, 'live.sock'), ids: [WEB] },
    ],
    { bundleFile: join(folder, 'bundle.pem') },
  );

  await assert.rejects(domain.start(new AbortController().signal), /live\.sock/);

  assert.deepEqual(await readdir(folder), ['live.sock']);
  assert.equal(other.listening, true);
});

test('a stale socket is replaced, and a second trust domain takes over from a stopped first', async (t) => {
  const folder = await temporaryFolder(t);
  const socket = join(folder, 'web.sock');
  const first = devDomain(t, [{ socket, ids: [WEB] }]);
  await first.start(new AbortController().signal);
  await assert.rejects(devDomain(t, [{ socket, ids: [WEB] }]).start(new AbortController().signal), /web\.sock/);

  await first.stop(AbortSignal.timeout(60_000));
  const second = devDomain(t, [{ socket, ids: [WEB] }]);
  await second.start(new AbortController().signal);

  assert.equal((await workloadApiClient(t, `unix://${socket}`).stream('fetchX509SVID').next()).svids.length, 1);
});

test('the trust bundle is written where configured, certificates only, again at each change, and removed at the end', async (t) => {
  const folder = await temporaryFolder(t);
  const bundleFile = join(folder, 'bundle.pem');
  const domain = devDomain(t, [], { bundleFile });

  await domain.start(new AbortController().signal);
  const before = await readFile(bundleFile, 'utf8');
  await domain.rotateRoot('example.org');
  const after = await readFile(bundleFile, 'utf8');

  assert.equal(new X509Certificate(before).ca, true);
  assert.ok(after.startsWith(before));
  assert.equal(after, domain.bundlePem('example.org'));
  assert.doesNotMatch(after, /PRIVATE/);
  await domain.stop(AbortSignal.timeout(60_000));
  assert.equal(existsSync(bundleFile), false);
});
