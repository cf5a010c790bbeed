import type { ListenerPage, PolicyPage, RefusalLine, RuleLine } from '../config/policy/policy-page.ts';
import { err } from '../lib/result.ts';
import { auditOf } from '../policy/audit.ts';
import { explain, isShort } from '../policy/explain.ts';
import type { Policy } from '../policy/policy.ts';
import { decisionOn } from '../policy/refusal.ts';
import { UNKNOWN_SUBJECT } from '../policy/request.ts';
import { ruleText, type Rule, type RuleSpec } from '../policy/rule.ts';
import { formatRule, gatherRules, ruleFor } from '../policy/suggestion.ts';
import type { ListenerRef } from '../telemetry/log/records.ts';
import { MOST_REFUSALS, type ListedRefusals, type RefusalEntry } from '../telemetry/log/refusals.ts';
import { isoTime } from './iso-time.ts';

/** The policy of one listener, and what is known of it. */
export interface PolicyStatus {
  readonly listener: ListenerRef;
  /** In force now. */
  readonly policy: Policy;
  refusals(): ListedRefusals;
  /** On how many connections the rule with that text decided; undefined if that is not counted. */
  connectionsBy(rule: string): number | undefined;
}

/** Rules, and refusals, that one answer lists. */
export const MOST_LISTED = MOST_REFUSALS;
const MOST_NOTES = 20;
/** Among how many rules the one is sought that nearly allows what is refused: that takes some milliseconds. */
const MOST_RULES = 1000;
/** How many rules are looked at for that in one answer: of long policies, it is told of the newest refusals alone. */
const MOST_LOOKS = 100_000;
/** Of SPIFFE IDs, paths and hosts in one answer: peers choose how long they are. */
const MOST_LETTERS = 512 * 1024;
/** Traffic goes on meanwhile. */
const TURN_MS = 5;

/** The answer to `/policy`: at most `limit` rules and as many refusals, by the policies in force. Takes turns with everything else. */
export async function buildPolicyPage(statuses: readonly PolicyStatus[], limit: number, nowMs: number): Promise<PolicyPage> {
  const listeners: ListenerPage[] = [];
  const turns = new Turns();
  let [rulesLeft, refusalsLeft, lettersLeft, looksLeft] = [limit, limit, MOST_LETTERS, MOST_LOOKS];
  for (const status of statuses) {
    const { listener, policy } = status;
    const refusals = status.refusals();
    const { allow, deny = [] } = policy.spec;
    const rules = [...linesOf('allow', allow, rulesLeft), ...linesOf('deny', deny, rulesLeft)].slice(0, rulesLeft);
    const audit = auditOf(policy);
    const looks = isShort(policy, MOST_RULES) ? policy.bare.length + policy.rules.length : Infinity;
    const [wouldDeny, denied, toCopy]: [RefusalLine[], RefusalLine[], RuleSpec[]] = [[], [], []];
    let omitted = 0;
    for (const entry of refusals.entries) {
      if (turns.isOver()) await turns.next();
      const judged = judge(policy, entry);
      if (judged === undefined) continue;
      const letters =
        entry.peer.length + (entry.request?.path.length ?? 0) + (entry.request?.host.length ?? 0) + (entry.request?.subject?.length ?? 0);
      if (refusalsLeft === 0 || letters > lettersLeft) {
        omitted++;
        continue;
      }
      refusalsLeft--;
      lettersLeft -= letters;
      const hasNear = judged.reason === 'not_allowed' && looks <= looksLeft;
      if (hasNear) looksLeft -= looks;
      const suggested = judged.rule === undefined ? ruleFor(policy, entry) : err('a rule denies it, and deny wins');
      if (!judged.isDenied && suggested.ok) toCopy.push(suggested.value);
      (judged.isDenied ? denied : wouldDeny).push({
        ...describe(entry, judged),
        near: hasNear ? nearOf(policy, entry) : null,
        allowed_now: isAllowed(policy, entry, nowMs),
        rule_to_allow: suggested.ok ? formatRule(suggested.value) : null,
        no_rule: suggested.ok ? null : suggested.error,
      });
    }
    // To gather what is to be copied takes some milliseconds, as does the JSON of all.
    await turns.next();
    const copies = gatherRules(toCopy).map(formatRule);
    await turns.next();
    const shown = new Set([...wouldDeny, ...denied].map(({ peer }) => peer));
    listeners.push({
      name: listener.name,
      direction: listener.direction,
      mode: policy.mode,
      audit_rules: audit.length,
      in_audit: audit.slice(0, MOST_NOTES),
      rules: rules.map((line) => ({ ...line, connections: status.connectionsBy(line.text) ?? null })),
      rules_omitted: allow.length + deny.length - rules.length,
      would_deny: wouldDeny,
      denied,
      omitted,
      not_listed: refusals.unlisted,
      partly_listed: [...refusals.unlistedOf].filter(([peer]) => shown.has(peer)).map(([peer, counts]) => ({ peer, ...counts })),
      rules_to_copy: copies,
    });
    rulesLeft -= rules.length;
  }
  return { now: isoTime(nowMs), listeners };
}

function linesOf(
  effect: 'allow' | 'deny',
  specs: readonly (string | RuleSpec)[],
  limit: number,
): Omit<ListenerPage['rules'][number], 'connections'>[] {
  return specs.slice(0, limit).map((spec, index) => ({
    effect,
    index,
    text: ruleText(spec, effect),
    mode: typeof spec === 'string' ? 'enforce' : (spec.mode ?? 'enforce'),
  }));
}

interface Judged {
  readonly isDenied: boolean;
  readonly reason: RefusalEntry['reason'];
  /** The rule that denies. */
  readonly rule: Rule | undefined;
  readonly passesBy: Rule | undefined;
}

/** By the policy in force, at the time at which it came last; as it was, where that cannot be told. Undefined: it would be allowed. */
function judge(policy: Policy, entry: RefusalEntry): Judged | undefined {
  const decision = decisionOn(policy, entry, entry.lastMs);
  if (decision === undefined) return { isDenied: entry.passed === 0, reason: entry.reason, rule: undefined, passesBy: undefined };
  const denial = decision.allowed ? decision.audited : decision;
  if (denial === undefined) return undefined;
  return {
    isDenied: !decision.allowed,
    reason: denial.reason,
    rule: denial.rule,
    passesBy: decision.allowed && decision.by?.mode === 'audit' ? decision.by : undefined,
  };
}

function describe({ peer, request, passed, refused, firstMs, lastMs }: RefusalEntry, { reason, rule, passesBy }: Judged) {
  return {
    peer,
    method: request?.method ?? null,
    path: request?.path || null,
    host: request?.host || null,
    subject: request?.subject === undefined || request.subject === UNKNOWN_SUBJECT ? null : request.subject,
    reason,
    rule: lineOf(rule),
    passes_by: lineOf(passesBy),
    passed,
    refused,
    first_at: isoTime(firstMs),
    last_at: isoTime(lastMs),
  };
}

function isAllowed(policy: Policy, entry: RefusalEntry, nowMs: number): boolean {
  const decision = decisionOn(policy, entry, nowMs);
  return decision?.allowed === true && decision.audited === undefined;
}

function nearOf(policy: Policy, { peer, request, isWhole, lastMs }: RefusalEntry): RefusalLine['near'] {
  if (!isWhole) return null;
  const asked = request && { method: request.method, target: request.path, host: request.host };
  const explained = explain(policy, { peer, request: asked, nowMs: lastMs });
  const [nearest] = explained.ok ? explained.value.misses : [];
  const rule = lineOf(nearest?.rule);
  return nearest === undefined || rule === null ? null : { rule, text: nearest.text };
}

function lineOf(rule: RuleLine | Rule | undefined): RuleLine | null {
  return rule === undefined ? null : { effect: rule.effect, index: rule.index, text: rule.text };
}

/** Lets everything else have its turn when one has taken its time. */
class Turns {
  #begunAtMs = performance.now();

  isOver(): boolean {
    return performance.now() - this.#begunAtMs >= TURN_MS;
  }

  async next(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    this.#begunAtMs = performance.now();
  }
}
