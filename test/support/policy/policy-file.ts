import { mkdir, rename, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { temporaryFolder } from '../temporary-folder.ts';

/** A policy file in a folder of its own. */
export async function startPolicyFile(t: TestContext, text: string) {
  const folder = await temporaryFolder(t);
  const path = join(folder, 'policy.yaml');
  /** Renames a file into place: `policy.yaml`, or one beside it. */
  const replace = async (anew: string | Buffer, name = 'policy.yaml'): Promise<void> => {
    await writeFile(join(folder, `${name}.new`), anew);
    await rename(join(folder, `${name}.new`), join(folder, name));
  };
  await replace(text);
  return { folder, path, replace };
}

/** A folder as Kubernetes mounts a ConfigMap: files are links through `..data`, which is swapped. */
export async function startConfigMap(t: TestContext, files: Readonly<Record<string, string>>) {
  const folder = await temporaryFolder(t);
  let version = 0;
  const become = async (anew: Readonly<Record<string, string>>): Promise<void> => {
    const data = `..version_${++version}`;
    await mkdir(join(folder, data));
    for (const [name, text] of Object.entries(anew)) await writeFile(join(folder, data, name), text);
    await symlink(data, join(folder, '..data_tmp'));
    await rename(join(folder, '..data_tmp'), join(folder, '..data'));
  };
  await become(files);
  for (const name of Object.keys(files)) await symlink(join('..data', name), join(folder, name));
  return { folder, become };
}

/** The text of a policy file. */
export function policyText(allow: readonly (string | object)[], more: object = {}): string {
  // JSON is YAML.
  const lines = [`allow: ${JSON.stringify(allow)}`, ...Object.entries(more).map(([key, value]) => `${key}: ${JSON.stringify(value)}`)];
  return `${lines.join('\n')}\n...\n`;
}

/** The text of a list. */
export function listText(ids: readonly string[]): string {
  return `${ids.map((id) => `${id}\n`).join('')}...\n`;
}
