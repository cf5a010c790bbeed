import assert from 'node:assert/strict';
import { X509Certificate, type KeyObject } from 'node:crypto';
import { test } from 'node:test';
import { requireCertificate } from '../../test/support/pki/bundles.ts';
import { createTestAuthority, type TestCertificate } from '../../test/support/pki/pki.ts';
import type { PathRefusal } from '../spiffe/path.ts';
import { createPathRecheck } from './path-recheck.ts';

const SECOND = 1000;
const NOW = Math.floor(Date.now() / SECOND) * SECOND;
const root = createTestAuthority();
const intermediate = root.intermediate();

/** What OpenSSL says to this path, which our own walk need not have found. */
function recheck(path: readonly TestCertificate[], nowMs = NOW): PathRefusal | undefined {
  return createPathRecheck('CERT_SIGNATURE_FAILURE')(
    path.map(({ der }) => requireCertificate(der)),
    nowMs,
    nowMs,
  );
}

test('a path on which every step holds is agreed to, a root alone as well', () => {
  assert.equal(recheck([intermediate.issue(), intermediate, root]), undefined);
  assert.equal(recheck([root.issue(), root]), undefined);
  assert.equal(recheck([root]), undefined);
  // An anchor need not say what its key is for, and a certificate need not name the key that signed it.
  const terse = createTestAuthority({ keyUsage: null, subjectKeyId: null, authorityKeyId: null });
  assert.equal(recheck([terse.issue({ subjectKeyId: null, authorityKeyId: null }), terse]), undefined);
});

const foreignId = Buffer.alloc(20, 7);
const noCa = root.crossSign(intermediate, { isCa: false });
const noUsage = root.crossSign(intermediate, { keyUsage: ['crlSign'] });
const forger = createTestAuthority({ subject: root.name, subjectKeyId: Buffer.alloc(20, 1) });
const forged = createTestAuthority({ subject: root.name, subjectKeyId: Buffer.alloc(20, 1) });
const OBJECTIONS: readonly [string, readonly TestCertificate[], RegExp][] = [
  ['another issuer is named', [root.issue({ issuerName: intermediate.name }), root], /by names, key identifiers and key usage/],
  ['another key identifier is named', [root.issue({ authorityKeyId: foreignId }), root], /by names, key identifiers and key usage/],
  ['an issuer may not sign certificates', [noUsage.issue(), noUsage, root], /by names, key identifiers and key usage/],
  ['an issuer is no CA', [noCa.issue(), noCa, root], /Intermediate.* is no CA/],
  ['the leaf is signed by another key', [forged.issue(), forger], /the signature of .*Workload.* is not by .*Root/],
  ['a signature is spoilt above the leaf', [intermediate.issue(), root.crossSign(intermediate, { badSignature: true }), root], /signature/],
  ['a step is left out', [intermediate.issue(), root], /by names/],
];

for (const [what, path, detail] of OBJECTIONS) {
  test(`a path is objected to when ${what}`, () => {
    const objection = recheck(path);
    assert.equal(objection?.problem, 'untrusted_chain');
    assert.match(objection.detail, /^OpenSSL does not trust the chain: CERT_SIGNATURE_FAILURE, nor the path that was found: /);
    assert.match(objection.detail, detail);
  });
}

test('every date on the path is read, at its very second, the end of validity being over as OpenSSL has it', () => {
  const [from, to] = [NOW - 100 * SECOND, NOW + 100 * SECOND];
  const short = root.crossSign(intermediate, { notBefore: from, notAfter: to });
  const shortRoot = createTestAuthority({ notBefore: from, notAfter: to });
  for (const path of [
    [root.issue({ notBefore: from, notAfter: to }), root],
    [short.issue(), short, root],
    [shortRoot.issue(), shortRoot],
  ]) {
    assert.equal(recheck(path, to - 1), undefined);
    assert.equal(recheck(path, to)?.problem, 'expired');
  }
  const late = NOW + 10 * SECOND;
  const lateIssuer = root.crossSign(intermediate, { notBefore: late });
  for (const path of [
    [root.issue({ notBefore: late }), root],
    [lateIssuer.issue(), lateIssuer, root],
  ]) {
    assert.equal(recheck(path, late), undefined);
    assert.equal(recheck(path, late - 1)?.problem, 'not_yet_valid');
  }
  assert.equal(recheck([root.issue(), root], Number.NaN)?.problem, 'expired');
});

test('years beyond 2049, which certificates write in another form, are read as well', () => {
  const long = createTestAuthority({ notBefore: Date.UTC(1970, 0, 1), notAfter: Date.UTC(9999, 11, 31, 23, 59, 59) });
  const leaf = long.issue({ notBefore: Date.UTC(1970, 0, 1), notAfter: Date.UTC(2060, 0, 1) });
  assert.equal(recheck([leaf, long], Date.UTC(2059, 11, 31)), undefined);
  assert.equal(recheck([leaf, long], Date.UTC(2060, 0, 1))?.problem, 'expired');
});

test('a step that many paths share is judged once: a peer may hold an authority under which there are hundreds', () => {
  let checks = 0;
  class Counted extends X509Certificate {
    override verify(key: KeyObject): boolean {
      checks += 1;
      return super.verify(key);
    }
  }
  const ask = createPathRecheck('CERT_SIGNATURE_FAILURE');
  const { der } = intermediate.issue();
  const counted = { ...requireCertificate(der), x509: new Counted(der) };
  const [issuer, unrelated] = [intermediate, createTestAuthority()].map((each) => requireCertificate(each.der));
  assert.ok(issuer && unrelated);
  for (let time = 0; time < 3; time += 1) {
    assert.equal(ask([counted, issuer, requireCertificate(root.der)], NOW, NOW), undefined);
    assert.notEqual(ask([counted, issuer, unrelated], NOW, NOW), undefined);
  }
  assert.equal(checks, 1);
});
