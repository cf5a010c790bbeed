/** A directory that Scute writes a private key into: what it is now, and what it must be. */
import { lstat, stat, statfs } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { codeOf, messageOf } from '../lib/errors.ts';

/** What was seen of a directory, without following a link at its end. */
export type DirectoryLook =
  | { readonly kind: 'directory'; readonly uid: number; readonly mode: number; readonly fileSystem: number; readonly id: string }
  /** It can be made there. */
  | { readonly kind: 'absent'; readonly fileSystem: number; readonly id: string }
  | { readonly kind: 'unusable'; readonly problem: string };

/** `f_type` of statfs(2): what keeps its files in memory. */
const IN_MEMORY: ReadonlySet<number> = new Set([0x01021994 /* tmpfs */, 0x858458f6 /* ramfs */]);

export async function lookAtDirectory(path: string): Promise<DirectoryLook> {
  try {
    const found = await lstat(path);
    if (found.isSymbolicLink()) return { kind: 'unusable', problem: `${path} is a symbolic link` };
    if (!found.isDirectory()) return { kind: 'unusable', problem: `${path} is not a directory` };
    const { uid, mode, dev, ino } = found;
    return { kind: 'directory', uid, mode, fileSystem: (await statfs(path)).type, id: `${dev}:${ino}` };
  } catch (cause) {
    if (codeOf(cause) !== 'ENOENT') return { kind: 'unusable', problem: `${path} cannot be looked at: ${messageOf(cause)}` };
  }
  const parent = dirname(path);
  try {
    const { dev, ino } = await stat(parent);
    return { kind: 'absent', fileSystem: (await statfs(parent)).type, id: `${dev}:${ino}/${basename(path)}` };
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return { kind: 'unusable', problem: `there is no directory ${parent} to make it in` };
    return { kind: 'unusable', problem: `${parent} cannot be looked at: ${messageOf(cause)}` };
  }
}

/** Why nobody should write a private key there; undefined if one may. `uid` is whose process this is. */
export function directoryProblem(
  path: string,
  look: DirectoryLook,
  { uid, unsafeDisk }: { readonly uid: number; readonly unsafeDisk: boolean },
): string | undefined {
  if (look.kind === 'unusable') return look.problem;
  if (look.kind === 'directory' && look.uid !== uid && look.uid !== 0)
    return `${path} belongs to user ${look.uid}, neither to root nor to Scute's user ${uid}`;
  if (look.kind === 'directory' && (look.mode & 0o022) !== 0)
    return `${path} is writable by others (mode ${(look.mode & 0o7777).toString(8)}): name a directory within it, which Scute makes`;
  if (!unsafeDisk && !IN_MEMORY.has(look.fileSystem))
    return `${path} is not in memory (tmpfs or ramfs), and a private key on a disk may outlive its deletion: use such a file system, or set unsafeDisk`;
  return undefined;
}
