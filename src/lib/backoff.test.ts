import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createBackoff, type Backoff } from './backoff.ts';

const create = (random = 0.5): Backoff => createBackoff({ initialMs: 100, maxMs: 1000, random: () => random });
const delays = (backoff: Backoff, count: number, atMostMs?: number): number[] =>
  Array.from({ length: count }, () => backoff.next(atMostMs));

test('delays double up to the longest, each between half and the whole', () => {
  assert.deepEqual(delays(create(0), 6), [50, 100, 200, 400, 500, 500]);
  assert.deepEqual(delays(create(1), 6), [100, 200, 400, 800, 1000, 1000]);
});

test('one delay may be bounded without keeping those after it short', () => {
  const backoff = create(1);

  assert.deepEqual(delays(backoff, 5, 300), [100, 200, 300, 300, 300]);
  assert.equal(backoff.next(), 1000);
  assert.equal(backoff.next(5000), 1000);
});

test('when repeating soon is pointless the delay is the longest, until progress is made', () => {
  const backoff = create(1);

  backoff.slowest();
  assert.deepEqual(delays(backoff, 2), [1000, 1000]);
  backoff.reset();
  assert.deepEqual(delays(backoff, 2), [100, 200]);
});
