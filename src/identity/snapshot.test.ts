import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createTestAuthority } from '../../test/support/pki/pki.ts';
import { heldSnapshot, svidOf } from '../../test/support/pki/snapshots.ts';
import { requireSpiffeId } from '../spiffe/spiffe-id.ts';
import { chooseSvid, type NoIdentity } from './snapshot.ts';

const authority = createTestAuthority();
const web = svidOf(authority, 'spiffe://example.org/web', { hint: 'front' });
const first = svidOf(authority, 'spiffe://example.org/batch', { hint: 'night' });
const second = svidOf(authority, 'spiffe://example.org/batch', { hint: 'day' });
const snapshot = heldSnapshot([web, first, second]);

test('the default SVID is the first', () => {
  assert.equal(chooseSvid(snapshot, { by: 'default' }), web);
});

test('an SVID is chosen by its SPIFFE ID; of two with the same ID the first', () => {
  assert.equal(chooseSvid(snapshot, { by: 'id', id: requireSpiffeId('spiffe://example.org/batch') }), first);
});

test('an SVID is chosen by its hint', () => {
  assert.equal(chooseSvid(snapshot, { by: 'hint', hint: 'day' }), second);
});

test('a choice that names nothing never falls back to another identity', () => {
  assert.equal(chooseSvid(snapshot, { by: 'id', id: requireSpiffeId('spiffe://example.org/other') }), undefined);
  assert.equal(chooseSvid(snapshot, { by: 'hint', hint: 'DAY' }), undefined);
});

test('nothing is chosen before the first answer, nor after a withdrawal', () => {
  const none: NoIdentity = { kind: 'none', generation: 2, receivedAtMs: 0, reason: 'denied', bundles: new Map() };

  assert.equal(chooseSvid(undefined, { by: 'default' }), undefined);
  assert.equal(chooseSvid(none, { by: 'default' }), undefined);
});
