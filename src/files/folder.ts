/**
 * A directory by its descriptor: what is done in it is done in this one, whatever stands at its path meanwhile. Node has no openat, but Linux
 * takes `/proc/self/fd/N/name` for it. Nothing here follows a link at the end of a name, and nothing is removed but what is ours.
 */
import { constants } from 'node:fs';
import { lstat, mkdir, open, readdir, readlink, rename, rmdir, statfs, symlink, unlink, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { directoryProblem, lookAbove } from '../config/target-directory.ts';
import { codeOf, messageOf, ScuteError } from '../lib/errors.ts';
import type { SetProblem } from '../telemetry/log/files-records.ts';

/** A set could not be written. */
export class SetWriteError extends ScuteError {
  override name = 'SetWriteError';
  readonly code = 'ERR_SET_WRITE';
  readonly reason: SetProblem;

  constructor(reason: SetProblem, message: string, options?: ErrorOptions) {
    super(message, options);
    this.reason = reason;
  }

  /** For whatever the system said. */
  static from(cause: unknown, doing: string): SetWriteError {
    if (cause instanceof SetWriteError) return cause;
    return new SetWriteError(REASONS[codeOf(cause) ?? ''] ?? 'failed', `${doing}: ${messageOf(cause)}`, { cause });
  }

  override shouldRetry(): boolean {
    return true;
  }
}

const REASONS: Readonly<Record<string, SetProblem>> = {
  ENOSPC: 'full',
  EDQUOT: 'full',
  EROFS: 'read_only',
  EACCES: 'denied',
  EPERM: 'denied',
  ENOTDIR: 'bad_directory',
  ELOOP: 'bad_directory',
};

const OPEN_DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
const NEW_FILE = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;

export interface Ownership {
  /** As they are if undefined. */
  readonly uid: number | undefined;
  readonly gid: number | undefined;
  readonly mode: number;
}

export class Folder implements AsyncDisposable {
  readonly #handle: FileHandle;
  readonly path: string;

  private constructor(handle: FileHandle, path: string) {
    this.#handle = handle;
    this.path = path;
  }

  /** The directory of a set, which must be one that a key may go into; made if it is not there. */
  static async ofSet(
    path: string,
    made: Ownership,
    { unsafeDisk, anyDirectory }: { readonly unsafeDisk: boolean; readonly anyDirectory: boolean },
  ): Promise<Folder> {
    let folder = await openOrNothing(path);
    if (folder === undefined) {
      await mkdir(path, 0o700).catch((cause: unknown) => {
        if (codeOf(cause) !== 'EEXIST') throw SetWriteError.from(cause, `${path} cannot be made`);
      });
      folder = await openOrNothing(path);
      if (folder === undefined) throw new SetWriteError('failed', `${path} went away as soon as it was made`);
      await syncParent(path);
    }
    try {
      if (!anyDirectory) await judge(folder, path, unsafeDisk);
      const opened = new Folder(folder, path);
      // Also one that was made by a process that came no further.
      if (!anyDirectory && (await folder.stat()).uid === process.getuid?.() && (await opened.names()).length === 0)
        await opened.setOwnership(made);
      return opened;
    } catch (cause) {
      await folder.close();
      throw cause;
    }
  }

  /** One that is there already, or undefined. */
  static async existing(path: string): Promise<Folder | undefined> {
    const handle = await openOrNothing(path);
    return handle && new Folder(handle, path);
  }

  #at(name: string): string {
    return `/proc/self/fd/${this.#handle.fd}/${name}`;
  }

  names(): Promise<string[]> {
    return readdir(this.#at('.'));
  }

  /** Makes a directory in it, for this process alone. */
  async makeFolder(name: string): Promise<Folder> {
    await mkdir(this.#at(name), 0o700);
    const handle = await open(this.#at(name), OPEN_DIRECTORY);
    const { uid } = await handle.stat();
    if (uid === process.getuid?.()) return new Folder(handle, `${this.path}/${name}`);
    await handle.close();
    throw new SetWriteError('bad_directory', `${this.path}/${name} is not the directory that was made`);
  }

  /** Writes a file that is not there yet; who may read it is settled before anything is in it. */
  async writeNew(name: string, bytes: Uint8Array, ownership: Ownership): Promise<void> {
    await using handle = await open(this.#at(name), NEW_FILE, 0o600);
    await own(handle, ownership);
    await handle.writeFile(bytes);
    await handle.sync();
  }

  async setOwnership(ownership: Ownership): Promise<void> {
    await own(this.#handle, ownership);
  }

  async sync(): Promise<void> {
    await syncHandle(this.#handle);
  }

  async rename(from: string, to: string): Promise<void> {
    await rename(this.#at(from), this.#at(to));
  }

  async link(target: string, name: string): Promise<void> {
    await symlink(target, this.#at(name));
  }

  /** Where a link leads, `undefined` if nothing is there; what is no link says what it is, and whose. */
  async look(name: string): Promise<{ readonly link: string } | { readonly isFile: boolean; readonly uid: number } | undefined> {
    try {
      const found = await lstat(this.#at(name));
      return found.isSymbolicLink() ? { link: await readlink(this.#at(name)) } : { isFile: found.isFile(), uid: found.uid };
    } catch (cause) {
      if (codeOf(cause) === 'ENOENT') return undefined;
      throw cause;
    }
  }

  /** Removes a file or link, or a directory of ours with the files in it. What is in it that is no file stays, and so does it. */
  async remove(name: string): Promise<void> {
    const found = await lstat(this.#at(name)).catch(() => undefined);
    if (found === undefined) return;
    if (!found.isDirectory()) return unlink(this.#at(name)).catch(ignoreAbsent);
    if (found.uid !== process.getuid?.()) return;
    {
      await using inner = await Folder.existing(this.#at(name));
      if (inner !== undefined) for (const each of await inner.names()) await unlink(inner.#at(each)).catch(ignoreAbsent);
    }
    await rmdir(this.#at(name)).catch(ignoreAbsent);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handle.close();
  }
}

async function openOrNothing(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path, OPEN_DIRECTORY);
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return undefined;
    throw SetWriteError.from(cause, `${path} cannot be opened as a directory`);
  }
}

/** Never more than 0600 or 0700 until it has its owner. */
async function own(handle: FileHandle, { uid, gid, mode }: Ownership): Promise<void> {
  if (uid !== undefined || gid !== undefined) {
    const now = await handle.stat();
    if ((uid ?? now.uid) !== now.uid || (gid ?? now.gid) !== now.gid) await handle.chown(uid ?? now.uid, gid ?? now.gid);
  }
  await handle.chmod(mode);
}

async function judge(folder: FileHandle, path: string, unsafeDisk: boolean): Promise<void> {
  const { uid, mode, dev, ino } = await folder.stat();
  const fileSystem = (await statfs(`/proc/self/fd/${folder.fd}/.`)).type;
  const look = { kind: 'directory', uid, mode, fileSystem, id: `${dev}:${ino}`, above: await lookAbove(path) } as const;
  const problem = directoryProblem(path, look, { uid: process.getuid?.() ?? 0, unsafeDisk });
  if (problem !== undefined) throw new SetWriteError('bad_directory', problem);
}

/** Who may make a directory in another need not be able to read that. */
async function syncParent(path: string): Promise<void> {
  await using parent = await open(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY).catch(() => undefined);
  if (parent !== undefined) await syncHandle(parent);
}

/** Not every file system can say that of a directory. */
async function syncHandle(handle: FileHandle): Promise<void> {
  await handle.sync().catch((cause: unknown) => {
    if (codeOf(cause) !== 'EINVAL') throw cause;
  });
}

function ignoreAbsent(cause: unknown): void {
  if (codeOf(cause) !== 'ENOENT') throw cause;
}
