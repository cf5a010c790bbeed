import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HeldChains } from './peer-chains.ts';

/** What is held after each collection until nothing is. */
function drained(held: HeldChains): number[] {
  const bytes = [held.bytes];
  while (held.bytes > 0) {
    assert.ok(bytes.length < 1000, 'it never ends');
    held.collected();
    bytes.push(held.bytes);
  }
  return bytes;
}

test('a chain is held until as many collections have gone by as it has certificates, and one more', () => {
  const held = new HeldChains();
  held.hold(3, 1000);
  const [whole = 0, ...rest] = drained(held);
  assert.equal(whole, 3 * 1536 + 18 * 1000);
  assert.deepEqual(
    rest.map((bytes) => Math.round((bytes / whole) * 100)),
    [75, 50, 25, 0],
  );
});

test('chains of different lengths and ages are freed side by side', () => {
  const held = new HeldChains();
  held.hold(120, 8000);
  for (let collections = 0; collections < 100; collections++) held.collected();
  held.hold(3, 500);
  const long = 120 * 1536 + 18 * 8000;
  assert.equal(Math.round(held.bytes), Math.round((long * 21) / 121 + 3 * 1536 + 9000));
  assert.equal(drained(held).length, 1 + 21);
  held.collected();
  assert.equal(held.bytes, 0);
});

test('one or two certificates are gone with the next collections of young objects, and counted only if they are large', () => {
  const held = new HeldChains();
  held.hold(1, 4096);
  held.hold(2, 4096);
  assert.equal(held.bytes, 0);
  held.hold(1, 4097);
  assert.equal(held.bytes, 1536 + 18 * 4097);
});

test('thousands of chains leave nothing of their fractions behind', () => {
  const held = new HeldChains();
  for (let index = 0; index < 5000; index++) {
    held.hold((index % 13) + 3, index);
    if (index % 3 === 0) held.collected();
    assert.ok(held.bytes > 0);
  }
  drained(held);
  assert.equal(held.bytes, 0);
});
