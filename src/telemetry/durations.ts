import type { Histogram, Registry } from 'prom-client';

/** Upper bounds, in seconds. */
export const DURATION_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30] as const;

/** How long things took, in plain numbers: one more costs a few comparisons and additions. */
export class Durations {
  /** Of each bucket alone, not cumulative; the last is for what is longer than all bounds. */
  readonly counts: number[] = Array.from({ length: DURATION_SECONDS.length + 1 }, () => 0);
  sumSeconds = 0;

  observe(durationMs: number): void {
    const seconds = durationMs / 1000;
    this.sumSeconds += seconds;
    let bucket = 0;
    while (seconds > (DURATION_SECONDS[bucket] ?? Infinity)) bucket++;
    this.counts[bucket] = (this.counts[bucket] ?? 0) + 1;
  }
}

export interface DurationSeries {
  readonly labels: Readonly<Record<string, string>>;
  readonly durations: Durations;
}

/** A histogram whose series are read from plain numbers at each scrape. */
export function registerDurations(registry: Registry, name: string, help: string, series: () => Iterable<DurationSeries>): void {
  const collected = {
    name,
    help,
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
    return { metricName: `${name}_bucket`, labels: { ...labels, le: DURATION_SECONDS[bucket] ?? '+Inf' }, value: count };
  });
  return [
    ...buckets,
    { metricName: `${name}_sum`, labels, value: durations.sumSeconds },
    { metricName: `${name}_count`, labels, value: count },
  ];
}
