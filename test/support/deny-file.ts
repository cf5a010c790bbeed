import { rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { temporaryFolder } from './temporary-folder.ts';

export interface DenyEntries {
  readonly ids?: readonly string[];
  readonly certificates?: readonly string[];
  readonly serials?: readonly string[];
}

/** The text of a deny list. */
export function denyText(entries: DenyEntries): string {
  const blocks = (Object.entries(entries) as [string, readonly string[]][]).map(
    ([kind, values]) => `${kind}:\n${values.map((value) => `  - ${value}\n`).join('')}`,
  );
  return `${blocks.join('')}...\n`;
}

/** A deny list in a folder of its own, and the lines of a configuration that name it. */
export async function startDenyFile(t: TestContext, entries: DenyEntries = {}) {
  const path = join(await temporaryFolder(t), 'revoked.yaml');
  const replace = async (text: string): Promise<void> => {
    await writeFile(`${path}.new`, text);
    await rename(`${path}.new`, path);
  };
  await replace(denyText(entries));
  return { path, file: { revocations: { file: path } }, replace, become: (anew: DenyEntries) => replace(denyText(anew)) };
}
