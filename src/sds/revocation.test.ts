import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bundleOf, requireCertificate } from '../../test/support/pki/bundles.ts';
import { boolean, element, sequence } from '../../test/support/pki/der-writer.ts';
import { createTestAuthority, type CrlOptions, type TestAuthority } from '../../test/support/pki/pki.ts';
import { usableCrls } from './revocation.ts';

const HOUR_MS = 3_600_000;
/** Dates in a list are whole seconds. */
const nowMs = Math.floor(Date.now() / 1000) * 1000;
const one = createTestAuthority({ subject: 'one' });
const two = createTestAuthority({ subject: 'two' });

/** What comes of these lists: how many are used, or the sentence. */
function outcome(authorities: readonly TestAuthority[], lists: readonly Uint8Array[], intermediates: readonly TestAuthority[] = []) {
  const bundle = bundleOf('example.org', authorities, lists);
  const used = usableCrls(
    bundle,
    intermediates.map(({ der }) => requireCertificate(der)),
    nowMs,
  );
  return used.ok ? used.value.crls.length : used.error;
}

const refused = /^example\.org: .* has no revocation list that Envoy could use, so none of the trust domain is sent$/;

test('lists are used where every authority has one, and every intermediate', () => {
  assert.equal(outcome([one], [one.crl()]), 1);
  assert.equal(outcome([one, two], [one.crl(), two.crl()]), 2);
  assert.match(String(outcome([one, two], [one.crl()])), refused);
  const intermediate = one.intermediate();
  assert.match(String(outcome([one], [one.crl()], [intermediate])), refused);
  assert.equal(outcome([one], [one.crl(), intermediate.crl()], [intermediate]), 2);
  assert.equal(outcome([one], [one.crl(), two.crl()]), 1, 'what is of nobody whom we know is left out');
});

test('a sentence names the authorities that have none, three of them at most', () => {
  const others = ['three', 'four', 'five'].map((subject) => createTestAuthority({ subject }));

  assert.match(
    String(outcome([one, two, ...others.slice(0, 1)], [])),
    /^example\.org: "CN=one[^"]*", "CN=two[^"]*", "CN=three[^"]*" has no/,
  );
  assert.doesNotMatch(String(outcome([one, two, ...others], [])), /five/);
});

test('a list that covers only a part is not used, since what it leaves out Envoy would admit', () => {
  const critical = { oid: '2.5.29.28', critical: true, value: sequence(element(0x82, boolean(true))) };

  assert.match(String(outcome([one], [one.crl({ extensions: [critical] })])), refused);
  assert.equal(outcome([one], [one.crl({ extensions: [critical] }), one.crl()]), 1);
});

test('a list is of the authority whose name it has, whatever key that shares with another', () => {
  const renamed = createTestAuthority({ subject: 'renamed', key: one.keys });

  assert.match(String(outcome([one, renamed], [one.crl()])), /"CN=renamed/);
  assert.equal(outcome([one, renamed], [one.crl(), renamed.crl()]), 2);
});

const named = (subjectKeyId: Uint8Array | null) => createTestAuthority({ subject: 'same', subjectKeyId });
const [A, B] = [Buffer.alloc(20, 1), Buffer.alloc(20, 2)];

for (const [what, authorities, options, isUsed] of [
  ['of one key, renewed', [one, createTestAuthority({ subject: 'one', key: one.keys })], { authorityKeyId: null }, true],
  ['alone, though the list does not say whose it is', [named(A)], { authorityKeyId: null }, true],
  ['alone, and without an identifier, though the list has one', [named(null)], { authorityKeyId: B }, true],
  ['besides another name', [named(A), two], { authorityKeyId: null }, true],
  ['besides another key, and the list says whose it is', [named(A), named(B)], {}, true],
  ['besides another key, and the list does not say whose it is', [named(A), named(B)], { authorityKeyId: null }, false],
  ['besides another key, and neither list nor authority have an identifier', [named(null), named(B)], { authorityKeyId: null }, false],
  ['besides another key, and the list says that it is of that', [named(A), named(B)], { authorityKeyId: B }, false],
] as const satisfies readonly (readonly [string, readonly TestAuthority[], CrlOptions, boolean])[]) {
  test(`an authority ${what}: its list is ${isUsed ? 'used' : 'not used'}`, () => {
    const [first, ...others] = authorities;
    const lists = [first.crl(options), ...others.filter(({ keys }) => keys !== first.keys).map((other) => other.crl())];

    const used = outcome(authorities, lists);

    if (isUsed) assert.equal(used, lists.length);
    else assert.match(String(used), refused);
  });
}

test('a list is of who signed it, though another has the same name and the same identifier', () => {
  const [first, second] = [named(A), named(A)];

  assert.match(String(outcome([first, second], [second.crl()])), refused);
  assert.equal(outcome([first, second], [first.crl(), second.crl()]), 2);
});

test('a list is in its time from thisUpdate until nextUpdate, and without the latter for good; these are what the notes change at', () => {
  const at = (thisUpdate: number, nextUpdate: number | null) => {
    const used = usableCrls(bundleOf('example.org', [one], [one.crl({ thisUpdate, nextUpdate })]), [], nowMs);
    assert.ok(used.ok && used.value.crls.length === 1, 'it is sent, in its time or not');
    return [used.value.notes.map((note) => (/not valid yet|past its nextUpdate/.exec(note) ?? [note])[0]), used.value.boundariesMs];
  };
  const [early, late] = [nowMs - HOUR_MS, nowMs + HOUR_MS];

  assert.deepEqual(at(early, late), [[], [late]]);
  assert.deepEqual(at(early, null), [[], []]);
  assert.deepEqual(at(nowMs, late), [[], [late]]);
  assert.deepEqual(at(nowMs + 1000, late), [['not valid yet'], [nowMs + 1000, late]]);
  assert.deepEqual(at(early, nowMs + 1000), [[], [nowMs + 1000]]);
  assert.deepEqual(at(early, nowMs), [['past its nextUpdate'], []]);
});

test('of several lists of one authority one in its time is enough', () => {
  const past = one.crl({ thisUpdate: nowMs - 2 * HOUR_MS, nextUpdate: nowMs - HOUR_MS });
  const notes = (...lists: readonly Uint8Array[]): readonly string[] => {
    const used = usableCrls(bundleOf('example.org', [one], lists), [], nowMs);
    return used.ok ? used.value.notes : [used.error];
  };

  assert.deepEqual(notes(past, one.crl()), []);
  const ahead = one.crl({ thisUpdate: nowMs + HOUR_MS, nextUpdate: nowMs + 2 * HOUR_MS });
  assert.match(notes(past, ahead)[0] ?? '', /is past its nextUpdate, so Envoy refuses all peers below it$/);
  assert.match(notes(ahead)[0] ?? '', /is not valid yet, so Envoy refuses all peers below it$/);
});
