import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readOnlyMap } from './read-only-map.ts';

test('a read-only map is a copy that can be read, and not changed by any method of Map', () => {
  const source = new Map([['a', 1]]);

  const map = readOnlyMap(source);
  source.set('b', 2);

  assert.deepEqual([...map], [['a', 1]]);
  const writable = map as Map<string, number>;
  assert.throws(() => writable.set('a', 2), TypeError);
  assert.throws(() => writable.delete('a'), TypeError);
  assert.throws(() => writable.clear(), TypeError);
  assert.equal(map.get('a'), 1);
});
