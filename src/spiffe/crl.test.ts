import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bundleOf, bundlesOf, requireCertificate } from '../../test/support/bundles.ts';
import { element, sequence } from '../../test/support/der-writer.ts';
import { createTestAuthority, directoryName, dnsName } from '../../test/support/pki.ts';
import { parseCrl } from './crl.ts';
import { verifyPeer } from './verify.ts';

const NOW = Date.now();
const root = createTestAuthority();

function requireCrl(der: Uint8Array) {
  const parsed = parseCrl(der);
  assert.ok(parsed.ok, parsed.ok ? '' : parsed.error);
  return parsed.value;
}

function problemOf(chain: readonly Uint8Array[], crls: readonly Uint8Array[], authorities = [root], nowMs = NOW): string {
  const answer = verifyPeer(chain, bundlesOf({ 'example.org': authorities }, crls), nowMs);
  return answer.ok ? 'ok' : answer.error.problem;
}

test('a revocation list is read as it was written', () => {
  const thisUpdate = Date.UTC(2026, 0, 1);
  const nextUpdate = Date.UTC(2060, 0, 1);

  const crl = requireCrl(root.crl({ revoked: ['0a', 'ff01'], thisUpdate, nextUpdate }));

  assert.equal(crl.issuerDer, root.name.toString('hex'));
  assert.equal(crl.thisUpdateMs, thisUpdate);
  assert.equal(crl.nextUpdateMs, nextUpdate);
  assert.deepEqual(
    ['0a', 'a', 'ff01', '01'].map((serial) => crl.isRevoked(serial)),
    [true, false, true, false],
  );
  assert.deepEqual(crl.notes, []);
  assert.equal(crl.isSignedBy(requireCertificate(root.der)), true);
  assert.equal(crl.isSignedBy(requireCertificate(createTestAuthority().der)), false);
});

for (const key of ['p256', 'p384', 'rsa2048', 'ed25519'] as const)
  test(`lists signed with ${key} keys are applied`, () => {
    const authority = createTestAuthority({ key });
    const leaf = authority.issue();

    assert.equal(problemOf(leaf.chain, [authority.crl({ revoked: [leaf.serial] })], [authority]), 'revoked');
    assert.equal(problemOf(leaf.chain, [authority.crl({ revoked: ['1234'] })], [authority]), 'ok');
  });

test('a list signed with RSASSA-PSS is applied', () => {
  const authority = createTestAuthority({ key: 'rsa2048' });
  const leaf = authority.issue();

  assert.equal(problemOf(leaf.chain, [authority.crl({ revoked: [leaf.serial], signature: 'rsa-pss-sha256' })], [authority]), 'revoked');
});

test('a revoked peer is refused with its serial number, and others of the same issuer are not', () => {
  const [good, bad] = [root.issue(), root.issue()];
  const bundles = bundlesOf({ 'example.org': [root] }, [root.crl({ revoked: [bad.serial] })]);

  const answer = verifyPeer(bad.chain, bundles, NOW);

  assert.ok(!answer.ok);
  assert.equal(answer.error.problem, 'revoked');
  assert.ok(answer.error.detail.includes(bad.serial));
  assert.equal(verifyPeer(good.chain, bundles, NOW).ok, true);
});

test('a revoked intermediate refuses all that it issued', () => {
  const intermediate = root.intermediate();

  assert.equal(problemOf(intermediate.issue().chain, [root.crl({ revoked: [intermediate.serial] })]), 'revoked');
});

test('a list by an intermediate is applied to what it issued, once a peer sends it', () => {
  const intermediate = root.intermediate();
  const [good, bad] = [intermediate.issue(), intermediate.issue()];
  const crl = intermediate.crl({ revoked: [bad.serial] });

  assert.equal(problemOf(bad.chain, [crl]), 'revoked');
  assert.equal(problemOf(good.chain, [crl]), 'ok');
});

test('a list by an intermediate that does not verify refuses what that intermediate issued', () => {
  const intermediate = root.intermediate();

  assert.equal(problemOf(intermediate.issue().chain, [intermediate.crl({ badSignature: true })]), 'revoked');
  assert.equal(problemOf(root.issue().chain, [intermediate.crl({ badSignature: true })]), 'ok');
});

test('a list by another intermediate of the same name, which names another key, says nothing', () => {
  const [mine, other] = [root.intermediate(), root.intermediate()];

  assert.equal(problemOf(mine.issue().chain, [other.crl()]), 'ok');
});

test('an authority revokes with its new key what it issued with its old one', () => {
  const [old, renewed] = [createTestAuthority(), createTestAuthority()];
  const leaf = old.issue();

  assert.equal(problemOf(leaf.chain, [renewed.crl({ revoked: [leaf.serial] })], [old, renewed]), 'revoked');
});

test('the list of one trust domain says nothing of another', () => {
  const partner = createTestAuthority({ trustDomain: 'partner.example' });
  const leaf = partner.issue();
  const both = bundlesOf({ 'example.org': [root], 'partner.example': [partner] }, [root.crl({ revoked: [leaf.serial] })]);

  assert.equal(verifyPeer(leaf.chain, both, NOW).ok, true);
});

test('a list past its nextUpdate goes on revoking what it lists', () => {
  const [good, bad] = [root.issue(), root.issue()];
  const crl = root.crl({ revoked: [bad.serial], thisUpdate: NOW - 10_000, nextUpdate: NOW - 5000 });

  assert.equal(problemOf(bad.chain, [crl]), 'revoked');
  assert.equal(problemOf(good.chain, [crl]), 'ok');
});

test('a list past its nextUpdate does not shorten how long an answer holds', () => {
  const crl = root.crl({ nextUpdate: NOW - 5000 });

  // Before the root's own end.
  const { chain } = root.issue({ notAfter: NOW + 60_000 });

  const answer = verifyPeer(chain, bundlesOf({ 'example.org': [root] }, [crl]), NOW);

  assert.ok(answer.ok);
  assert.equal(answer.value.validUntilMs, answer.value.leaf.notAfterMs);
});

test('an answer holds no longer than the nextUpdate of the lists consulted', () => {
  const nextUpdate = Math.floor(NOW / 1000) * 1000 + 60_000;

  const answer = verifyPeer(root.issue().chain, bundlesOf({ 'example.org': [root] }, [root.crl({ nextUpdate })]), NOW);

  assert.ok(answer.ok);
  assert.equal(answer.value.validUntilMs, nextUpdate);
});

test('a list that covers only a part is noted, and revokes what it lists', () => {
  const bad = root.issue();
  const point = { oid: '2.5.29.28', critical: true, value: sequence(element(0xa0, element(0xa0, dnsName('crl.example')))) };
  const der = root.crl({ revoked: [bad.serial], extensions: [point] });

  assert.match(requireCrl(der).notes.join(), /2\.5\.29\.28/);
  assert.equal(problemOf(bad.chain, [der]), 'revoked');
  assert.equal(problemOf(root.issue().chain, [der]), 'ok');
});

test('what a list may mean beyond what it lists is noted, and what it lists is revoked', () => {
  const bad = root.issue();
  const point = { oid: '2.5.29.28', value: sequence(element(0xa0, element(0xa0, dnsName('crl.example')))) };
  const unknown = { oid: '1.2.3.4', critical: true, value: element(0x05) };
  for (const [der, note] of [
    [root.crl({ revoked: [bad.serial], extensions: [point] }), /^has the extension 2\.5\.29\.28: it may not list all that is revoked$/],
    [root.crl({ revoked: [{ serial: bad.serial, extensions: [unknown] }] }), /^has entries with the critical extension 1\.2\.3\.4/],
    [root.crl({ revoked: [bad.serial], version: null }), /^has extensions, though it is of version 1$/],
    [root.crl({ revoked: [bad.serial], extensions: [{ ...unknown, critical: false }] }), /^$/],
  ] as const) {
    assert.match(requireCrl(der).notes.join(), note);
    assert.equal(problemOf(bad.chain, [der]), 'revoked');
  }
});

test('an entry that takes back an earlier one does not revoke', () => {
  const leaf = root.issue();
  const removed = { oid: '2.5.29.21', value: element(0x0a, Buffer.from([8])) };
  const compromised = { oid: '2.5.29.21', value: element(0x0a, Buffer.from([1])) };

  assert.equal(problemOf(leaf.chain, [root.crl({ revoked: [{ serial: leaf.serial, extensions: [removed] }] })]), 'ok');
  assert.equal(problemOf(leaf.chain, [root.crl({ revoked: [{ serial: leaf.serial, extensions: [compromised] }] })]), 'revoked');
});

test('entries of other issuers in an indirect list are left out and noted', () => {
  const leaf = root.issue();
  const issuer = { oid: '2.5.29.29', critical: true, value: sequence(directoryName(createTestAuthority({ subject: 'Somebody' }).name)) };

  const crl = requireCrl(root.crl({ revoked: ['01', { serial: '02', extensions: [issuer] }, leaf.serial] }));

  assert.deepEqual(
    ['01', '02', leaf.serial].map((serial) => crl.isRevoked(serial)),
    [true, false, false],
  );
  assert.match(crl.notes.join(), /indirect/);
});

test('anything but one whole list is an error, and nothing is thrown', () => {
  const der = root.crl({ revoked: ['01', '02'] });

  for (let length = 0; length < der.length; length += 1) assert.equal(parseCrl(der.subarray(0, length)).ok, false, `${length} bytes`);
  assert.equal(parseCrl(Buffer.concat([der, Buffer.from([0])])).ok, false);
  assert.equal(parseCrl(root.der).ok, false);
  for (let at = 0; at < der.length * 8; at += 1) {
    const flipped = Buffer.from(der);
    flipped[at >> 3] = (flipped[at >> 3] ?? 0) ^ (1 << (at & 7));
    const parsed = parseCrl(flipped);
    assert.ok(!parsed.ok || !parsed.value.isSignedBy(requireCertificate(root.der)), `bit ${at}`);
  }
});

test('lists of a bundle are kept apart from those that match no authority of it', () => {
  const bundle = bundleOf('example.org', [root], [root.crl(), createTestAuthority({ subject: 'Other' }).crl()]);

  assert.equal(bundle.crls.length, 1);
  assert.equal(bundle.unmatchedCrls.length, 1);
});
