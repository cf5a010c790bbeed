import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RecentStreams } from './recent-streams.ts';

test('the last streams are known, and of those that were forgotten it may have been any', () => {
  const streams = new RecentStreams(3);
  for (const stream of [1, 5, 3]) streams.add(stream);
  assert.deepEqual(
    [1, 3, 5, 7].map((stream) => [streams.has(stream), streams.mayHaveHad(stream)]),
    [
      [true, true],
      [true, true],
      [true, true],
      [false, false],
    ],
  );
  streams.add(9);
  streams.add(11);
  assert.deepEqual(
    [1, 3, 5, 7, 9].map((stream) => [streams.has(stream), streams.mayHaveHad(stream)]),
    [
      [false, true],
      [true, true],
      [false, true],
      [false, false],
      [true, true],
    ],
  );
});
