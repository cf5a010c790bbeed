import { chmod, chown, lstat, mkdtemp, rename, rm, rmdir, unlink } from 'node:fs/promises';
import { connect } from 'node:net';
import { dirname, isAbsolute, join } from 'node:path';
import { codeOf, ScuteError } from '../lib/errors.ts';

export interface UnixSocketOptions {
  /** Permission bits of the socket file, such as 0o600. Who may write to it may connect. */
  readonly mode: number;
  /** The group that the socket is given; ours if undefined. */
  readonly gid?: number | undefined;
}

export interface PreparedUnixSocket {
  /** Where to bind: in a new directory that only this user may enter, so that nobody connects before `publish`. */
  readonly bindPath: string;
  /** Call once bound: sets mode and group, then renames the socket into place. Rejects if another process took the path meanwhile. */
  publish(): Promise<void>;
  /**
   * Removes the socket from its path, if what is there is still ours. Safe to call twice, and without `publish`.
   * Call it before the listener closes: as long as it listens, no other file can have its inode number.
   */
  release(): Promise<void>;
}

export type UnixSocketProblem = 'not_absolute' | 'too_long' | 'in_use' | 'not_a_socket' | 'no_directory' | 'not_writable';

/** A Unix socket cannot be bound at the path asked for. */
export class UnixSocketError extends ScuteError {
  override name = 'UnixSocketError';
  readonly code = 'ERR_UNIX_SOCKET';
  readonly problem: UnixSocketProblem;

  constructor(problem: UnixSocketProblem, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.problem = problem;
  }
}

/** `sun_path` of unix(7) has 108 bytes with the final zero. Longer paths would be cut silently. */
const MAX_PATH_BYTES = 107;

/**
 * Makes ready to bind a Unix socket at `path`, whose directory must exist, without a moment in which it has the wrong
 * owner or mode. A stale socket is replaced; a live one never, and nothing that is not a socket is touched.
 */
export async function prepareUnixSocket(path: string, options: UnixSocketOptions): Promise<PreparedUnixSocket> {
  if (!isAbsolute(path)) throw new UnixSocketError('not_absolute', `socket path ${JSON.stringify(path)} is not absolute`);
  await refuseUnlessReplaceable(path);
  // In the same directory, because a rename cannot leave its file system.
  const directory = await mkdtemp(join(dirname(path), '.s-')).catch((cause: unknown) => {
    throw unwritable(path, cause);
  });
  const bindPath = join(directory, 's');
  const longest = Math.max(Buffer.byteLength(bindPath), Buffer.byteLength(path));
  if (longest > MAX_PATH_BYTES) {
    await rmdir(directory);
    throw new UnixSocketError('too_long', `socket path ${JSON.stringify(path)} is ${longest - MAX_PATH_BYTES} bytes too long`);
  }
  let published: FileIdentity | undefined;
  return {
    bindPath,
    async publish() {
      if (options.gid !== undefined) await chown(bindPath, -1, options.gid);
      await chmod(bindPath, options.mode);
      const ours = await identify(bindPath);
      await refuseUnlessReplaceable(path);
      await rename(bindPath, path);
      published = ours;
      await rmdir(directory);
    },
    async release() {
      await rm(directory, { recursive: true, force: true });
      if (published === undefined) return;
      const found = await identify(path);
      if (found !== undefined && found.dev === published.dev && found.ino === published.ino) await unlinkIfThere(path);
      published = undefined;
    },
  };
}

/** In words for whoever mounts the directory; any other failure as it came. */
function unwritable(path: string, cause: unknown): unknown {
  const code = codeOf(cause);
  const [socket, directory] = [JSON.stringify(path), JSON.stringify(dirname(path))];
  if (code === 'ENOENT' || code === 'ENOTDIR')
    return new UnixSocketError('no_directory', `cannot make ${socket}: the directory ${directory} does not exist`);
  const why = { EROFS: 'it is on a read-only file system', EACCES: 'its permissions forbid that', EPERM: 'it is not permitted' }[
    code ?? ''
  ];
  if (why === undefined) return cause;
  const user = process.getuid?.() ?? 'this user';
  return new UnixSocketError(
    'not_writable',
    `cannot make ${socket}: user ${user} cannot write to ${directory}, since ${why}; mount a volume there that this user may write to, or choose another path`,
  );
}

interface FileIdentity {
  readonly dev: bigint;
  readonly ino: bigint;
  readonly isSocket: boolean;
}

/** What is at `path` itself (symbolic links are not followed), or undefined if nothing is. */
async function identify(path: string): Promise<FileIdentity | undefined> {
  try {
    const stats = await lstat(path, { bigint: true });
    return { dev: stats.dev, ino: stats.ino, isSocket: stats.isSocket() };
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return undefined;
    throw cause;
  }
}

async function refuseUnlessReplaceable(path: string): Promise<void> {
  const found = await identify(path);
  if (found === undefined) return;
  if (!found.isSocket) throw new UnixSocketError('not_a_socket', `${JSON.stringify(path)} exists and is not a socket`);
  const answer = await probe(path);
  if (answer === 'ECONNREFUSED' || answer === 'ENOENT') return;
  // Connected, or an error that leaves it open (EACCES, EAGAIN from a full backlog): somebody may be listening.
  const detail = answer === undefined ? 'another process listens there' : `a socket is there that answers ${answer}`;
  throw new UnixSocketError('in_use', `cannot take ${JSON.stringify(path)}: ${detail}`);
}

/** Connects and hangs up. Resolves to undefined if that worked, else to the error's code. */
function probe(path: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    socket.once('connect', () => {
      socket.destroy();
      resolve(undefined);
    });
    socket.once('error', (cause) => resolve(codeOf(cause) ?? 'an unknown error'));
  });
}

async function unlinkIfThere(path: string): Promise<void> {
  try {
    await unlink(path);
  } catch (cause) {
    if (codeOf(cause) !== 'ENOENT') throw cause;
  }
}
