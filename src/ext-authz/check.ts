/** What a check of Envoy is answered. Pure: the same policy, in the same words, as for a listener of ours. */
import { foldName } from '../http1/fields.ts';
import { OVERRIDES, XFCC } from '../http1/identity-fields.ts';
import { METHODS } from '../http1/request-head.ts';
import type { IdentitySnapshot } from '../identity/snapshot.ts';
import type { DenyList } from '../policy/deny-list.ts';
import { factsOf, verdictOf } from '../policy/judge.ts';
import type { Policy } from '../policy/policy.ts';
import { UNKNOWN_SUBJECT } from '../policy/request.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import type { CheckAnswer, CheckDenial, CheckRecord } from '../telemetry/log/ext-authz-records.ts';
import type { CheckedPeers, ShownCertificates } from './peers.ts';

/** An inbound listener, whose policy is asked about. */
export interface CheckedListener {
  /** In force now. */
  readonly policy: Policy;
  /** The field that has the peer's SPIFFE ID for the application, if there is one. */
  readonly spiffeIdHeader?: string | undefined;
  /** It asks for JWT-SVIDs, or looks at them. */
  readonly hasTokens?: boolean | undefined;
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
  /** Whether its target is in the bytes that go on, one character each: elsewhere Envoy writes "!" for all that is no UTF-8. */
  readonly hasBytesOfPath: boolean;
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
  if (listener.hasTokens === true)
    return deny('inexpressible', 'the listener looks at the tokens of requests (jwt), and nobody verifies those that Envoy forwards');
  const notReady = listener.notReady();
  if (notReady !== undefined || snapshot === undefined) return deny('identity_not_ready', notReady ?? 'there is no identity yet');
  const peer = peers.authenticate(check.certificates, snapshot, denyList, nowMs);
  if (!peer.ok) {
    const { problem, detail, claimedId } = peer.error;
    return deny(problem, claimedId === undefined ? detail : `${detail} (claims to be ${claimedId})`);
  }
  return check.request === undefined
    ? judgeConnection(peer.value, listener.policy, nowMs)
    : judgeRequest(peer.value, listener.policy, check.request, check.hasBytesOfPath, nowMs);
}

function judgeRequest(peer: SpiffeId, policy: Policy, { method, target, host }: RequestOf, hasBytes: boolean, nowMs: number): CheckAnswer {
  if (!METHODS.has(method)) return deny('bad_request', 'the method is not one that is forwarded', peer);
  if (!TARGET.test(target) && !(target === '*' && method === 'OPTIONS'))
    return deny('bad_request', 'the path is not one that is forwarded', peer);
  if (policy.asksForPath && !hasBytes && /^[^?]*!/.test(target)) return deny('bad_request', UNSURE, peer);
  // Whose token it has, nobody has verified.
  const facts = factsOf(policy, method, target, host, UNKNOWN_SUBJECT);
  if (typeof facts === 'string') return deny('bad_request', facts, peer);
  return verdictOf(peer, policy, policy.forPeer(peer).judge(facts, nowMs));
}

/** As of requests to our own listeners: visible ASCII but "#". One in absolute form has a host of its own, which nobody would have judged. */
const TARGET = /^\/[!"$-~]*$/;
const UNSURE = 'the path has a "!", by which Envoy also means bytes that are no text unless encode_raw_headers is set';

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
 * The names of fields that the application must not see: those by which some take a request for another one than was judged, all
 * of which are named, since Envoy may not have shown them, unless no rule looks at what they say; and whatever only reads like a field that says who
 * the peer is. Envoy itself sees to those that have that very name.
 */
export function removedFields({ policy, spiffeIdHeader = XFCC }: CheckedListener, names: Iterable<string>): readonly string[] {
  const overrides = policy.asksForMethod || policy.asksForPath ? FOLDED : NONE;
  const ofPeer = [XFCC, spiffeIdHeader].map((name) => name.toLowerCase());
  const folded = new Set(ofPeer.map(foldName));
  const found = [...names]
    .map((name) => name.toLowerCase())
    .filter((name) => overrides.has(foldName(name)) || (folded.has(foldName(name)) && !ofPeer.includes(name)));
  return [...new Set([...overrides, ...found])];
}

const FOLDED: ReadonlySet<string> = new Set(OVERRIDES.map(foldName));
const NONE: ReadonlySet<string> = new Set();
