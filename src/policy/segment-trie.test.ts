import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Draws } from '../../test/fuzz/random.ts';
import { SegmentTrie, type SegmentPattern } from './segment-trie.ts';

const MANY = 200_000;

function trieOf(...patterns: readonly SegmentPattern[]): SegmentTrie<number> {
  const trie = new SegmentTrie<number>();
  for (const [index, pattern] of patterns.entries()) trie.at(pattern, () => index);
  return trie;
}

function found(trie: SegmentTrie<number>, path: string): number[] {
  const values: number[] = [];
  trie.find(path, (value) => values.push(value));
  return values.toSorted((a, b) => a - b);
}

test('a pattern and a path may have more segments than there is stack for', () => {
  const exact = Array.from({ length: MANY }, () => 'a');
  const wild = Array.from({ length: MANY }, () => undefined);
  const trie = trieOf({ segments: exact, hasMore: false }, { segments: wild, hasMore: false }, { segments: exact.slice(1), hasMore: true });
  const path = '/a'.repeat(MANY);
  assert.deepEqual(found(trie, path), [0, 1, 2]);
  assert.deepEqual(found(trie, `${path}/a`), [2]);
  assert.deepEqual(found(trie, `/b${path.slice(2)}`), [1]);
  assert.deepEqual(found(trie, path.slice(2)), []);
});

test('patterns of many wildcards cost no more steps than they have segments, however a path goes through them', () => {
  // Through all of these at each step, and so 2^20 ways if any were gone twice.
  const depth = 20;
  const patterns = Array.from({ length: depth }, (_, place) => ({
    segments: Array.from({ length: depth }, (_, at) => (at === place ? undefined : 'a')),
    hasMore: false,
  }));
  const trie = trieOf(...patterns, { segments: Array.from({ length: depth }, () => undefined), hasMore: false });
  let looks = 0;
  const path = '/a'.repeat(depth);
  // What is looked at of a path is asked for here.
  const counted = new Proxy<object>(Object(path) as object, {
    get(target, key) {
      if (key === 'indexOf') looks++;
      const value: unknown = Reflect.get(target, key);
      return typeof value === 'function' ? (value.bind(path) as unknown) : value;
    },
  }) as unknown as string;
  assert.equal(found(trie, counted).length, depth + 1);
  assert.ok(looks <= (depth + 1) * depth, `${looks}`);
});

test('a look-up finds what a plain comparison of segments finds', () => {
  const draws = new Draws(20_261_130);
  const segment = (): string | undefined => (draws.once(3) ? undefined : draws.of(['a', 'b']));
  let matched = 0;
  for (let round = 0; round < 2000; round++) {
    const patterns = new Map<string, SegmentPattern>();
    for (let count = 1 + draws.below(6); count > 0; count--) {
      const pattern = { segments: Array.from({ length: draws.below(5) }, segment), hasMore: draws.once(3) };
      patterns.set(JSON.stringify([pattern.segments.map((each) => each ?? null), pattern.hasMore]), pattern);
    }
    const all = [...patterns.values()];
    const segments = Array.from({ length: 1 + draws.below(5) }, () => draws.of(['a', 'b', 'c', '']));
    const expected = all.flatMap((pattern, index) => (matches(pattern, segments) ? [index] : []));
    assert.deepEqual(found(trieOf(...all), `/${segments.join('/')}`), expected, `${JSON.stringify(all)} ${segments.join('/')}`);
    matched += expected.length;
  }
  assert.ok(matched > 500, `${matched}`);
});

function matches({ segments, hasMore }: SegmentPattern, path: readonly string[]): boolean {
  if (hasMore ? path.length <= segments.length : path.length !== segments.length) return false;
  return segments.every((segment, at) => (segment === undefined ? path[at] !== '' : path[at] === segment));
}
