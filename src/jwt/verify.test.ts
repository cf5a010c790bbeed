/** The rows of the conformance suite on tokens, each by its id, and what an attacker would try besides. Bundles come through their own reader. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseJwtBundle, type JwtBundles } from '../spiffe/jwt-bundle.ts';
import type { TrustDomain } from '../spiffe/trust-domain.ts';
import {
  AUDIENCE,
  base64url,
  jwk,
  jwks,
  SUBJECT,
  testKey,
  token,
  type Json,
  type TestKey,
  type TokenOptions,
} from '../../test/support/tokens/tokens.ts';
import { FOREIGN, KEY, PARTNER, ROW_BUNDLES, tokenRows } from '../../test/support/tokens/token-rows.ts';
import { LEEWAY_MS, MAX_TOKEN_BYTES } from './token.ts';
import { verifyToken } from './verify.ts';

const NOW_MS = Date.UTC(2026, 0, 1);
const NOW = NOW_MS / 1000;
const key = KEY;

function bundles(map: Readonly<Record<string, string>>): JwtBundles {
  return new Map(
    Object.entries(map).map(([name, text]) => {
      const bundle = parseJwtBundle(name as TrustDomain, Buffer.from(text));
      assert.ok(bundle.ok, name);
      return [name as TrustDomain, bundle.value];
    }),
  );
}

const HELD = bundles(ROW_BUNDLES);

const made = (options: Partial<TokenOptions> = {}): string => token({ key, nowMs: NOW_MS, ...options });
const withClaims = (claims: Json): string => made({ claims });
const withHeader = (header: Json): string => made({ header });

async function verdict(text: string, held = HELD, nowMs = NOW_MS, audiences: readonly string[] = [AUDIENCE]): Promise<string> {
  const verified = await verifyToken(text, { audiences, nowMs }, held);
  if (!verified.ok) assert.ok(!verified.error.message.includes(text.slice(0, 60)) || text.length < 60, 'the token is quoted');
  return verified.ok ? verified.value.subject : verified.error.code;
}

for (const { name, text, verdict: expected } of tokenRows(NOW_MS)) {
  test(name, async () => {
    // Of each there is a good one beside it, so that the refusal is for that alone.
    assert.equal(await verdict(made()), SUBJECT);
    assert.equal(await verdict(text), expected);
  });
}

test('a token lives for its exp and half a minute, and begins as much before its nbf, to the millisecond', async () => {
  const text = withClaims({ exp: NOW + 10, nbf: NOW - 10, iat: undefined });
  assert.equal(await verdict(text, HELD, (NOW + 10) * 1000 + LEEWAY_MS - 1), SUBJECT);
  assert.equal(await verdict(text, HELD, (NOW + 10) * 1000 + LEEWAY_MS), 'token_expired');
  assert.equal(await verdict(text, HELD, (NOW - 10) * 1000 - LEEWAY_MS), SUBJECT);
  assert.equal(await verdict(text, HELD, (NOW - 10) * 1000 - LEEWAY_MS - 1), 'token_not_yet_valid');
  assert.equal(await verdict(text, HELD, Number.NaN), 'token_expired');
});

test('a validator without an audience of its own accepts nothing', async () => {
  assert.equal(await verdict(made(), HELD, NOW_MS, []), 'token_audience');
  assert.equal(await verdict(withClaims({ aud: '' }), HELD, NOW_MS, []), 'token_audience');
});

test('the largest token is taken, and one byte more is not', async () => {
  const rest = (length: number): string => withClaims({ x: 'x'.repeat(length) });
  let length = 11_900;
  while (rest(length).length <= MAX_TOKEN_BYTES) length += 1;
  assert.equal(await verdict(rest(length)), 'token_too_long');
  assert.equal(await verdict(rest(length - 1)), SUBJECT);
});

// ——— bundles ———

const bundleOf = (...elements: Json[]): JwtBundles => bundles({ 'example.org': jwks(...elements) });
const other = testKey('other');

test('JB-4: the key is chosen by its kid among three', async () => {
  const three = bundleOf(jwk(testKey('first')), jwk(key), jwk(other));
  assert.equal(await verdict(made(), three), SUBJECT);
  assert.equal(await verdict(made({ key: other }), three), SUBJECT);
  assert.equal(await verdict(withHeader({ kid: 'other' }), three), 'token_signature');
});

test('JB-5/x509-svid-use: a key for X.509-SVIDs is for no token', async () => {
  const held = bundleOf(jwk(key), jwk(other, { use: 'x509-svid' }));
  assert.equal(await verdict(made(), held), SUBJECT);
  assert.equal(await verdict(made({ key: other }), held), 'token_unknown_key');
  for (const use of ['wit-svid', 'sig', 'enc', '', null])
    assert.equal(await verdict(made({ key: other }), bundleOf(jwk(other, { use }))), 'token_unknown_key');
});

test('JB-5/missing-use: a key without a use counts, since SPIRE gives the keys of the Workload API without one', async () => {
  assert.equal(await verdict(made(), bundleOf(jwk(key, { use: undefined }))), SUBJECT);
});

test('JB-6: a key of an unknown kty does not spoil the others', async () => {
  const unknown = { kty: 'unheard-of', use: 'jwt-svid', kid: 'x', k: 'AQAB' };
  assert.equal(await verdict(made(), bundleOf(unknown, jwk(key), unknown)), SUBJECT);
});

test('JB-7: a bundle without keys trusts nothing', async () => {
  assert.equal(await verdict(made(), bundleOf()), 'token_unknown_key');
});

test('JB-8: the bundle of a federated trust domain is used for its tokens', async () => {
  assert.equal(await verdict(made({ key: FOREIGN, claims: { sub: PARTNER } })), PARTNER);
});

test('keys that cannot be relied on are left out, and the others stay', async () => {
  const twice = testKey('other');
  const weak = { kty: 'RSA', kid: 'weak', use: 'jwt-svid', n: base64url(Buffer.alloc(128, 0xff)), e: 'AQAB' };
  const bad: readonly Json[] = [
    weak,
    jwk(other, { kid: undefined }),
    jwk(other, { kid: '' }),
    jwk(other, { kid: 7 }),
    jwk(other, { x: 'AAAA' }),
    { kty: 'oct', kid: 'secret', use: 'jwt-svid', k: 'AAAA' },
    { kty: 'RSA', kid: 'slow', use: 'jwt-svid', n: base64url(Buffer.alloc(512, 0xff)), e: base64url(Buffer.alloc(512, 0x7f)) },
  ];
  for (const element of bad) {
    const held = bundleOf(element, jwk(key));
    assert.deepEqual(
      held.get('example.org' as TrustDomain)?.authorities.map(({ keyId }) => keyId),
      ['p256'],
      JSON.stringify(element),
    );
    assert.equal(await verdict(made(), held), SUBJECT);
    // A partner chose what they quote.
    for (const note of held.get('example.org' as TrustDomain)?.notes ?? []) assert.ok(note.length < 200, note);
  }
  const ambiguous = bundleOf(jwk(other), jwk(twice), jwk(key));
  for (const by of [other, twice]) assert.equal(await verdict(made({ key: by }), ambiguous), 'token_unknown_key');
  assert.equal(await verdict(made(), ambiguous), SUBJECT);
  assert.equal(await verdict(made({ key: other }), bundleOf(jwk(other), jwk(other))), SUBJECT);
});

test('a key that a bundle tells as a private one is read as its public one', async () => {
  const held = bundleOf({ ...(key.privateKey.export({ format: 'jwk' }) as Json), kid: 'p256' });
  assert.equal(held.get('example.org' as TrustDomain)?.authorities[0]?.key.type, 'public');
  assert.equal(await verdict(made(), held), SUBJECT);
});

test('of a partner with too many keys none is relied on, and a token that names no key of many is refused', async () => {
  const many = (count: number): TestKey[] => Array.from({ length: count }, (_, at) => ({ ...key, kid: `k${at}` }));
  const tooMany = bundleOf(...many(257).map((each) => jwk(each)));
  assert.equal(tooMany.get('example.org' as TrustDomain)?.authorities.length, 0);
  assert.equal(tooMany.get('example.org' as TrustDomain)?.notes.length, 1);
  const several = bundleOf(...many(17).map((each) => jwk(each)));
  assert.equal(await verdict(withHeader({ kid: undefined }), several), 'token_unknown_key');
  assert.equal(await verdict(withHeader({ kid: 'k3' }), several), SUBJECT);
});
