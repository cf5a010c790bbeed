import assert from 'node:assert/strict';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { startDevDomain } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { folderInMemory } from '../../support/files/files.ts';
import { startScute } from '../../support/scute-process.ts';
import { startSidecar } from '../../support/sidecar.ts';

const WEB = 'spiffe://example.org/web';
/** `PFX ::= SEQUENCE { version INTEGER 3, authSafe SEQUENCE { id-data …` (RFC 7292, section 4). */
const PFX = /^30 82 .. .. 02 01 03 30 82 .. .. 06 09 2a 86 48 86 f7 0d 01 07 01 /;
/** `trustedKeyUsage` of Java is encrypted with the certificates, so these are all that can be seen: id-encryptedData and PBES2. */
const ENCRYPTED = Buffer.from('06092a864886f70d010706', 'hex');
const PBES2 = Buffer.from('06092a864886f70d01050d', 'hex');

function hexOf(bytes: Buffer): string {
  return [...bytes.subarray(0, 30)].map((byte) => byte.toString(16).padStart(2, '0')).join(' ') + ' ';
}

test('what is shipped writes stores in PKCS#12, encrypted by PBES2', async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: [WEB] } });
  const { folder, unsafeDisk } = await folderInMemory(t);
  const [directory, passwordFile] = [join(folder, 'set'), join(folder, 'password')];
  await writeFile(passwordFile, 'changeit\n');
  await using scute = await startScute({
    entry: 'bundle',
    config: { workloadApi: { endpoint: spiffe.endpoint('web') }, files: [{ directory, unsafeDisk, format: 'pkcs12', passwordFile }] },
  });

  await scute.logged(({ message }) => message === 'files replaced');

  assert.deepEqual((await readdir(directory)).filter((name) => !name.startsWith('..')).toSorted(), [
    'svid.p12',
    'svid_bundle.p12',
    'svid_bundles.json',
  ]);
  for (const name of ['svid.p12', 'svid_bundle.p12']) {
    const store = await readFile(join(directory, name));
    assert.match(hexOf(store), PFX, name);
    assert.ok(store.includes(ENCRYPTED) && store.includes(PBES2), name);
  }
});

test('a password that is missing, or none, is named, and mended without a restart', async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: [WEB] } });
  const { folder, unsafeDisk } = await folderInMemory(t);
  const [directory, passwordFile] = [join(folder, 'set'), join(folder, 'password')];
  const sidecar = await startSidecar(
    t,
    { workloadApi: { endpoint: spiffe.endpoint('web') }, files: [{ directory, unsafeDisk, format: 'pkcs12', passwordFile }] },
    { unready: true },
  );
  const told = (): string => String(sidecar.log().find(({ message }) => message.startsWith('files not replaced'))?.['detail']);
  await eventually(() => assert.ok(told().startsWith(`${passwordFile} cannot be read`), told()));
  assert.deepEqual(sidecar.app.notReady(), ['files']);

  await writeFile(passwordFile, 'changeit');

  await sidecar.ready();
  assert.ok((await readdir(directory)).includes('svid.p12'));
});
