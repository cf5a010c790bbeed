import { readFile, realpath } from 'node:fs/promises';
import { join } from 'node:path';
import type { FileSetConfig } from '../../../src/config/file-sets.ts';
import type { SetFile } from '../../../src/files/encode.ts';
import { codeOf } from '../../../src/lib/errors.ts';

/** The files of a set, each of which says from beginning to end that it is of replacement `number`. */
export function numberedFiles({ names }: Pick<FileSetConfig, 'names'>, number: number, bytes = 2000): readonly SetFile[] {
  const text = Buffer.from(`${String(number).padStart(9, '0')}\n`.repeat(Math.ceil(bytes / 10)));
  return [names.bundle ?? 'none', names.bundleMap ?? 'none', names.key ?? 'none', names.svid ?? 'none'].map((name) => ({
    name,
    bytes: text,
    isSecret: name === names.key,
  }));
}

/** Which replacement a file is of; throws if it is not whole. */
export function numberOf(text: string, bytes = 2000): number {
  const lines = text.split('\n');
  if (lines.length !== Math.ceil(bytes / 10) + 1 || new Set(lines.slice(0, -1)).size !== 1)
    throw new Error(`half a file: ${lines.length} lines`);
  return Number(lines[0]);
}

/** What a reader sees who resolves the directory once; undefined if that set is gone by the time that its files are opened. */
export async function readSet(config: FileSetConfig): Promise<readonly number[] | undefined> {
  try {
    const folder = config.layout === 'linked' ? await realpath(join(config.directory, '..data')) : config.directory;
    const numbers: number[] = [];
    for (const name of [config.names.svid ?? '', config.names.key ?? ''])
      numbers.push(numberOf(await readFile(join(folder, name), 'utf8')));
    return numbers;
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return undefined;
    throw cause;
  }
}
