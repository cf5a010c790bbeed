import { execFile } from 'node:child_process';
import { oneAtATime } from '../lib/in-turn.ts';
import { err, ok, type Result } from '../lib/result.ts';

/** Tells the service manager something, such as `READY=1`. The error is a sentence. */
export type Tell = (...assignments: readonly string[]) => Promise<Result<void, string>>;

/** It waits until the manager has read what it was told, for 5 seconds. */
const TIMEOUT_MS = 10_000;

/**
 * By `systemd-notify`, one at a time, in order: Node has no datagram sockets in the file system. So the message comes from another process of the
 * unit, which must allow that (NotifyAccess=all).
 */
export function createTell(socket: string, env: Readonly<Record<string, string | undefined>>): Tell {
  const inTurn = oneAtATime();
  const run = (assignments: readonly string[]): Promise<Result<void, string>> =>
    new Promise((resolve) => {
      const own = { PATH: env['PATH'], NOTIFY_SOCKET: socket };
      execFile('systemd-notify', [...assignments], { env: own, timeout: TIMEOUT_MS }, (failure, _, stderr) => {
        if (failure === null) resolve(ok(undefined));
        else resolve(err(`systemd-notify: ${stderr.trim() === '' ? failure.message : stderr.trim()}`));
      });
    });
  return (...assignments) => inTurn(() => run(assignments));
}

/** How often the manager wants to hear that all is well (sd_watchdog_enabled(3)), in milliseconds; undefined if it does not. */
export function watchdogMs(env: Readonly<Record<string, string | undefined>>, pid: number): number | undefined {
  const { WATCHDOG_USEC: usec, WATCHDOG_PID: forPid } = env;
  if (usec === undefined || !/^\d{1,15}$/.test(usec) || (forPid !== undefined && forPid !== String(pid))) return undefined;
  const ms = Number(usec) / 1000;
  return ms > 0 ? ms : undefined;
}
