import type { MetricDescription } from '../../../src/telemetry/metrics/metrics.ts';

/** The names of the series of metrics: a histogram has three. */
export function seriesNames(metrics: readonly MetricDescription[]): ReadonlySet<string> {
  return new Set(metrics.flatMap(({ name, type }) => (type === 'histogram' ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : name)));
}

/** What of a PromQL expression may be the name of a metric of ours, or of a rule. */
export function namesIn(expression: string): readonly string[] {
  const withoutTexts = expression.replace(/"(?:[^"\\]|\\.)*"/g, '""');
  return [...withoutTexts.matchAll(/\b(?:scute|process|nodejs)(?:_\w+|:[\w:]+)/g)].map(([name]) => name);
}
