import {
  APPLICATION_ENDS,
  START_REASONS,
  type ApplicationEnd,
  type ApplicationStatus,
  type StartReason,
} from '../log/application-records.ts';
import type { Define } from './text-format.ts';
import { zeroes } from './zeroes.ts';

/** Of the application that `scute exec` runs. */
export interface ApplicationMetrics {
  readonly starts: Record<StartReason, number>;
  readonly ends: Record<ApplicationEnd, number>;
  state: ApplicationStatus['state'] | undefined;
  /** Of its last end. */
  exitCode: number | undefined;
  /** It did not end when it was asked to. */
  kills: number;
  unsentSignals: number;
}

export function registerApplicationMetrics(counter: Define, gauge: Define): ApplicationMetrics {
  const metrics: ApplicationMetrics = {
    starts: zeroes(START_REASONS),
    ends: zeroes(APPLICATION_ENDS),
    state: undefined,
    exitCode: undefined,
    kills: 0,
    unsentSignals: 0,
  };
  gauge('application_waiting', '1 while the application that scute exec was given is not started yet', [], (add) =>
    add({}, metrics.state === 'waiting' ? 1 : 0),
  );
  gauge('application_running', '1 while that application runs', [], (add) => add({}, metrics.state === 'running' ? 1 : 0));
  counter('application_starts_total', 'Starts of that application', ['reason'], (add) => {
    for (const reason of START_REASONS) add({ reason }, metrics.starts[reason]);
  });
  counter('application_ends_total', 'How that application ended, or why it did not run', ['result'], (add) => {
    for (const result of APPLICATION_ENDS) add({ result }, metrics.ends[result]);
  });
  gauge('application_exit_code', 'What that application ended with last, 128 and the number of a signal; absent before', [], (add) => {
    if (metrics.exitCode !== undefined) add({}, metrics.exitCode);
  });
  counter('application_kills_total', 'How often that application was killed, since it did not end when it was asked to', [], (add) =>
    add({}, metrics.kills),
  );
  counter(
    'application_unsent_signals_total',
    'Signals that the system did not let Scute send that application, which runs as another user',
    [],
    (add) => add({}, metrics.unsentSignals),
  );
  return metrics;
}
