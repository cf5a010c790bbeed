import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import type { Decision, Policy } from './policy.ts';
import { UNKNOWN_SUBJECT, type RequestFacts } from './request.ts';

/** What a peer that has proven who it is was refused, or would have been were it not for audit. */
export interface Refused {
  readonly peer: SpiffeId;
  /** As the rules compared it, as far as they asked: what they did not ask for is empty, or not known. Undefined if they were about peers alone. */
  readonly request: RequestFacts | undefined;
  /** Nothing of the request was cut or left out. */
  readonly isWhole: boolean;
}

/** Whether rules ask for anything of requests. */
export function asksOfRequests({ asksForMethod, asksForPath, asksForHost, asksForSubject }: Policy): boolean {
  return asksForMethod || asksForPath || asksForHost || asksForSubject;
}

/** What a policy, perhaps a newer one, says of it. Undefined if that cannot be told from what is known of the request. */
export function decisionOn(policy: Policy, { peer, request, isWhole }: Refused, nowMs: number): Decision | undefined {
  if (!isWhole) return undefined;
  const gathered = policy.forPeer(peer);
  if (request === undefined) return gathered.judgeConnection(nowMs);
  if ((policy.asksForPath && request.path === '') || (policy.asksForHost && request.host === '')) return undefined;
  if (policy.asksForSubject && request.subject === UNKNOWN_SUBJECT) return undefined;
  return gathered.judge(request, nowMs);
}
