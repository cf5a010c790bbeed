import assert from 'node:assert/strict';
import { test } from 'node:test';
import { requireCertificate } from '../../test/support/pki/bundles.ts';
import { createTestAuthority, type CertificateOptions } from '../../test/support/pki/pki.ts';
import { lint, type LintRole } from './lint.ts';

const authority = createTestAuthority();
const ID = 'spiffe://example.org/web';

const told = (der: Uint8Array, role: LintRole): readonly string[] =>
  lint(requireCertificate(der), role).map(({ verdict, clause, problem }) => `${verdict} ${clause ?? '-'} ${problem}`);
const leaf = (options: CertificateOptions): readonly string[] => told(authority.issue({ id: ID, ...options }).der, 'leaf');

test('of a leaf and an authority in order there is nothing to say', () => {
  assert.deepEqual(leaf({}), []);
  assert.deepEqual(told(authority.der, 'authority'), []);
});

test('a leaf is told every rule that it breaks, each with its clause, and not the first alone', () => {
  assert.deepEqual(leaf({ id: 'spiffe://example.org', isCa: true, keyUsage: ['keyCertSign', 'crlSign'], keyUsageCritical: false }), [
    'refused X509-SVID 3.1 the SPIFFE ID of a leaf has a path',
    'refused X509-SVID 4.1 the leaf is a CA',
    'refused X509-SVID 4.3 key usage is not critical',
    'refused X509-SVID 4.3 key usage lacks digitalSignature',
    'refused X509-SVID 4.3 key usage has keyCertSign',
    'refused X509-SVID 4.3 key usage has cRLSign',
  ]);
  assert.deepEqual(leaf({ uriSans: [ID, 'spiffe://example.org/api'] }), ['refused X509-SVID 2 the certificate has 2 URI names']);
});

test('what is only advised is tolerated', () => {
  assert.deepEqual(leaf({ eku: null }), [
    'tolerated X509-SVID 4.4 there is no extended key usage; serverAuth and clientAuth should be there',
  ]);
  const odd = createTestAuthority({ keyUsage: ['keyCertSign', 'digitalSignature'], keyUsageCritical: false });
  assert.deepEqual(told(odd.der, 'authority'), [
    'tolerated X509-SVID 4.3 key usage is not critical',
    'tolerated X509-SVID appendix A key usage has digitalSignature beside keyCertSign: a signing certificate is for signing certificates alone',
  ]);
});

test('a certificate without key usage is no intermediate, and may be an authority', () => {
  const bare = createTestAuthority({ keyUsage: null });

  assert.deepEqual(told(bare.der, 'intermediate'), ['refused keyCertSign, X509-SVID 4.3 may not sign certificates']);
  assert.deepEqual(told(bare.der, 'authority'), ['tolerated X509-SVID 4.3 there is no key usage with keyCertSign']);
});

test('weak keys are refused by us, whatever the standards say', () => {
  assert.deepEqual(leaf({ key: 'rsa1024' }), ['refused - has an RSA key of 1024 bits, fewer than 2048']);
});
