import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createTestAuthority } from '../../test/support/pki/pki.ts';
import { bundleOf, heldSnapshot, svidOf } from '../../test/support/pki/snapshots.ts';
import type { HeldIdentity, NoIdentity } from '../identity/snapshot.ts';
import { readOnlyMap } from '../identity/read-only-map.ts';
import { HeldBook } from './held-book.ts';

const ID = 'spiffe://example.org/a';
const authority = createTestAuthority();
const partner = createTestAuthority({ trustDomain: 'partner.test' });

function told(book: HeldBook): readonly string[] {
  return book.changes.map(({ change, spiffeId, trustDomain }) => `${change} ${spiffeId ?? trustDomain ?? ''}`);
}

const svids = (book: HeldBook) => [...book.of('svid')].map(({ svid, rotations, generation }) => [svid?.hint, rotations, generation]);

test('a certificate that stays keeps its generation, its time and its place', () => {
  const book = new HeldBook();
  const svid = svidOf(authority, ID);
  book.update(heldSnapshot([svid], [authority], 1), 1000);
  const [before] = book.of('svid');

  book.update(heldSnapshot([svid], [authority, partner], 2), 2000);

  const [after] = book.of('svid');
  assert.deepEqual(after, before);
  assert.deepEqual([after?.receivedAtMs, after?.generation, after?.rotations], [1000, 1, 0]);
  assert.deepEqual(told(book), [`svid_added ${ID}`, 'authority_added partner.test']);
});

test('identities are told apart by hint, and by their order where they have the same', () => {
  const book = new HeldBook();
  const [plain, other, night] = [svidOf(authority, ID), svidOf(authority, ID), svidOf(authority, ID, { hint: 'night' })];
  book.update(heldSnapshot([plain, other, night], [authority], 1), 1000);

  book.update(heldSnapshot([plain, svidOf(authority, ID), night], [authority], 2), 2000);
  book.update(heldSnapshot([plain, svidOf(authority, ID), svidOf(authority, ID, { hint: 'night' })], [authority], 3), 3000);

  assert.deepEqual(new Set(svids(book).map((each) => each.join())), new Set([',0,1', ',2,3', 'night,1,3']));
});

test('one certificate that the agent gives twice is there twice, for each purpose', () => {
  const book = new HeldBook();
  const svid = svidOf(authority, ID);

  book.update(heldSnapshot([svid, { ...svid, hint: 'night' }], [authority]), 1000);

  const all = [...book.of('svid')];
  assert.deepEqual(new Set(all.map((held) => held.svid?.hint)), new Set(['', 'night']));
  assert.equal(new Set(all.map(({ id }) => id)).size, 2);
});

test('a withdrawal is told with what went, and who comes back begins anew', () => {
  const book = new HeldBook();
  const held = heldSnapshot([svidOf(authority, ID)], [authority], 1);
  const none: NoIdentity = { kind: 'none', generation: 2, receivedAtMs: 0, reason: 'denied', bundles: new Map() };
  book.update(held, 1000);

  book.update(none, 2000);
  book.update(heldSnapshot([svidOf(authority, ID)], [authority], 3), 3000);

  assert.deepEqual(told(book), [
    `svid_added ${ID}`,
    'authority_removed example.org',
    'identity_withdrawn ',
    `svid_removed ${ID}`,
    'authority_added example.org',
    `svid_added ${ID}`,
  ]);
  assert.deepEqual(svids(book), [['', 0, 3]]);
});

test('an intermediate is linked to its authority, and the leaf to it', () => {
  const middle = authority.intermediate();
  const leaf = middle.issue({ id: ID });
  const made = svidOf(authority, ID);
  const book = new HeldBook();
  const chain = svidOf({ ...authority, issue: () => leaf }, ID);
  book.update(heldSnapshot([chain], [authority]), 1000);

  const [svid] = book.of('svid');
  const [between] = book.of('intermediate');
  assert.equal(svid?.issuer, between?.id);
  assert.equal(between?.issuer, `authority:example.org:${made.authority.sha256}`);
  assert.deepEqual(
    [...book.of('authority')].map(({ issued }) => issued),
    [1],
  );
});

test('of a partner that changes 512 authorities at once the timeline keeps a part, and what became of us', () => {
  const book = new HeldBook();
  const many = createTestAuthority({ trustDomain: 'partner.test' });
  const bundle = bundleOf(many);
  const [first] = bundle.authorities;
  assert.ok(first);
  const flood = Array.from({ length: 512 }, (_, index) => ({ ...first, sha256: index.toString(16).padStart(64, '0') }));
  book.update(heldSnapshot([svidOf(authority, ID)], [authority], 1), 1000);
  const base = heldSnapshot([svidOf(authority, ID)], [authority], 2);
  const snapshot: HeldIdentity = {
    ...base,
    bundles: readOnlyMap([...base.bundles, [bundle.trustDomain, { ...bundle, authorities: flood }]]),
  };

  book.update(snapshot, 2000);

  assert.equal(book.changes.length, 128);
  assert.equal(told(book).at(-1), `svid_rotated ${ID}`);
});

test('nothing of a private key is kept', () => {
  const book = new HeldBook();
  book.update(heldSnapshot([svidOf(authority, ID)], [authority]), 1000);

  const [held] = book.of('svid');

  assert.deepEqual(Object.keys(held?.svid ?? {}).toSorted(), ['hint', 'id', 'slot']);
});
