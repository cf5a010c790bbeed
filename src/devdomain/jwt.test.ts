import assert from 'node:assert/strict';
import { constants, createHmac, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { test } from 'node:test';
import { requireSpiffeId } from '../spiffe/spiffe-id.ts';
import type { TrustDomain } from '../spiffe/trust-domain.ts';
import { createJwtKey, signJwtSvid, validateJwtSvid, type VerificationKey, writeJwks } from './jwt.ts';

const DOMAIN = 'example.org' as TrustDomain;
const WEB = requireSpiffeId('spiffe://example.org/web');
const NOW_MS = Date.UTC(2026, 0, 1);
const NOW = NOW_MS / 1000;

const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const p256 = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const p384 = generateKeyPairSync('ec', { namedCurve: 'P-384' });
const p521 = generateKeyPairSync('ec', { namedCurve: 'P-521' });
const ed25519 = generateKeyPairSync('ed25519');
const stranger = generateKeyPairSync('ec', { namedCurve: 'P-256' });

const KEYS: readonly VerificationKey[] = [
  { kid: 'rsa', publicKey: rsa.publicKey },
  { kid: 'p256', publicKey: p256.publicKey },
  { kid: 'p384', publicKey: p384.publicKey },
  { kid: 'p521', publicKey: p521.publicKey },
  { kid: 'ed25519', publicKey: ed25519.publicKey },
];
const CLAIMS = { sub: WEB, aud: ['api'], exp: NOW + 300 };

type Json = Readonly<Record<string, unknown>>;
type Signer = (data: Buffer) => Buffer;

const encode = (value: Json): string => Buffer.from(JSON.stringify(value)).toString('base64url');
const ecdsa =
  (hash: string, key: KeyObject): Signer =>
  (data) =>
    sign(hash, data, { key, dsaEncoding: 'ieee-p1363' });
const pkcs1 =
  (hash: string): Signer =>
  (data) =>
    sign(hash, data, rsa.privateKey);
const pss =
  (hash: string): Signer =>
  (data) =>
    sign(hash, data, { key: rsa.privateKey, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST });

function token(header: Json, claims: Json, signer: Signer): string {
  const body = `${encode(header)}.${encode(claims)}`;
  return `${body}.${signer(Buffer.from(body)).toString('base64url')}`;
}

/** A good ES256 token, but for the changes. */
function es256(claims: Json = {}, header: Json = {}): string {
  return token({ alg: 'ES256', kid: 'p256', typ: 'JWT', ...header }, { ...CLAIMS, ...claims }, ecdsa('sha256', p256.privateKey));
}

function validate(text: string, keys: ReadonlyMap<TrustDomain, readonly VerificationKey[]> = new Map([[DOMAIN, KEYS]])) {
  return validateJwtSvid(text, { audience: 'api', keys, nowMs: NOW_MS });
}

function assertRefused(text: string, why: RegExp): void {
  const result = validate(text);
  assert.equal(result.ok, false);
  if (!result.ok) assert.match(result.error, why);
}

test('a token that was signed here is valid here, and its key is in the JWKS', async () => {
  const key = await createJwtKey();
  const text = signJwtSvid(key, { id: WEB, audience: ['api', 'other'], nowMs: NOW_MS, lifeMs: 300_000 });

  const result = validate(text, new Map([[DOMAIN, [key]]]));

  assert.ok(result.ok);
  assert.equal(result.value.id, WEB);
  assert.deepEqual(result.value.claims, { sub: WEB, aud: ['api', 'other'], exp: NOW + 300, iat: NOW });
  const jwks = JSON.parse(Buffer.from(writeJwks([key])).toString()) as { keys: Json[] };
  assert.deepEqual(
    jwks.keys.map(({ kid, use, kty, crv, d }) => ({ kid, use, kty, crv, d })),
    [{ kid: key.kid, use: 'jwt-svid', kty: 'EC', crv: 'P-256', d: undefined }],
  );
});

for (const [alg, kid, signer] of [
  ['RS256', 'rsa', pkcs1('sha256')],
  ['RS384', 'rsa', pkcs1('sha384')],
  ['RS512', 'rsa', pkcs1('sha512')],
  ['PS256', 'rsa', pss('sha256')],
  ['PS384', 'rsa', pss('sha384')],
  ['PS512', 'rsa', pss('sha512')],
  ['ES256', 'p256', ecdsa('sha256', p256.privateKey)],
  ['ES384', 'p384', ecdsa('sha384', p384.privateKey)],
  ['ES512', 'p521', ecdsa('sha512', p521.privateKey)],
] as const) {
  test(`a ${alg} token is accepted, with and without key id`, () => {
    assert.equal(validate(token({ alg, kid }, CLAIMS, signer)).ok, true);
    assert.equal(validate(token({ alg }, CLAIMS, signer)).ok, true);
  });
}

test('an algorithm outside the closed set is refused, whatever signed', () => {
  const publicPem = p256.publicKey.export({ type: 'spki', format: 'pem' });
  const hmac: Signer = (data) => createHmac('sha256', publicPem).update(data).digest();

  assertRefused(`${encode({ alg: 'none' })}.${encode(CLAIMS)}.`, /malformed|not permitted/);
  assertRefused(`${encode({ alg: 'none' })}.${encode(CLAIMS)}.AA`, /"none" is not permitted/);
  assertRefused(token({ alg: 'HS256', kid: 'p256' }, CLAIMS, hmac), /"HS256" is not permitted/);
  assertRefused(
    token({ alg: 'EdDSA', kid: 'ed25519' }, CLAIMS, (data) => sign(null, data, ed25519.privateKey)),
    /"EdDSA" is not permitted/,
  );
  assertRefused(token({ alg: 'toString', kid: 'p256' }, CLAIMS, hmac), /not permitted/);
  assertRefused(token({ alg: 1, kid: 'p256' }, CLAIMS, hmac), /not permitted/);
});

test('the algorithm must fit the key', () => {
  assertRefused(token({ alg: 'RS256', kid: 'p256' }, CLAIMS, ecdsa('sha256', p256.privateKey)), /no key/);
  assertRefused(token({ alg: 'ES384', kid: 'p256' }, CLAIMS, ecdsa('sha384', p256.privateKey)), /no key/);
});

test('the header holds alg, kid and typ only, and typ is JWT or JOSE', () => {
  assert.equal(validate(es256({}, { typ: 'JOSE' })).ok, true);
  assert.equal(validate(es256({}, { typ: undefined })).ok, true);
  assertRefused(es256({}, { typ: 'at+jwt' }), /typ/);
  assertRefused(es256({}, { crit: ['exp'] }), /"crit" is not permitted/);
  assertRefused(es256({}, { jku: 'https://example.org' }), /"jku" is not permitted/);
  assertRefused(es256({}, { kid: 5 }), /kid/);
});

test('the audience must be there and be ours, alone or among others', () => {
  assert.equal(validate(es256({ aud: 'api' })).ok, true);
  assert.equal(validate(es256({ aud: ['x', 'api'] })).ok, true);
  assertRefused(es256({ aud: undefined }), /no audience/);
  assertRefused(es256({ aud: [] }), /no audience/);
  assertRefused(es256({ aud: ['x'] }), /not among/);
  assertRefused(es256({ aud: 'apix' }), /not among/);
  assertRefused(es256({ aud: ['api', 5] }), /malformed/);
});

test('times are honoured with a minute of leeway', () => {
  assert.equal(validate(es256({ exp: NOW - 30 })).ok, true);
  assert.equal(validate(es256({ nbf: NOW + 30, iat: NOW + 30 })).ok, true);
  assertRefused(es256({ exp: undefined }), /no exp/);
  assertRefused(es256({ exp: '99999999999' }), /no exp/);
  assertRefused(es256({ exp: NOW - 300 }), /expired/);
  assertRefused(es256({ nbf: NOW + 300 }), /not valid yet/);
  assertRefused(es256({ nbf: 'soon' }), /not valid yet/);
  assertRefused(es256({ iat: NOW + 300 }), /in the future/);
});

test('a changed token, an unknown key and a key of another trust domain are refused', () => {
  const [header = '', , signature = ''] = es256().split('.');
  const flipped = Buffer.from(signature, 'base64url').map((byte, index) => (index === 5 ? byte ^ 1 : byte));

  assertRefused(`${header}.${encode({ ...CLAIMS, sub: 'spiffe://example.org/admin' })}.${signature}`, /signature is wrong/);
  assertRefused(`${header}.${encode(CLAIMS)}.${Buffer.from(flipped).toString('base64url')}`, /signature is wrong/);
  assertRefused(token({ alg: 'ES256', kid: 'p256' }, CLAIMS, ecdsa('sha256', stranger.privateKey)), /signature is wrong/);
  assertRefused(token({ alg: 'ES256', kid: 'other' }, CLAIMS, ecdsa('sha256', p256.privateKey)), /no key/);
  const elsewhere = new Map<TrustDomain, readonly VerificationKey[]>([
    [DOMAIN, []],
    ['partner.org' as TrustDomain, KEYS],
  ]);
  assert.equal(validate(es256(), elsewhere).ok, false);
  assert.equal(validate(es256(), new Map()).ok, false);
});

test('the subject must be a SPIFFE ID', () => {
  for (const sub of [undefined, 5, '', 'web', 'https://example.org/web', 'spiffe://example.org:80/web', 'spiffe://example.org/a/../b']) {
    assertRefused(es256({ sub }), /sub .* is not a SPIFFE ID/);
  }
});

test('what is not a compact JWS is refused', () => {
  const [header = '', claims = '', signature = ''] = es256().split('.');

  assertRefused(`${header}.${claims}`, /compact/);
  assertRefused(`${header}.${claims}.${signature}.${signature}`, /compact/);
  assertRefused(JSON.stringify({ payload: claims, signatures: [{ protected: header, signature }] }), /compact|malformed/);
  assertRefused(`${header}!.${claims}.${signature}`, /malformed/);
  assertRefused(`${header}.${claims}=.${signature}`, /malformed/);
  assertRefused(`${Buffer.from('[]').toString('base64url')}.${claims}.${signature}`, /malformed/);
  assertRefused(`${header}.${Buffer.from('{"sub":').toString('base64url')}.${signature}`, /malformed/);
  assertRefused(`${header}.${claims}.${'A'.repeat(70_000)}`, /too long/);
  assertRefused('', /compact/);
});
