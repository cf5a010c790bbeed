import type { Histogram, Registry } from 'prom-client';

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
  readonly labels: Readonly<Record<string, string>>;
  readonly durations: Durations;
}

/** A histogram whose series are read from plain numbers at each scrape. */
export function registerDurations(
  registry: Registry,
  name: string,
  help: string,
  labelNames: readonly string[],
  series: () => Iterable<DurationSeries>,
): void {
  const collected = {
    name,
    help,
    labelNames,
    type: 'histogram',
    aggregator: 'sum',
    get: () =>
      Promise.resolve({ name, help, type: 'histogram', aggregator: 'sum', values: [...series()].flatMap((each) => valuesOf(name, each)) }),
  };
  // prom-client's own histogram can only be told one value after the other; this is all that its registry asks of one.
  registry.registerMetric(collected as unknown as Histogram);
}

function valuesOf(name: string, { labels, durations }: DurationSeries): object[] {
  let count = 0;
  const buckets = durations.counts.map((ofBucket, bucket) => {
    count += ofBucket;
    return { metricName: `${name}_bucket`, labels: { ...labels, le: durations.bounds[bucket] ?? '+Inf' }, value: count };
  });
  return [
    ...buckets,
    { metricName: `${name}_sum`, labels, value: durations.sumSeconds },
    { metricName: `${name}_count`, labels, value: count },
  ];
}
