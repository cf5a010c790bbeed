/** What a token endpoint answered, read with suspicion. Pure. */
import { isJson, type AnswerHead, type HttpsAnswer } from '../https/call.ts';
import { err, ok, type Result } from '../lib/result.ts';
import type { CredentialProblem, CredentialProblemCode } from '../telemetry/log/credential-records.ts';
import type { Token } from './held-token.ts';

/** RFC 6749, section 5.2, RFC 8693 and RFC 8707; what else an endpoint says could be anything, a token too. */
const KNOWN_ERRORS: ReadonlySet<unknown> = new Set([
  'invalid_request',
  'invalid_client',
  'invalid_grant',
  'unauthorized_client',
  'unsupported_grant_type',
  'invalid_scope',
  'invalid_target',
  'access_denied',
  'server_error',
  'temporarily_unavailable',
  'slow_down',
  'use_dpop_nonce',
]);
/** RFC 8693, section 3: an access token, which may be named by its form. */
const ISSUED_TYPES: ReadonlySet<unknown> = new Set([
  'urn:ietf:params:oauth:token-type:access_token',
  'urn:ietf:params:oauth:token-type:jwt',
]);
/** Longer ones do not fit in the heads of most servers. */
const MAX_TOKEN_LENGTH = 16_384;
/** Whatever says more than that is wrong, or has no end. */
const LONGEST_LIFE_S = 366 * 86_400;

/** Why nothing of the body is worth reading; undefined if it is. */
export function headProblem({ status, headers }: AnswerHead): CredentialProblem | undefined {
  if (status >= 300 && status < 400)
    return { reason: 'redirected', detail: `the token endpoint answered ${status}, and nobody follows it` };
  if (status >= 500) return { reason: 'server_error', detail: `the token endpoint answered ${status}` };
  if (isJson(headers['content-type'] ?? '')) return undefined;
  if (status !== 200) return { reason: 'bad_status', detail: `the token endpoint answered ${status} without an error of OAuth` };
  return { reason: 'bad_content_type', detail: 'the body is not JSON' };
}

/** The error of an answer that is no success: its code, if it is one that is known. */
export function errorIn({ status, body }: HttpsAnswer): CredentialProblem {
  const { error, error_description: description } = objectIn(body) ?? {};
  if (typeof error !== 'string') return { reason: 'bad_status', detail: `the token endpoint answered ${status} without an error of OAuth` };
  // Entra tells its errors apart by numbers, and only there.
  const [number] = typeof description === 'string' ? (/\bAADSTS\d{4,8}\b/.exec(description) ?? []) : [];
  const code = KNOWN_ERRORS.has(error) ? error : 'an error of its own';
  return { reason: 'refused', detail: `the token endpoint answered ${status}: ${code}${number === undefined ? '' : ` (${number})`}` };
}

/** What the answer of a success says; `nowMs` is the wall time at which it was asked for. */
export function tokenIn(body: Uint8Array, nowMs: number): Result<Token, CredentialProblem> {
  const answer = objectIn(body);
  if (answer === undefined) return refuse('bad_answer', 'the body is no JSON object');
  const { access_token: value, token_type: type, expires_in: expiresIn, issued_token_type: issued, id_token: idToken } = answer;
  if (typeof value !== 'string' || !/^[\x21-\x7e]+$/.test(value) || value.length > MAX_TOKEN_LENGTH)
    return refuse('bad_answer', 'it has no access_token that can stand in a field');
  if (typeof type !== 'string' || type.toLowerCase() !== 'bearer') return refuse('bad_token_type', 'its token_type is not Bearer');
  // RFC 8693, section 2.2.1: of what is no access token, a server that calls it Bearer is wrong.
  if (issued !== undefined && !ISSUED_TYPES.has(issued)) return refuse('bad_token_type', 'what was issued is no access token');
  if (idToken !== undefined && !isIdToken(idToken)) return refuse('bad_answer', 'its id_token is none');
  if (expiresIn === undefined) return refuse('bad_expiry', 'it has no expires_in');
  // Some write it as a text.
  const seconds = typeof expiresIn === 'string' && /^\d{1,10}$/.test(expiresIn) ? Number(expiresIn) : expiresIn;
  if (typeof seconds !== 'number' || !(seconds >= 1 && seconds <= LONGEST_LIFE_S))
    return refuse('bad_expiry', `its expires_in is not from 1 to ${LONGEST_LIFE_S} seconds`);
  return ok({ value, expiresAtMs: Math.min(nowMs + seconds * 1000, expiryIn(value) ?? Infinity) });
}

/**
 * The answer without its `id_token`, which an endpoint adds that is asked for the scope `openid`. Nobody uses that here, so it is nobody's to judge
 * whom it is from and for: we know neither the issuer, which is not the endpoint, nor always the name that it has for us.
 */
export function withoutIdToken(body: Uint8Array): string {
  return JSON.stringify({ ...objectIn(body), id_token: undefined });
}

/** A JWT, signed or encrypted (OpenID Connect Core, section 2; RFC 7516, section 3.1), whoever it is from. */
function isIdToken(value: unknown): boolean {
  const parts = typeof value === 'string' ? value.split('.') : [];
  if ((parts.length !== 3 && parts.length !== 5) || !parts.every((part) => /^[\w-]*$/.test(part))) return false;
  const texts = parts.length === 3 ? parts.slice(0, 2) : parts.slice(0, 1);
  return texts.every((text) => objectIn(Buffer.from(text, 'base64url')) !== undefined);
}

/** Of a token that is a JWT and says so: it is not good for longer, whatever `expires_in` promises. */
function expiryIn(token: string): number | undefined {
  const [, claims] = /^[\w-]+\.([\w-]+)\.[\w-]+$/.exec(token) ?? [];
  const { exp } = claims === undefined ? {} : (objectIn(Buffer.from(claims, 'base64url')) ?? {});
  return typeof exp === 'number' && Number.isFinite(exp) ? exp * 1000 : undefined;
}

function objectIn(body: Uint8Array): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body));
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

function refuse(reason: CredentialProblemCode, detail: string): Result<never, CredentialProblem> {
  return err({ reason, detail });
}
