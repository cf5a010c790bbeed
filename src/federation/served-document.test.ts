import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createTestAuthority } from '../../test/support/pki/pki.ts';
import { heldSnapshot, svidOf } from '../../test/support/pki/snapshots.ts';
import { documentOf, type ServedDocument } from './served-document.ts';

const [one, two] = [createTestAuthority(), createTestAuthority()];
const us = svidOf(one, 'spiffe://example.org/us');
const other = createTestAuthority({ trustDomain: 'other.test' });
const them = svidOf(other, 'spiffe://other.test/us');
const HELD = heldSnapshot([us], [one]);

function at(seconds: number, last?: ServedDocument, snapshot: Parameters<typeof documentOf>[0] = HELD): ServedDocument {
  return documentOf(snapshot, { by: 'default' }, 60_000, last, seconds * 1000) ?? assert.fail('nothing to serve');
}

test('the number of a bundle is the time of its change, and grows though the clock goes back', () => {
  const first = at(1_800_000_000);
  const changed = at(1_700_000_000, first, { ...HELD, bundles: heldSnapshot([us], [two]).bundles });

  assert.deepEqual([first.sequence, changed.sequence], [1_800_000_000n, 1_800_000_001n]);
  assert.match(changed.text, /"spiffe_sequence":1800000001,/);
});

test('the same content keeps its number, and so does one that comes back after no identity', () => {
  const first = at(1_800_000_000);
  const none = documentOf(
    { kind: 'none', generation: 2, receivedAtMs: 0, reason: '', bundles: HELD.bundles },
    { by: 'default' },
    60_000,
    first,
    0,
  );

  assert.equal(none, undefined);
  assert.equal(at(1_900_000_000, first), first);
});

test('whose bundle it is, the chosen identity says', () => {
  const both = heldSnapshot([us, them], [one, other]);
  const chosen = documentOf(both, { by: 'id', id: them.id }, 60_000, undefined, 1e12);

  assert.equal(chosen?.trustDomain, 'other.test');
  assert.equal(documentOf(HELD, { by: 'id', id: them.id }, 60_000, undefined, 1e12), undefined);
});

test('a clock from before 1970 gives a number all the same', () => {
  assert.equal(at(-5).sequence, 1n);
});
