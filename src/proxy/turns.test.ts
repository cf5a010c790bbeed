import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { Turns } from './turns.ts';

test('what is begun in one turn shares it, however much that is, and each has its steps in order', async () => {
  const turns = new Turns(new FakeClock());
  const done: Record<string, number[]> = { a: [], b: [] };
  const items = Array.from({ length: 50 }, (_, index) => index);

  turns.begin(items, (item) => done['a']?.push(item));
  turns.begin(items, (item) => done['b']?.push(item));

  assert.deepEqual([done['a']?.length, done['b']?.length], [32, 0]);
  await nextTurn();
  assert.deepEqual([done['a']?.length, done['b']?.length], [48, 16]);
  await nextTurn();
  await nextTurn();
  await nextTurn();
  assert.deepEqual([done['a'], done['b']], [items, items]);
});

test('a turn ends with the step that took its time', async () => {
  const clock = new FakeClock();
  const turns = new Turns(clock);
  let steps = 0;
  const step = (): void => {
    steps++;
    clock.advance(1.5);
  };

  turns.begin([1, 2, 3, 4, 5], step);
  turns.begin([1], step);

  assert.equal(steps, 3);
  await nextTurn();
  assert.equal(steps, 6);
});

test('what is called off ends before its next step, and what is begun within a step waits until that is done', async () => {
  const turns = new Turns(new FakeClock());
  const order: string[] = [];
  let goesOn = true;

  turns.begin(
    ['a', 'b', 'c'],
    (item) => {
      order.push(item);
      if (item === 'b') goesOn = false;
      turns.begin([`after ${item}`], (inner) => order.push(inner));
      order.push(`${item} done`);
    },
    () => goesOn,
  );
  await nextTurn();

  assert.deepEqual(order, ['a', 'a done', 'after a', 'b', 'b done', 'after b']);
});
