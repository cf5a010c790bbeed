import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AsnConvert } from '@peculiar/asn1-schema';
import * as asn1 from '@peculiar/asn1-x509';
import { requireCertificate } from '../../../test/support/pki/bundles.ts';
import { element, integer, oid, sequence } from '../../../test/support/pki/der-writer.ts';
import {
  COMMON_NAME,
  createTestAuthority,
  distinguishedName,
  emailName,
  ipName,
  ORGANISATION,
  uriName,
} from '../../../test/support/pki/pki.ts';
import { parseCertificate, splitCertificates } from './certificate.ts';

const root = createTestAuthority();

function errorOf(der: Uint8Array): string {
  const parsed = parseCertificate(der);
  return parsed.ok ? 'ok' : parsed.error;
}

function withSan(value: Uint8Array): string {
  return errorOf(root.issue({ uriSans: [], extensions: [{ oid: '2.5.29.17', value }] }).der);
}

/** Replaces the only occurrence of `from`. */
function patch(der: Buffer, from: Buffer, to: Buffer): Buffer {
  const at = der.indexOf(from);
  assert.ok(at !== -1 && from.length === to.length);
  return Buffer.concat([der.subarray(0, at), to, der.subarray(at + from.length)]);
}

test('a certificate is read as it was written', () => {
  const notBefore = Date.UTC(2026, 0, 2, 3, 4, 5);
  const notAfter = Date.UTC(2051, 11, 31, 23, 59, 59);
  const key = Buffer.from('00ff10', 'hex');
  const intermediate = root.intermediate({ serial: '0080ab', notBefore, notAfter, pathLength: 2, subjectKeyId: key });

  const certificate = requireCertificate(intermediate.der);

  assert.equal(certificate.serial, '80ab');
  assert.equal(certificate.subject, 'CN=Intermediate example.org,O=Scute test');
  assert.equal(certificate.issuer, 'CN=Root example.org,O=Scute test');
  assert.equal(certificate.subjectDer, intermediate.name.toString('hex'));
  assert.equal(certificate.issuerDer, root.name.toString('hex'));
  assert.equal(certificate.notBeforeMs, notBefore);
  assert.equal(certificate.notAfterMs, notAfter);
  assert.equal(certificate.subjectKeyId, '00ff10');
  assert.equal(certificate.authorityKeyId, requireCertificate(root.der).subjectKeyId);
  assert.deepEqual(certificate.uriSans, ['spiffe://example.org']);
  assert.deepEqual(certificate.extensions.basicConstraints, { isCa: true, pathLength: 2 });
  assert.deepEqual(certificate.extensions.keyUsage, { critical: true, digitalSignature: false, keyCertSign: true, crlSign: true });
  assert.equal(certificate.sha256, certificate.x509.fingerprint256.replaceAll(':', '').toLowerCase());
  assert.equal(certificate.pem(), intermediate.pem);
  assert.equal(certificate.isSignedBy(requireCertificate(root.der)), true);
  assert.equal(certificate.isSignedBy(certificate), false);
});

test('our reader and an independent one agree on every field', () => {
  const leaf = root.issue({
    dnsSans: ['a.example'],
    otherSans: [emailName('a@b.example'), ipName([10, 0, 0, 1])],
    nameConstraints: { permitted: [uriName('.example.org')], excluded: [uriName('bad.example.org')] },
  });

  const ours = requireCertificate(leaf.der);
  const theirs = AsnConvert.parse(leaf.der, asn1.Certificate).tbsCertificate;
  const extension = (id: string): ArrayBuffer => {
    const found = theirs.extensions?.find(({ extnID }) => extnID === id);
    assert.ok(found);
    return found.extnValue.buffer;
  };
  const san = AsnConvert.parse(extension(asn1.id_ce_subjectAltName), asn1.SubjectAlternativeName);
  const constraints = AsnConvert.parse(extension(asn1.id_ce_nameConstraints), asn1.NameConstraints);

  assert.equal(Buffer.from(theirs.serialNumber).toString('hex'), ours.serial);
  assert.equal(theirs.validity.notBefore.getTime().getTime(), ours.notBeforeMs);
  assert.equal(theirs.validity.notAfter.getTime().getTime(), ours.notAfterMs);
  assert.equal(Buffer.from(AsnConvert.serialize(theirs.subject)).toString('hex'), ours.subjectDer);
  assert.equal(Buffer.from(AsnConvert.serialize(theirs.issuer)).toString('hex'), ours.issuerDer);
  assert.deepEqual(
    Array.from(san, (name) => name.uniformResourceIdentifier ?? name.dNSName ?? name.rfc822Name ?? name.iPAddress),
    ours.extensions.subjectAltName?.names.map((name) => (name.type === 'ip' ? name.value.join('.') : name.value)),
  );
  assert.equal(constraints.permittedSubtrees?.[0]?.base.uniformResourceIdentifier, '.example.org');
  assert.deepEqual(ours.extensions.nameConstraints?.permitted, [{ type: 'uri', value: '.example.org' }]);
  assert.deepEqual(ours.extensions.nameConstraints?.excluded, [{ type: 'uri', value: 'bad.example.org' }]);
  assert.deepEqual([...AsnConvert.parse(extension(asn1.id_ce_extKeyUsage), asn1.ExtendedKeyUsage)], ours.extensions.extendedKeyUsage);
});

test('nothing that is handed out, or was handed in, can change a certificate', () => {
  const given = Buffer.from(root.der);
  const certificate = requireCertificate(given);

  given.fill(0);
  certificate.der().fill(0);

  assert.deepEqual(Buffer.from(certificate.der()), root.der);
  assert.ok(Object.isFrozen(certificate));
  assert.ok(Object.isFrozen(certificate.uriSans));
});

test('control characters in names are escaped in the text for logs', () => {
  const subject = distinguishedName([ORGANISATION, 'a\nb'], [COMMON_NAME, 'x,y\u001b[31m\u202e']);

  assert.equal(requireCertificate(root.issue({ subject }).der).subject, 'CN=x\\,y\\u{1b}[31m\\u{202e},O=a\\u{a}b');
});

test('anything but one whole certificate is an error', () => {
  assert.match(errorOf(Buffer.alloc(0)), /cut short/);
  assert.match(errorOf(Buffer.from('not a certificate')), /expected tag 0x30/);
  assert.match(errorOf(Buffer.concat([root.der, Buffer.from([0])])), /1 bytes too many/);
  assert.match(errorOf(root.der.subarray(0, -1)), /are left/);
  assert.match(errorOf(Buffer.from('3080', 'hex')), /indefinite length/);
  assert.match(errorOf(Buffer.from('30820001', 'hex')), /not minimal/);
  assert.match(errorOf(Buffer.from('3085ffffffffff', 'hex')), /more than four bytes/);
  assert.match(errorOf(Buffer.from(root.pem)), /expected tag 0x30/);
});

test('two extensions of one kind are an error (RFC 5280 4.2)', () => {
  const second = { oid: '2.5.29.17', value: sequence(uriName('spiffe://example.org/admin')) };

  assert.match(errorOf(root.issue({ extensions: [second] }).der), /two extensions 2\.5\.29\.17/);
});

test('different signature algorithms inside and outside of the signature are an error (RFC 5280 4.1.1.2)', () => {
  const { der } = root.issue();
  const [sha256, sha384] = [sequence(oid('1.2.840.10045.4.3.2')), sequence(oid('1.2.840.10045.4.3.3'))];

  assert.match(errorOf(patch(der, sha256, sha384)), /two different signature algorithms/);
});

test('versions after 3, and extensions before it, are errors (RFC 5280 4.1)', () => {
  const { der } = root.issue();
  const third = Buffer.from('a003020102', 'hex');

  assert.match(errorOf(patch(der, third, Buffer.from('a003020103', 'hex'))), /version 4/);
  assert.match(errorOf(patch(der, third, Buffer.from('a003020101', 'hex'))), /extensions in a certificate of an old version/);
});

for (const [what, extension, error] of [
  ['a path length without the CA flag', { oid: '2.5.29.19', value: sequence(integer(0)) }, /path length without the CA flag/],
  [
    'a negative path length',
    { oid: '2.5.29.19', value: sequence(element(1, Buffer.from([255])), element(2, Buffer.from([255]))) },
    /negative/,
  ],
  ['a boolean that is neither true nor false', { oid: '2.5.29.19', value: sequence(element(1, Buffer.from([1]))) }, /malformed boolean/],
  ['basic constraints with something left over', { oid: '2.5.29.19', value: sequence(element(5)) }, /bytes too many/],
  ['an empty extended key usage', { oid: '2.5.29.37', value: sequence() }, /cut short/],
  ['key usage with its unused bits set', { oid: '2.5.29.15', value: Buffer.from('03020781', 'hex') }, /unused bits set/],
  [
    'a name constraint with a maximum',
    { oid: '2.5.29.30', value: sequence(element(0xa0, sequence(uriName('a'), element(0x81, Buffer.from([1]))))) },
    /too many/,
  ],
] as const)
  test(`${what} is an error`, () => {
    assert.match(errorOf(root.issue({ isCa: null, keyUsage: null, eku: null, extensions: [extension] }).der), error);
  });

test('alternative names that are empty, not ASCII or of no known kind are errors', () => {
  assert.match(withSan(sequence()), /empty list of names/);
  assert.match(withSan(sequence(uriName('spiffe://example.org/ü'))), /outside ASCII/);
  assert.match(withSan(sequence(element(0x89, Buffer.from('x')))), /unknown kind/);
  assert.match(withSan(Buffer.concat([sequence(uriName('spiffe://example.org/a')), Buffer.from([0])])), /too many/);
});

test('concatenated certificates are cut apart, and nothing may be left over', () => {
  const leaf = root.intermediate().issue();

  const parts = splitCertificates(leaf.chainDer);

  assert.ok(parts.ok);
  assert.deepEqual(
    parts.value.map((part) => Buffer.from(part)),
    leaf.chain,
  );
  assert.deepEqual(splitCertificates(Buffer.alloc(0)), { ok: true, value: [] });
  for (const rest of ['00', '30', '3003', '3080', 'ff'])
    assert.equal(splitCertificates(Buffer.concat([leaf.chainDer, Buffer.from(rest, 'hex')])).ok, false, rest);
});
