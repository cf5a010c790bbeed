/** A program that is started when the files are there first, and told of later ones by a signal. */
import { spawn } from 'node:child_process';
import { messageOf } from '../lib/errors.ts';
import type { NotifyTarget } from './notify-target.ts';

export interface ChildTargetOptions {
  readonly command: readonly [string, ...string[]];
  /** Undefined: while it runs it is told nothing. */
  readonly signal: NodeJS.Signals | undefined;
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** As spiffe-helper runs `cmd`: with our standard streams and environment, and started anew by the next replacement if it has ended. It outlives us. */
export function childTarget({ command, signal, env }: ChildTargetOptions): NotifyTarget {
  const [program, ...args] = command;
  let running: { readonly kill: (signal: NodeJS.Signals) => boolean } | undefined;
  return {
    kind: 'child',
    target: program,
    tell() {
      if (running !== undefined) {
        // It may run as another user by now, as what `sudo` starts does.
        if (signal !== undefined && !running.kill(signal))
          return Promise.resolve({ reason: 'foreign_process' as const, detail: `${program} cannot be sent ${signal}` });
        return Promise.resolve(undefined);
      }
      return new Promise((resolve) => {
        const child = spawn(program, args, { env: { ...env }, stdio: 'inherit' });
        // Also of a signal that cannot be sent.
        child.on('error', (cause) => resolve({ reason: 'not_started', detail: `${program} cannot be started: ${messageOf(cause)}` }));
        child.once('exit', () => (running = undefined));
        child.once('spawn', () => {
          running = child;
          child.unref();
          resolve(undefined);
        });
      });
    },
  };
}
