import { constants, fstatSync, openSync, write, writeSync } from 'node:fs';
import { codeOf } from '../../lib/errors.ts';

export interface LogOutputOptions {
  readonly fd: number;
  /** Lines are gathered until they are this long together, or `flushEveryMs` is over: a busy proxy would else pay a system call a line. */
  readonly batchBytes: number;
  readonly flushEveryMs: number;
  /** What is kept while the reader stalls; lines beyond it are dropped and counted. */
  readonly maxWaitingBytes: number;
}

export interface LogOutput {
  /** Never blocks, never throws. */
  write(line: string): void;
  /** Lines thrown away so far. */
  dropped(): number;
  /** Resolves when everything has been handed to the system. When `deadline` aborts, what is left is dropped. */
  flush(deadline: AbortSignal): Promise<void>;
  /** For the last moment of a process: tries for at most a second, then drops the rest. */
  flushSync(): void;
}

const RETRY_MS = 50;
const LONGEST_SYNC_FLUSH_MS = 1000;
/** What one write takes at most: the size of a pipe on Linux. */
const MAX_WRITE_BYTES = 65_536;

/**
 * Writes lines to a file descriptor asynchronously, in batches, with a bound on what waits. (pino's own destination retries
 * for ever: with a reader that stalls, its process can no longer exit.)
 */
export function createLogOutput(options: LogOutputOptions): LogOutput {
  makeNonBlocking(options.fd);
  let lines: string[] = [];
  /** Characters in `lines`: near enough to bytes, as nearly all is ASCII. */
  let waiting = 0;
  /** What was taken from `lines` and is not yet written. */
  let batch: { readonly bytes: Buffer; readonly lines: number; offset: number } | undefined;
  let isWriting = false;
  let dropped = 0;
  let timer: NodeJS.Timeout | undefined;
  const flushed = new Set<() => void>();

  const arm = (delayMs: number): void => {
    timer ??= setTimeout(() => {
      timer = undefined;
      pump();
    }, delayMs);
    // Waiting lines do not keep the process alive (it flushes when it exits), unless somebody waits for them.
    if (flushed.size === 0) timer.unref();
    else timer.ref();
  };

  const takeBatch = (): typeof batch => {
    if (batch !== undefined || lines.length === 0) return batch;
    let count = 0;
    for (let length = 0; count < lines.length; count += 1) {
      length += lines[count]?.length ?? 0;
      if (length > MAX_WRITE_BYTES && count > 0) break;
    }
    const taken = count === lines.length ? lines : lines.slice(0, count);
    lines = count === lines.length ? [] : lines.slice(count);
    const text = taken.join('');
    waiting -= text.length;
    batch = { bytes: Buffer.from(text), lines: taken.length, offset: 0 };
    return batch;
  };

  const dropBatch = (): void => {
    dropped += batch?.lines ?? 0;
    batch = undefined;
  };

  const pump = (): void => {
    if (isWriting) return;
    const next = takeBatch();
    if (next === undefined) {
      for (const tell of flushed) tell();
      return;
    }
    isWriting = true;
    write(options.fd, next.bytes, next.offset, next.bytes.length - next.offset, null, (error, written) => {
      isWriting = false;
      if (error !== null && codeOf(error) === 'EAGAIN') {
        arm(RETRY_MS);
        return;
      }
      // A log that cannot be written (disk full, reader gone) must not end the proxy.
      if (error !== null) dropBatch();
      next.offset += written ?? 0;
      if (next.offset >= next.bytes.length) batch = undefined;
      if (batch !== undefined || flushed.size > 0 || waiting >= options.batchBytes) pump();
      else if (waiting > 0) arm(options.flushEveryMs);
    });
  };

  const flushSync = (): void => {
    const giveUpAt = performance.now() + LONGEST_SYNC_FLUSH_MS;
    for (let next = takeBatch(); next !== undefined; next = takeBatch()) {
      try {
        next.offset += writeSync(options.fd, next.bytes, next.offset);
        if (next.offset >= next.bytes.length) batch = undefined;
      } catch (cause) {
        if (codeOf(cause) !== 'EAGAIN' || performance.now() > giveUpAt) {
          dropBatch();
          dropAll();
          return;
        }
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
      }
    }
  };

  const dropAll = (): void => {
    dropped += lines.length;
    lines = [];
    waiting = 0;
  };

  process.once('exit', flushSync);
  return {
    write(line) {
      if (waiting + line.length > options.maxWaitingBytes) {
        dropped += 1;
        return;
      }
      lines.push(line);
      waiting += line.length;
      if (isWriting || timer !== undefined) {
        if (!isWriting && batch === undefined && waiting >= options.batchBytes) pump();
        return;
      }
      if (waiting >= options.batchBytes) pump();
      else arm(options.flushEveryMs);
    },
    dropped: () => dropped,
    flushSync,
    flush: (deadline) =>
      new Promise((resolve) => {
        const finish = (): void => {
          flushed.delete(finish);
          deadline.removeEventListener('abort', giveUp);
          resolve();
        };
        const giveUp = (): void => {
          if (!isWriting) dropBatch();
          dropAll();
          finish();
        };
        if (deadline.aborted) {
          giveUp();
          return;
        }
        flushed.add(finish);
        deadline.addEventListener('abort', giveUp, { once: true });
        timer?.ref();
        pump();
      }),
  };
}

/**
 * A descriptor for what another program writes to as well. Whether a pipe blocks is said of all who have it: libuv has it block for each
 * child, which may understand nothing else, and a reader that stalls would hold a thread of ours. So it is opened once more, for us alone. What
 * cannot be, such as a socket or the pipe of another user, is used as it is.
 */
export function sharedDescriptor(fd: number): number {
  try {
    if (!fstatSync(fd).isFIFO()) return fd;
    return openSync(`/proc/self/fd/${fd}`, constants.O_WRONLY | constants.O_NONBLOCK);
  } catch {
    return fd;
  }
}

/**
 * A blocking write to a full pipe would hold a thread, and the process could not exit before the reader reads. Node makes
 * pipes and sockets non-blocking when it opens its own stream on them; nothing is ever written through that stream here.
 */
function makeNonBlocking(fd: number): void {
  try {
    const stats = fstatSync(fd);
    if (fd === 1 && (stats.isFIFO() || stats.isSocket())) void process.stdout.fd;
  } catch {
    // Standard output is closed: each write will say so.
  }
}
