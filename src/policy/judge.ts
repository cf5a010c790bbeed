import { err, ok, type Result } from '../lib/result.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import type { Decision, PeerPolicy, Policy } from './policy.ts';
import { comparableHost, comparablePath, namesAnotherHost, type RequestFacts } from './request.ts';
import type { PolicyReason, Verdict, VerdictFor } from './verdict.ts';

/** Whether `peer`, which has been authenticated, may connect to us, or be connected to. The same for both directions. */
export function authorise(peer: SpiffeId, policy: Policy, nowMs: number): Verdict {
  return verdictOf(peer, policy, policy.forPeer(peer).judgeConnection(nowMs));
}

/**
 * What one peer may ask for, or be asked, by the newest policy: that is looked through for the peer once, and not for each
 * request.
 */
export class Authorisation {
  readonly #peer: SpiffeId;
  readonly #current: () => Policy;
  readonly #now: () => number;
  #policy: Policy;
  #gathered: PeerPolicy;
  /** Of most peers every answer is the same object, and so is what comes of it. */
  #decision: Decision | undefined;
  #answer: Result<Verdict, string> = NOT_ASKED;

  /** `now` is wall time, milliseconds since 1970. */
  constructor(peer: SpiffeId, policy: () => Policy, now: () => number) {
    this.#peer = peer;
    this.#current = policy;
    this.#now = now;
    this.#policy = policy();
    this.#gathered = this.#policy.forPeer(peer);
  }

  /** Of the connection: denied if no request of it would be allowed. */
  connection(): Verdict {
    this.#renew();
    return verdictOf(this.#peer, this.#policy, this.#gathered.judgeConnection(this.#now()));
  }

  /**
   * Of one request; `target` has a path, or is `*`, and `subject` is whose token it has. The error, a sentence without anything of the request, says why it
   * cannot be compared with the rules there are.
   */
  request(method: string, target: string, host: string, subject?: RequestFacts['subject']): Result<Verdict, string> {
    this.#renew();
    const policy = this.#policy;
    const facts = factsOf(policy, method, target, host, subject);
    if (typeof facts === 'string') return err(facts);
    const decision = this.#gathered.judge(facts, this.#now());
    if (decision !== this.#decision) {
      this.#decision = decision;
      this.#answer = ok(verdictOf(this.#peer, policy, decision));
    }
    return this.#answer;
  }

  #renew(): void {
    const policy = this.#current();
    if (policy === this.#policy) return;
    this.#policy = policy;
    this.#gathered = policy.forPeer(this.#peer);
    this.#decision = undefined;
  }
}

const NOTHING = ok('');
const NOT_ASKED = err('nothing was asked yet');

/** A request as the rules compare it, as far as they ask. Or, a sentence without anything of the request, why it cannot be. */
export function factsOf(
  policy: Policy,
  method: string,
  target: string,
  host: string,
  subject?: RequestFacts['subject'],
): RequestFacts | string {
  const path = policy.asksForPath ? comparablePath(target) : NOTHING;
  if (!path.ok) return path.error;
  if (policy.asksForHost && namesAnotherHost(target)) return 'the path begins as a host does in URLs without a scheme';
  const name = policy.asksForHost ? comparableHost(host) : NOTHING;
  return name.ok ? { method, path: path.value, host: name.value, subject } : name.error;
}

/** What comes of a decision of a policy about a peer. */
export function verdictOf(peer: SpiffeId, { entries }: Policy, decision: Decision): VerdictFor<PolicyReason> {
  if (decision.allowed) return { allowed: true, peer, rule: decision.rule, audited: decision.audited?.reason };
  const { reason, rule } = decision;
  const detail =
    rule === undefined
      ? `${peer} is allowed this by none of the ${entries.length} allow rules`
      : `${peer} is denied by a rule: ${rule.text}`;
  return { allowed: false, peer, reason, rule: rule?.text, detail };
}
