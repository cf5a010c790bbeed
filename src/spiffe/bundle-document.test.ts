import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bundleOf } from '../../test/support/pki/bundles.ts';
import { bundleJson, x509Key } from '../../test/support/bundle-endpoint.ts';
import { createKeyPair, createTestAuthority } from '../../test/support/pki/pki.ts';
import { createRandom } from '../../test/support/random.ts';
import { MAX_BUNDLE_KEYS, parseBundleDocument, writeBundleDocument, type BundleDocument } from './bundle-document.ts';

const authority = createTestAuthority({ trustDomain: 'partner.test' });
const key = x509Key(authority) as { readonly x5c: readonly string[]; readonly x: string };
const other = x509Key(createTestAuthority({ trustDomain: 'partner.test' })) as typeof key;
const jwt = { ...createKeyPair().publicKey.export({ format: 'jwk' }), use: 'jwt-svid', kid: 'one' };

function read(text: string): BundleDocument {
  const parsed = parseBundleDocument(Buffer.from(text));
  assert.ok(parsed.ok, parsed.ok ? '' : parsed.error.message);
  return parsed.value;
}

function codeOf(document: unknown): string {
  const bytes = document instanceof Uint8Array ? document : Buffer.from(typeof document === 'string' ? document : JSON.stringify(document));
  const parsed = parseBundleDocument(bytes);
  return parsed.ok ? 'ok' : parsed.error.code;
}

test('a bundle gives its authorities, its keys for JWT-SVIDs, its number and its hint', () => {
  const document = read(bundleJson([authority], { sequence: 12, hint: 90, keys: [jwt] }));

  assert.deepEqual(
    document.authorities.map((certificate) => Buffer.from(certificate.der())),
    [authority.der],
  );
  assert.deepEqual(
    document.jwtAuthorities.map(({ keyId }) => keyId),
    ['one'],
  );
  assert.deepEqual([document.sequence, document.refreshHintMs], [12n, 90_000]);
});

test('a sequence number has 64 bits, to the last of them', () => {
  assert.equal(read('{"spiffe_sequence":18446744073709551615,"keys":[]}').sequence, 18_446_744_073_709_551_615n);
  assert.equal(read('{"keys":[],"spiffe_sequence":9007199254740993}').sequence, 9_007_199_254_740_993n);
  assert.equal(read('{"keys":[]}').sequence, undefined);
  for (const number of ['18446744073709551616', '-1', '1.0', '1e3', '"1"', 'null', '[1]', '1234567890123456789012345678'])
    assert.equal(codeOf(`{"spiffe_sequence":${number},"keys":[]}`), 'bad_document', number);
});

test('keys of a type or a use that is not known are passed over, whatever else they have', () => {
  const strange = [
    { kty: 'EC', use: 'sig', x5c: 7 },
    { kty: 'EC' },
    { kty: 'EC', use: 'X509-SVID' },
    { kty: 'AKP', use: 'x509-svid' },
    { use: 'x509-svid' },
    { kty: 'oct', use: 'jwt-svid' },
    {},
  ];

  assert.equal(read(JSON.stringify({ keys: [...strange, key], more: { keys: 1 } })).authorities.length, 1);
});

test('a key of a known use that breaks the standard refuses the whole', () => {
  for (const broken of [
    { ...key, x5c: undefined },
    { ...key, x5c: [] },
    { ...key, x5c: [...key.x5c, ...other.x5c] },
    { ...key, x5c: key.x5c[0] },
    { ...key, x5c: [7] },
    { ...key, x5c: [''] },
    { ...key, x5c: [`${key.x5c[0]}\n`] },
    { ...key, x5c: [`${key.x5c[0]}AAAA`] },
    { ...key, x5c: [Buffer.concat([authority.der, authority.der]).toString('base64')] },
    { ...key, x5c: [authority.der.toString('base64url')] },
    { ...key, x5c: other.x5c },
    { ...key, x: undefined },
    { ...key, kty: 'RSA' },
    { ...jwt, kid: undefined },
    { ...jwt, kid: '' },
    { ...jwt, kid: 'k'.repeat(2000) },
    { ...jwt, kid: 1 },
    { ...jwt, x: 'AAAA' },
    'text',
    null,
    [],
  ])
    assert.equal(codeOf({ keys: [broken] }), 'bad_key', JSON.stringify(broken));
  assert.equal(codeOf({ keys: [jwt, jwt] }), 'bad_key');
});

test('what is no bundle is refused', () => {
  for (const document of [
    '',
    '{}',
    '[]',
    'null',
    '"keys"',
    '{"keys":{}}',
    '{"keys":[]',
    '{"keys":[]}{}',
    '\uFEFF{"keys":[]}',
    '{"keys":[],"keys":[]}',
    '{"keys":[{"kty":"EC","kty":"RSA"}]}',
    '{"keys":[],"spiffe_refresh_hint":-1}',
    '{"keys":[],"spiffe_refresh_hint":1.5}',
    '{"keys":[],"spiffe_refresh_hint":"60"}',
    Buffer.from([0x7b, 0xff, 0x7d]),
  ])
    assert.equal(codeOf(document), 'bad_document', String(document));
});

test('more keys than anybody has are refused before any of them is read', () => {
  const keys = Array.from({ length: MAX_BUNDLE_KEYS }, () => ({}));

  assert.equal(codeOf({ keys }), 'ok');
  assert.equal(codeOf({ keys: [...keys, { use: 'x509-svid', kty: 'EC' }] }), 'too_many_keys');
});

test('authorities that are too large, each or together, are refused', () => {
  const filler = (length: number) => [{ oid: '1.2.3.4', value: Buffer.alloc(length) }];
  const large = (count: number, length: number): object => ({
    keys: Array.from({ length: count }, () => x509Key(createTestAuthority({ extensions: filler(length) }))),
  });

  assert.equal(codeOf(large(17, 30_000)), 'ok');
  assert.equal(codeOf(large(18, 30_000)), 'too_large');
  assert.equal(codeOf(large(1, 33_000)), 'bad_key');
});

test('authorities whose names would fill a handshake are refused', () => {
  const long = (count: number): object => ({
    keys: Array.from({ length: count }, (_, index) => x509Key(createTestAuthority({ subject: `${index}`.padEnd(1000, 'x') }))),
  });

  assert.equal(codeOf(long(15)), 'ok');
  assert.equal(codeOf(long(17)), 'long_names');
});

test('a key for JWT-SVIDs that nobody should rely on is left out, and said', () => {
  const weak = { ...createKeyPair('rsa1024').publicKey.export({ format: 'jwk' }), use: 'jwt-svid', kid: 'weak' };
  const document = read(JSON.stringify({ keys: [weak, jwt] }));

  assert.deepEqual(
    document.jwtAuthorities.map(({ keyId }) => keyId),
    ['one'],
  );
  assert.match(document.notes.join(), /"weak" has an RSA key of 1024 bits/);
});

test('of a private key that somebody published, only the public one is kept', () => {
  const { privateKey } = createKeyPair();
  const document = read(JSON.stringify({ keys: [{ ...privateKey.export({ format: 'jwk' }), use: 'jwt-svid', kid: 'oops' }] }));

  assert.equal(document.jwtAuthorities[0]?.key.type, 'public');
});

test('what is written is read back, for every kind of key', () => {
  const kinds = ['p256', 'p384', 'p521', 'rsa2048', 'ed25519'] as const;
  const authorities = kinds.map((kind) => createTestAuthority({ key: kind }));
  const document = read(writeBundleDocument(bundleOf('example.org', authorities), 18_446_744_073_709_551_615n, 300_900));

  assert.deepEqual(
    document.authorities.map((certificate) => Buffer.from(certificate.der())),
    authorities.map(({ der }) => der),
  );
  assert.deepEqual([document.sequence, document.refreshHintMs], [18_446_744_073_709_551_615n, 300_000]);
});

test('an authority that nobody should rely on is not written', () => {
  const written = writeBundleDocument(bundleOf('example.org', [authority, createTestAuthority({ key: 'secp256k1' })]), 1n, 1000);

  assert.equal((JSON.parse(written) as { keys: unknown[] }).keys.length, 1);
});

test('whatever the bytes are, the answer is a value', () => {
  const random = createRandom(7);
  const good = Buffer.from(bundleJson([authority], { sequence: 1, hint: 1, keys: [jwt] }));
  for (let count = 0; count < 3000; count += 1) {
    const bytes = Buffer.from(good);
    for (let changes = 0; changes < 3; changes += 1) bytes[Math.floor(random() * bytes.length)] = Math.floor(random() * 256);
    assert.doesNotThrow(() => parseBundleDocument(bytes.subarray(0, Math.ceil(random() * 1.2 * bytes.length))));
  }
});
