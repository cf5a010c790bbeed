import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Allowance } from './allowance.ts';

test('so much may be done at once, and so much a second after that, and time is asked only then', () => {
  let nowMs = 0;
  let asked = 0;
  const now = (): number => {
    asked++;
    return nowMs;
  };
  const allowance = new Allowance(10, 2, 0);
  const taken = (count: number): number => Array.from({ length: count }, () => allowance.take(now)).filter(Boolean).length;

  assert.deepEqual([taken(10), asked], [10, 0]);
  assert.equal(taken(5), 0);
  nowMs = 1500;
  assert.equal(taken(5), 3);
  // What was not done is kept, up to what may be done at once.
  nowMs = 1_000_000;
  assert.equal(taken(20), 10);
});

test('a connection that does little for long has never done too much', () => {
  let nowMs = 0;
  const allowance = new Allowance(100, 1, 0);
  for (let count = 0; count < 10_000; count++) {
    nowMs += 1000;
    assert.ok(allowance.take(() => nowMs));
  }
});

test('useful work earns more, and no more than may be done at once', () => {
  const allowance = new Allowance(10, 0, 0);
  const take = (): boolean => allowance.take(() => 0);
  for (let count = 0; count < 10; count++) assert.ok(take());
  assert.ok(!take());
  allowance.earn(1000);
  for (let count = 0; count < 10; count++) assert.ok(take());
  assert.ok(!take());
});
