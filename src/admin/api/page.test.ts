import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createRandom } from '../../../test/support/random.ts';
import { formatCursor, newest, parseCursor, type Source } from './page.ts';

function source(keys: readonly number[], fits: (key: number) => boolean = () => true): Source<number> & { read: number } {
  const made = {
    name: 'list',
    read: 0,
    *items() {
      for (const key of keys) {
        made.read += 1;
        yield key;
      }
    },
    keyOf: (key: number) => key,
    fits,
  };
  return made;
}

test('a page is the newest below a number, whatever order they are read in', () => {
  const random = createRandom(7);
  const draw = (most: number): number => Math.floor(random() * most);
  for (let round = 0; round < 200; round++) {
    const keys = [...new Set(Array.from({ length: draw(60) }, () => draw(100)))];
    const below = draw(120);
    const limit = 1 + draw(20);
    const fits = (key: number): boolean => key % 3 !== 0;

    const expected = keys
      .filter((key) => key < below && fits(key))
      .toSorted((one, other) => other - one)
      .slice(0, limit);
    assert.deepEqual(newest(source(keys, fits), below, limit), expected);
  }
});

test('a list is read once, and no more of it is kept than a page', () => {
  const many = source(Array.from({ length: 10_000 }, (_, index) => (index * 7919) % 10_000));

  const page = newest(many, Infinity, 50);

  assert.deepEqual([many.read, page.length, page[0], page[49]], [10_000, 50, 9999, 9950]);
});

test('a cursor comes back as it was, and nothing else is one', () => {
  const cursor = { source: 'peer_intermediate', below: Number.MAX_SAFE_INTEGER };

  assert.deepEqual(parseCursor(formatCursor(cursor)), cursor);
  for (const text of [
    '',
    '.',
    'peer',
    'peer.',
    '.5',
    'peer.-1',
    'peer.1.2',
    'peer.1e3',
    'Peer.1',
    'peer.99999999999999999',
    ' peer.1',
    'peer.1\n',
  ])
    assert.equal(parseCursor(text), undefined, JSON.stringify(text));
});
