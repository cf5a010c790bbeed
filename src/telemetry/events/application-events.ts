/** The application that `scute exec` runs. */
import type { ApplicationMetrics } from '../metrics/application-metrics.ts';
import type { StartedApplication, StartReason, StopReason, UnsentSignal } from '../log/application-records.ts';
import type { Logger } from '../log/logger.ts';

export interface ApplicationEvents {
  /** We are PID 1: the system gives us orphans to reap, which Node does not do. */
  reapsNoOrphans(): void;
  /** What was waited for did not come in time: the names of the checks that fail. */
  waitedInVain(failing: readonly string[]): void;
  started(reason: StartReason, application: StartedApplication): void;
  notStarted(command: string, detail: string): void;
  /** It was asked to end. */
  asked(reason: StopReason): void;
  /** It had not ended in that time. */
  killed(afterMs: number): void;
  /** The system did not let us send it a signal. */
  notSent(signal: NodeJS.Signals, unsent: UnsentSignal): void;
  /** It can be neither asked to end nor killed: for a rotation, we go on with it as it is; else we end without it. */
  notEnded(reason: StopReason, pid: number): void;
  ended(exitCode: number): void;
}

export function createApplicationEvents({
  logger,
  metrics,
}: {
  readonly logger: Logger;
  readonly metrics: ApplicationMetrics;
}): ApplicationEvents {
  return {
    reapsNoOrphans() {
      logger.warn({}, 'Scute is PID 1 and reaps no orphans: run it under an init');
    },
    waitedInVain(failing) {
      logger.error({ failing }, 'application not started: what it needs did not come in time');
    },
    started(reason, { command, pid, uid }) {
      metrics.starts[reason] += 1;
      metrics.isRunning = true;
      logger.info({ reason, command, pid, uid }, 'application started');
    },
    notStarted(command, detail) {
      metrics.isRunning = false;
      logger.error({ command, detail }, 'application cannot be started');
    },
    asked(reason) {
      logger.info({ reason }, 'application asked to end');
    },
    killed(afterMs) {
      metrics.kills += 1;
      logger.warn({ after_ms: afterMs }, 'application killed, since it did not end');
    },
    notSent(signal, { pid, detail }) {
      metrics.unsentSignals += 1;
      logger.warn({ signal, pid, detail }, 'application cannot be sent a signal: it runs as another user');
    },
    notEnded(reason, pid) {
      if (reason === 'rotation') logger.error({ pid }, 'application cannot be ended for a rotation, and keeps what it has');
      else logger.error({ pid }, 'application cannot be ended, and runs on without Scute');
    },
    ended(exitCode) {
      metrics.isRunning = false;
      logger.info({ exit_code: exitCode }, 'application ended');
    },
  };
}
