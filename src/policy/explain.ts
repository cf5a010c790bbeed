import { err, ok, type Result } from '../lib/result.ts';
import { pathOf, trustDomainId, trustDomainOf, type SpiffeId } from '../spiffe/spiffe-id.ts';
import { factsOf, verdictOf } from './judge.ts';
import type { Pattern } from './pattern.ts';
import { isFor, type Decision, type Policy } from './policy.ts';
import type { RequestFacts } from './request.ts';
import { parseRule, type Effect, type Rule } from './rule.ts';
import type { Verdict } from './verdict.ts';

/** What is asked of a policy. */
export interface Question {
  readonly peer: SpiffeId;
  /** Undefined: about the connection. As they came, not yet comparable. */
  readonly request: { readonly method: string; readonly target: string; readonly host: string } | undefined;
  /** Milliseconds since 1970. */
  readonly nowMs: number;
}

/** A rule of the policy: `index` is its place among those of its effect, as they were written. */
export type RuleRef = Pick<Rule, 'effect' | 'index' | 'text'>;

/** What may keep a rule from matching, the nearest first. */
export const MISSED_KEYS = ['time', 'method', 'path', 'host', 'segment', 'trust domain'] as const;
export type MissedKey = (typeof MISSED_KEYS)[number];

/** A rule that would have changed the verdict, and nearly matched. */
export interface Miss {
  readonly rule: RuleRef;
  /** Without these it would have matched, and not without some of them. One or two. */
  readonly but: readonly MissedKey[];
  /** In words: `matched but for the method`. */
  readonly text: string;
}

export interface Explanation {
  readonly verdict: Verdict;
  /** The rule that decided. Undefined: that there is none did, or that the policy is in audit. */
  readonly rule: RuleRef | undefined;
  /** The rule that would have denied, were it not for audit. */
  readonly audited: RuleRef | undefined;
  /** The nearest first. */
  readonly misses: readonly Miss[];
}

const MOST_MISSES = 5;
const MOST_KEYS = 2;

/**
 * Why a policy says what it says. The verdict is that of the compiled policy, and whether a part of a rule matches is asked
 * of a policy of that part alone: rules are read in one way. The error is that of a request that cannot be compared with
 * the rules. Takes time in proportion to the number of rules.
 */
export function explain(policy: Policy, { peer, request, nowMs }: Question): Result<Explanation, string> {
  const facts = request === undefined ? undefined : factsOf(policy, request.method, request.target, request.host);
  if (typeof facts === 'string') return err(facts);
  const gathered = policy.forPeer(peer);
  const decision = facts === undefined ? gathered.judgeConnection(nowMs) : gathered.judge(facts, nowMs);
  const denial = decision.allowed ? decision.audited : decision;
  return ok({
    verdict: verdictOf(peer, policy, decision),
    rule: decidedBy(policy, peer, decision),
    audited: decision.allowed ? denial?.rule : undefined,
    // Where a rule denies, no other would change that.
    misses: denial?.reason === 'denied' ? [] : nearest(policy, denial === undefined ? 'deny' : 'allow', peer, facts, nowMs),
  });
}

function decidedBy({ spec }: Policy, peer: SpiffeId, decision: Decision): RuleRef | undefined {
  if (!decision.allowed) return decision.rule;
  if (decision.by !== undefined) return decision.by;
  return decision.rule === peer ? { effect: 'allow', index: spec.allow.indexOf(peer), text: peer } : undefined;
}

function nearest(policy: Policy, effect: Effect, peer: SpiffeId, request: RequestFacts | undefined, nowMs: number): readonly Miss[] {
  const found: Near[] = [];
  for (const rule of rulesOf(policy, effect)) {
    const missed = missOf(rule, peer, request, nowMs);
    if (missed === undefined) continue;
    found.push({ rule, missed, distance: missed.reduce((sum, { key }) => sum + MISSED_KEYS.length + MISSED_KEYS.indexOf(key), 0) });
    // Of very many, the best are kept.
    if (found.length > 1000) keepNearest(found);
  }
  keepNearest(found);
  return found.map(({ rule: { index, text }, missed }) => ({
    rule: { effect, index, text },
    but: missed.map(({ key }) => key),
    text: `matched but for ${missed.map(({ words }) => words).join(', and for ')}`,
  }));
}

interface Near {
  readonly rule: Rule;
  readonly missed: readonly Missed[];
  readonly distance: number;
}

function keepNearest(found: Near[]): void {
  found.sort((a, b) => a.distance - b.distance || a.rule.index - b.rule.index);
  found.length = Math.min(found.length, MOST_MISSES);
}

/** The rules of one effect, bare ones too, of which the policy keeps no more than it needs. */
function* rulesOf(policy: Policy, effect: Effect): Iterable<Rule> {
  for (const rule of policy.rules) if (rule.effect === effect) yield rule;
  if (effect === 'deny') return;
  for (const [index, spec] of policy.spec.allow.entries()) {
    const parsed = typeof spec === 'string' ? parseRule(spec, effect, index) : undefined;
    if (parsed?.ok === true) yield parsed.value;
  }
}

interface Missed {
  readonly key: MissedKey;
  readonly words: string;
}

const ANY = { methods: undefined, paths: undefined, hosts: undefined, notBeforeMs: -Infinity, notAfterMs: Infinity, windows: undefined };

/** What keeps a rule from matching; undefined if it matches, or is far from that. */
function missOf(rule: Rule, peer: SpiffeId, request: RequestFacts | undefined, nowMs: number): readonly Missed[] | undefined {
  const { methods, paths, hosts, notBeforeMs, notAfterMs, windows } = rule;
  // No connection is denied for what may be asked on it.
  if (request === undefined && rule.effect === 'deny' && (methods ?? paths ?? hosts) !== undefined) return undefined;
  const ofPeer = peerMiss(rule, peer, request, nowMs);
  if (ofPeer === 'far') return undefined;
  const missed: Missed[] = [];
  const pattern: Pattern = { kind: 'exact', id: peer };
  const unless = (key: MissedKey, part: Partial<Rule>, words: () => string): void => {
    if (Object.values(part).every((value) => value === undefined)) return;
    if (!isFor({ ...rule, ...ANY, peer: pattern, ...part }, peer, request, nowMs)) missed.push({ key, words: words() });
  };
  unless('time', { notBeforeMs, notAfterMs, windows }, () => `the time: ${timeWords(rule, nowMs)}`);
  if (request !== undefined) {
    unless('method', { methods }, () => 'the method');
    unless('path', { paths }, () => 'the path');
    unless('host', { hosts }, () => 'the host');
  }
  if (ofPeer !== undefined) missed.push(ofPeer);
  return missed.length === 0 || missed.length > MOST_KEYS ? undefined : missed;
}

function peerMiss(rule: Rule, peer: SpiffeId, request: RequestFacts | undefined, nowMs: number): Missed | 'far' | undefined {
  const names = (pattern: Pattern): boolean => isFor({ ...rule, ...ANY, peer: pattern }, peer, request, nowMs);
  if (names(rule.peer)) return undefined;
  if (!isOfTrustDomain(rule.peer, peer))
    return names(inTrustDomainOf(rule.peer, peer)) ? { key: 'trust domain', words: 'the trust domain' } : 'far';
  const relaxed = withoutOddSegment(rule.peer, peer);
  if (relaxed === undefined || !names(relaxed.pattern)) return 'far';
  return { key: 'segment', words: `one segment of the SPIFFE ID: it is for "${relaxed.wanted}" and not for "${relaxed.given}"` };
}

function isOfTrustDomain(pattern: Pattern, peer: SpiffeId): boolean {
  return trustDomainOf(peer) === (pattern.kind === 'exact' ? trustDomainOf(pattern.id) : pattern.trustDomain);
}

function inTrustDomainOf(pattern: Pattern, peer: SpiffeId): Pattern {
  const trustDomain = trustDomainOf(peer);
  if (pattern.kind === 'segments') return { ...pattern, trustDomain };
  return { kind: 'exact', id: `${trustDomainId(trustDomain)}${pathOf(pattern.id)}` as SpiffeId };
}

/** The pattern with a wildcard for the one segment that the peer has otherwise; undefined if there is not just one. */
function withoutOddSegment(
  pattern: Pattern,
  peer: SpiffeId,
): { readonly pattern: Pattern; readonly wanted: string; readonly given: string } | undefined {
  const given = pathOf(peer).slice(1).split('/');
  const wanted = pattern.kind === 'exact' ? pathOf(pattern.id).slice(1).split('/') : pattern.segments;
  const odd: number[] = [];
  for (const [at, segment] of wanted.entries()) if (segment !== undefined && segment !== given[at]) odd.push(at);
  const [at = 0] = odd;
  const here = given[at];
  if (odd.length !== 1 || here === undefined) return undefined;
  return {
    pattern: {
      kind: 'segments',
      trustDomain: trustDomainOf(peer),
      segments: wanted.map((segment, index) => (index === at ? undefined : segment)),
      hasMore: pattern.kind === 'segments' && pattern.hasMore,
    },
    wanted: wanted[at] ?? '*',
    given: here,
  };
}

function timeWords({ notBeforeMs, notAfterMs }: Rule, nowMs: number): string {
  if (nowMs < notBeforeMs) return `it holds from ${new Date(notBeforeMs).toISOString()}`;
  if (nowMs >= notAfterMs) return `it held until ${new Date(notAfterMs).toISOString()}`;
  return 'none of its windows is open';
}
