import type { JwtConfig } from '../config/config.ts';
import { NO_BEARER, type Bearer } from '../forward/bearer.ts';
import type { IdentityView } from '../identity/store.ts';
import { isStillTrusted, LEEWAY_MS, MAX_TOKEN_BYTES, timeProblem, tokenDigest } from '../jwt/token.ts';
import { verifyToken, type VerifiedToken } from '../jwt/verify.ts';
import type { Clock } from '../lib/clock.ts';
import { messageOf } from '../lib/errors.ts';
import { Remembered } from '../lib/remembered.ts';
import type { DenyList } from '../policy/deny-list.ts';
import type { JwtBundles } from '../spiffe/jwt-bundle.ts';
import type { TokenRefusal, TokenResult } from '../telemetry/jwt-records.ts';

export interface TokensDeps {
  /** It does not change while the listener runs, so that its tokens are verified for these audiences and no others. */
  readonly config: JwtConfig;
  readonly identity: Pick<IdentityView, 'current'>;
  /** In force now. */
  readonly denyList: () => DenyList;
  readonly clock: Clock;
  /** Told of each request, once. */
  readonly checked: (result: TokenResult) => void;
}

export interface TokenProblem {
  readonly reason: TokenRefusal;
  readonly detail: string;
}

/** Tokens that were verified, and their bytes without overhead: of a service with many callers, each with a token for five minutes. */
const MOST_KNOWN = 10_000;
/** Nobody's tokens may take the threads of all for long: a signature takes some 0.1 ms of one, and 1 ms at the most. */
export const MOST_VERIFYING = 256;

/** What was verified, and what it was found good by last: the same objects need not be asked again. */
interface Known {
  readonly token: VerifiedToken;
  bundles: JwtBundles;
}

/**
 * The JWT-SVIDs of the requests to one listener. A signature is verified once, and remembered by the digest of its token; whether the token
 * is in its time, its key still in the bundle of its trust domain, and its subject not on the deny list, is asked each time.
 */
export class Tokens {
  readonly #deps: TokensDeps;
  readonly #known = new Remembered<Known>(MOST_KNOWN, Infinity, () => 0);
  /** By digest: many requests may bring one token at once. */
  readonly #verifying = new Map<string, Promise<Bearer>>();
  readonly #hasScheme: boolean;

  constructor(deps: TokensDeps) {
    this.#deps = deps;
    this.#hasScheme = deps.config.header.toLowerCase() === 'authorization';
  }

  /** What a request brings in the field for tokens. Never rejects. */
  read(values: readonly string[]): Bearer | Promise<Bearer> {
    const [value, ...others] = values;
    if (others.length > 0) return this.#refuse('token_repeated', `there are ${values.length} fields ${this.#deps.config.header}`);
    const token = value === undefined ? undefined : this.#tokenIn(value);
    if (token === undefined) return this.#none();
    if (token.length > MAX_TOKEN_BYTES)
      return this.#refuse('token_too_long', `the token has ${token.length} bytes, more than ${MAX_TOKEN_BYTES}`);
    const bundles = this.#deps.identity.current()?.jwtBundles;
    if (bundles === undefined) return this.#refuse('token_unverifiable', 'there are no JWT bundles yet');
    const digest = tokenDigest(token);
    const known = this.#known.get(digest);
    if (known !== undefined && this.#isTrusted(known, bundles)) return this.#admit(known.token, 'known');
    return this.#verifyOnce(digest, token, bundles);
  }

  /** Why what a request brought does not hold, or no longer; undefined if it does. */
  problemOf(bearer: Bearer): TokenProblem | undefined {
    const { config, identity, denyList, clock } = this.#deps;
    if (bearer.kind === 'refused') return bearer;
    if (bearer.kind === 'none') return config.isRequired ? { reason: 'token_missing', detail: 'there is no token' } : undefined;
    const { token, endsAtMs } = bearer;
    if (!(clock.now() < endsAtMs)) return { reason: 'token_expired', detail: `the token of ${token.subject} has expired` };
    const bundles = identity.current()?.jwtBundles;
    if (bundles === undefined || !isStillTrusted(token.subject, token.authority, bundles))
      return { reason: 'token_unknown_key', detail: `the key of the token of ${token.subject} is no longer in the JWT bundle` };
    const listed = denyList().refusal(token.subject, []);
    return listed === undefined ? undefined : { reason: 'token_revoked', detail: `the subject of the token: ${listed}` };
  }

  /** The token in a value; undefined if that is for somebody else, such as `Basic …`. What is neither is a token that does not verify. */
  #tokenIn(value: string): string | undefined {
    if (!this.#hasScheme) return value;
    const space = value.indexOf(' ');
    const scheme = space === -1 ? value : value.slice(0, space);
    // Some readers take more for white space than others: what could be Bearer to one of them is no other scheme.
    if (!SCHEME.test(scheme)) return '';
    if (scheme.toLowerCase() !== 'bearer') return undefined;
    return space === -1 ? '' : value.slice(space).trimStart();
  }

  #none(): Bearer {
    if (this.#deps.config.isRequired) return this.#refuse('token_missing', 'there is no token');
    this.#deps.checked('none');
    return NO_BEARER;
  }

  #isTrusted(known: Known, bundles: JwtBundles): boolean {
    if (known.bundles === bundles) return true;
    if (!isStillTrusted(known.token.subject, known.token.authority, bundles)) return false;
    known.bundles = bundles;
    return true;
  }

  #verifyOnce(digest: string, token: string, bundles: JwtBundles): Bearer | Promise<Bearer> {
    const underWay = this.#verifying.get(digest);
    if (underWay !== undefined) return underWay.then((bearer) => this.#again(bearer));
    if (this.#verifying.size >= MOST_VERIFYING) return this.#refuse('token_busy', `${MOST_VERIFYING} tokens are being verified`);
    const verifying = this.#verify(digest, token, bundles).finally(() => this.#verifying.delete(digest));
    this.#verifying.set(digest, verifying);
    return verifying;
  }

  async #verify(digest: string, token: string, bundles: JwtBundles): Promise<Bearer> {
    const { config, clock } = this.#deps;
    try {
      const verified = await verifyToken(token, { audiences: config.audiences, nowMs: clock.now() }, bundles);
      if (!verified.ok) return this.#refuse(verified.error.code, verified.error.message);
      this.#known.set(digest, { token: verified.value, bundles });
      return this.#admit(verified.value, 'verified');
    } catch (thrown) {
      // A mistake of ours, and nothing to admit anybody for.
      return this.#refuse('token_malformed', `the token could not be verified: ${messageOf(thrown)}`);
    }
  }

  /** For another request that waited for the same verification. */
  #again(bearer: Bearer): Bearer {
    if (bearer.kind === 'token') return this.#admit(bearer.token, 'known');
    if (bearer.kind === 'refused') this.#deps.checked(bearer.reason);
    return bearer;
  }

  /** By now it may have expired, or been revoked, whatever its signature. */
  #admit(token: VerifiedToken, result: 'known' | 'verified'): Bearer {
    const nowMs = this.#deps.clock.now();
    const untimely = timeProblem(token, nowMs);
    if (untimely !== undefined) return this.#refuse(untimely.code, untimely.message);
    const bearer: Bearer = { kind: 'token', token, endsAtMs: nowMs < token.expiresMs ? token.expiresMs : token.expiresMs + LEEWAY_MS };
    const problem = this.problemOf(bearer);
    if (problem !== undefined) return this.#refuse(problem.reason, problem.detail);
    this.#deps.checked(result);
    return bearer;
  }

  #refuse(reason: TokenRefusal, detail: string): Bearer {
    this.#deps.checked(reason);
    return { kind: 'refused', reason, detail };
  }
}

/** A token of RFC 9110, section 5.6.2. */
const SCHEME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
