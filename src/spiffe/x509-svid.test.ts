import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bundleOf } from '../../test/support/pki/bundles.ts';
import { createKeyPair, createTestAuthority, type TestCertificate } from '../../test/support/pki/pki.ts';
import type { Result } from '../lib/result.ts';
import { buildX509Svid, type SvidProblem, type X509Svid, type X509SvidMaterial } from './x509-svid.ts';

const ID = 'spiffe://example.org/workload';
const NOW = Date.now();
/** Where the scalar of a P-256 key is in PKCS #8. */
const SCALAR_AT = 36;
const root = createTestAuthority();
const bundle = bundleOf('example.org', [root]);

function build(leaf: TestCertificate, changed: Partial<X509SvidMaterial> = {}): Result<X509Svid, SvidProblem> {
  return buildX509Svid({ spiffeId: ID, chainDer: leaf.chainDer, keyDer: leaf.keyDer, hint: 'internal', ...changed }, bundle, NOW);
}

function codeOf(result: Result<X509Svid, SvidProblem>): string {
  return result.ok ? 'ok' : result.error.code;
}

for (const key of ['p256', 'p384', 'rsa2048', 'ed25519'] as const)
  test(`an SVID with a ${key} key is built from what the Workload API sends`, () => {
    const leaf = root.intermediate().issue({ key });

    const built = build(leaf);

    assert.ok(built.ok, built.ok ? '' : built.error.message);
    assert.equal(built.value.id, ID);
    assert.equal(built.value.hint, 'internal');
    assert.equal(built.value.chain.length, 2);
    assert.equal(built.value.key.type, 'private');
    assert.equal(Buffer.compare(built.value.authority.der(), root.der), 0);
    assert.ok(Object.isFrozen(built.value) && Object.isFrozen(built.value.chain));
  });

for (const [id, what, leaf, code] of [
  ['HX-1', 'with a bad signature', root.issue({ badSignature: true }), 'untrusted_chain'],
  ['HX-2', 'that does not chain to its own bundle', createTestAuthority().issue(), 'untrusted_chain'],
  ['HX-3', 'that is expired', root.issue({ notBefore: NOW - 60_000, notAfter: NOW - 1000 }), 'expired'],
  ['HX-4', 'with the CA flag', root.issue({ isCa: true }), 'not_an_svid'],
  ['HX-5', 'with keyCertSign', root.issue({ keyUsage: ['digitalSignature', 'keyCertSign'] }), 'not_an_svid'],
  ['HX-6', 'with two URI names', root.issue({ uriSans: [ID, 'spiffe://example.org/b'] }), 'not_an_svid'],
  ['HX-7', 'with a URI name that is no SPIFFE ID', root.issue({ uriSans: ['https://example.org/'] }), 'not_an_svid'],
] as const)
  test(`${id}: an SVID of ours ${what} is refused`, () => {
    assert.equal(codeOf(build(leaf)), code);
  });

test('HX-8: an SVID of ours whose key is that of another certificate is refused', () => {
  for (const other of ['p256', 'p384', 'rsa2048', 'ed25519'] as const)
    assert.equal(
      codeOf(build(root.issue(), { keyDer: createKeyPair(other).privateKey.export({ format: 'der', type: 'pkcs8' }) })),
      'key_mismatch',
    );
});

test('a key that states the public key of the certificate, and signs for another, is refused', () => {
  const [leaf, other] = [root.issue(), root.issue()];
  const scalar = other.keyDer.subarray(SCALAR_AT, SCALAR_AT + 32);
  const keyDer = Buffer.concat([leaf.keyDer.subarray(0, SCALAR_AT), scalar, leaf.keyDer.subarray(SCALAR_AT + 32)]);

  assert.equal(codeOf(build(leaf, { keyDer: leaf.keyDer })), 'ok');
  assert.equal(codeOf(build(leaf, { keyDer })), 'key_mismatch');
});

test('HX-9: an SVID of ours whose spiffe_id field differs from its URI name is refused, naming both', () => {
  const built = build(root.issue(), { spiffeId: 'spiffe://example.org/other' });

  assert.ok(!built.ok);
  assert.equal(built.error.code, 'wrong_spiffe_id');
  assert.match(built.error.message, /example\.org\/other.*example\.org\/workload/);
});

test('an SVID of another trust domain than its bundle is refused', () => {
  const foreign = createTestAuthority({ trustDomain: 'other.example' }).issue();

  assert.equal(codeOf(build(foreign, { spiffeId: 'spiffe://other.example/workload' })), 'unknown_trust_domain');
});

test('a key that is not one whole PKCS #8 key is refused, and the message has nothing of it', () => {
  const leaf = root.issue();
  const sec1 = leaf.keys.privateKey.export({ format: 'der', type: 'sec1' });

  for (const keyDer of [
    Buffer.alloc(0),
    Buffer.from('garbage'),
    Buffer.concat([leaf.keyDer, Buffer.from([0])]),
    leaf.keyDer.subarray(1),
    sec1,
  ]) {
    const built = build(leaf, { keyDer });
    assert.ok(!built.ok);
    assert.equal(built.error.code, 'bad_private_key');
    assert.equal(built.error.message, `the private key of ${ID} is not a PKCS #8 key`);
  }
});

test('a chain that is empty or has something left over is refused', () => {
  const leaf = root.issue();

  assert.equal(codeOf(build(leaf, { chainDer: Buffer.alloc(0) })), 'no_certificate');
  assert.equal(codeOf(build(leaf, { chainDer: Buffer.concat([leaf.der, Buffer.from([0])]) })), 'bad_certificate');
});
