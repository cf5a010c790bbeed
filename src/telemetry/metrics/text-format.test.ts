import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Gauge, Registry } from 'prom-client';
import { writeMetrics, type Collected } from './text-format.ts';

function written(...metrics: readonly Collected[]): string {
  let text = '';
  for (const _ of writeMetrics(metrics, (piece) => (text += piece)));
  return text;
}

test('metrics are written as the library would write them', async () => {
  const series: readonly (readonly [Record<string, string>, number])[] = [
    [{ one: 'plain', other: '' }, 1],
    [{ one: 'a"b\\c\nd', other: '\\n"' }, 0.1 + 0.2],
    [{ one: 'é\u2028', other: '{}' }, 1e21],
    [{ one: 'infinite', other: '+' }, Infinity],
    [{ one: 'infinite', other: '-' }, -Infinity],
    [{ one: 'none', other: '' }, Number.NaN],
  ];
  const help = 'What "this"\\n is\nabout';
  const registry = new Registry();
  const reference = new Gauge({ name: 'a_gauge', help, labelNames: ['one', 'other'], registers: [registry] });
  for (const [labels, value] of series) reference.set(labels, value);

  const text = written({
    name: 'a_gauge',
    type: 'gauge',
    help,
    labels: ['one', 'other'],
    collect: (add) => {
      for (const [labels, value] of series) add(labels, value);
    },
  });

  assert.equal(text.trimEnd(), (await registry.metrics()).trimEnd().replace(/ Nan$/m, ' NaN'));
});

test('who writes may stop after each metric, and after each step of one', () => {
  let collectedSteps = 0;
  const plain: Collected = { name: 'plain', type: 'gauge', help: 'x', labels: [], collect: (add) => add({}, 1) };
  const stepwise: Collected = {
    name: 'stepwise',
    type: 'counter',
    help: 'x',
    labels: ['n'],
    *collect(add) {
      for (; collectedSteps < 3; collectedSteps += 1) {
        add({ n: String(collectedSteps) }, 1);
        yield;
      }
    },
  };
  const pieces: string[] = [];
  const seen: number[] = [];

  for (const _ of writeMetrics([plain, stepwise, plain], (piece) => pieces.push(piece))) seen.push(collectedSteps);

  assert.deepEqual(seen, [0, 0, 1, 2, 3, 3]);
  assert.equal(pieces[1]?.trim().split('\n').length, 5);
});
