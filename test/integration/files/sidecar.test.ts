import assert from 'node:assert/strict';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { chmod, readdir, readFile, realpath, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { everyPage } from '../../support/admin/api.ts';
import { startDevDomain } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { folderInMemory } from '../../support/files/files.ts';
import { ask } from '../../support/http/http.ts';
import { startNotified } from '../../support/files/notify-process.ts';
import { startSidecar } from '../../support/sidecar.ts';

const WEB = 'spiffe://example.org/web';

async function leafIn(folder: string, name = 'svid.pem'): Promise<X509Certificate> {
  return new X509Certificate(await readFile(join(folder, name)));
}

test('a Scute that only writes files: a whole set, replaced at each rotation, with modes of its own', async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: [WEB] } });
  const { folder, unsafeDisk } = await folderInMemory(t);
  const directory = join(folder, 'web');

  const sidecar = await startSidecar(t, {
    workloadApi: { endpoint: spiffe.endpoint('web') },
    files: [{ name: 'web', directory, unsafeDisk }],
  });

  assert.deepEqual((await readdir(directory)).filter((name) => !name.startsWith('..')).toSorted(), [
    'svid.pem',
    'svid_bundle.pem',
    'svid_bundles.json',
    'svid_key.pem',
  ]);
  const first = await leafIn(directory);
  const key = createPrivateKey(await readFile(join(directory, 'svid_key.pem')));
  assert.ok(first.checkPrivateKey(key));
  assert.equal(first.subjectAltName, `URI:${WEB}`);
  assert.ok(first.verify(new X509Certificate(await readFile(join(directory, 'svid_bundle.pem'))).publicKey));
  assert.equal((await stat(join(directory, 'svid_key.pem'))).mode & 0o777, 0o600);
  assert.equal((await stat(join(directory, 'svid.pem'))).mode & 0o777, 0o644);
  assert.equal((await stat(await realpath(join(directory, '..data')))).mode & 0o777, 0o755);
  const map = JSON.parse(await readFile(join(directory, 'svid_bundles.json'), 'utf8')) as {
    readonly trust_domains: Record<string, { readonly keys: readonly unknown[] }>;
  };
  assert.equal(map.trust_domains['example.org']?.keys.length, 1);

  const before = await realpath(join(directory, '..data'));
  await spiffe.rotate();
  await eventually(async () => assert.notEqual((await leafIn(directory)).serialNumber, first.serialNumber));
  assert.equal((await leafIn(before)).serialNumber, first.serialNumber, 'the set before is kept until the next');
  await eventually(async () => assert.equal(await sidecar.metric('scute_files_replacements_total', { set: 'web', result: 'replaced' }), 2));
  assert.equal(await sidecar.metric('scute_files_current', { set: 'web' }), 1);
});

test('of each certificate it can be asked in which sets of files it is', async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: [WEB] } });
  const { folder, unsafeDisk } = await folderInMemory(t);
  const sidecar = await startSidecar(t, {
    workloadApi: { endpoint: spiffe.endpoint('web') },
    files: ['nginx', 'redis'].map((name) => ({ name, directory: join(folder, name), unsafeDisk })),
    admin: { listen: `unix://${join(folder, 'admin.sock')}` },
  });

  const items = await everyPage<{ readonly kind: string; readonly files: readonly string[] }>(sidecar, 'certificates');
  assert.deepEqual(
    items.map(({ kind, files }) => [kind, files]),
    [
      ['svid', ['nginx', 'redis']],
      ['authority', ['nginx', 'redis']],
    ],
  );
});

test('each federated trust domain has a bundle of its own', async (t) => {
  const spiffe = await startDevDomain(
    t,
    { name: 'example.org', federatesWith: ['partner.example'], workloads: { web: [WEB] } },
    { name: 'partner.example' },
  );
  const { folder, unsafeDisk } = await folderInMemory(t);
  const directory = join(folder, 'web');
  await startSidecar(t, { workloadApi: { endpoint: spiffe.endpoint('web') }, files: [{ directory, unsafeDisk }] });

  const own = await readFile(join(directory, 'svid_bundle.pem'), 'utf8');
  const theirs = await readFile(join(directory, 'svid_bundle.partner.example.pem'), 'utf8');

  assert.notEqual(own, theirs);
  assert.equal(own.match(/BEGIN/g)?.length, 1);
  await spiffe.rotateRoot('partner.example');
  await eventually(async () =>
    assert.equal((await readFile(join(directory, 'svid_bundle.partner.example.pem'), 'utf8')).match(/BEGIN/g)?.length, 2),
  );
});

test('a set that is removed or changed under us is written again, and whoever reads it is told', async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: [WEB] } });
  const { folder, unsafeDisk } = await folderInMemory(t);
  const directory = join(folder, 'web');
  const marks = join(folder, 'marks');
  // The image, in which this runs too, has no shell.
  const command = [process.execPath, '-e', "fs.appendFileSync(process.argv[1], process.env.SCUTE_SPIFFE_ID + '\\n')", marks];
  const clock = new FakeClock();
  const sidecar = await startSidecar(
    t,
    {
      workloadApi: { endpoint: spiffe.endpoint('web') },
      files: [{ directory, unsafeDisk, notify: [{ command }] }],
    },
    { clock, unready: true },
  );
  const marked = async (count: number): Promise<void> =>
    eventually(async () => {
      clock.advance(100);
      assert.equal(await readFile(marks, 'utf8'), `${WEB}\n`.repeat(count));
    });
  await marked(1);

  await rm(directory, { recursive: true });
  clock.advance(5000);
  await marked(2);

  assert.equal((await leafIn(directory)).subjectAltName, `URI:${WEB}`);
  assert.ok(sidecar.log().some(({ message }) => message === 'files were changed or removed by somebody else, and are written again'));
});

test('what keeps a set from being replaced is told in readiness, metrics and log, the old set stays, and it heals by itself', async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: [WEB] } });
  const { folder, unsafeDisk } = await folderInMemory(t);
  const directory = join(folder, 'web');
  const admin = { kind: 'unix', path: join(folder, 'admin.sock') } as const;
  const sidecar = await startSidecar(t, {
    workloadApi: { endpoint: spiffe.endpoint('web') },
    files: [{ name: 'web', directory, unsafeDisk }],
    admin: { listen: `unix://${admin.path}` },
  });
  const before = await leafIn(directory);
  const inForce = await realpath(join(directory, '..data'));

  await chmod(directory, 0o777);
  await spiffe.rotate();

  await eventually(async () => assert.ok((await sidecar.metric('scute_files_replacements_total', { result: 'bad_directory' })) >= 1));
  assert.equal(await sidecar.metric('scute_files_current'), 0);
  assert.equal((await leafIn(directory)).serialNumber, before.serialNumber);
  assert.deepEqual(sidecar.app.notReady(), [], 'the old set can still be read');
  assert.match(
    (await ask(admin, '/readyz?verbose')).body,
    /\[!\]files_current warning: web: the files of before stay in force: bad_directory: .* is writable by others/,
  );
  const { files } = JSON.parse((await ask(admin, '/config_dump')).body) as {
    readonly files: readonly { readonly problem: { readonly reason: string } | null }[];
  };
  assert.equal(files[0]?.problem?.reason, 'bad_directory');
  assert.equal(sidecar.log().filter(({ message }) => message.startsWith('files not replaced')).length, 1);

  await chmod(directory, 0o755);
  await eventually(async () => assert.notEqual((await leafIn(directory)).serialNumber, before.serialNumber));
  await eventually(async () => assert.equal(await sidecar.metric('scute_files_current'), 1));
  assert.notEqual(await realpath(join(directory, '..data')), inForce);
});

test('a set that was never written keeps Scute unready', async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: [WEB] } });
  const { folder, unsafeDisk } = await folderInMemory(t);

  const sidecar = await startSidecar(
    t,
    {
      workloadApi: { endpoint: spiffe.endpoint('web') },
      files: [{ name: 'db', directory: join(folder, 'db'), unsafeDisk, identity: { hint: 'db' } }],
    },
    { unready: true },
  );

  await eventually(async () => assert.ok((await sidecar.metric('scute_files_replacements_total', { set: 'db', result: 'no_svid' })) >= 1));
  assert.deepEqual(sidecar.app.notReady(), ['files']);
});

test('files stay when the identity is taken back, which is told; where it is asked for, they go when Scute stops', async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: [WEB] } });
  const { folder, unsafeDisk } = await folderInMemory(t);
  const [kept, cleaned] = [join(folder, 'kept'), join(folder, 'cleaned')];
  const sidecar = await startSidecar(t, {
    workloadApi: { endpoint: spiffe.endpoint('web') },
    files: [
      { name: 'kept', directory: kept, unsafeDisk },
      { name: 'cleaned', directory: cleaned, unsafeDisk, cleanUpOnStop: true },
    ],
  });

  await spiffe.withdraw('web');
  await eventually(async () => assert.equal(await sidecar.metric('scute_files_current'), 0));
  assert.equal((await leafIn(kept)).subjectAltName, `URI:${WEB}`);
  await sidecar.stop();

  assert.equal((await leafIn(kept)).subjectAltName, `URI:${WEB}`);
  assert.deepEqual(await readdir(cleaned), []);
});

test('a reload changes neither sets nor whom they tell: that takes a restart, and is said', async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: [WEB] } });
  const { folder, unsafeDisk } = await folderInMemory(t);
  const config = (more: object) => ({
    workloadApi: { endpoint: spiffe.endpoint('web') },
    files: [{ name: 'web', directory: join(folder, 'web'), unsafeDisk, ...more }],
  });
  const sidecar = await startSidecar(t, config({}));

  await sidecar.reload(config({ notify: [{ command: ['/bin/touch', join(folder, 'run')] }] }));
  await spiffe.rotate();
  await eventually(async () => assert.equal(await sidecar.metric('scute_files_replacements_total', { result: 'replaced' }), 2));

  assert.deepEqual(sidecar.app.config().files[0]?.notify, []);
  assert.deepEqual((await readdir(folder)).toSorted(), ['web']);
  assert.ok(sidecar.log().some(({ message, settings }) => message.includes('only after a restart') && String(settings) === 'files'));
});

test('a process that is restarted while files are replaced is told as well', async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: [WEB] } });
  const { folder, unsafeDisk } = await folderInMemory(t);
  const pidFile = join(folder, 'app.pid');
  const sidecar = await startSidecar(t, {
    workloadApi: { endpoint: spiffe.endpoint('web') },
    files: [{ name: 'web', directory: join(folder, 'web'), unsafeDisk, notify: [{ pidFile }] }],
  });
  // It began before its file: the signal cannot reach it, and is kept for it.
  await eventually(async () => assert.ok((await sidecar.metric('scute_files_notifications_total', { result: 'no_pid_file' })) >= 1));
  assert.equal(await sidecar.metric('scute_files_notify_pending', { set: 'web' }), 1);
  await using first = await startNotified(pidFile);
  await first.line(/^hangup$/);

  await first.stop();
  await using second = await startNotified(pidFile);

  await second.line(/^hangup$/);
  await eventually(async () => assert.equal(await sidecar.metric('scute_files_notify_pending', { set: 'web' }), 0));
});
