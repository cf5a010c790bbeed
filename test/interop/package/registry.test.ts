import assert from 'node:assert/strict';
import { generateKeyPairSync, hash } from 'node:crypto';
import { cp, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { ENVELOPE, PROVENANCE, SUMS, SUMS_SIGNATURE } from '../../../build/release/names.ts';
import { provenance } from '../../../build/release/provenance.ts';
import { publishRelease } from '../../../build/release/publish.ts';
import { archive, publishArchive, pullVerified } from '../../../build/release/registry.ts';
import { envelope, signText } from '../../../build/release/signing.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { needs } from '../parts.ts';
import { flip, startRegistry, writeSmallIndex, type Registry, type SmallIndex } from './registry.ts';

const [ours, theirs] = [generateKeyPairSync('ec', { namedCurve: 'P-256' }), generateKeyPairSync('ec', { namedCurve: 'P-256' })];
const IMAGE = 'scute-1.2.3-image.tar';
const NEEDED = { timeout: 600_000, ...needs('skopeo', 'docker-registry') };

interface Staged {
  readonly folder: string;
  readonly registry: Registry;
  readonly repository: string;
  /** A release with an index of two small images. */
  readonly release: string;
  readonly layout: string;
  readonly index: SmallIndex;
}

async function stage(t: TestContext): Promise<Staged> {
  const folder = await temporaryFolder(t);
  const [layout, release] = [join(folder, 'layout'), join(folder, 'release')];
  const index = await writeSmallIndex(layout);
  await mkdir(release);
  await archive(layout, join(release, IMAGE));
  const facts = { commit: '0'.repeat(40), version: '1.2.3', inputs: [], builder: {} };
  const subjects = [{ name: 'image', digest: { sha256: index.digest.slice('sha256:'.length) } }];
  await writeFile(join(release, PROVENANCE), provenance({ ...facts, subjects }));
  await sum(release);
  await writeFile(join(release, SUMS_SIGNATURE), signText(ours.privateKey, await readFile(join(release, SUMS))));
  await writeFile(join(release, ENVELOPE), envelope(ours.privateKey, await readFile(join(release, PROVENANCE), 'utf8')));
  const registry = await startRegistry(t, folder);
  return { folder, registry, repository: `${registry.address}/scute`, release, layout, index };
}

/** As a release has them, without their signature. */
async function sum(release: string): Promise<void> {
  const lines = [IMAGE, PROVENANCE].map(async (name) => `${hash('sha256', await readFile(join(release, name)))}  ${name}\n`);
  await writeFile(join(release, SUMS), (await Promise.all(lines)).join(''));
}

test('an index of two processors is published, and pulled by its digest with all that is in it', NEEDED, async (t) => {
  const { folder, repository, release, layout, index } = await stage(t);
  assert.equal(await publishRelease(release, repository, ours.privateKey), index.digest);
  const pulled = join(folder, 'pulled');
  await pullVerified(repository, index.digest, pulled, ours.publicKey);
  const blobs = async (of: string): Promise<string[]> => (await readdir(join(of, 'blobs/sha256'))).toSorted();
  assert.deepEqual(await blobs(pulled), await blobs(layout));
  // As it is there already.
  assert.equal(await publishRelease(release, repository, ours.privateKey), index.digest);
});

test('an image is not pulled that nobody signed, or that somebody else signed', NEEDED, async (t) => {
  const { folder, repository, release, index } = await stage(t);
  const pull = (digest: string, key = ours.publicKey): Promise<void> => pullVerified(repository, digest, join(folder, 'pulled'), key);
  await assert.rejects(pull(index.digest), /manifest unknown|not known/);
  await publishRelease(release, repository, ours.privateKey);
  await assert.rejects(pull(index.digest, theirs.publicKey), /is not signed by this key/);
  // The signature of the index is none of what is in it, nor of another.
  for (const digest of [...index.manifests, `sha256:${'0'.repeat(64)}`]) await assert.rejects(pull(digest), /manifest unknown/);
  await assert.rejects(stat(join(folder, 'pulled')), { code: 'ENOENT' });
});

test(
  'an image is not pulled once a byte in the registry is another: of the index, of one processor’s manifest, of one layer',
  NEEDED,
  async (t) => {
    const { folder, registry, repository, release, index } = await stage(t);
    await publishRelease(release, repository, ours.privateKey);
    for (const digest of [index.digest, ...index.manifests, ...index.layers]) {
      const kept = registry.blob(digest);
      const before = await readFile(kept);
      await flip(kept);
      const into = join(folder, digest.slice('sha256:'.length));
      // The digest that does not fit is told in the reason.
      await assert.rejects(pullVerified(repository, index.digest, into, ours.publicKey), new RegExp(`[Dd]igest.*${digest}`));
      await writeFile(kept, before);
    }
    await pullVerified(repository, index.digest, join(folder, 'as-before'), ours.publicKey);
  },
);

test('what was changed after it was signed is not published', NEEDED, async (t) => {
  const { folder, registry, repository, release } = await stage(t);
  const other = join(folder, 'other.tar');
  const copy = join(folder, 'copy');
  const cases: [what: string, change: () => Promise<unknown>, problem: RegExp][] = [
    ['a byte of the image', () => flip(join(copy, IMAGE)), /image\.tar is not the file that was released/],
    ['the digests', () => flip(join(copy, SUMS)), /SHA256SUMS is not signed by this key/],
    ['another image with its digest', () => cp(other, join(copy, IMAGE)).then(() => sum(copy)), /SHA256SUMS is not signed by this key/],
    ['the provenance', () => flip(join(copy, PROVENANCE)), /provenance\.json is not the file that was released/],
    ['the signed provenance', () => cp(join(copy, SUMS_SIGNATURE), join(copy, ENVELOPE)), /JSON/],
    ['a file more', () => writeFile(join(copy, 'install.sh'), ''), /install\.sh is not in SHA256SUMS/],
    ['no signature', () => rm(join(copy, SUMS_SIGNATURE)), /ENOENT.*SHA256SUMS\.sig/],
  ];
  await writeSmallIndex(join(folder, 'other'));
  await writeFile(join(folder, 'other/more'), '');
  await archive(join(folder, 'other'), other);
  for (const [what, change, problem] of cases) {
    await cp(release, copy, { recursive: true });
    await change();
    await assert.rejects(publishRelease(copy, repository, ours.privateKey), problem, what);
    await rm(copy, { recursive: true });
  }
  await assert.rejects(publishRelease(release, repository, theirs.privateKey), /SHA256SUMS is not signed by this key/);
  assert.deepEqual(await registry.repositories(), []);
});

test('an archive that is changed while it is published is not published', NEEDED, async (t) => {
  const { folder, registry, repository, layout, index } = await stage(t);
  const file = join(folder, 'changed.tar');
  const published = async (digest: string): Promise<void> => {
    await archive(layout, file);
    await publishArchive(file, repository, { tag: '1.2.3', digest, key: ours.privateKey, provenance: '{}' });
  };
  const blob = (of: string): string => join(layout, 'blobs', of.replace(':', '/'));
  // Another index than was signed; another under the digest of that; the same, and of one processor another manifest.
  await assert.rejects(published(`sha256:${'0'.repeat(64)}`), /is to be published/);
  const signed = await readFile(blob(index.digest), 'utf8');
  await writeFile(blob(index.digest), JSON.stringify({ ...(JSON.parse(signed) as object), annotations: { of: 'somebody else' } }));
  await assert.rejects(published(index.digest), new RegExp(`under the digest ${index.digest}`));
  assert.deepEqual(await registry.repositories(), []);
  await writeFile(blob(index.digest), signed);
  const [first = ''] = index.manifests;
  await flip(blob(first));
  await assert.rejects(published(index.digest), new RegExp(`[Dd]igest.*${first}`));
  const tags = await fetch(`http://${repository.replace('/', '/v2/')}/tags/list`);
  assert.equal(tags.status, 404, await tags.text());
});
