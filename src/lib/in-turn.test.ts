import assert from 'node:assert/strict';
import { test } from 'node:test';
import { oneAtATime } from './in-turn.ts';

test('work is done one after the other, in the order of the calls, and a failure holds nobody up', async () => {
  const inTurn = oneAtATime();
  const seen: string[] = [];
  const { promise: held, resolve: release } = Promise.withResolvers<void>();

  const first = inTurn(async () => {
    seen.push('first begins');
    await held;
    seen.push('first ends');
    throw new Error('first failed');
  });
  const second = inTurn(() => {
    seen.push('second');
    return Promise.resolve(2);
  });
  release();

  await assert.rejects(first, /first failed/);
  assert.equal(await second, 2);
  assert.deepEqual(seen, ['first begins', 'first ends', 'second']);
});

test('queues do not wait for each other', async () => {
  const { promise: never } = Promise.withResolvers<void>();
  void oneAtATime()(() => never);

  assert.equal(await oneAtATime()(() => Promise.resolve('done')), 'done');
});
