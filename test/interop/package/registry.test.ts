import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { buildImage } from '../../../build/image/image.ts';
import { archive, publishArchive, pullVerified } from '../../../build/release/registry.ts';
import { startChild } from '../../support/child.ts';
import { eventually } from '../../support/eventually.ts';
import { freePort } from '../../support/tcp.ts';
import { needs, part } from '../parts.ts';

/** Debian's registry on loopback. `storage` is where its files lie. */
async function startRegistry(t: TestContext, folder: string): Promise<{ readonly address: string; readonly storage: string }> {
  const address = `127.0.0.1:${await freePort()}`;
  const storage = join(folder, 'registry');
  const file = join(folder, 'registry.yml');
  await mkdir(storage);
  await writeFile(
    file,
    `version: 0.1\nlog: { level: error }\nstorage: { filesystem: { rootdirectory: ${storage} } }\nhttp: { addr: "${address}" }\n`,
  );
  const registry = await startChild([part('docker-registry'), 'serve', file], {
    env: { PATH: '/usr/bin:/bin', OTEL_TRACES_EXPORTER: 'none' },
  });
  t.after(() => registry.stop());
  await eventually(async () => assert.equal((await fetch(`http://${address}/v2/`)).status, 200));
  return { address, storage };
}

test(
  'an image is pushed, pulled by its digest and found to be signed; by another key, or with a changed byte, it is not pulled',
  { timeout: 1_200_000, ...needs('buildah', 'skopeo', 'docker-registry') },
  async (t) => {
    const folder = await mkdtemp(join(tmpdir(), 'scute-registry-'));
    t.after(() => rm(folder, { recursive: true, force: true }));
    const [ours, theirs] = [generateKeyPairSync('ec', { namedCurve: 'P-256' }), generateKeyPairSync('ec', { namedCurve: 'P-256' })];
    const layout = join(folder, 'layout');
    const { digest } = await buildImage({ outfolder: layout, architectures: [process.arch === 'arm64' ? 'arm64' : 'amd64'] });
    const { address, storage } = await startRegistry(t, folder);
    const repository = `${address}/scute`;

    const file = join(folder, 'image.tar');
    await archive(layout, file);
    assert.equal(await publishArchive(file, repository, '0.1.0', ours.privateKey), digest);

    const pulled = join(folder, 'pulled');
    await pullVerified(repository, digest, pulled, ours.publicKey);
    const blobs = async (of: string): Promise<string[]> => (await readdir(join(of, 'blobs/sha256'))).toSorted();
    assert.deepEqual(await blobs(pulled), await blobs(layout));
    await assert.rejects(pullVerified(repository, digest, join(folder, 'by-theirs'), theirs.publicKey), /is not signed by this key/);
    await assert.rejects(stat(join(folder, 'by-theirs')), { code: 'ENOENT' });

    // The signature of one image is none of another.
    const other = `sha256:${'0'.repeat(64)}`;
    await assert.rejects(pullVerified(repository, other, join(folder, 'other'), ours.publicKey), /manifest unknown/);

    const largest = (
      await Promise.all((await blobs(layout)).map(async (name) => ({ name, size: (await stat(join(layout, 'blobs/sha256', name))).size })))
    )
      .toSorted((a, b) => b.size - a.size)
      .at(0);
    const name = largest?.name ?? '';
    const kept = join(storage, 'docker/registry/v2/blobs/sha256', name.slice(0, 2), name, 'data');
    const bytes = await readFile(kept);
    bytes.writeUInt8(bytes.readUInt8(bytes.length >> 1) ^ 1, bytes.length >> 1);
    await writeFile(kept, bytes);
    await assert.rejects(pullVerified(repository, digest, join(folder, 'changed'), ours.publicKey), /[Dd]igest/);
  },
);

test('an image that nobody signed is not pulled', { timeout: 600_000, ...needs('skopeo', 'docker-registry') }, async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'scute-registry-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const { address } = await startRegistry(t, folder);
  await assert.rejects(
    pullVerified(`${address}/scute`, `sha256:${'1'.repeat(64)}`, join(folder, 'pulled'), publicKey),
    /manifest unknown|not known/,
  );
});
