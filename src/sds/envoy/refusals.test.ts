import assert from 'node:assert/strict';
import { createPrivateKey, createPublicKey, generatePrimeSync } from 'node:crypto';
import { test } from 'node:test';
import { element, integer, octetString, oid, sequence } from '../../../test/support/pki/der-writer.ts';
import { createKeyPair, createTestAuthority, type CertificateOptions, type KeyPair } from '../../../test/support/pki/pki.ts';
import { svidOf } from '../../../test/support/pki/snapshots.ts';
import { envoyRefusal } from './refusals.ts';

const own = createTestAuthority({ trustDomain: 'example.org' });
const refusal = (options: CertificateOptions): string | undefined => envoyRefusal(svidOf(own, 'spiffe://example.org/api', options));

/** The numbers of an RSA private key (RFC 8017 3.2) in the order in which RSAPrivateKey has them, and the primes beyond the second. */
function rsaKey(numbers: readonly bigint[], others: readonly (readonly bigint[])[] = []): KeyPair {
  const write = (value: bigint): Buffer => integer(value.toString(16));
  const more = others.length === 0 ? [] : [sequence(...others.map((each) => sequence(...each.map(write))))];
  const inner = sequence(integer(others.length === 0 ? 0 : 1), ...numbers.map(write), ...more);
  const pkcs8 = sequence(integer(0), sequence(oid('1.2.840.113549.1.1.1'), element(0x05)), octetString(inner));
  const privateKey = createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' });
  return { privateKey, publicKey: createPublicKey(privateKey) };
}

function inverse(of: bigint, modulus: bigint): bigint {
  let [a, b, x, y] = [of % modulus, modulus, 1n, 0n];
  while (a > 1n) [a, b, x, y] = [b % a, a, y - (b / a) * x, x];
  return ((x % modulus) + modulus) % modulus;
}

/** A prime under which the exponent 65537 can be inverted. */
function prime(bits: number): bigint {
  for (;;) {
    const found = generatePrimeSync(bits, { bigint: true });
    if ((found - 1n) % 65_537n !== 0n) return found;
  }
}

function numbersOf({ privateKey }: KeyPair): bigint[] {
  const { n, e, d, p, q, dp, dq, qi } = privateKey.export({ format: 'jwk' });
  return [n, e, d, p, q, dp, dq, qi].map((text = '') => BigInt(`0x${Buffer.from(text, 'base64url').toString('hex')}`));
}

test('R23: keys of every kind that is accepted are none that Envoy refuses', () => {
  for (const key of ['p256', 'p384', 'p521', 'ed25519', 'rsa2048', 'rsa3072'] as const) assert.equal(refusal({ key }), undefined, key);
});

test('R23: Envoy refuses a certificate that is to be shown with an OCSP response, and no other TLS feature', () => {
  const feature = (hex: string): CertificateOptions => ({ extensions: [{ oid: '1.3.6.1.5.5.7.1.24', value: Buffer.from(hex, 'hex') }] });

  assert.match(refusal(feature('3003020105')) ?? '', /^spiffe:\/\/example\.org\/api must be shown with an OCSP response/);
  for (const other of ['3003020111', '3006020105020111', '3000', 'ff']) assert.equal(refusal(feature(other)), undefined, other);
});

test('R23: Envoy refuses an RSA key of three primes', () => {
  const [p, q, r] = [prime(700), prime(700), prime(700)];
  const [n, e] = [p * q * r, 65_537n];
  const d = inverse(e, (p - 1n) * (q - 1n) * (r - 1n));
  const key = rsaKey([n, e, d, p, q, d % (p - 1n), d % (q - 1n), inverse(q, p)], [[r, d % (r - 1n), inverse(p * q, r)]]);

  assert.match(refusal({ key }) ?? '', /^the RSA key of spiffe:\/\/example\.org\/api is not of two primes, or its numbers do not fit$/);
});

test('R23: Envoy refuses an RSA key whose numbers do not fit, though OpenSSL signs with it', () => {
  const good = numbersOf(createKeyPair('rsa2048'));
  assert.equal(refusal({ key: rsaKey(good) }), undefined);

  for (const [name, index] of [
    ['d', 2],
    ['dp', 5],
    ['dq', 6],
    ['qi', 7],
  ] as const) {
    const wrong = good.with(index, (good[index] ?? 0n) ^ 2n);
    assert.match(refusal({ key: rsaKey(wrong) }) ?? '', /its numbers do not fit/, name);
  }
});
