import assert from 'node:assert/strict';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { lockedFiles, openIndex, outdated, readLock, type Index, type Lock } from '../../../build/image/debian.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { everyPartRequired } from '../parts.ts';

const LOCK: Lock = {
  suite: 'trixie',
  packages: {
    'a-library': { version: '1.0-1', sha256: { amd64: '1'.repeat(64), arm64: '2'.repeat(64) } },
    another: { version: '2.0-1', sha256: { amd64: '3'.repeat(64), arm64: '4'.repeat(64) } },
  },
};

test('Debian has no newer version of a locked package', { timeout: 1_200_000 }, async (t) => {
  const lock = await readLock();
  let index: Index;
  try {
    index = await openIndex(lock.suite);
  } catch (cause) {
    if (everyPartRequired) throw cause;
    t.skip(cause instanceof Error ? cause.message : String(cause));
    return;
  }
  await using open = index;
  assert.deepEqual(await outdated(lock, open), []);
});

test('an older package is named with its successor, for each processor', async () => {
  const newest: Index['newest'] = async (_, architecture) =>
    new Map([
      ['a-library', { version: architecture === 'arm64' ? '1.0-2' : '1.0-1', sha256: '' }],
      ['another', { version: '2.0-1', sha256: '' }],
    ]);

  assert.deepEqual(await outdated(LOCK, { newest }), [
    'a-library 1.0-1 for arm64 is locked, and Debian has 1.0-2: npm run image -- --update takes it',
  ]);
});

test('a file with another digest than the locked one is not used, and not kept', async (t) => {
  const cache = join(await temporaryFolder(t), 'debian');
  await mkdir(cache);
  await writeFile(join(cache, `${'1'.repeat(64)}.deb`), 'changed');

  await assert.rejects(lockedFiles(LOCK, cache), /^Error: a-library 1\.0-1 for amd64 has the SHA-256 [0-9a-f]{64}, and 1{64} is locked$/);
  assert.deepEqual(await readdir(cache), []);
});
