import { readFileSync } from 'node:fs';
import { join } from 'node:path';

export const METRICS_DOCUMENT = 'docs/metrics.md';

/** A row of the tables of metrics. */
export interface DocumentedMetric {
  readonly name: string;
  readonly type: string;
  readonly unit: string;
  readonly labels: readonly string[];
  readonly meaning: string;
  /** PromQL. */
  readonly example: string;
}

export function documentedMetrics(): readonly DocumentedMetric[] {
  const text = readFileSync(join(import.meta.dirname, '..', '..', '..', METRICS_DOCUMENT), 'utf8');
  return [...text.matchAll(/^\| `(\w+)` \| (counter|gauge|histogram), ([^|]+) \| ([^|]*)\| ([^|]+) \| `([^`|]+)` \|$/gm)].map(
    ([, name = '', type = '', unit = '', labels = '', meaning = '', example = '']) => ({
      name,
      type,
      unit,
      labels: [...labels.matchAll(/`(\w+)`/g)].map(([, label = '']) => label),
      meaning,
      example,
    }),
  );
}
