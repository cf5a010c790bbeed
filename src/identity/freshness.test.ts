import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createTestAuthority } from '../../test/support/pki/pki.ts';
import { heldSnapshot, svidOf } from '../../test/support/pki/snapshots.ts';
import { freshnessOf } from './freshness.ts';
import type { NoIdentity, SvidChoice } from './snapshot.ts';

const authority = createTestAuthority();
const NOT_BEFORE = Math.floor(Date.now() / 1000) * 1000 - 60_000;
const NOT_AFTER = NOT_BEFORE + 600_000;
const DEFAULT: SvidChoice = { by: 'default' };
const snapshot = heldSnapshot([svidOf(authority, 'spiffe://example.org/a', { notBefore: NOT_BEFORE, notAfter: NOT_AFTER })]);

test('without a snapshot the SVID is absent, and time alone changes nothing', () => {
  assert.deepEqual(freshnessOf(undefined, DEFAULT, NOT_BEFORE), { state: 'absent', changesAtMs: undefined });
});

test('when the agent says that there is no identity the SVID is absent', () => {
  const none: NoIdentity = { kind: 'none', generation: 1, receivedAtMs: 0, reason: 'denied', bundles: new Map() };

  assert.equal(freshnessOf(none, DEFAULT, NOT_BEFORE).state, 'absent');
});

test('an SVID that is not among those held is absent, though the default one is valid', () => {
  assert.equal(freshnessOf(snapshot, { by: 'hint', hint: 'database' }, NOT_BEFORE).state, 'absent');
});

test('before notBefore the SVID is not yet valid, and becomes so at notBefore', () => {
  assert.deepEqual(freshnessOf(snapshot, DEFAULT, NOT_BEFORE - 1), { state: 'not_yet_valid', changesAtMs: NOT_BEFORE });
});

test('from notBefore to notAfter, both included, the SVID is valid', () => {
  for (const nowMs of [NOT_BEFORE, NOT_AFTER]) {
    assert.deepEqual(freshnessOf(snapshot, DEFAULT, nowMs), { state: 'valid', changesAtMs: NOT_AFTER + 1 });
  }
});

test('after notAfter the SVID is expired for good', () => {
  assert.deepEqual(freshnessOf(snapshot, DEFAULT, NOT_AFTER + 1), { state: 'expired', changesAtMs: undefined });
});
