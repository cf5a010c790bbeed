import { rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { DenyLineReader } from '../../../src/config/policy/deny-lines.ts';
import { formatIssues } from '../../../src/config/issue.ts';
import type { DenyList } from '../../../src/policy/deny-list.ts';
import { temporaryFolder } from '../temporary-folder.ts';

export interface DenyEntries {
  readonly ids?: readonly string[];
  readonly certificates?: readonly string[];
  readonly serials?: readonly string[];
}

/** The list itself, as if read from `revoked.yaml`. */
export function denyListOf(entries: DenyEntries): DenyList {
  const reader = new DenyLineReader('revoked.yaml');
  reader.push(Buffer.from(denyText(entries)));
  const issues = reader.finish();
  if (issues.length > 0) throw new Error(formatIssues(issues));
  const steps = reader.builder.build('revoked.yaml');
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
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
