/** What a check of Envoy is answered. Pure: the same policy, in the same words, as for a listener of ours. */
import { foldName } from '../http1/fields.ts';
import { OVERRIDES } from '../http1/identity-fields.ts';
import { METHODS } from '../http1/request-head.ts';
import type { IdentitySnapshot } from '../identity/snapshot.ts';
import type { DenyList } from '../policy/deny-list.ts';
import { factsOf, verdictOf } from '../policy/judge.ts';
import type { Policy } from '../policy/policy.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import type { CheckAnswer, CheckDenial, CheckRecord } from '../telemetry/ext-authz-records.ts';
import type { CheckedPeers, ShownCertificates } from './peers.ts';

/** An inbound listener, whose policy is asked about. */
export interface CheckedListener {
  /** In force now. */
  readonly policy: Policy;
  /** Why it has no SVID that is valid, a sentence; undefined if it has. */
  notReady(): string | undefined;
}

/** What a check says, as far as it matters. */
export interface Check {
  readonly certificates: ShownCertificates;
  /** The name of the listener. */
  readonly listener: string | undefined;
  /** As Envoy has it when it asks; undefined of a connection. */
  readonly request: CheckRecord['request'];
}

export interface CheckContext {
  readonly listener: CheckedListener | undefined;
  readonly snapshot: IdentitySnapshot | undefined;
  readonly denyList: DenyList;
  readonly peers: CheckedPeers;
  readonly nowMs: number;
}

export function judgeCheck(check: Check, { listener, snapshot, denyList, peers, nowMs }: CheckContext): CheckAnswer {
  if (check.listener === undefined) return deny('no_listener', 'the check names no listener in context_extensions');
  if (listener === undefined) return deny('unknown_listener', `there is no inbound listener ${JSON.stringify(check.listener)}`);
  const notReady = listener.notReady();
  if (notReady !== undefined || snapshot === undefined) return deny('identity_not_ready', notReady ?? 'there is no identity yet');
  const peer = peers.authenticate(check.certificates, snapshot, denyList, nowMs);
  if (!peer.ok) {
    const { problem, detail, claimedId } = peer.error;
    return deny(problem, claimedId === undefined ? detail : `${detail} (claims to be ${claimedId})`);
  }
  return check.request === undefined
    ? judgeConnection(peer.value, listener.policy, nowMs)
    : judgeRequest(peer.value, listener.policy, check.request, nowMs);
}

function judgeRequest(peer: SpiffeId, policy: Policy, { method, target, host }: RequestOf, nowMs: number): CheckAnswer {
  if (!METHODS.has(method)) return deny('bad_request', 'the method is not one that is forwarded', peer);
  const facts = factsOf(policy, method, target, host);
  if (typeof facts === 'string') return deny('bad_request', facts, peer);
  return verdictOf(peer, policy, policy.forPeer(peer).judge(facts, nowMs));
}

type RequestOf = NonNullable<Check['request']>;

/** It stands for all requests that may come on it: nobody is asked about those. */
function judgeConnection(peer: SpiffeId, policy: Policy, nowMs: number): CheckAnswer {
  const gathered = policy.forPeer(peer);
  const every = gathered.judgeEveryRequest(nowMs);
  const some = gathered.judgeConnection(nowMs);
  if (every.allowed || !some.allowed) return verdictOf(peer, policy, every.allowed ? every : some);
  return deny('inexpressible', `some requests of ${peer} are allowed and others are not, and the check is of a connection`, peer);
}

function deny(reason: CheckDenial, detail: string, peer?: SpiffeId): CheckAnswer {
  return { allowed: false, peer, reason, rule: undefined, detail };
}

/**
 * The names of fields by which some applications take a request for another one than was judged: those that are there, however
 * they are spelled, and those that Envoy may not have shown. None if no rule looks at what they say.
 */
export function removedFields({ asksForMethod, asksForPath }: Policy, names: Iterable<string>): readonly string[] {
  if (!asksForMethod && !asksForPath) return [];
  const found = [...names].map((name) => name.toLowerCase()).filter((name) => FOLDED.has(foldName(name)));
  return [...new Set([...FOLDED, ...found])];
}

const FOLDED: ReadonlySet<string> = new Set(OVERRIDES.map(foldName));
