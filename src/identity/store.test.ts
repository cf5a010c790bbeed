import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createTestAuthority } from '../../test/support/pki.ts';
import { heldSnapshot, svidOf } from '../../test/support/snapshots.ts';
import type { HeldIdentity } from './snapshot.ts';
import { createIdentityStore } from './store.ts';

const authority = createTestAuthority();
const svid = svidOf(authority, 'spiffe://example.org/a');
const numbered = (generation: number): HeldIdentity => heldSnapshot([svid], [authority], generation);

test('there is no snapshot before the first is published', () => {
  const { view } = createIdentityStore();

  assert.equal(view.current(), undefined);
});

test('a reader sees the very snapshot that was published last', () => {
  const { view, publisher } = createIdentityStore();
  const second = numbered(2);

  publisher.publish(numbered(1));
  publisher.publish(second);

  assert.equal(view.current(), second);
});

test('a snapshot that is not newer than the one held is dropped, and nobody is told of it', () => {
  const { view, publisher } = createIdentityStore();
  const seen: number[] = [];
  view.subscribe(({ generation }) => seen.push(generation));

  for (const generation of [2, 1, 2, 3]) publisher.publish(numbered(generation));

  assert.deepEqual(seen, [2, 3]);
  assert.equal(view.current()?.generation, 3);
});

test('a subscriber is told of the current snapshot at once, and of no more after it has left', () => {
  const { view, publisher } = createIdentityStore();
  publisher.publish(numbered(1));
  const seen: number[] = [];

  const leave = view.subscribe(({ generation }) => seen.push(generation));
  publisher.publish(numbered(2));
  leave();
  publisher.publish(numbered(3));

  assert.deepEqual(seen, [1, 2]);
});
