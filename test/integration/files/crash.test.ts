import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import type { FileSetConfig } from '../../../src/config/file-sets.ts';
import { createSetWriter } from '../../../src/files/writer.ts';
import { runChild } from '../../support/child.ts';
import { folderInMemory, setOf } from '../../support/files/files.ts';
import { numberedFiles, readSet } from '../../support/files/numbered-files.ts';

const CHILD = join(import.meta.dirname, '..', '..', 'support', 'files', 'file-set-child.ts');

interface Told {
  readonly results: readonly string[];
  readonly steps: number;
}

/** Replaces the set in a process that is ended after a step; resolves to what it said, if it came to its end. */
async function replaceIn(config: FileSetConfig, endAfter: number): Promise<Told | undefined> {
  const { stdout, signal } = await runChild([process.execPath, CHILD, JSON.stringify(config), '1', String(endAfter), '2000', '2']);
  if (signal === 'SIGKILL') return undefined;
  return JSON.parse(stdout) as Told;
}

async function endAtEachStep(
  t: TestContext,
  layout: FileSetConfig['layout'],
  look: (numbers: readonly number[] | undefined, step: number) => void,
): Promise<void> {
  const { folder, unsafeDisk } = await folderInMemory(t);
  for (let step = 1; ; step += 1) {
    const config = setOf({ directory: join(folder, `set-${step}`), layout, unsafeDisk });
    const writer = createSetWriter({ config });
    await writer.replace(numberedFiles(config, 1));

    const told = await replaceIn(config, step);

    look(await readSet(config), step);
    // At a start, and without one: what is left may be in the way of a replacement, too.
    if (step % 2 === 0) await writer.tidy();
    look(await readSet(config), step);
    await writer.replace(numberedFiles(config, 3));
    assert.deepEqual(await readSet(config), [3, 3]);
    const names = await readdir(config.directory);
    assert.ok(!names.some((name) => /^\.\.(?:new|link)-/.test(name)), names.join(' '));
    // In force, and before.
    assert.equal(names.filter((name) => name.startsWith('..set-')).length, layout === 'linked' ? 2 : 0);
    if (told !== undefined) {
      assert.deepEqual(told, { results: ['replaced'], steps: step - 1 });
      assert.ok(step > 8, `only ${step} steps`);
      return;
    }
  }
}

test('whatever step of a replacement is the last of a process, the old set is in force or the new one, and the next replacement heals it', async (t) => {
  await endAtEachStep(t, 'linked', (numbers, step) => {
    assert.ok(numbers?.[0] === 1 || numbers?.[0] === 2, `step ${step}: ${String(numbers)}`);
    assert.equal(numbers[0], numbers[1], `step ${step}`);
  });
});

test('in the flat layout each file is whole whatever step is the last, the key never older than the SVID', async (t) => {
  await endAtEachStep(t, 'flat', (numbers, step) => {
    const [certificate = 0, key = 0] = numbers ?? [];
    assert.ok(certificate >= 1 && key >= certificate && key <= 2, `step ${step}: ${String(numbers)}`);
  });
});
