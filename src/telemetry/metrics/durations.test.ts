import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Histogram, Registry } from 'prom-client';
import { DURATION_SECONDS, Durations, durationsMetric } from './durations.ts';
import { writeMetrics } from './text-format.ts';

test('durations are scraped as the histogram of the library would be', async () => {
  const labels = { direction: 'inbound', listener: 'we"b' };
  const durations = new Durations();
  const metric = durationsMetric('a_seconds', 'How long', Object.keys(labels), () => [{ labels, durations }]);
  const ours = (): string => {
    let text = '';
    for (const _ of writeMetrics([metric], (piece) => (text += piece)));
    return text;
  };
  const theirs = new Registry();
  const reference = new Histogram({
    name: 'a_seconds',
    help: 'How long',
    labelNames: Object.keys(labels),
    buckets: [...DURATION_SECONDS],
    registers: [theirs],
  });
  reference.zero(labels);
  const sorted = (text: string): string[] =>
    text
      .trimEnd()
      .split('\n')
      .map((line) => line.replace(/\{(.*)\}/, (_, inner: string) => `{${inner.split(',').toSorted().join()}}`));
  assert.deepEqual(sorted(ours()), sorted(await theirs.metrics()));

  for (const ms of [0, 0.5, 1, 1.0001, 2.5, 10, 30_000, 30_001, 1e9]) {
    durations.observe(ms);
    reference.observe(labels, ms / 1000);
  }

  assert.deepEqual(sorted(ours()), sorted(await theirs.metrics()));
});
