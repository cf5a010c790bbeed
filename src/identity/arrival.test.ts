import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createTestAuthority } from '../../test/support/pki/pki.ts';
import { heldSnapshot, svidOf } from '../../test/support/pki/snapshots.ts';
import { Arrival } from './arrival.ts';
import type { NoIdentity } from './snapshot.ts';

const authority = createTestAuthority();
const none: NoIdentity = { kind: 'none', generation: 1, receivedAtMs: 0, reason: 'denied', bundles: new Map() };
const web = heldSnapshot([svidOf(authority, 'spiffe://example.org/web')]);
const both = heldSnapshot([svidOf(authority, 'spiffe://example.org/web'), svidOf(authority, 'spiffe://example.org/db', { hint: 'db' })]);

test('the first SVID is awaited until it comes, and never again', () => {
  const arrival = new Arrival({ by: 'default' });
  assert.equal(arrival.isAwaited, true);

  arrival.note(web);
  assert.equal(arrival.isAwaited, false);

  arrival.note(none);
  assert.equal(arrival.isAwaited, false);
});

test('an agent that does not know us yet does not end the wait', () => {
  const arrival = new Arrival({ by: 'default' });

  arrival.note(none);
  arrival.note(none);
  assert.equal(arrival.isAwaited, true);

  arrival.note(web);
  assert.equal(arrival.isAwaited, false);
});

test('an SVID that is chosen by its hint is awaited while others come, until identity is withdrawn', () => {
  const served = new Arrival({ by: 'hint', hint: 'db' });
  served.note(web);
  assert.equal(served.isAwaited, true);
  served.note(both);
  assert.equal(served.isAwaited, false);

  const withdrawn = new Arrival({ by: 'hint', hint: 'db' });
  withdrawn.note(web);
  withdrawn.note(none);
  assert.equal(withdrawn.isAwaited, false);
});
