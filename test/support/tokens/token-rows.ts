/** The rows of the conformance suite on single tokens, each by its id, and what an attacker would try besides. */
import { sign } from 'node:crypto';
import { base64url, AUDIENCE, hmac, jwk, jwks, sealed, signer, SUBJECT, testKey, token, type Json, type TokenOptions } from './tokens.ts';
import type { TokenProblemCode } from '../../../src/jwt/token.ts';

export interface TokenRow {
  readonly name: string;
  readonly text: string;
  /** Whose it is, or why it is refused. */
  readonly verdict: string;
}

export const PARTNER = 'spiffe://partner.test/db';
export const KEY = testKey('p256');
const key = KEY;
const rsa = testKey('rsa', 'rsa');
const p384 = testKey('p384', 'P-384');
const p521 = testKey('p521', 'P-521');
const ed = testKey('ed', 'ed25519');
export const FOREIGN = testKey('foreign');
const foreign = FOREIGN;

/** Trust domain to JWKS: what the rows are about. */
export const ROW_BUNDLES: Readonly<Record<string, string>> = {
  'example.org': jwks(jwk(key), jwk(rsa), jwk(p384), jwk(p521), jwk(ed)),
  'partner.test': jwks(jwk(foreign)),
  'empty.test': jwks(),
  'td_1.example-2.org': jwks(jwk(key)),
  '192.168.1.1': jwks(jwk(key)),
};

/** `audience` is `AUDIENCE`, and the time `nowMs`, give or take some seconds. */
export function tokenRows(nowMs: number): readonly TokenRow[] {
  const NOW = Math.floor(nowMs / 1000);
  const rows: TokenRow[] = [];
  const made = (options: Partial<TokenOptions> = {}): string => token({ key, nowMs, ...options });
  const withClaims = (claims: Json): string => made({ claims });
  const withHeader = (header: Json): string => made({ header });
  const accepts = (name: string, text: () => string, verdict = SUBJECT): void => void rows.push({ name, text: text(), verdict });
  const refuses = (name: string, text: () => string, verdict: TokenProblemCode): void => void rows.push({ name, text: text(), verdict });
  const good = (changes: Json = {}): string => JSON.stringify({ sub: SUBJECT, aud: [AUDIENCE], exp: NOW + 300, ...changes });
  const HEADER = '{"alg":"ES256","kid":"p256","typ":"JWT"}';
  const signed = (claims: string, header = HEADER): string => sealed(header, claims, signer('ES256', key));

  accepts('JV-1: a valid token is accepted, and its sub is who it is', () => made());
  for (const [alg, by] of [
    ['RS256', rsa],
    ['RS384', rsa],
    ['RS512', rsa],
    ['PS256', rsa],
    ['PS384', rsa],
    ['PS512', rsa],
    ['ES256', key],
    ['ES384', p384],
    ['ES512', p521],
  ] as const) {
    accepts(`JV-2/${alg}: the algorithm is accepted`, () => made({ alg, key: by }));
  }
  refuses('JV-3: alg none is refused', () => `${base64url('{"alg":"none","kid":"p256"}')}.${made().split('.')[1]}.`, 'token_malformed');
  refuses('JV-3: alg none is refused with a signature, too', () => withHeader({ alg: 'none' }), 'token_algorithm');
  for (const alg of ['HS256', 'HS384', 'HS512'])
    refuses(`JV-4/${alg}: HMAC is refused`, () => made({ alg, signer: hmac(alg, 'a secret of thirty-two bytes here') }), 'token_algorithm');
  refuses(
    'JV-4/hmac-public-key: HMAC with the public key for its secret is refused',
    () => made({ alg: 'HS256', signer: hmac('HS256', key.publicKey.export({ type: 'spki', format: 'pem' })) }),
    'token_algorithm',
  );
  refuses('JV-5: EdDSA is refused though its key is in the bundle', () => made({ alg: 'EdDSA', key: ed }), 'token_algorithm');
  for (const alg of ['ES256K', 'Ed25519', 'RS1', 'ML-DSA-44', 'es256', 'ES256 ', '__proto__', 'toString', ''])
    refuses(`the algorithm ${JSON.stringify(alg)} is none of the nine`, () => withHeader({ alg }), 'token_algorithm');
  for (const alg of [undefined, null, 256, ['ES256'], { ES256: 1 }])
    refuses(`the algorithm ${JSON.stringify(alg)} is no name`, () => withHeader({ alg }), 'token_algorithm');
  refuses(
    'JV-6/rs256-header-ec-key: an algorithm of RSA with a key of EC is refused',
    () => withHeader({ alg: 'RS256' }),
    'token_unknown_key',
  );
  refuses(
    'JV-6/es384-header-p256-key: an algorithm of another curve than the key is refused',
    () => made({ alg: 'ES384', signer: signer('ES384', key) }),
    'token_unknown_key',
  );
  refuses(
    'a key of one algorithm does not sign for another of its kind',
    () => made({ alg: 'PS256', key: rsa, signer: signer('RS256', rsa) }),
    'token_signature',
  );
  refuses(
    'a signature of ECDSA in DER is refused',
    () => made({ signer: (data) => sign('sha256', data, key.privateKey) }),
    'token_signature',
  );
  refuses('JV-7: a token without aud is refused', () => withClaims({ aud: undefined }), 'token_audience');
  refuses('JV-7: an empty aud is none', () => withClaims({ aud: [] }), 'token_audience');
  refuses('JV-8: a token for another audience is refused', () => withClaims({ aud: ['other'] }), 'token_audience');
  refuses(
    'JV-8: an audience that begins alike is another',
    () => withClaims({ aud: [`${AUDIENCE}.example`, 'API', 'ap'] }),
    'token_audience',
  );
  accepts('JV-9: one audience of several is enough', () => withClaims({ aud: ['other', AUDIENCE] }));
  accepts('JV-10: the audience may be a single text', () => withClaims({ aud: AUDIENCE }));
  refuses('JV-11: a token without exp is refused', () => withClaims({ exp: undefined }), 'token_expired');
  refuses('JV-12: a token that expired 5 minutes ago is refused', () => withClaims({ exp: NOW - 300 }), 'token_expired');
  refuses('JV-13: a token whose nbf is 5 minutes ahead is refused', () => withClaims({ nbf: NOW + 300 }), 'token_not_yet_valid');
  refuses('a token that was issued in the future is refused', () => withClaims({ iat: NOW + 300 }), 'token_not_yet_valid');
  refuses(
    'JV-14: a token with a flipped bit in its signature is refused',
    () => {
      const [header, claims, signature = ''] = made().split('.');
      const bytes = Buffer.from(signature, 'base64url');
      bytes.writeUInt8(bytes.readUInt8(40) ^ 1, 40);
      return `${header}.${claims}.${base64url(bytes)}`;
    },
    'token_signature',
  );
  refuses(
    'JV-15: a token whose claims were changed is refused',
    () => {
      const [header, , signature] = made().split('.');
      return `${header}.${withClaims({ sub: 'spiffe://example.org/admin' }).split('.')[1]}.${signature}`;
    },
    'token_signature',
  );
  refuses('JV-16: a token of a key that is not in the bundle is refused', () => made({ key: testKey('unknown') }), 'token_unknown_key');
  refuses('JV-16: also under the kid of one that is', () => made({ key: testKey('p256') }), 'token_signature');
  refuses(
    'JV-17: a key of another trust domain that has a bundle does not count',
    () => made({ key: foreign, claims: { sub: SUBJECT } }),
    'token_unknown_key',
  );
  refuses('JV-17: nor does ours for theirs', () => withClaims({ sub: PARTNER }), 'token_unknown_key');
  refuses(
    'JV-18: a trust domain without a bundle is refused',
    () => withClaims({ sub: 'spiffe://unknown.test/a' }),
    'token_untrusted_domain',
  );
  refuses('JV-19: a sub that is no SPIFFE ID is refused', () => withClaims({ sub: 'https://example.org/web' }), 'token_subject');
  for (const sub of [undefined, null, '', 7, [SUBJECT], { id: SUBJECT }, 'spiffe://example.org'])
    refuses(`the sub ${JSON.stringify(sub)} is nobody`, () => withClaims({ sub }), 'token_subject');
  accepts('JV-20/typ-JWT: accepted', () => withHeader({ typ: 'JWT' }));
  accepts('JV-20/typ-JOSE: accepted', () => withHeader({ typ: 'JOSE' }));
  accepts('JV-20/no-typ: accepted', () => withHeader({ typ: undefined }));
  for (const typ of ['at+jwt', 'wit+jwt', 'jwt', 'application/jwt', null, 1])
    refuses(`JV-21: the typ ${JSON.stringify(typ)} is refused`, () => withHeader({ typ }), 'token_header');
  accepts('JV-22: a token without kid is accepted, whichever key of the bundle it is by', () => withHeader({ kid: undefined }));
  refuses(
    'a token without kid of no key of the bundle is refused',
    () => made({ key: testKey('x'), header: { kid: undefined } }),
    'token_signature',
  );
  for (const kid of ['', null, 7, ['p256']]) refuses(`the kid ${JSON.stringify(kid)} is none`, () => withHeader({ kid }), 'token_header');
  refuses('JV-23: an unknown crit is refused', () => withHeader({ crit: ['urn:x'], 'urn:x': true }), 'token_header');
  for (const name of ['crit', 'b64', 'jku', 'jwk', 'x5u', 'x5c', 'x5t', 'cty', 'zip', 'iss', '__proto__', 'KID'])
    refuses(
      `the header ${name} is not permitted`,
      () => sealed(`{"alg":"ES256","kid":"p256","${name}":[]}`, good(), signer('ES256', key)),
      'token_header',
    );
  refuses(
    'JV-24: the JSON serialisations are refused',
    () => {
      const [protectedHeader, payload, signature] = made().split('.');
      return JSON.stringify({ payload, protected: protectedHeader, signature });
    },
    'token_malformed',
  );
  refuses(
    'JV-24: two signatures are refused',
    () => {
      const [protectedHeader, payload, signature] = made().split('.');
      return JSON.stringify({ payload, signatures: [1, 2].map(() => ({ protected: protectedHeader, signature })) });
    },
    'token_malformed',
  );
  refuses('JV-25/two-parts: refused', () => made().split('.').slice(0, 2).join('.'), 'token_malformed');
  refuses('JV-25/bad-base64: refused', () => made().replace('.', '.!'), 'token_malformed');
  refuses('JV-25/bad-json: refused', () => sealed('{"alg":"ES256","kid":"p256"}', '{"sub":', signer('ES256', key)), 'token_malformed');

  const ODD: readonly [string, () => string, TokenProblemCode][] = [
    ['nothing', () => '', 'token_malformed'],
    ['dots', () => '..', 'token_malformed'],
    ['a fourth part', () => `${made()}.`, 'token_malformed'],
    ['the five parts of JWE', () => `${made()}.a.b`, 'token_malformed'],
    ['an empty signature', () => made().replace(/[^.]+$/, ''), 'token_malformed'],
    ['padding', () => `${made()}==`, 'token_malformed'],
    [
      'plain base64',
      () =>
        signed(good({ x: '???>>>' }))
          .replaceAll('_', '/')
          .replaceAll('-', '+')
          .replace(/$/, '+'),
      'token_malformed',
    ],
    ['a line break', () => made().replace('.', '\n.'), 'token_malformed'],
    ['a space behind it', () => `${made()} `, 'token_malformed'],
    ['bits behind the last byte', () => trailingBits(made()), 'token_malformed'],
    ['a header twice', () => signed(good(), '{"alg":"none","alg":"ES256","kid":"p256"}'), 'token_malformed'],
    ['a header twice, once escaped', () => signed(good(), '{"alg":"ES256","\\u0061lg":"ES256","kid":"p256"}'), 'token_malformed'],
    ['a claim twice', () => signed(good().replace('{', '{"sub":"spiffe://example.org/admin",')), 'token_malformed'],
    ['a claim twice within another', () => signed(good({ x: 0 }).replace('"x":0', '"x":{"a":1,"a":2}')), 'token_malformed'],
    ['a header that is a list', () => signed(good(), '[]'), 'token_malformed'],
    ['claims that are a text', () => signed('"claims"'), 'token_malformed'],
    ['claims that are null', () => signed('null'), 'token_malformed'],
    [
      'bytes that are no UTF-8',
      () => signed(good()).replace(/\..*\./, `.${base64url(Buffer.from([0x7b, 0xff, 0x7d]))}.`),
      'token_malformed',
    ],
    ['a mark of byte order', () => signed(`\ufeff${good()}`), 'token_malformed'],
    ['depth', () => signed(good({ x: 0 }).replace('"x":0', `"x":${'['.repeat(3000)}${']'.repeat(3000)}`)), 'token_malformed'],
    ['a number that is none', () => signed(good({ x: 0 }).replace('"x":0', '"x":1e999')), 'token_malformed'],
    ['100 KB', () => withClaims({ x: 'x'.repeat(75_000) }), 'token_too_long'],
    ['a million dots', () => '.'.repeat(1_000_000), 'token_too_long'],
    ['audiences that are no texts', () => withClaims({ aud: [AUDIENCE, 7] }), 'token_malformed'],
    ['an audience that is an object', () => withClaims({ aud: { [AUDIENCE]: true } }), 'token_malformed'],
    ['an exp that is a text', () => withClaims({ exp: String(NOW + 300) }), 'token_malformed'],
    ['an exp that is null', () => withClaims({ exp: null }), 'token_malformed'],
    ['an exp beyond all time', () => withClaims({ exp: 1e300 }), 'token_malformed'],
    ['a negative exp', () => withClaims({ exp: -1 }), 'token_expired'],
    ['an nbf that is a text', () => withClaims({ nbf: '0' }), 'token_malformed'],
    ['an iat that is a list', () => withClaims({ iat: [NOW] }), 'token_malformed'],
    ['an iss that is no text', () => withClaims({ iss: 7 }), 'token_malformed'],
    ['a jti that is no text', () => withClaims({ jti: {} }), 'token_malformed'],
    ['a signature of another length', () => made({ signer: (data) => signer('ES256', key)(data).subarray(0, 63) }), 'token_signature'],
    ['a signature of zeroes', () => made({ signer: () => Buffer.alloc(64) }), 'token_signature'],
    ['a trust domain with no keys', () => withClaims({ sub: 'spiffe://empty.test/a' }), 'token_unknown_key'],
  ];
  for (const [what, text, code] of ODD) refuses(`a token with ${what} is refused`, text, code);

  const INVALID_IDS: Readonly<Record<string, string>> = {
    'empty-trust-domain': 'spiffe:///a',
    port: 'spiffe://example.org:8080/a',
    userinfo: 'spiffe://u@example.org/a',
    query: 'spiffe://example.org/a?x=1',
    fragment: 'spiffe://example.org/a#f',
    'percent-encoded': 'spiffe://example.org/%41',
    'empty-segment': 'spiffe://example.org/a//b',
    'dot-segment': 'spiffe://example.org/a/./b',
    'dot-dot-segment': 'spiffe://example.org/a/../b',
    'trailing-slash': 'spiffe://example.org/a/',
    'invalid-path-char': 'spiffe://example.org/a!b',
    'invalid-trust-domain-char': 'spiffe://t$d/a',
  };
  for (const [name, sub] of Object.entries(INVALID_IDS))
    refuses(`ID-1/${name}: refused as a sub`, () => withClaims({ sub }), 'token_subject');

  const LONGEST = `spiffe://example.org/${'a'.repeat(2048 - 'spiffe://example.org/'.length)}`;
  for (const [name, sub] of Object.entries({
    'path-chars': 'spiffe://example.org/Path.With-Mixed_Case/a.b-c_D/..x/x..',
    'trust-domain-chars': 'spiffe://td_1.example-2.org/id-2',
    'ipv4-trust-domain': 'spiffe://192.168.1.1/id-2',
    'max-length': LONGEST,
  }))
    accepts(`ID-2/${name}: accepted as a sub`, () => withClaims({ sub }), sub);
  refuses('a sub of 2049 bytes is refused', () => withClaims({ sub: `${LONGEST}a` }), 'token_subject');
  return rows;
}

/** Base64url whose last letter has bits that are of no byte. */
function trailingBits(text: string): string {
  const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
  const at = letters.indexOf(text.at(-1) ?? '');
  return `${text.slice(0, -1)}${letters[at ^ 1]}`;
}
