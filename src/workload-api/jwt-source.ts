import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { JWTSVIDRequestSchema, JWTSVIDResponseSchema, type JWTSVID } from '../gen/workload_pb.ts';
import type { Clock } from '../lib/clock.ts';
import { messageOf } from '../lib/errors.ts';
import { err, ok, type Result } from '../lib/result.ts';
import { verifyToken } from '../jwt/verify.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import type { JwtBundles } from '../spiffe/jwt-bundle.ts';
import type { WorkloadApiClient } from './client.ts';
import { WorkloadApiError } from './errors.ts';

/** Why there is no JWT-SVID. One closed set: the metric label, the log field and the documentation share it. */
export const JWT_FETCH_PROBLEMS = [
  'aborted', // whoever asked gave up
  'agent_unavailable', // no connection, no answer in time, or another failure of the agent's: ask again later
  'not_entitled', // PermissionDenied: there is no identity for us, or not this one
  'refused', // InvalidArgument: the agent does not like the request, and will not later
  'not_supported', // Unimplemented: the agent has no JWT profile
  'bad_answer', // no token, or one of somebody else, or for another audience
  'not_verified', // our own bundle does not vouch for it: perhaps not yet
] as const;
export type JwtFetchProblemCode = (typeof JWT_FETCH_PROBLEMS)[number];

export interface JwtFetchProblem {
  readonly code: JwtFetchProblemCode;
  /** A sentence; never the token. */
  readonly message: string;
}

/** A JWT-SVID of ours. */
export interface JwtSvid {
  /** In compact form: a bearer token, which is never logged. */
  readonly token: string;
  readonly spiffeId: SpiffeId;
  /** As the agent gives it; empty if it gives none. */
  readonly hint: string;
  readonly audience: readonly string[];
  /** Milliseconds since 1970. */
  readonly expiresMs: number;
  /** Of its `iat`; when it came, if it has none, which is no earlier. Milliseconds since 1970. */
  readonly issuedMs: number;
}

export interface JwtRequest {
  /** At least one. */
  readonly audience: readonly string[];
  /** Undefined: the agent's default, or the one that `hint` names. */
  readonly spiffeId?: SpiffeId | undefined;
  readonly hint?: string | undefined;
}

export interface JwtSourceDeps {
  readonly client: Pick<WorkloadApiClient, 'fetchJwtSvid'>;
  /** In force now: those of the identity snapshot. */
  readonly bundles: () => JwtBundles | undefined;
  readonly clock: Clock;
}

/** JWT-SVIDs of ours, on demand. It keeps none. */
export interface JwtSource {
  /**
   * One call of FetchJWTSVID (SPIFFE Workload API, section 6.2.1). What the agent gives is verified as that of a peer would be, against our
   * own JWT bundles, before it is given out. Never rejects.
   */
  fetch(request: JwtRequest, signal: AbortSignal): Promise<Result<JwtSvid, JwtFetchProblem>>;
}

/** Of an identity that may have many, few are asked for at once. */
const MAX_SVIDS = 256;

export function createJwtSource({ client, bundles, clock }: JwtSourceDeps): JwtSource {
  return {
    async fetch(request, signal) {
      if (request.audience.length === 0 || request.audience.includes(''))
        return problem('refused', 'a JWT-SVID is for at least one audience, which has a name');
      let answer: Uint8Array;
      try {
        const message = create(JWTSVIDRequestSchema, { audience: [...request.audience], spiffeId: request.spiffeId ?? '' });
        answer = await client.fetchJwtSvid(toBinary(JWTSVIDRequestSchema, message), signal);
      } catch (thrown) {
        if (signal.aborted) return problem('aborted', 'FetchJWTSVID: given up');
        const failure = WorkloadApiError.from(thrown, 'FetchJWTSVID');
        return problem(CODES[failure.endCode] ?? 'agent_unavailable', failure.message);
      }
      const chosen = choose(answer, request);
      if (!chosen.ok) return chosen;
      const { svid: token, spiffeId, hint } = chosen.value;
      const known = bundles();
      if (known === undefined) return problem('not_verified', 'FetchJWTSVID: there are no JWT bundles yet to verify the token with');
      const verified = await verifyToken(token, { audiences: request.audience, nowMs: clock.now() }, known);
      if (signal.aborted) return problem('aborted', 'FetchJWTSVID: given up');
      if (!verified.ok) return problem('not_verified', `FetchJWTSVID: ${verified.error.code}: ${verified.error.message}`);
      const { subject, audience, expiresMs, issuedMs } = verified.value;
      if (subject !== spiffeId) return problem('bad_answer', `FetchJWTSVID: the token of ${quoted(spiffeId)} is one of ${subject}`);
      return ok(Object.freeze({ token, spiffeId: subject, hint, audience, expiresMs, issuedMs: issuedMs ?? clock.now() }));
    },
  };
}

const CODES: Readonly<Partial<Record<WorkloadApiError['endCode'], JwtFetchProblemCode>>> = {
  PERMISSION_DENIED: 'not_entitled',
  INVALID_ARGUMENT: 'refused',
  UNIMPLEMENTED: 'not_supported',
};

/** The one that was asked for, by SPIFFE ID or hint; else the first, which is the default. Never another identity. */
function choose(answer: Uint8Array, { spiffeId, hint }: JwtRequest): Result<JWTSVID, JwtFetchProblem> {
  let svids: readonly JWTSVID[];
  try {
    ({ svids } = fromBinary(JWTSVIDResponseSchema, answer));
  } catch (thrown) {
    return problem('bad_answer', `FetchJWTSVID: ${answer.length} bytes are no JWTSVIDResponse: ${messageOf(thrown).slice(0, 200)}`);
  }
  if (svids.length > MAX_SVIDS) return problem('bad_answer', `FetchJWTSVID: ${svids.length} tokens, more than ${MAX_SVIDS}`);
  const found = svids.find((svid) => (spiffeId === undefined || svid.spiffeId === spiffeId) && (hint === undefined || svid.hint === hint));
  if (found !== undefined) return ok(found);
  const which = [spiffeId, hint === undefined ? undefined : `hint ${quoted(hint)}`].filter((part) => part !== undefined);
  return problem(
    'bad_answer',
    `FetchJWTSVID: the agent gave ${svids.length} tokens, and none${which.length > 0 ? ` of ${which.join(', ')}` : ''}`,
  );
}

function problem(code: JwtFetchProblemCode, message: string): { readonly ok: false; readonly error: JwtFetchProblem } {
  return err({ code, message });
}

function quoted(text: string): string {
  return JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}…` : text);
}
