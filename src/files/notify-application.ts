/** The application that `scute exec` runs, which is told by a signal. */
import type { NotifyTarget } from './notify-target.ts';
import { readProcess, unhandled } from './process-status.ts';

export interface ToldApplication {
  /** Without its arguments. */
  readonly program: string;
  /** Its process, while there is one; another object for each. `startedAtMs` is monotonic, and from before it could read anything. */
  readonly running: { readonly pid: number; readonly startedAtMs: number } | undefined;
  /** Sends it a signal. False: the system does not let us. */
  tell(signal: NodeJS.Signals): boolean;
}

/** Whoever is started after a replacement begins with these files, and is told nothing of them. */
export function applicationTarget(application: ToldApplication, signal: NodeJS.Signals): NotifyTarget {
  return {
    kind: 'child',
    target: application.program,
    async tell({ replacedAtMs }) {
      const { running } = application;
      if (running === undefined || running.startedAtMs > replacedAtMs) return undefined;
      const found = await readProcess(running.pid);
      // Another one may have been started in the meantime, of which nothing is known.
      if (found === undefined || application.running !== running)
        return { reason: 'no_process', detail: `${application.program}: process ${running.pid} has ended` };
      const why = unhandled(found, signal);
      if (why !== undefined) return { reason: 'unhandled_signal', detail: `${application.program}: ${why}` };
      if (application.tell(signal)) return undefined;
      return {
        reason: 'foreign_process',
        detail: `${application.program}: process ${running.pid} cannot be sent ${signal}: it belongs to another user`,
      };
    },
  };
}
