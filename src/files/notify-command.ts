/** A program that is run after a replacement. */
import { spawn, type ChildProcess } from 'node:child_process';
import type { Clock } from '../lib/clock.ts';
import { messageOf } from '../lib/errors.ts';
import type { NotifyFailure } from '../telemetry/log/files-records.ts';
import { strangersWords } from '../telemetry/log/scrub.ts';
import type { NotifyTarget } from './notify-target.ts';

/** Of what it writes, the last so many bytes are told; the rest is read and thrown away, so that it never waits for us. */
const MAX_TOLD = 1024;
/** After a SIGTERM, until all of its processes are killed. */
const GRACE_MS = 2000;
/** Nothing of our own environment. */
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** Ends all processes of a command. */
export type EndGroup = (how: NodeJS.Signals) => void;

export interface CommandTargetOptions {
  readonly command: readonly [string, ...string[]];
  readonly timeoutMs: number;
  readonly clock: Clock;
  /** Has the group of the command for as long as it runs: a process that ends at once takes it with it. */
  readonly groups?: Set<EndGroup> | undefined;
  /** What it wrote, when it is over. */
  readonly onOutput: (output: string) => void;
}

/**
 * It runs in a process group of its own, without standard input and without our environment: `PATH`, and `SCUTE_SET`, `SCUTE_DIRECTORY` and
 * `SCUTE_SPIFFE_ID`. When its time is over, and when it has ended, what is left of the group is ended.
 */
export function commandTarget({ command, timeoutMs, clock, groups, onOutput }: CommandTargetOptions): NotifyTarget {
  const [program, ...args] = command;
  return {
    kind: 'command',
    target: program,
    tell(context, signal) {
      const env = { PATH, SCUTE_SET: context.set, SCUTE_DIRECTORY: context.directory, SCUTE_SPIFFE_ID: context.spiffeId };
      return new Promise((resolve) => {
        let output: Buffer = Buffer.alloc(0);
        let ended: NotifyFailure | undefined;
        const child: ChildProcess = spawn(program, args, { cwd: '/', env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
        const endGroup: EndGroup = (how) => {
          try {
            if (child.pid !== undefined) process.kill(-child.pid, how);
          } catch {
            // Nobody of it is left.
          }
        };
        groups?.add(endGroup);
        const collect = (chunk: Buffer): void => {
          output = chunk.length >= MAX_TOLD ? chunk.subarray(-MAX_TOLD) : Buffer.concat([output, chunk]).subarray(-MAX_TOLD);
        };
        // They are not there where it could not be started.
        child.stdout?.on('data', collect);
        child.stderr?.on('data', collect);
        const giveUp = (why: NotifyFailure): void => {
          if (ended !== undefined) return;
          ended = why;
          endGroup('SIGTERM');
          killing = clock.after(GRACE_MS, () => endGroup('SIGKILL'));
        };
        let killing = clock.after(timeoutMs, () => giveUp({ reason: 'timeout', detail: `${program} was ended after ${timeoutMs} ms` }));
        const onAbort = (): void => giveUp({ reason: 'failed', detail: `${program} was ended, since Scute stops` });
        signal.addEventListener('abort', onAbort, { once: true });
        const finish = (failure: NotifyFailure | undefined): void => {
          groups?.delete(endGroup);
          killing.cancel();
          signal.removeEventListener('abort', onAbort);
          // Whoever it left behind may hold the other ends for ever.
          child.stdout?.destroy();
          child.stderr?.destroy();
          if (output.length > 0) onOutput(strangersWords(output.toString('utf8'), MAX_TOLD));
          resolve(failure);
        };
        child.once('error', (cause) => {
          if (child.pid === undefined) finish({ reason: 'not_started', detail: `${program} cannot be started: ${messageOf(cause)}` });
        });
        child.once('exit', (code, by) => {
          endGroup('SIGKILL');
          // The number of the group may be another's from now on.
          groups?.delete(endGroup);
          signal.removeEventListener('abort', onAbort);
          const failed: NotifyFailure = {
            reason: 'exit_code',
            detail: by === null ? `${program} ended with exit code ${code}` : `${program} was ended by ${by}`,
          };
          const result = ended ?? (code === 0 ? undefined : failed);
          killing.cancel();
          // What it wrote is read to its end, unless somebody who left the group holds the other end.
          killing = clock.after(GRACE_MS, () => finish(result));
          child.once('close', () => finish(result));
        });
        if (signal.aborted) onAbort();
      });
    },
  };
}
