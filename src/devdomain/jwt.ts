// JWT-SVIDs for the clients of the embedded trust domain (JWT-SVID standard).
import { constants, createHash, type KeyObject, sign, verify } from 'node:crypto';
import type { JsonObject, JsonValue } from '@bufbuild/protobuf';
import { err, ok, type Result } from '../lib/result.ts';
import { parseSpiffeId, trustDomainOf, type SpiffeId } from '../spiffe/spiffe-id.ts';
import type { TrustDomain } from '../spiffe/trust-domain.ts';
import { createKeyPair } from './key-pair.ts';

/** A key that signs JWT-SVIDs of one trust domain, always ES256. */
export interface JwtKey {
  readonly kid: string;
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
}

export async function createJwtKey(): Promise<JwtKey> {
  const { privateKey, publicKey } = await createKeyPair('ec-p256');
  const kid = createHash('sha256')
    .update(publicKey.export({ type: 'spki', format: 'der' }))
    .digest('base64url')
    .slice(0, 22);
  return { kid, privateKey, publicKey };
}

export interface JwtSvidRequest {
  readonly id: SpiffeId;
  readonly audience: readonly string[];
  readonly nowMs: number;
  readonly lifeMs: number;
}

/** A signed JWT-SVID in compact form. */
export function signJwtSvid(key: JwtKey, { id, audience, nowMs, lifeMs }: JwtSvidRequest): string {
  const nowSeconds = Math.floor(nowMs / 1000);
  const header = { alg: 'ES256', kid: key.kid, typ: 'JWT' };
  const claims = { sub: id, aud: audience, exp: nowSeconds + Math.max(Math.floor(lifeMs / 1000), 1), iat: nowSeconds };
  const body = `${base64url(JSON.stringify(header))}.${base64url(JSON.stringify(claims))}`;
  return `${body}.${base64url(sign('sha256', Buffer.from(body), { key: key.privateKey, dsaEncoding: 'ieee-p1363' }))}`;
}

/** The JWT bundle of a trust domain: a JWKS document, UTF-8. */
export function writeJwks(keys: readonly JwtKey[]): Uint8Array {
  const entries = keys.map(({ kid, publicKey }) => ({ ...publicKey.export({ format: 'jwk' }), use: 'jwt-svid', kid, alg: 'ES256' }));
  return Buffer.from(JSON.stringify({ keys: entries }));
}

export interface VerificationKey {
  readonly kid: string;
  readonly publicKey: KeyObject;
}

export interface JwtExpectation {
  /** One of the token's audiences must be this. */
  readonly audience: string;
  readonly keys: ReadonlyMap<TrustDomain, readonly VerificationKey[]>;
  readonly nowMs: number;
}

export interface ValidJwtSvid {
  readonly id: SpiffeId;
  readonly claims: JsonObject;
}

/** For clocks that differ. */
const LEEWAY_SECONDS = 60;
const MAX_TOKEN_LENGTH = 65_536;
/** Nothing but these may be in the header (JWT-SVID standard, section 2). */
const HEADERS: ReadonlySet<string> = new Set(['alg', 'kid', 'typ']);

/** Validates a JWT-SVID, one rule of the standard a line. The error is a sentence that names what is wrong. */
export function validateJwtSvid(token: string, { audience, keys, nowMs }: JwtExpectation): Result<ValidJwtSvid, string> {
  const parts = token.split('.');
  const [headerText, claimsText, signatureText] = parts;
  if (token.length > MAX_TOKEN_LENGTH) return err('token is too long');
  if (parts.length !== 3 || headerText === undefined || claimsText === undefined || signatureText === undefined)
    return err('token is not a compact JWS');
  const header = parseObject(headerText);
  const claims = parseObject(claimsText);
  const signature = decode(signatureText);
  if (header === undefined) return err('token header is malformed');
  if (claims === undefined) return err('token claims are malformed');
  if (signature === undefined) return err('token signature is malformed');

  const { alg, kid, typ } = header;
  const unknown = Object.keys(header).find((name) => !HEADERS.has(name));
  if (unknown !== undefined) return err(`token header ${JSON.stringify(unknown)} is not permitted`);
  if (typeof alg !== 'string' || !Object.hasOwn(ALGORITHMS, alg)) return err(`token algorithm ${JSON.stringify(alg)} is not permitted`);
  if (kid !== undefined && typeof kid !== 'string') return err('token kid is not a string');
  if (typ !== undefined && typ !== 'JWT' && typ !== 'JOSE') return err(`token typ ${JSON.stringify(typ)} is not permitted`);

  const subject = typeof claims['sub'] === 'string' ? parseSpiffeId(claims['sub']) : err('missing');
  if (!subject.ok) return err(`token sub ${JSON.stringify(claims['sub'])} is not a SPIFFE ID: ${subject.error}`);
  const domainKeys = keys.get(trustDomainOf(subject.value));
  if (domainKeys === undefined) return err(`no JWT bundle for trust domain ${JSON.stringify(trustDomainOf(subject.value))}`);
  const algorithm = ALGORITHMS[alg as keyof typeof ALGORITHMS];
  const candidates = domainKeys.filter((key) => (kid === undefined || key.kid === kid) && algorithm.fits(key.publicKey));
  const signed = Buffer.from(`${headerText}.${claimsText}`);
  if (candidates.length === 0) return err(`no key ${JSON.stringify(kid)} for ${alg} in the JWT bundle`);
  if (!candidates.some((key) => algorithm.verify(signed, key.publicKey, signature))) return err('token signature is wrong');

  return problemOfClaims(claims, audience, nowMs / 1000) ?? ok({ id: subject.value, claims });
}

function problemOfClaims(
  claims: JsonObject,
  audience: string,
  nowSeconds: number,
): { readonly ok: false; readonly error: string } | undefined {
  const { aud, exp, nbf, iat } = claims;
  const audiences = typeof aud === 'string' ? [aud] : aud;
  if (!Array.isArray(audiences) || audiences.length === 0) return err('token has no audience');
  if (!audiences.every((value) => typeof value === 'string')) return err('token audience is malformed');
  if (!audiences.includes(audience))
    return err(`audience ${JSON.stringify(audience)} is not among the token's ${JSON.stringify(audiences)}`);
  if (typeof exp !== 'number') return err('token has no exp');
  if (nowSeconds >= exp + LEEWAY_SECONDS) return err('token has expired');
  if (nbf !== undefined && !(typeof nbf === 'number' && nbf <= nowSeconds + LEEWAY_SECONDS)) return err('token is not valid yet');
  if (iat !== undefined && !(typeof iat === 'number' && iat <= nowSeconds + LEEWAY_SECONDS)) return err('token was issued in the future');
  return undefined;
}

interface Algorithm {
  fits(key: KeyObject): boolean;
  verify(data: Buffer, key: KeyObject, signature: Buffer): boolean;
}

const rsa = (hash: string): Algorithm => ({
  fits: (key) => key.asymmetricKeyType === 'rsa',
  verify: (data, key, signature) => verify(hash, data, key, signature),
});

const rsaPss = (hash: string): Algorithm => ({
  fits: (key) => key.asymmetricKeyType === 'rsa',
  verify: (data, key, signature) =>
    verify(hash, data, { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }, signature),
});

const ecdsa = (hash: string, curve: string): Algorithm => ({
  fits: (key) => key.asymmetricKeyType === 'ec' && key.asymmetricKeyDetails?.namedCurve === curve,
  verify: (data, key, signature) => verify(hash, data, { key, dsaEncoding: 'ieee-p1363' }, signature),
});

/** The closed set of the standard, section 2.1. */
const ALGORITHMS = {
  RS256: rsa('sha256'),
  RS384: rsa('sha384'),
  RS512: rsa('sha512'),
  ES256: ecdsa('sha256', 'prime256v1'),
  ES384: ecdsa('sha384', 'secp384r1'),
  ES512: ecdsa('sha512', 'secp521r1'),
  PS256: rsaPss('sha256'),
  PS384: rsaPss('sha384'),
  PS512: rsaPss('sha512'),
} as const satisfies Record<string, Algorithm>;

function base64url(data: string | Uint8Array): string {
  return Buffer.from(data).toString('base64url');
}

/** Strict: Node's own decoder skips what it does not know. */
function decode(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, 'base64url');
  return text !== '' && bytes.toString('base64url') === text ? bytes : undefined;
}

function parseObject(text: string): JsonObject | undefined {
  const bytes = decode(text);
  if (bytes === undefined) return undefined;
  try {
    const value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)) as JsonValue;
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? value : undefined;
  } catch {
    return undefined;
  }
}
