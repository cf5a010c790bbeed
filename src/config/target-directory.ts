/** A directory that Scute writes a private key into: what it is now, and what it must be. */
import { lstat, readlink, stat, statfs } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { codeOf, messageOf } from '../lib/errors.ts';

/** What was seen of a directory, without following a link at its end. */
export type DirectoryLook =
  | {
      readonly kind: 'directory';
      readonly uid: number;
      readonly mode: number;
      readonly fileSystem: number;
      readonly id: string;
      readonly above: readonly StepLook[];
    }
  /** It can be made there. */
  | { readonly kind: 'absent'; readonly fileSystem: number; readonly id: string; readonly above: readonly StepLook[] }
  | { readonly kind: 'unusable'; readonly problem: string };

/** On the way to the folder that a directory is in: a folder, and what of it leads on. */
export interface StepLook {
  readonly folder: string;
  readonly uid: number;
  readonly mode: number;
  /** Whose that is which leads on, a folder or a link. */
  readonly entryUid: number;
}

/** As many as Linux follows. */
const MOST_LINKS = 40;

/** `f_type` of statfs(2): what keeps its files in memory. */
const IN_MEMORY: ReadonlySet<number> = new Set([0x01021994 /* tmpfs */, 0x858458f6 /* ramfs */]);

export async function lookAtDirectory(path: string): Promise<DirectoryLook> {
  try {
    const found = await lstat(path);
    if (found.isSymbolicLink()) return { kind: 'unusable', problem: `${path} is a symbolic link` };
    if (!found.isDirectory()) return { kind: 'unusable', problem: `${path} is not a directory` };
    const { uid, mode, dev, ino } = found;
    return { kind: 'directory', uid, mode, fileSystem: (await statfs(path)).type, id: `${dev}:${ino}`, above: await lookAbove(path) };
  } catch (cause) {
    if (codeOf(cause) !== 'ENOENT') return { kind: 'unusable', problem: `${path} cannot be looked at: ${messageOf(cause)}` };
  }
  const parent = dirname(path);
  try {
    const { dev, ino } = await stat(parent);
    return { kind: 'absent', fileSystem: (await statfs(parent)).type, id: `${dev}:${ino}/${basename(path)}`, above: await lookAbove(path) };
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return { kind: 'unusable', problem: `there is no directory ${parent} to make it in` };
    return { kind: 'unusable', problem: `${parent} cannot be looked at: ${messageOf(cause)}` };
  }
}

/** Each step from the root of the file system to the folder that `path` is in, through all links. Rejects if there is no such way. */
export async function lookAbove(path: string): Promise<readonly StepLook[]> {
  const steps: StepLook[] = [];
  let folder = '/';
  let links = 0;
  const left = dirname(path).split('/').filter(Boolean);
  for (let name = left.shift(); name !== undefined; name = left.shift()) {
    const entry = join(folder, name);
    const [{ uid, mode }, found] = await Promise.all([lstat(folder), lstat(entry)]);
    steps.push({ folder, uid, mode, entryUid: found.uid });
    if (found.isSymbolicLink()) {
      if ((links += 1) > MOST_LINKS) throw new Error(`${path}: there are too many links on the way`);
      left.unshift(
        ...resolve(folder, await readlink(entry))
          .split('/')
          .filter(Boolean),
      );
      folder = '/';
    } else folder = entry;
  }
  return steps;
}

/**
 * Who may put something else in the place of a folder on the way, and so have root write where he may not: undefined if nobody but root. The
 * folder that a directory is in may be writable by others, as an `emptyDir` is: they can take the directory away, and put there what is refused.
 */
function swapProblem(path: string, above: readonly StepLook[]): string | undefined {
  for (const { folder, uid: owner, mode, entryUid } of above) {
    const isOpen = (mode & 0o022) !== 0;
    // With the sticky bit, whose the entry is decides.
    const isSticky = (mode & 0o1000) !== 0;
    if (owner === 0 && (!isOpen || (isSticky && entryUid === 0))) continue;
    const who = owner === 0 ? `is writable by others (mode ${(mode & 0o7777).toString(8)})` : `belongs to user ${owner}`;
    return `${folder}, above ${path}, ${who}, which lets others have root write elsewhere: name a directory right within it, or another`;
  }
  return undefined;
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
  const swap = uid === 0 ? swapProblem(path, look.above) : undefined;
  if (swap !== undefined) return swap;
  if (!unsafeDisk && !IN_MEMORY.has(look.fileSystem))
    return `${path} is not in memory (tmpfs or ramfs), and a private key on a disk may outlive its deletion: use such a file system, or set unsafeDisk`;
  return undefined;
}
