import assert from 'node:assert/strict';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { FileSetConfig } from '../../../src/config/file-sets.ts';
import { createSetWriter } from '../../../src/files/writer.ts';
import { startChild } from '../child.ts';
import { folderInMemory, setOf } from './files.ts';
import { numberedFiles } from './numbered-files.ts';

interface Seen {
  readonly reads: number;
  readonly mismatches: number;
  readonly last: number;
}

/** Replaces a set `count` times under a process that reads it in a tight loop. A half-written file ends that process. */
export async function readDuringReplacements(t: TestContext, layout: FileSetConfig['layout'], count: number): Promise<Seen> {
  const { folder, unsafeDisk } = await folderInMemory(t);
  const config = setOf({ directory: join(folder, 'set'), layout, unsafeDisk });
  const writer = createSetWriter({ config });
  await writer.replace(numberedFiles(config, 1));
  await using reader = await startChild([process.execPath, join(import.meta.dirname, 'file-set-reader.ts'), JSON.stringify(config)]);
  await reader.line(/^reading$/);

  for (let number = 2; number <= count; number += 1) await writer.replace(numberedFiles(config, number));

  reader.endInput();
  const { code } = await reader.exited;
  assert.equal(code, 0, reader.stderr());
  return JSON.parse(reader.lines().at(-1) ?? '') as Seen;
}
