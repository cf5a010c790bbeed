import assert from 'node:assert/strict';
import { test } from 'node:test';
import { wholeOf } from '../../src/dashboard/whole.ts';

test('of a list that comes in short pages all is known, in order', async () => {
  const pages = new Map([
    ['b', { items: [2], nextCursor: 'c' }],
    ['c', { items: [], nextCursor: 'd' }],
    ['d', { items: [3, 4], nextCursor: null }],
  ]);
  const ask = (cursor: string) => Promise.resolve(pages.get(cursor) ?? assert.fail(cursor));

  assert.deepEqual(await wholeOf({ items: [1], nextCursor: 'b' }, ask), { items: [1, 2, 3, 4], nextCursor: null });
  assert.deepEqual(await wholeOf({ items: [1], nextCursor: null }, ask), { items: [1], nextCursor: null });
});

test('a list without end is asked for a bounded number of pages, and keeps its cursor', async () => {
  let asked = 0;
  const ask = () => Promise.resolve({ items: [asked++], nextCursor: `more-${asked}` });

  const { items, nextCursor } = await wholeOf<number>({ items: [], nextCursor: 'more' }, ask);

  assert.equal(nextCursor, `more-${asked}`);
  assert.ok(asked < 100 && items.length === asked, `${asked} pages`);
});

test('a page that leads to itself is an error, and not asked for again', async () => {
  const asked: string[] = [];
  const ask = (cursor: string) => {
    asked.push(cursor);
    return Promise.resolve({ items: [2], nextCursor: 'b' });
  };

  await assert.rejects(wholeOf({ items: [1], nextCursor: 'b' }, ask), /ends where it began: b/);
  assert.deepEqual(asked, ['b']);
});

test('whoever cannot read a page on the way has no list at all', async () => {
  await assert.rejects(
    wholeOf({ items: [1], nextCursor: 'b' }, () => Promise.reject(new Error('gone'))),
    /gone/,
  );
});
