import type { OwnStatus } from '../http1/own-answer.ts';
import type { Result } from '../lib/result.ts';
import type { DenyReason } from '../policy/verdict.ts';
import type { TokenRefusal } from '../telemetry/log/jwt-records.ts';
import type { HttpResult } from '../telemetry/log/records.ts';
import type { RequestVerdict } from './bearer.ts';
import type { Side } from './tcp-forwarder.ts';

/** How a request is answered that may not be made. */
export interface Refusal {
  readonly status: OwnStatus;
  readonly result: HttpResult;
  /** For whoever asked. */
  readonly detail: string;
  /** For the log. */
  readonly told: string;
  /** The value of `WWW-Authenticate`; undefined where it is not the caller's fault. */
  readonly challenge: string | undefined;
  /** A rule refuses the request, whatever the status says: nobody should repeat it. */
  readonly isDenial: boolean;
}

/** How to answer what was judged so; undefined if it may be made. `judged`: whom the verdict is on. */
export function refusalOf(judgement: Result<RequestVerdict, string>, judged: Side): Refusal | undefined {
  if (!judgement.ok) return refusal(400, 'bad_request', judgement.error);
  const verdict = judgement.value;
  if (verdict.allowed) return undefined;
  const { reason, peer } = verdict;
  if (judged === 'upstream') return refusal(502, 'upstream_denied', `${reason}: ${peer ?? 'the server'} may not be asked this`);
  const ofToken = tokenAnswer(reason);
  if (ofToken === undefined) return refusal(403, 'denied', `${reason}: ${peer ?? 'the peer'} may not do this`);
  const { status, detail, challenge } = ofToken;
  return { status, result: 'token_refused', detail, told: verdict.detail, challenge, isDenial: false };
}

function refusal(status: OwnStatus, result: HttpResult, detail: string): Refusal {
  return { status, result, detail, told: detail, challenge: undefined, isDenial: result !== 'bad_request' };
}

/** An answer to a request that was refused, without anything that a stranger could learn from (RFC 6750, section 3). */
interface TokenAnswer {
  readonly status: OwnStatus;
  readonly detail: string;
  readonly challenge: string | undefined;
}

const ANSWERS: Readonly<Partial<Record<string, TokenAnswer>>> = {
  token_missing: { status: 401, detail: 'a token is needed', challenge: 'Bearer' },
  token_repeated: { status: 400, detail: 'there is more than one token', challenge: 'Bearer error="invalid_request"' },
  token_unverifiable: { status: 503, detail: 'no token can be verified at the moment', challenge: undefined },
};
const INVALID: TokenAnswer = { status: 401, detail: 'the token is not accepted', challenge: 'Bearer error="invalid_token"' };

/** How to answer a request that was refused for its token; undefined if that was not why. */
function tokenAnswer(reason: DenyReason | TokenRefusal): TokenAnswer | undefined {
  return reason.startsWith('token_') ? (ANSWERS[reason] ?? INVALID) : undefined;
}
