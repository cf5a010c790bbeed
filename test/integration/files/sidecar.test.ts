import assert from 'node:assert/strict';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { mkdir, readdir, readFile, readlink, realpath, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { test } from 'node:test';
import { startDevDomain } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { folderInMemory } from '../../support/files.ts';
import { ask } from '../../support/http.ts';
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
