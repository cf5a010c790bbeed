import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { DeadlineQueue } from './deadline-queue.ts';

test('what is set is late after the time, in its order, and once', () => {
  const clock = new FakeClock();
  const late: string[] = [];
  const deadlines = new DeadlineQueue<string>(clock, 100, (item) => late.push(item));

  deadlines.set('a');
  clock.advance(50);
  deadlines.set('b');
  clock.advance(49);
  assert.deepEqual(late, []);
  clock.advance(1);
  assert.deepEqual(late, ['a']);
  clock.advance(50);
  assert.deepEqual(late, ['a', 'b']);
  clock.advance(1000);

  assert.deepEqual(late, ['a', 'b']);
  assert.equal(clock.armed, 0);
});

test('what is set again begins anew, and what is taken away is never late', () => {
  const clock = new FakeClock();
  const late: string[] = [];
  const deadlines = new DeadlineQueue<string>(clock, 100, (item) => late.push(item));

  for (const item of ['a', 'b', 'c']) deadlines.set(item);
  clock.advance(90);
  deadlines.set('a');
  deadlines.delete('b');
  clock.advance(10);
  assert.deepEqual(late, ['c']);
  clock.advance(89);
  assert.deepEqual(late, ['c']);
  clock.advance(1);

  assert.deepEqual(late, ['c', 'a']);
});

test('one that is late may take others away, or set them', () => {
  const clock = new FakeClock();
  const late: string[] = [];
  const deadlines = new DeadlineQueue<string>(clock, 100, (item) => {
    late.push(item);
    if (item === 'a') {
      deadlines.delete('b');
      deadlines.set('d');
    }
  });

  for (const item of ['a', 'b', 'c']) deadlines.set(item);
  clock.advance(100);
  assert.deepEqual(late, ['a', 'c']);
  clock.advance(100);

  assert.deepEqual(late, ['a', 'c', 'd']);
});

test('what one that is late sets does not hold up those before it', () => {
  const clock = new FakeClock();
  const late: string[] = [];
  const deadlines = new DeadlineQueue<string>(clock, 100, (item) => {
    late.push(item);
    if (item === 'a') deadlines.set('c');
  });

  deadlines.set('a');
  clock.advance(10);
  deadlines.set('b');
  clock.advance(90);
  assert.deepEqual(late, ['a']);
  clock.advance(10);
  assert.deepEqual(late, ['a', 'b']);
  clock.advance(90);

  assert.deepEqual(late, ['a', 'b', 'c']);
  assert.equal(clock.armed, 0);
});

test('without a time nothing is ever late; cleared, nothing is any more', () => {
  const clock = new FakeClock();
  const late: string[] = [];
  new DeadlineQueue<string>(clock, undefined, (item) => late.push(item)).set('a');
  assert.equal(clock.armed, 0);
  const deadlines = new DeadlineQueue<string>(clock, 100, (item) => late.push(item));

  deadlines.set('a');
  deadlines.clear();
  assert.equal(clock.armed, 0);
  clock.advance(1000);

  assert.deepEqual(late, []);
});
