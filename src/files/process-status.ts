/** What the system says of a process. */
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { constants } from 'node:os';

export interface Process {
  readonly pid: number;
  /** Ticks since the machine started: with the number it names a process for good. */
  readonly start: number;
  readonly uids: readonly number[];
  /** Masks of signals: those for which it has a handler, or which it holds back to read them; and those that it ignores. */
  readonly handled: bigint;
  readonly ignored: bigint;
}

/** Undefined if there is none such, or none that we can see. */
export async function readProcess(pid: number | 'self'): Promise<Process | undefined> {
  try {
    const [stat, status] = await Promise.all([readFile(`/proc/${pid}/stat`, 'latin1'), readFile(`/proc/${pid}/status`, 'latin1')]);
    const start = startIn(stat);
    if (start === undefined) return undefined;
    const valueOf = (name: string): string => new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(status)?.[1] ?? '';
    const mask = (name: string): bigint => BigInt(`0x${valueOf(name) || '0'}`);
    const uids = valueOf('Uid').split(/\s+/).slice(0, 2).map(Number);
    return { pid: Number.parseInt(stat, 10), start, uids, handled: mask('SigCgt') | mask('SigBlk'), ignored: mask('SigIgn') };
  } catch {
    return undefined;
  }
}

/** Ticks since the machine started, by `/proc/PID/stat`; undefined if it has ended: a zombie is sent nothing. */
function startIn(stat: string): number | undefined {
  // The name of a program may have brackets and spaces in it.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields[0] === 'Z' || fields[0] === 'X' ? undefined : Number(fields[19]);
}

/** When a process started, as `Process.start`, looked up at this moment and within this turn; undefined if it has ended. */
export function startNow(pid: number): number | undefined {
  try {
    return startIn(readFileSync(`/proc/${pid}/stat`, 'latin1'));
  } catch {
    return undefined;
  }
}

/** Why a process is not to be sent a signal: of one that has only just begun, a signal for which it has no handler yet would be the end. */
export function unhandled({ pid, handled, ignored }: Process, signal: NodeJS.Signals): string | undefined {
  const bit = 1n << BigInt(constants.signals[signal] - 1);
  if ((handled & bit) !== 0n) return undefined;
  return `process ${pid} ${(ignored & bit) === 0n ? 'has no handler for' : 'ignores'} ${signal}`;
}
