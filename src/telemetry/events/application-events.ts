/** The application that `scute exec` runs. */
import type { Clock } from '../../lib/clock.ts';
import type { ApplicationMetrics } from '../metrics/application-metrics.ts';
import type {
  ApplicationEnd,
  ApplicationStatus,
  StartedApplication,
  StartReason,
  StopReason,
  UnsentSignal,
} from '../log/application-records.ts';
import type { Logger } from '../log/logger.ts';

export interface ApplicationEvents {
  /** We are PID 1: the system gives us orphans to reap, which Node does not do. */
  reapsNoOrphans(): void;
  /** There is one, which waits for what it needs. */
  expected(program: string): void;
  /** Undefined: there is none. */
  status(): ApplicationStatus | undefined;
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
  ended(exitCode: number, end: ApplicationEnd): void;
}

export function createApplicationEvents({
  logger,
  metrics,
  clock,
}: {
  readonly logger: Logger;
  readonly metrics: ApplicationMetrics;
  readonly clock: Pick<Clock, 'now'>;
}): ApplicationEvents {
  let program = '';
  let status: ApplicationStatus | undefined;
  const become = (next: ApplicationStatus): void => {
    status = next;
    metrics.state = next.state;
  };
  const over = (end: ApplicationEnd, exitCode?: number, detail?: string): void => {
    metrics.ends[end] += 1;
    if (exitCode !== undefined) metrics.exitCode = exitCode;
    become({ state: 'ended', program, sinceMs: clock.now(), end, exitCode, detail });
  };
  return {
    expected(command) {
      program = command;
      become({ state: 'waiting', program, sinceMs: clock.now() });
    },
    status: () => status,
    reapsNoOrphans() {
      logger.warn({}, 'Scute is PID 1 and reaps no orphans: run it under an init');
    },
    waitedInVain(failing) {
      over('not_ready', undefined, failing.join(', '));
      logger.error({ failing }, 'application not started: what it needs did not come in time');
    },
    started(reason, { command, pid, uid }) {
      metrics.starts[reason] += 1;
      become({ state: 'running', program, sinceMs: clock.now(), pid });
      logger.info({ reason, command, pid, uid }, 'application started');
    },
    notStarted(command, detail) {
      over('not_started', undefined, detail);
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
      else {
        over('not_ended', undefined, `process ${pid}`);
        logger.error({ pid }, 'application cannot be ended, and runs on without Scute');
      }
    },
    ended(exitCode, end) {
      over(end, exitCode);
      logger.info({ exit_code: exitCode, result: end }, 'application ended');
    },
  };
}
