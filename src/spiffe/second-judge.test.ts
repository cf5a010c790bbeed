import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bundleOf, requireCertificate } from '../../test/support/pki/bundles.ts';
import { createTestAuthority, type TestCertificate } from '../../test/support/pki/pki.ts';
import type { Certificate } from './x509/certificate.ts';
import { findPath, type PathRefusal } from './path.ts';

const NOW = Date.now();
const HOUR = 3_600_000;
const root = createTestAuthority();
const shared = root.intermediate({ subject: 'Shared' });
const again = root.crossSign(shared);
const leaf = shared.issue();

/** What the walk comes to with a second judge that objects to the paths that have a certificate of `not` in them, and which paths it was shown. */
function walk(
  sent: readonly TestCertificate[],
  not: readonly TestCertificate[],
  authorities: readonly TestCertificate[] = [root],
): { readonly shown: readonly (readonly string[])[]; readonly found: readonly string[] | PathRefusal } {
  const serials = (path: readonly Certificate[]): readonly string[] => path.map(({ serial }) => serial);
  const shown: (readonly string[])[] = [];
  const found = findPath(
    requireCertificate(leaf.der),
    sent.map(({ der }) => requireCertificate(der)),
    bundleOf('example.org', authorities),
    NOW,
    (path, nowMs) => {
      assert.equal(nowMs, NOW);
      shown.push(serials(path));
      const minded = path.find(({ serial }) => not.some((each) => each.serial === serial));
      return minded === undefined ? undefined : { problem: 'untrusted_chain', detail: `not by ${minded.serial}` };
    },
  );
  return { shown, found: found.ok ? serials(found.value) : found.error };
}

const serialsOf = (...path: readonly TestCertificate[]): readonly string[] => path.map(({ serial }) => serial);

test('a second judge is shown whole paths that hold, and the first to which it does not object is found', () => {
  const [one, other] = [serialsOf(leaf, shared, root), serialsOf(leaf, again, root)];
  assert.deepEqual(walk([shared, again], []), { shown: [one], found: one });
  assert.deepEqual(walk([shared, again], [shared]), { shown: [one, other], found: other });
  assert.deepEqual(walk([shared, again], [shared, again]), {
    shown: [one, other],
    found: { problem: 'untrusted_chain', detail: `not by ${shared.serial}` },
  });
});

test('a second judge is not asked about strangers, nor about paths that do not hold', () => {
  const stranger = createTestAuthority().crossSign(shared);
  const broken = [
    root.crossSign(shared, { isCa: false }),
    root.crossSign(shared, { badSignature: true }),
    root.crossSign(shared, { notBefore: NOW - 2 * HOUR, notAfter: NOW - HOUR }),
  ];
  const { shown, found } = walk([stranger, ...broken], []);
  assert.deepEqual(shown, []);
  assert.equal('problem' in found && found.problem, 'expired');
  // An objection says more than that another path is out of time.
  const objected = walk([...broken, shared], [shared]).found;
  assert.deepEqual(objected, { problem: 'untrusted_chain', detail: `not by ${shared.serial}` });
});
