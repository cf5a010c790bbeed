import type { ProvenToken } from '../jwt/verify.ts';
import type { Result } from '../lib/result.ts';
import type { DenyReason, VerdictFor } from '../policy/verdict.ts';
import type { TokenRefusal } from '../telemetry/log/jwt-records.ts';
import type { IdentityFields } from '../http1/identity-fields.ts';

/** What of a token a request brought, when it came. That it still holds is asked again by whoever judges. */
export type Bearer =
  | { readonly kind: 'none' }
  | {
      readonly kind: 'token';
      readonly token: ProvenToken;
      /** Wall time at which whatever it admitted ends: its `exp`, or the end of its leeway if it came after that. */
      readonly endsAtMs: number;
    }
  | { readonly kind: 'refused'; readonly reason: TokenRefusal; readonly detail: string };

export const NO_BEARER: Bearer = Object.freeze({ kind: 'none' });

/** The tokens of the requests of one connection. */
export interface RequestTokens {
  /** The field that has them, as `Fields.readsAs` compares. */
  readonly header: Uint8Array;
  /** For a request with a token: that goes no further, unless the listener says so. Of trailers in any case. */
  readonly identity: IdentityFields;
  /** The field that names the subject to the application. */
  readonly subjectHeader: string;
  /** `values` are those of the field, each time it is there. Never rejects. */
  read(values: readonly string[]): Bearer | Promise<Bearer>;
  /** Why what a request brought does not hold, or no longer. */
  problemOf(bearer: Bearer): TokenProblem | undefined;
}

export interface TokenProblem {
  readonly reason: TokenRefusal;
  readonly detail: string;
}

/** Why what a request brought does not hold. Where tokens are looked at, a forwarder that did not look has nothing that may pass. */
export function bearerProblem(tokens: Pick<RequestTokens, 'problemOf'> | undefined, bearer: Bearer | undefined): TokenProblem | undefined {
  if (tokens === undefined) return undefined;
  return bearer === undefined ? { reason: 'token_unverifiable', detail: 'nobody has looked for a token' } : tokens.problemOf(bearer);
}

export type RequestVerdict = VerdictFor<DenyReason | TokenRefusal>;

/**
 * Whether this request may be made, by or to the peer; or why that cannot be said, in words for whoever asks. Asked for each one, and again
 * for one that is under way. `bearer` is what the listener's `RequestTokens` read of it; where those are and it is left out, it is refused.
 */
export type RequestJudge = (method: string, target: string, host: string, bearer?: Bearer) => Result<RequestVerdict, string>;
