/** A signal to the process whose number is in a file. */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { uptime } from 'node:os';
import { codeOf, messageOf } from '../lib/errors.ts';
import { err, ok, type Result } from '../lib/result.ts';
import type { NotifyFailure } from '../telemetry/log/files-records.ts';
import type { NotifyTarget } from './notify-target.ts';
import { readProcess, startNow, unhandled, type Process } from './process-status.ts';

/** PostgreSQL writes some lines more behind the first. */
const MAX_PID_FILE_BYTES = 4096;
/** The kernel tells times of processes in hundredths of a second, to every program on Linux. */
const TICK_MS = 10;
/** How much later than its file a process may seem to have begun: none of the clocks is exact. */
const TOLERANCE_MS = 2000;

interface PidFile {
  readonly pid: number;
  readonly writtenAtMs: number;
}

export interface SignalTargetOptions {
  readonly pidFile: string;
  readonly signal: NodeJS.Signals;
  /** Called when all is known of the process, before it is looked for once more: for tests that end it there. */
  readonly beforeLastLook?: (() => void) | undefined;
}

/**
 * The file and the process must belong to root or to our own user, and the file be writable by no other: else whoever writes it would lend
 * himself our right to send signals. A process that began after its file was written is another with the same number.
 */
export function signalTarget({ pidFile, signal, beforeLastLook = () => {} }: SignalTargetOptions): NotifyTarget {
  let told: string | undefined;

  const find = async (): Promise<Result<Process, NotifyFailure>> => {
    const written = await readPidFile(pidFile);
    if (!written.ok) return written;
    const { pid, writtenAtMs } = written.value;
    const found = await readProcess(pid);
    if (found === undefined) return err({ reason: 'no_process', detail: `${pidFile}: there is no process ${pid}` });
    if (found.uids.some((uid) => !isTrusted(uid)))
      return err({
        reason: 'foreign_process',
        detail: `${pidFile}: process ${pid} belongs to user ${found.uids.find((uid) => !isTrusted(uid))}, neither to root nor to Scute's user`,
      });
    if ((await startedAtMs(found)) > writtenAtMs + TOLERANCE_MS)
      return err({ reason: 'no_process', detail: `${pidFile}: process ${pid} began after the file was written, so it is another` });
    return ok(found);
  };

  return {
    kind: 'signal',
    target: pidFile,
    async tell() {
      const found = await find();
      if (!found.ok) return found.error;
      const { pid, start } = found.value;
      const why = unhandled(found.value, signal);
      if (why !== undefined) return { reason: 'unhandled_signal', detail: `${pidFile}: ${why}` };
      beforeLastLook();
      // What was read took turns of the event loop, in which its number may have become another's. There are none until it is sent.
      if (startNow(pid) !== start) return { reason: 'no_process', detail: `${pidFile}: process ${pid} has ended` };
      try {
        process.kill(pid, signal);
      } catch (cause) {
        const reason = codeOf(cause) === 'ESRCH' ? 'no_process' : codeOf(cause) === 'EPERM' ? 'foreign_process' : 'failed';
        return { reason, detail: `${pidFile}: process ${pid}: ${messageOf(cause)}` };
      }
      told = `${pid} ${start}`;
      return undefined;
    },
    async isAnother() {
      const found = await find();
      return found.ok && `${found.value.pid} ${found.value.start}` !== told;
    },
  };
}

function isTrusted(uid: number): boolean {
  return uid === 0 || uid === process.getuid?.();
}

async function readPidFile(file: string): Promise<Result<PidFile, NotifyFailure>> {
  const bad = (detail: string): Result<never, NotifyFailure> => err({ reason: 'bad_pid_file', detail });
  try {
    // A pipe would wait for whoever writes.
    await using handle = await open(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    const found = await handle.stat();
    if (!found.isFile()) return bad(`${file} is not a regular file`);
    if (!isTrusted(found.uid)) return bad(`${file} belongs to user ${found.uid}, neither to root nor to Scute's user`);
    if ((found.mode & 0o022) !== 0) return bad(`${file} is writable by others (mode ${(found.mode & 0o777).toString(8)})`);
    const { bytesRead, buffer } = await handle.read(Buffer.alloc(MAX_PID_FILE_BYTES), 0, MAX_PID_FILE_BYTES, 0);
    const line = buffer.toString('latin1', 0, bytesRead).split('\n')[0] ?? '';
    const pid = /^[ \t]*[0-9]{1,10}[ \t\r]*$/.test(line) ? Number(line) : 0;
    // 1 is whoever started the container or machine; ourselves we need not tell.
    if (pid <= 1 || pid > 4_194_304 || pid === process.pid)
      return bad(`${file}:1:1: ${JSON.stringify(line.slice(0, 80))} is not the number of a process that may be sent a signal`);
    return ok({ pid, writtenAtMs: found.mtimeMs });
  } catch (cause) {
    if (codeOf(cause) === 'ELOOP') return bad(`${file} is a symbolic link`);
    return err({ reason: 'no_pid_file', detail: `${file} cannot be read: ${messageOf(cause)}` });
  }
}

/**
 * Wall time of the start of a process, by our own start, and by that of the machine, which a container may not be told. Each by what the wall
 * clock says now and said when we began. The earliest of all: a clock that was set, or our own slow start, must make no process look younger than it is.
 */
async function startedAtMs({ start }: Process): Promise<number> {
  const own = await readProcess('self');
  if (own === undefined) return Infinity;
  const nowMs = Date.now();
  const { timeOrigin } = performance;
  const wallClocks = [timeOrigin, nowMs - performance.now()];
  return Math.min(...wallClocks.map((originMs) => originMs + (start - own.start) * TICK_MS), nowMs - uptime() * 1000 + start * TICK_MS);
}
