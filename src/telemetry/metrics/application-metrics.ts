import { START_REASONS, type StartReason } from '../log/application-records.ts';
import type { Define } from './text-format.ts';

/** Of the application that `scute exec` runs. */
export interface ApplicationMetrics {
  readonly starts: Record<StartReason, number>;
  isRunning: boolean;
  /** It did not end when it was asked to. */
  kills: number;
  unsentSignals: number;
}

export function registerApplicationMetrics(counter: Define, gauge: Define): ApplicationMetrics {
  const metrics: ApplicationMetrics = { starts: { start: 0, rotation: 0 }, isRunning: false, kills: 0, unsentSignals: 0 };
  gauge('application_running', '1 while the application runs that scute exec was given', [], (add) => add({}, metrics.isRunning ? 1 : 0));
  counter('application_starts_total', 'Starts of that application', ['reason'], (add) => {
    for (const reason of START_REASONS) add({ reason }, metrics.starts[reason]);
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
