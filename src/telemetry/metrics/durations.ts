import type { Add, Collected, Labels } from './text-format.ts';

/** Upper bounds, in seconds: of what is over at once, or given up. */
export const DURATION_SECONDS: readonly number[] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];
/** A request may be a stream. */
export const REQUEST_SECONDS: readonly number[] = [...DURATION_SECONDS, 60, 300];
/** A connection is a tenth of a second old, or days. */
export const CONNECTION_SECONDS: readonly number[] = [0.01, 0.1, 1, 10, 60, 600, 3600, 21_600, 86_400];

/** How long things took, in plain numbers: one more costs a few comparisons and additions. */
export class Durations {
  /** Of each bucket alone, not cumulative; the last is for what is longer than all bounds. */
  readonly counts: number[];
  readonly bounds: readonly number[];
  sumSeconds = 0;

  constructor(bounds: readonly number[] = DURATION_SECONDS) {
    this.bounds = bounds;
    this.counts = Array.from({ length: bounds.length + 1 }, () => 0);
  }

  observe(durationMs: number): void {
    const seconds = durationMs / 1000;
    this.sumSeconds += seconds;
    let bucket = 0;
    while (seconds > (this.bounds[bucket] ?? Infinity)) bucket++;
    this.counts[bucket] = (this.counts[bucket] ?? 0) + 1;
  }
}

export interface DurationSeries {
  readonly labels: Labels;
  readonly durations: Durations;
}

/** By name, what it is about, labels, and what is asked at each scrape. */
export type DefineDurations = (...metric: Parameters<typeof durationsMetric>) => void;

/** A histogram. */
export function durationsMetric(name: string, help: string, labels: readonly string[], series: () => Iterable<DurationSeries>): Collected {
  return {
    name,
    type: 'histogram',
    help,
    labels,
    *collect(add) {
      for (const each of series()) {
        addDurations(each, add);
        yield;
      }
    },
  };
}

function addDurations({ labels, durations }: DurationSeries, add: Add): void {
  let count = 0;
  for (const [bucket, ofBucket] of durations.counts.entries()) {
    count += ofBucket;
    add({ ...labels, le: String(durations.bounds[bucket] ?? '+Inf') }, count, '_bucket');
  }
  add(labels, durations.sumSeconds, '_sum');
  add(labels, count, '_count');
}
