import assert from 'node:assert/strict';
import { createPublicKey, generateKeyPairSync, hash, sign, type KeyObject } from 'node:crypto';
import { test } from 'node:test';
import { bitString, element, explicit, integer, octetString, oid, sequence } from '../../../test/support/pki/der-writer.ts';
import { createKeyPair } from '../../../test/support/pki/pki.ts';
import { decodeSignatureAlgorithm, isDigestOfKey, keyEncodingProblem, keyProblem, signatureHolds } from './algorithms.ts';
import { DerReader } from './der.ts';

const SHA1 = '1.3.14.3.2.26';
const SHA256 = '2.16.840.1.101.3.4.2.1';
const SHA384 = '2.16.840.1.101.3.4.2.2';
const MGF1 = '1.2.840.113549.1.1.8';
const hashOf = (type: string): Buffer => sequence(oid(type), element(0x05));
const maskOf = (type: string, generator = MGF1): Buffer => sequence(oid(generator), hashOf(type));

/** P-256 in numbers (RFC 3279 2.3.5, ECParameters), which RFC 5480 2.1.1 forbids. */
const EXPLICIT_P256 = sequence(
  integer(1),
  sequence(oid('1.2.840.10045.1.1'), integer('ffffffff00000001000000000000000000000000ffffffffffffffffffffffff')),
  sequence(
    octetString(Buffer.from('ffffffff00000001000000000000000000000000fffffffffffffffffffffffc', 'hex')),
    octetString(Buffer.from('5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b', 'hex')),
  ),
  octetString(
    Buffer.from(
      '046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5',
      'hex',
    ),
  ),
  integer('ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551'),
  integer(1),
);

function decode(der: Buffer): ReturnType<typeof decodeSignatureAlgorithm> {
  return decodeSignatureAlgorithm(new DerReader(der).any());
}

function pss(...parameters: readonly Buffer[]): Buffer {
  return sequence(oid('1.2.840.113549.1.1.10'), sequence(...parameters));
}

function rsaKey(modulus: string, exponent: number) {
  const key = sequence(sequence(oid('1.2.840.113549.1.1.1'), element(0x05)), bitString(sequence(integer(modulus), integer(exponent))));
  return createPublicKey({ key, format: 'der', type: 'spki' });
}

test('MD5, SHA-1, SHA-224, DSA and algorithms not heard of are not accepted, but named', () => {
  for (const type of [
    '1.2.840.113549.1.1.4',
    '1.2.840.113549.1.1.5',
    '1.2.840.113549.1.1.14',
    '1.2.840.10045.4.1',
    '1.2.840.10040.4.3',
    '1.2.3',
  ])
    assert.deepEqual(decode(sequence(oid(type))), { oid: type, algorithm: undefined });
});

test('an algorithm with parameters that it must not have is not accepted', () => {
  const [nothing, junk] = [element(0x05), octetString(Buffer.from('junk'))];
  for (const [type, parameters, isGood] of [
    ['1.3.101.112', [], true],
    ['1.3.101.112', [nothing], false],
    ['1.2.840.10045.4.3.2', [], true],
    ['1.2.840.10045.4.3.2', [nothing], false],
    ['1.2.840.113549.1.1.11', [], true],
    ['1.2.840.113549.1.1.11', [nothing], true],
    ['1.2.840.113549.1.1.11', [junk], false],
    ['1.2.840.113549.1.1.11', [element(0x05, Buffer.from([0]))], false],
  ] as const) {
    const { oid: named, algorithm } = decode(sequence(oid(type), ...parameters));
    assert.equal(algorithm !== undefined, isGood, `${type} ${parameters.length}`);
    assert.equal(named, isGood ? type : `${type} with parameters`);
  }
  assert.throws(() => decode(sequence(oid('1.3.101.112'), nothing, nothing)));
});

test('whether an identifier is a digest of a key', () => {
  const key = createKeyPair('p256').publicKey;
  const info = key.export({ type: 'spki', format: 'der' });
  const bits = info.subarray(-65);
  for (const id of [
    hash('sha1', bits),
    `4${hash('sha1', bits).slice(25)}`,
    hash('sha256', bits).slice(0, 40),
    hash('sha384', bits).slice(0, 40),
    hash('sha512', bits).slice(0, 40),
    hash('sha256', info),
    hash('sha256', info).slice(0, 40),
  ])
    assert.equal(isDigestOfKey(id, key), true, id);
  for (const id of ['', hash('sha1', bits).slice(0, 14), hash('sha1', 'another'), hash('sha1', bits).slice(2)])
    assert.equal(isDigestOfKey(id, key), false, id);
  for (const kind of ['secp256k1', 'rsa1024', 'ed25519'] as const)
    assert.equal(isDigestOfKey(hash('sha1', bits), createKeyPair(kind).publicKey), false, kind);
  assert.equal(isDigestOfKey(hash('sha1', bits), generateKeyPairSync('rsa-pss', { modulusLength: 2048 }).publicKey), false);
});

test('RSASSA-PSS is accepted with one strong hash, named twice, and nothing by default, which is SHA-1 (RFC 4055 3.1)', () => {
  const [digest, mask, salt] = [explicit(0, hashOf(SHA256)), explicit(1, maskOf(SHA256)), explicit(2, integer(32))];

  assert.deepEqual(decode(pss(digest, mask, salt)).algorithm, { keyType: 'rsa', hash: 'sha256', pssSaltLength: 32 });
  for (const der of [
    sequence(oid('1.2.840.113549.1.1.10')),
    pss(),
    pss(mask, salt),
    pss(digest, salt),
    pss(digest, mask),
    pss(explicit(0, hashOf(SHA1)), explicit(1, maskOf(SHA1)), salt),
    pss(digest, explicit(1, maskOf(SHA384)), salt),
    pss(digest, explicit(1, maskOf(SHA256, '1.2.3')), salt),
    pss(digest, mask, explicit(2, integer(65))),
    pss(digest, mask, salt, explicit(3, integer(2))),
    pss(explicit(0, sequence(oid(SHA256), octetString(Buffer.from('junk')))), mask, salt),
    pss(digest, explicit(1, sequence(oid(MGF1), sequence(oid(SHA256), octetString(Buffer.from('junk'))))), salt),
    sequence(oid('1.2.840.113549.1.1.10'), element(0x05)),
  ])
    assert.equal(decode(der).algorithm, undefined, der.toString('hex'));
  const trailing = Buffer.concat([hashOf(SHA256), element(0x05)]);
  assert.throws(() => decode(pss(explicit(0, trailing), mask, salt)));
  assert.throws(() => decode(pss(digest, mask, explicit(2, Buffer.concat([integer(32), element(0x05)])))));
});

test('RSA keys have 2048 to 8192 bits and an exponent of 3 to 32 bits', () => {
  for (const [bits, exponent, isGood] of [
    [1024, 65_537, false],
    [2047, 65_537, false],
    [2048, 65_537, true],
    [2048, 3, true],
    [2048, 1, false],
    [2048, 2 ** 32 + 1, false],
    [8192, 65_537, true],
    [8200, 65_537, false],
  ] as const) {
    const modulus = (2n ** BigInt(bits) - 1n).toString(16);
    assert.equal(keyProblem(rsaKey(modulus, exponent)) === undefined, isGood, `${bits} bits, exponent ${exponent}`);
  }
});

test('keys of other kinds and curves are not accepted', () => {
  for (const type of ['p256', 'p384', 'p521', 'ed25519'] as const) assert.equal(keyProblem(createKeyPair(type).publicKey), undefined, type);
  assert.match(keyProblem(createKeyPair('secp256k1').publicKey) ?? '', /secp256k1/);
  assert.match(keyProblem(generateKeyPairSync('ed448').publicKey) ?? '', /ed448/);
  assert.match(keyProblem(generateKeyPairSync('x25519').publicKey) ?? '', /x25519/);
  assert.match(keyProblem(generateKeyPairSync('rsa-pss', { modulusLength: 2048 }).publicKey) ?? '', /rsa-pss/);
});

test('a key is accepted as it must be written, and not as OpenSSL reads it besides', () => {
  const spkiOf = (key: KeyObject): Buffer => key.export({ type: 'spki', format: 'der' });
  const problem = (der: Buffer): string => keyEncodingProblem(createPublicKey({ key: der, format: 'der', type: 'spki' }), der) ?? 'none';
  for (const kind of ['p256', 'p384', 'p521', 'rsa2048', 'ed25519'] as const)
    assert.equal(problem(spkiOf(createKeyPair(kind).publicKey)), 'none', kind);

  const p256 = spkiOf(createKeyPair('p256').publicKey);
  const point = p256.subarray(-65);
  const odd = (point.at(-1) ?? 0) & 1;
  const ec = (first: number, coordinates: Buffer, parameters = oid('1.2.840.10045.3.1.7')): Buffer =>
    sequence(sequence(oid('1.2.840.10045.2.1'), parameters), bitString(Buffer.concat([Buffer.from([first]), coordinates])));
  assert.equal(problem(ec(4, point.subarray(1))), 'none');
  assert.equal(problem(ec(2 + odd, point.subarray(1, 33))), 'none', 'compressed');
  assert.match(problem(ec(6 + odd, point.subarray(1))), /hybrid/);
  assert.match(problem(ec(4, point.subarray(1), EXPLICIT_P256)), /of the kind prime256v1 that is not written as such a key must be/);

  const rsa = createKeyPair('rsa2048').publicKey.export({ type: 'pkcs1', format: 'der' });
  const withParameters = (...parameters: Buffer[]): Buffer =>
    sequence(sequence(oid('1.2.840.113549.1.1.1'), ...parameters), bitString(rsa));
  assert.equal(problem(withParameters(element(0x05))), 'none');
  assert.match(problem(withParameters()), /of the kind rsa that is not written/);
  const trailing = sequence(sequence(oid('1.2.840.113549.1.1.1'), element(0x05)), bitString(Buffer.concat([rsa, Buffer.from([0])])));
  assert.match(problem(trailing), /an RSA key that is not written/);
});

test('a signature holds for its own key, algorithm and bytes only, and none of it throws', () => {
  const signed = Buffer.from('signed');
  const { privateKey, publicKey } = createKeyPair('p256');
  const signature = sign('sha256', signed, privateKey);
  const algorithm = { keyType: 'ec', hash: 'sha256', pssSaltLength: undefined } as const;

  assert.equal(signatureHolds(algorithm, signed, signature, publicKey), true);
  assert.equal(signatureHolds(algorithm, signed, signature, createKeyPair('p256').publicKey), false);
  assert.equal(signatureHolds(algorithm, Buffer.from('Signed'), signature, publicKey), false);
  assert.equal(signatureHolds({ ...algorithm, hash: 'sha384' }, signed, signature, publicKey), false);
  assert.equal(signatureHolds({ ...algorithm, keyType: 'rsa' }, signed, signature, publicKey), false);
  for (const kind of ['rsa2048', 'ed25519', 'p384'] as const)
    assert.equal(signatureHolds(algorithm, signed, signature, createKeyPair(kind).publicKey), false);
  for (const bytes of [Buffer.alloc(0), Buffer.from('garbage'), Buffer.concat([signature, signature])])
    assert.equal(signatureHolds(algorithm, signed, bytes, publicKey), false);
});
