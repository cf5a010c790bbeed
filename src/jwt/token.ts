import { hash } from 'node:crypto';
import { messageOf } from '../lib/errors.ts';
import { err, ok, type Result } from '../lib/result.ts';
import type { JwtAuthority } from '../spiffe/bundle-document.ts';
import { readJsonText } from '../spiffe/json-text.ts';
import { parseSpiffeId, pathOf, trustDomainOf, type SpiffeId } from '../spiffe/spiffe-id.ts';
import type { JwtBundles } from '../spiffe/jwt-bundle.ts';

/** What is wrong with a JWT-SVID. One closed set: the metric label, the log field and the documentation share it. */
export const TOKEN_PROBLEMS = [
  'token_too_long',
  'token_malformed', // not three parts of base64url with two JSON objects, or a claim of the wrong type
  'token_algorithm', // none of the nine
  'token_header', // a `typ` of something else, a `kid` that is none, or any header but alg, kid and typ
  'token_subject', // `sub` is missing or no SPIFFE ID
  'token_audience', // `aud` is missing, or has none of ours
  'token_expired', // or without `exp`
  'token_not_yet_valid',
  'token_untrusted_domain', // no JWT bundle for the trust domain of `sub`
  'token_unknown_key', // no key of that bundle by this `kid`, or for this algorithm
  'token_signature',
] as const;
export type TokenProblemCode = (typeof TOKEN_PROBLEMS)[number];

export interface TokenProblem {
  readonly code: TokenProblemCode;
  /** A sentence with the offending value, shortened; never the token. */
  readonly message: string;
}

/** A token as it was read: nothing of it is proven. */
export interface ReadToken {
  readonly algorithm: Algorithm;
  readonly keyId: string | undefined;
  readonly subject: SpiffeId;
  readonly audience: readonly string[];
  /** Milliseconds since 1970, as all times here. */
  readonly expiresMs: number;
  readonly notBeforeMs: number | undefined;
  readonly issuedMs: number | undefined;
}

/** What of a token a validator asks. */
export interface Expectation {
  /** One of the token's audiences must be one of these; none matches nothing. */
  readonly audiences: readonly string[];
  readonly nowMs: number;
}

/** For clocks that differ; the standard allows minutes (JWT-SVID, appendix A). */
export const LEEWAY_MS = 30_000;
/** Of a token: those that SPIRE signs have some 600 bytes. */
export const MAX_TOKEN_BYTES = 16_384;
/** A token without a `kid` is tried with every key that fits: of more than so many it must say which. */
const MAX_TRIED_KEYS = 16;
const MAX_DEPTH = 16;
/** Seconds, of a NumericDate: what is beyond is no time. */
const MAX_SECONDS = 1e11;

/** The closed set of JWT-SVID, section 2.1, and the kind of key that each is for (RFC 7518, section 3.1). */
export const ALGORITHMS = {
  RS256: { keyType: 'rsa', curve: undefined },
  RS384: { keyType: 'rsa', curve: undefined },
  RS512: { keyType: 'rsa', curve: undefined },
  ES256: { keyType: 'ec', curve: 'prime256v1' },
  ES384: { keyType: 'ec', curve: 'secp384r1' },
  ES512: { keyType: 'ec', curve: 'secp521r1' },
  PS256: { keyType: 'rsa', curve: undefined },
  PS384: { keyType: 'rsa', curve: undefined },
  PS512: { keyType: 'rsa', curve: undefined },
} as const;
export type Algorithm = keyof typeof ALGORITHMS;

/** JWT-SVID, section 2: no other header is permitted. */
const HEADERS: ReadonlySet<string> = new Set(['alg', 'kid', 'typ']);

/**
 * Reads a JWT-SVID in compact form (JWT-SVID, sections 2, 3 and 5.1): each rule of the standard that needs no key, no clock and no
 * audience. Nothing of what it gives is proven. Never throws.
 */
export function readToken(token: string): Result<ReadToken, TokenProblem> {
  if (token.length > MAX_TOKEN_BYTES) return problem('token_too_long', `the token has ${token.length} bytes, more than ${MAX_TOKEN_BYTES}`);
  const parts = token.split('.');
  const [headerText, claimsText, signatureText] = parts;
  if (parts.length !== 3 || headerText === undefined || claimsText === undefined || signatureText === undefined)
    return problem('token_malformed', `the token has ${parts.length} parts and not the three of a compact JWS`);
  if (decode(signatureText) === undefined) return problem('token_malformed', 'the signature is not base64url');
  const header = readObject(headerText, 'the header');
  if (!header.ok) return header;
  const claims = readObject(claimsText, 'the claims');
  if (!claims.ok) return claims;
  const signed = readHeader(header.value);
  if (!signed.ok) return signed;
  return readClaims(claims.value, signed.value);
}

/** Whether what a token says of itself is what is expected; undefined if it is. That it is so is not proven. */
export function claimsProblem(token: ReadToken, { audiences, nowMs }: Expectation): TokenProblem | undefined {
  if (!token.audience.some((audience) => audiences.includes(audience))) {
    return { code: 'token_audience', message: `none of the token's audiences ${shown(token.audience)} is expected` };
  }
  return timeProblem(token, nowMs);
}

/** Whether a token is in its time, give or take `LEEWAY_MS`; undefined if it is. */
export function timeProblem(
  { expiresMs, notBeforeMs, issuedMs }: Pick<ReadToken, 'expiresMs' | 'notBeforeMs' | 'issuedMs'>,
  nowMs: number,
): TokenProblem | undefined {
  // Written so that a time that is no number is outside of everything.
  if (!(nowMs < expiresMs + LEEWAY_MS)) return { code: 'token_expired', message: `the token expired at ${isoTime(expiresMs)}` };
  return problemOfBegin('nbf', notBeforeMs, nowMs) ?? problemOfBegin('iat', issuedMs, nowMs);
}

function problemOfBegin(claim: string, ms: number | undefined, nowMs: number): TokenProblem | undefined {
  if (ms === undefined || nowMs >= ms - LEEWAY_MS) return undefined;
  return { code: 'token_not_yet_valid', message: `${claim} of the token is ${isoTime(ms)}, which is still to come` };
}

/**
 * The keys that may have signed the token: of the bundle of the trust domain in its own `sub`, and of no other (JWT-SVID, section 6.2), of
 * the kind that its algorithm is for. By its `kid`, if it has one.
 */
export function keysFor(token: ReadToken, bundles: JwtBundles): Result<readonly JwtAuthority[], TokenProblem> {
  const { algorithm, keyId, subject } = token;
  const trustDomain = trustDomainOf(subject);
  const bundle = bundles.get(trustDomain);
  if (bundle === undefined) return problem('token_untrusted_domain', `there is no JWT bundle of ${shown(trustDomain)}`);
  const named = keyId === undefined ? bundle.authorities : bundle.authorities.filter((authority) => authority.keyId === keyId);
  const fitting = named.filter((authority) => isFor(algorithm, authority));
  if (fitting.length > MAX_TRIED_KEYS)
    return problem('token_unknown_key', `the token names no key, and ${fitting.length} of ${shown(trustDomain)} are for ${algorithm}`);
  if (fitting.length > 0) return ok(fitting);
  const which = keyId === undefined ? 'no key' : `no key ${shown(keyId)}`;
  return problem('token_unknown_key', `the JWT bundle of ${shown(trustDomain)} has ${which} for ${algorithm}`);
}

/** Whether the key that a token was verified with is still the same in the bundle of its trust domain. */
export function isStillTrusted(subject: SpiffeId, { keyId, key }: JwtAuthority, bundles: JwtBundles): boolean {
  const known = bundles.get(trustDomainOf(subject))?.authorities.find((authority) => authority.keyId === keyId);
  return known !== undefined && (known.key === key || known.key.equals(key));
}

/** What a token is remembered by, in place of its text. */
export function tokenDigest(token: string): string {
  return hash('sha256', token, 'base64url');
}

function isFor(algorithm: Algorithm, { key }: JwtAuthority): boolean {
  const { keyType, curve } = ALGORITHMS[algorithm];
  return key.asymmetricKeyType === keyType && (curve === undefined || key.asymmetricKeyDetails?.namedCurve === curve);
}

type Json = Readonly<Record<string, unknown>>;

function readHeader(header: Json): Result<Pick<ReadToken, 'algorithm' | 'keyId'>, TokenProblem> {
  const unknown = Object.keys(header).find((name) => !HEADERS.has(name));
  if (unknown !== undefined) return problem('token_header', `the header ${shown(unknown)} is not permitted`);
  const { alg, kid, typ } = header;
  if (!isAlgorithm(alg)) return problem('token_algorithm', `the algorithm ${shown(alg)} is not permitted`);
  if (kid !== undefined && (typeof kid !== 'string' || kid === '')) return problem('token_header', `the kid ${shown(kid)} is none`);
  if (typ !== undefined && typ !== 'JWT' && typ !== 'JOSE') return problem('token_header', `the typ ${shown(typ)} is not permitted`);
  return ok({ algorithm: alg, keyId: kid });
}

function isAlgorithm(alg: unknown): alg is Algorithm {
  return typeof alg === 'string' && Object.hasOwn(ALGORITHMS, alg);
}

function readClaims(claims: Json, signed: Pick<ReadToken, 'algorithm' | 'keyId'>): Result<ReadToken, TokenProblem> {
  const { sub, aud, exp, nbf, iat } = claims;
  // RFC 7519, section 4.1: others are read by other validators, and what these cannot read must not pass here.
  for (const name of ['iss', 'jti'])
    if (claims[name] !== undefined && typeof claims[name] !== 'string')
      return problem('token_malformed', `${name} of the token is no text`);
  const subject = typeof sub === 'string' ? parseSpiffeId(sub) : err('missing');
  if (!subject.ok) return problem('token_subject', `the sub ${shown(sub)} is not a SPIFFE ID: ${subject.error}`);
  // Section 3.1: it is that of a workload, and a trust domain is none. No pattern of a rule is for such an ID.
  if (pathOf(subject.value) === '') return problem('token_subject', `the sub ${shown(sub)} has no path`);
  const audience: unknown = typeof aud === 'string' ? [aud] : aud;
  if (audience === undefined || (Array.isArray(audience) && audience.length === 0))
    return problem('token_audience', 'the token has no audience');
  if (!isTexts(audience)) return problem('token_malformed', `the aud ${shown(aud)} of the token is no list of texts`);
  if (exp === undefined) return problem('token_expired', 'the token has no exp');
  const times = [exp, nbf, iat].map((seconds) => (seconds === undefined ? undefined : milliseconds(seconds)));
  if (times.includes(null)) return problem('token_malformed', `exp, nbf or iat of the token is no time: ${shown([exp, nbf, iat])}`);
  const [expiresMs, notBeforeMs, issuedMs] = times as (number | undefined)[];
  return ok({ ...signed, subject: subject.value, audience, expiresMs: expiresMs ?? Number.NaN, notBeforeMs, issuedMs });
}

function isTexts(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((each) => typeof each === 'string');
}

/** A NumericDate (RFC 7519, section 2), without the part of a second, as others read it. Null if it is none. */
function milliseconds(seconds: unknown): number | null {
  return typeof seconds === 'number' && Math.abs(seconds) <= MAX_SECONDS ? Math.trunc(seconds) * 1000 : null;
}

/** JSON as only one reader of it could take it: UTF-8, no key twice, no number that is none, no depth that another would refuse. */
function readObject(text: string, what: string): Result<Json, TokenProblem> {
  const bytes = decode(text);
  if (bytes === undefined) return problem('token_malformed', `${what} of the token is not base64url`);
  let value: unknown;
  let json: string;
  try {
    json = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    value = JSON.parse(json);
  } catch (thrown) {
    // What was parsed is not quoted: it is a part of the token.
    return problem(
      'token_malformed',
      `${what} of the token is no JSON (${thrown instanceof SyntaxError ? 'its syntax' : messageOf(thrown)})`,
    );
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    return problem('token_malformed', `${what} of the token is no JSON object`);
  if (!isPlain(value, MAX_DEPTH)) return problem('token_malformed', `${what} of the token is too deep, or has a number that is none`);
  const { repeatedKey } = readJsonText(json);
  if (repeatedKey !== undefined) return problem('token_malformed', `${what} of the token has ${shown(repeatedKey)} twice`);
  return ok(value as Json);
}

function isPlain(value: unknown, levels: number): boolean {
  if (typeof value === 'number') return Number.isFinite(value);
  if (typeof value !== 'object' || value === null) return true;
  return levels > 0 && Object.values(value).every((each) => isPlain(each, levels - 1));
}

/** Strict (RFC 7515, section 2): Node's own decoder skips what it does not know. */
function decode(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, 'base64url');
  return text !== '' && bytes.toString('base64url') === text ? bytes : undefined;
}

function problem(code: TokenProblemCode, message: string): { readonly ok: false; readonly error: TokenProblem } {
  return err({ code, message });
}

function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? 'undefined';
  return text.length > 120 ? `${text.slice(0, 120)}…` : text;
}

function isoTime(ms: number): string {
  return new Date(ms).toISOString();
}
