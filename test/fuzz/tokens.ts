/** JWT-SVIDs, good ones and ones that are changed anywhere, each signed as it stands unless that is what is changed. */
import assert from 'node:assert/strict';
import { validateJwtSvid } from '../../src/devdomain/jwt.ts';
import { TOKEN_PROBLEMS } from '../../src/jwt/token.ts';
import { verifyToken } from '../../src/jwt/verify.ts';
import { parseJwtBundle, type JwtBundles } from '../../src/spiffe/jwt-bundle.ts';
import type { TrustDomain } from '../../src/spiffe/trust-domain.ts';
import { AUDIENCE, base64url, jwk, jwks, signer, SUBJECT, testKey, type TestKey } from '../support/tokens/tokens.ts';
import { Draws } from './random.ts';

const KEYS: readonly (readonly [string, TestKey])[] = [
  ['ES256', testKey('p256')],
  ['ES384', testKey('p384', 'P-384')],
  ['RS256', testKey('rsa', 'rsa')],
  ['PS512', testKey('rsa2', 'rsa')],
];
const STRANGER = testKey('p256');

/** Trust domain to JWKS. */
export const FUZZ_BUNDLES: Readonly<Record<string, string>> = {
  'example.org': jwks(...KEYS.map(([, key]) => jwk(key))),
  'partner.test': jwks(jwk(STRANGER, { kid: 'theirs' })),
};

const BUNDLES: JwtBundles = new Map(
  Object.entries(FUZZ_BUNDLES).map(([name, text]) => {
    const bundle = parseJwtBundle(name as TrustDomain, Buffer.from(text));
    assert.ok(bundle.ok);
    return [name as TrustDomain, bundle.value];
  }),
);
/** The same for the validator of the embedded trust domain, which is another reading of the standard. */
const OTHER_KEYS = new Map(
  [...BUNDLES].map(([name, { authorities }]) => [name, authorities.map(({ keyId, key }) => ({ kid: keyId, publicKey: key }))]),
);

/** What stands for a JSON value. */
const VALUES = [
  'null',
  'true',
  '0',
  '-1',
  '1e999',
  '1e18',
  '0.5',
  '""',
  '"x"',
  '[]',
  '{}',
  `"${AUDIENCE}"`,
  `["${AUDIENCE}"]`,
  `["x","${AUDIENCE}"]`,
  `["${AUDIENCE}",1]`,
  `"${SUBJECT}"`,
  '"spiffe://partner.test/db"',
  '"spiffe://example.org"',
  '"SPIFFE://example.org/web"',
  '"spiffe://example.org/web/"',
  '"JWT"',
  '"JOSE"',
  '"jwt"',
  '"ES256"',
  '"none"',
  '"HS256"',
  '"\\u0000"',
  '"\\ud800"',
  '[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]',
  '{"a":1,"a":2}',
];
const HEADER_NAMES = ['alg', 'kid', 'typ', 'crit', 'jwk', 'jku', 'x5c', 'b64', 'cty', 'ALG', '\\u0061lg', '__proto__'];
const CLAIM_NAMES = ['sub', 'aud', 'exp', 'nbf', 'iat', 'iss', 'jti', 'SUB', '\\u0073ub', 'x', '__proto__', 'constructor'];
const LETTERS = ['.', '=', '-', '_', '+', '/', 'A', 'z', ' ', '\n', '\u00e9', '%', '{', '"', ''];

type Members = [string, string][];

/** A token of the case, and whether it names its key. Its times are about `nowMs`. */
export function drawToken(draws: Draws, nowMs: number): { readonly text: string; readonly hasKeyId: boolean } {
  const now = Math.floor(nowMs / 1000);
  const [alg, key] = draws.of(KEYS);
  const header: Members = [
    ['alg', `"${alg}"`],
    ['kid', `"${key.kid}"`],
    ['typ', '"JWT"'],
  ];
  const times = [-3600, -90, -45, -10, 0, 10, 45, 90, 3600];
  const claims: Members = [
    ['sub', draws.once(60) ? '"spiffe://example.org"' : `"${SUBJECT}"`],
    ['aud', draws.of([`["${AUDIENCE}"]`, `"${AUDIENCE}"`, `["x","${AUDIENCE}"]`])],
    ['exp', String(now + (draws.once(3) ? draws.of(times) : 300))],
    ...(draws.once(2) ? [['iat', String(now + (draws.once(4) ? draws.of(times) : -5))] as [string, string]] : []),
    ...(draws.once(4) ? [['nbf', String(now + draws.of(times))] as [string, string]] : []),
  ];
  if (draws.once(4)) header.splice(1, 1);
  if (draws.once(3)) change(draws, header, HEADER_NAMES);
  if (draws.once(3)) change(draws, claims, CLAIM_NAMES);
  let [head, body] = [write(draws, header), write(draws, claims)];
  if (draws.once(12)) head = spoil(draws, head);
  if (draws.once(12)) body = spoil(draws, body);
  const signed = `${base64url(head)}.${base64url(body)}`;
  const by = draws.once(10) ? STRANGER : key;
  const sealed = `${signed}.${base64url(signer(by === STRANGER ? 'ES256' : draws.once(12) ? 'ES256' : alg, by)(Buffer.from(signed)))}`;
  const text = draws.once(8) ? spoil(draws, sealed) : sealed;
  return { text, hasKeyId: header.some(([name]) => name === 'kid') };
}

function change(draws: Draws, members: Members, names: readonly string[]): void {
  for (let changes = 1 + draws.below(2); changes > 0; changes--) {
    const at = draws.below(members.length);
    const member = members[at];
    if (draws.once(3)) members.splice(at, 1);
    else if (draws.once(2) && member !== undefined) members[at] = [member[0], draws.of(VALUES)];
    else members.splice(at, 0, [draws.of(names), draws.of(VALUES)]);
  }
}

/** JSON of one object, with room as it may be. */
function write(draws: Draws, members: Members): string {
  const room = draws.once(6) ? draws.of([' ', '\n', '\t']) : '';
  return `{${members.map(([name, value]) => `${room}"${name}":${room}${value}`).join(',')}}${room}`;
}

/** One letter goes, comes or is another. */
function spoil(draws: Draws, text: string): string {
  const at = draws.below(text.length + 1);
  const left = draws.once(2) ? at + 1 : at;
  return `${text.slice(0, at)}${draws.of(LETTERS.slice(0, -1))}${text.slice(left)}`;
}

/** What Scute says of a token: `ok`, or why not. Fails if it throws, or says what is not in its closed set. */
export async function verdictOn(text: string, nowMs: number): Promise<string> {
  const verified = await verifyToken(text, { audiences: [AUDIENCE], nowMs }, BUNDLES);
  if (verified.ok) return 'ok';
  assert.ok(TOKEN_PROBLEMS.includes(verified.error.code), verified.error.code);
  assert.ok(verified.error.message.length < 1000);
  return verified.error.code;
}

/** One case: the same for the same number. What is accepted must be so by another reading. Gives the verdict. */
export async function checkTokenCase(number: number, nowMs: number = Date.UTC(2026, 0, 1)): Promise<string> {
  const { text } = drawToken(new Draws(number), nowMs);
  const verdict = await verdictOn(text, nowMs);
  if (verdict !== 'ok') return verdict;
  const other = validateJwtSvid(text, { audience: AUDIENCE, keys: OTHER_KEYS, nowMs });
  if (!other.ok) assert.fail(JSON.stringify({ number, text, other: other.error }));
  return verdict;
}
