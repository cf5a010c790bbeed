import type { JwtConfig } from '../config/config.ts';
import { NO_BEARER, type Bearer, type TokenProblem } from '../forward/bearer.ts';
import type { IdentityView } from '../identity/store.ts';
import { isStillTrusted, LEEWAY_MS, MAX_TOKEN_BYTES, timeProblem, tokenDigest } from '../jwt/token.ts';
import { verifyToken, type ProvenToken } from '../jwt/verify.ts';
import type { Clock } from '../lib/clock.ts';
import { messageOf } from '../lib/errors.ts';
import { oneAtATime } from '../lib/in-turn.ts';
import { Remembered } from '../lib/remembered.ts';
import type { DenyList } from '../policy/deny-list.ts';
import type { JwtAuthority } from '../spiffe/bundle-document.ts';
import type { JwtBundles } from '../spiffe/jwt-bundle.ts';
import type { TokenCounts, TokenRefusal, TokenResult } from '../telemetry/log/jwt-records.ts';

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

/** Tokens that were verified, with their subjects: of a service with many callers, each with a token for five minutes. */
const MOST_KNOWN = 10_000;
const MOST_KNOWN_BYTES = 8 * 1024 * 1024;
const BYTES_OF_ONE = 400;

/** A value is remembered by its connection up to this length: most tokens are shorter. */
const MOST_REPEATED = 2048;

/** One connection, for whose requests tokens are read. */
export class TokenConnection {
  /** However many tokens it brings, those of others wait for one of them at most. */
  readonly inTurn = oneAtATime();
  /** What held last, and the digest of its token: most requests of a connection bring the same. */
  #value: string | undefined;
  #digest = '';

  /** The digest of the token in `value`, if that held last. */
  digestOf(value: string | undefined): string | undefined {
    return value !== undefined && value === this.#value ? this.#digest : undefined;
  }

  held(value: string, digest: string): void {
    if (value.length > MOST_REPEATED) return;
    this.#value = value;
    this.#digest = digest;
  }
}

/**
 * The JWT-SVIDs of the requests to one listener. A signature is verified once, and remembered by the digest of its token; whether the token
 * is in its time, its key still in the bundle of its trust domain, and its subject not on the deny list, is asked each time.
 */
export class Tokens {
  readonly #deps: TokensDeps;
  readonly #known = new Remembered<BroughtToken>(MOST_KNOWN, MOST_KNOWN_BYTES, ({ token }) => BYTES_OF_ONE + token.subject.length);
  /** By digest: many requests may bring one token at once. */
  readonly #verifying = new Map<string, Promise<Bearer>>();
  readonly #hasScheme: boolean;
  readonly counts: TokenCounts = { accepted: 0, refused: new Map(), lastRefusedAtMs: undefined };
  /** Whether each key is in the bundles of the newest snapshot: the same objects need not be looked for again. */
  readonly #trusted = new Map<JwtAuthority, boolean>();
  #trustedBy: JwtBundles | undefined;

  constructor(deps: TokensDeps) {
    this.#deps = deps;
    this.#hasScheme = deps.config.header.toLowerCase() === 'authorization';
  }

  /** What a request of `connection` brings in the field for tokens. Never rejects. */
  read(values: readonly string[], connection: TokenConnection): Bearer | Promise<Bearer> {
    if (values.length > 1) return this.#refuse('token_repeated', `there are ${values.length} fields ${this.#deps.config.header}`);
    const [value] = values;
    const again = connection.digestOf(value);
    const held = again === undefined ? undefined : this.#recall(again);
    if (held !== undefined) return held;
    const token = value === undefined ? undefined : this.#tokenIn(value);
    if (value === undefined || token === undefined) return this.#none();
    if (token.length > MAX_TOKEN_BYTES)
      return this.#refuse('token_too_long', `the token has ${token.length} bytes, more than ${MAX_TOKEN_BYTES}`);
    const digest = tokenDigest(token);
    const known = this.#recall(digest);
    if (known === undefined) return connection.inTurn(() => this.#verifyOnce(digest, token));
    if (known.kind === 'token') connection.held(value, digest);
    return known;
  }

  /** More wait for their turn than can be open. */
  overflow(): Bearer {
    return this.#refuse('token_unverifiable', 'too many tokens of its connection wait to be verified');
  }

  /** Of a token that is known, or of which nothing can be known. */
  #recall(digest: string): Bearer | undefined {
    if (this.#deps.identity.current()?.jwtBundles === undefined) return this.#refuse('token_unverifiable', 'there are no JWT bundles yet');
    const known = this.#known.get(digest);
    return known !== undefined && this.#isTrusted(known.token) ? this.#admit(known, 'known') : undefined;
  }

  /** Why what a request brought does not hold, or no longer; undefined if it does. */
  problemOf(bearer: Bearer, nowMs = this.#deps.clock.now()): TokenProblem | undefined {
    const { config, denyList } = this.#deps;
    if (bearer.kind === 'refused') return bearer;
    if (bearer.kind === 'none') return config.isRequired ? { reason: 'token_missing', detail: 'there is no token' } : undefined;
    const { token, endsAtMs } = bearer;
    if (!(nowMs < endsAtMs)) return { reason: 'token_expired', detail: `the token of ${token.subject} has expired` };
    if (!this.#isTrusted(token))
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
    // Some look for the word anywhere: behind another scheme stands no token that nobody has verified.
    if (scheme.toLowerCase() !== 'bearer') return BEARER.test(value) ? '' : undefined;
    return space === -1 ? '' : value.slice(space).replace(/^ +/, '');
  }

  #none(): Bearer {
    if (this.#deps.config.isRequired) return this.#refuse('token_missing', 'there is no token');
    this.#deps.checked('none');
    return NO_BEARER;
  }

  #isTrusted({ subject, authority }: ProvenToken): boolean {
    const bundles = this.#deps.identity.current()?.jwtBundles ?? NOBODY;
    if (bundles !== this.#trustedBy) this.#trusted.clear();
    this.#trustedBy = bundles;
    const isTrusted = this.#trusted.get(authority) ?? isStillTrusted(subject, authority, bundles);
    this.#trusted.set(authority, isTrusted);
    return isTrusted;
  }

  /** It has waited for its turn: others may have brought the same meanwhile. */
  async #verifyOnce(digest: string, token: string): Promise<Bearer> {
    const known = this.#recall(digest);
    if (known !== undefined) return known;
    const underWay = this.#verifying.get(digest);
    if (underWay !== undefined) return this.#again(await underWay);
    const verifying = this.#verify(digest, token);
    this.#verifying.set(digest, verifying);
    const bearer = await verifying;
    this.#verifying.delete(digest);
    return bearer;
  }

  async #verify(digest: string, token: string): Promise<Bearer> {
    const { config, clock, identity } = this.#deps;
    try {
      const bundles = identity.current()?.jwtBundles ?? NOBODY;
      const verified = await verifyToken(token, { audiences: config.audiences, nowMs: clock.now() }, bundles);
      if (!verified.ok) return this.#refuse(verified.error.code, verified.error.message);
      const { subject, expiresMs, notBeforeMs, issuedMs, authority } = verified.value;
      const proven: ProvenToken = Object.freeze({ subject, expiresMs, notBeforeMs, issuedMs, authority });
      const brought: BroughtToken = Object.freeze({ kind: 'token', token: proven, endsAtMs: expiresMs });
      this.#known.set(digest, brought);
      return this.#admit(brought, 'verified');
    } catch (thrown) {
      // A mistake of ours, and nothing to admit anybody for.
      return this.#refuse('token_malformed', `the token could not be verified: ${messageOf(thrown)}`);
    }
  }

  /** For another request that waited for the same verification. */
  #again(bearer: Bearer): Bearer {
    if (bearer.kind === 'token') return this.#admit(bearer, 'known');
    if (bearer.kind === 'refused') this.#count(bearer.reason);
    return bearer;
  }

  /** By now it may have expired, or been revoked, whatever its signature. */
  #admit(brought: BroughtToken, result: 'known' | 'verified'): Bearer {
    const { token } = brought;
    const nowMs = this.#deps.clock.now();
    const untimely = timeProblem(token, nowMs);
    if (untimely !== undefined) return this.#refuse(untimely.code, untimely.message);
    const endsAtMs = nowMs < token.expiresMs ? token.expiresMs : token.expiresMs + LEEWAY_MS;
    const bearer = endsAtMs === brought.endsAtMs ? brought : { ...brought, endsAtMs };
    const problem = this.problemOf(bearer, nowMs);
    if (problem !== undefined) return this.#refuse(problem.reason, problem.detail);
    this.counts.accepted += 1;
    this.#deps.checked(result);
    return bearer;
  }

  #refuse(reason: TokenRefusal, detail: string): Bearer {
    this.#count(reason);
    return { kind: 'refused', reason, detail };
  }

  #count(reason: TokenRefusal): void {
    const { counts } = this;
    counts.refused.set(reason, (counts.refused.get(reason) ?? 0) + 1);
    counts.lastRefusedAtMs = this.#deps.clock.now();
    this.#deps.checked(reason);
  }
}

type BroughtToken = Extract<Bearer, { kind: 'token' }>;

const NOBODY: JwtBundles = new Map();
const BEARER = /\bbearer\b/i;
/** A token of RFC 9110, section 5.6.2. */
const SCHEME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
