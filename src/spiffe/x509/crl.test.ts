import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bundlesOf, requireCertificate } from '../../../test/support/pki/bundles.ts';
import { element, sequence } from '../../../test/support/pki/der-writer.ts';
import {
  COMMON_NAME,
  createTestAuthority,
  directoryName,
  distinguishedName,
  dnsName,
  ORGANISATION,
  uriName,
} from '../../../test/support/pki/pki.ts';
import { parseCrl } from './crl.ts';
import { verifyPeer } from '../verify.ts';

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

test('entries that name the issuer of the list itself are read, and those that follow, until another is named', () => {
  const somebody = createTestAuthority({ subject: 'Somebody' });
  const inOtherLetters = distinguishedName([ORGANISATION, 'SCUTE  test'], [COMMON_NAME, 'root example.org']);
  const of = (...names: readonly Uint8Array[]) => [{ oid: '2.5.29.29', critical: true, value: sequence(...names) }];

  const crl = requireCrl(
    root.crl({
      revoked: [
        { serial: '01', extensions: of(directoryName(root.name)) },
        '02',
        { serial: '03', extensions: of(directoryName(somebody.name)) },
        '04',
        { serial: '05', extensions: of(uriName('ldap://example.org'), directoryName(root.name)) },
        '06',
        { serial: '07', extensions: of(uriName('ldap://example.org')) },
        { serial: '08', extensions: of(directoryName(inOtherLetters)) },
      ],
    }),
  );

  const serials = ['01', '02', '03', '04', '05', '06', '07', '08'];
  assert.deepEqual(
    serials.filter((serial) => crl.isRevoked(serial)),
    ['01', '02', '05', '06', '08'],
  );
  assert.deepEqual(crl.notes, ['is an indirect list: entries of other issuers are not read']);
  assert.equal(parseCrl(root.crl({ revoked: [{ serial: '01', extensions: of() }] })).ok, false, 'an issuer without a name');
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
