import { err, ok, type Result } from '../lib/result.ts';
import { pathOf, trustDomainId, trustDomainOf, type SpiffeId } from '../spiffe/spiffe-id.ts';
import type { TrustDomain } from '../spiffe/trust-domain.ts';
import type { IdList } from './id-list.ts';
import { factsOf, verdictOf } from './judge.ts';
import type { Pattern } from './pattern.ts';
import { isForPath, namesPeer, type Decision, type Policy } from './policy.ts';
import type { RequestFacts } from './request.ts';
import { asksOfRequest, holdsAt, isForMethodAndHost, isForSubject, parseRule, type Effect, type Rule } from './rule.ts';
import type { Verdict } from './verdict.ts';

/** What is asked of a policy. */
export interface Question {
  readonly peer: SpiffeId;
  /** Undefined: about the connection. As they came, not yet comparable. */
  readonly request:
    | {
        readonly method: string;
        readonly target: string;
        readonly host: string;
        readonly subject?: RequestFacts['subject'];
      }
    | undefined;
  /** Milliseconds since 1970. */
  readonly nowMs: number;
}

/**
 * A rule of the policy: `index` is its place among those of its effect, as they were written. `at` is where it is written, if the policy
 * has a file of its own, or the line of the list that names the peer.
 */
export type RuleRef = Pick<Rule, 'effect' | 'index' | 'text'> & { readonly at?: string | undefined };

/** What may keep a rule from matching, the nearest first. */
export const MISSED_KEYS = ['time', 'method', 'path', 'host', 'subject', 'segment', 'trust domain'] as const;
export type MissedKey = (typeof MISSED_KEYS)[number];

/** A rule that would have changed the verdict, and nearly matched. */
export interface Miss {
  readonly rule: RuleRef;
  /** Without these it would have matched, and not without some of them: one, or two that are not of the peer. */
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
const LONGEST_LINE = 600;
const MOST_KNOWN = 1000;

/**
 * Why a policy says what it says. The verdict is that of the compiled policy, and whether a part of a rule matches is asked
 * of what the policy asks: rules are read in one way. The error is that of a request that cannot be compared with
 * the rules. Takes time in proportion to the number of rules.
 */
export function explain(policy: Policy, { peer, request, nowMs }: Question): Result<Explanation, string> {
  const facts = request === undefined ? undefined : factsOf(policy, request.method, request.target, request.host, request.subject);
  if (typeof facts === 'string') return err(facts);
  const gathered = policy.forPeer(peer);
  const decision = facts === undefined ? gathered.judgeConnection(nowMs) : gathered.judge(facts, nowMs);
  const denial = decision.allowed ? decision.audited : decision;
  return ok({
    verdict: verdictOf(peer, policy, decision),
    rule: decidedBy(policy, peer, decision),
    audited: decision.allowed && denial?.rule !== undefined ? refTo(denial.rule, policy, peer) : undefined,
    // Where a rule denies, no other would change that.
    misses: denial?.reason === 'denied' ? [] : nearest(policy, denial === undefined ? 'deny' : 'allow', peer, facts, nowMs),
  });
}

/**
 * For a line of the log: the rule that nearly allowed what no rule allows, bounded in length. Undefined if none did, if the
 * answer is another one, and of a policy that is not short.
 */
export function nearestMiss(policy: Policy, question: Question, mostRules: number): string | undefined {
  if (!isShort(policy, mostRules)) return undefined;
  const explained = explain(policy, question);
  if (!explained.ok || explained.value.verdict.allowed) return undefined;
  const [nearest] = explained.value.misses;
  if (nearest === undefined) return undefined;
  const text = `${nearest.rule.text}: ${nearest.text}`;
  return text.length > LONGEST_LINE ? `${text.slice(0, LONGEST_LINE)}…` : text;
}

function decidedBy(policy: Policy, peer: SpiffeId, decision: Decision): RuleRef | undefined {
  const rule = decision.allowed ? decision.by : decision.rule;
  if (rule !== undefined) return refTo(rule, policy, peer);
  if (!decision.allowed || decision.rule !== peer) return undefined;
  const index = policy.spec.allow.indexOf(peer);
  return { effect: 'allow', index, text: peer, at: policy.placeOf('allow', index) };
}

function refTo({ effect, index, text, peer: named }: Rule, policy: Policy, peer: SpiffeId): RuleRef {
  const line = named.kind === 'list' ? (named.ids.lineOf(peer) ?? named.ids.lineOf(named.ids.elsewhere(peer) ?? peer)) : undefined;
  const listed = named.kind === 'list' && line !== undefined ? `${named.ids.file}:${line}:1` : undefined;
  return { effect, index, text, at: listed ?? policy.placeOf(effect, index) };
}

/**
 * Whether there are at most `mostRules` rules, each counted with its paths and windows, and again for each 16 segments of a pattern, and each
 * list with the trust domains in which it is looked up: what a stranger can repeat must cost little.
 */
export function isShort({ bare, rules, lists }: Policy, mostRules: number): boolean {
  let count = bare.length + rules.length + [...lists.values()].reduce((sum, { domains }) => sum + domains, 0);
  if (count > mostRules) return false;
  for (const text of bare) count += lengthOf(segmentsBehindScheme(text));
  for (const { peer, paths = [], windows = [] } of rules) {
    count += lengthOf(segmentsIn(peer)) + windows.length;
    for (const { segments } of paths) count += 1 + lengthOf(segments.length);
  }
  return count <= mostRules;
}

/** In rules, of so many segments. */
function lengthOf(segments: number): number {
  return Math.floor(segments / 16);
}

/** Of a list, those of one of its SPIFFE IDs: it is looked through by hash. */
function segmentsIn(peer: Rule['peer']): number {
  if (peer.kind === 'segments') return peer.segments.length;
  if (peer.kind === 'any') return 1;
  return peer.kind === 'exact' ? segmentsBehindScheme(peer.id) : 1;
}

function segmentsBehindScheme(pattern: string): number {
  return pattern.split('/').length - 3;
}

function nearest(policy: Policy, effect: Effect, peer: SpiffeId, request: RequestFacts | undefined, nowMs: number): readonly Miss[] {
  const asked: Asked = { peer, given: segmentsOf(peer), request, nowMs, ofLists: new Map() };
  const found: Near[] = [];
  for (const rule of rulesOf(policy, effect)) {
    const missed = missOf(rule, asked);
    if (missed === undefined) continue;
    found.push({ rule, missed, distance: missed.reduce((sum, { key }) => sum + MISSED_KEYS.length + MISSED_KEYS.indexOf(key), 0) });
    // Of very many, the best are kept.
    if (found.length > 1000) keepNearest(found);
  }
  keepNearest(found);
  return found.map(({ rule, missed }) => ({
    rule: refTo(rule, policy, peer),
    but: missed.map(({ key }) => key),
    text: `matched but for ${missed.map(({ words }) => words()).join(', and for ')}`,
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
  const known = knownBare.get(policy);
  if (known !== undefined || policy.bare.length <= MOST_KNOWN) {
    const rules = known ?? [...bareRulesOf(policy)];
    knownBare.set(policy, rules);
    yield* rules;
  } else yield* bareRulesOf(policy);
}

function* bareRulesOf({ spec }: Policy): Iterable<Rule> {
  for (const [index, bare] of spec.allow.entries()) {
    const parsed = typeof bare === 'string' ? parseRule(bare, 'allow', index) : undefined;
    if (parsed?.ok === true) yield parsed.value;
  }
}

/** Of policies that are asked for lines of the log, again and again. */
const knownBare = new WeakMap<Policy, readonly Rule[]>();

/** A question, in the form in which rules compare it. */
interface Asked {
  readonly peer: SpiffeId;
  /** Its segments. */
  readonly given: readonly string[];
  readonly request: RequestFacts | undefined;
  readonly nowMs: number;
  /** What each list says of the peer: many rules may name one, and to ask it takes long. */
  readonly ofLists: Map<IdList, Missed | 'far' | undefined>;
}

interface Missed {
  readonly key: MissedKey;
  /** Not made of misses that are not told. */
  readonly words: () => string;
}

/** What keeps a rule from matching; undefined if it matches, or is far from that. */
function missOf(rule: Rule, asked: Asked): readonly Missed[] | undefined {
  const { request, nowMs } = asked;
  const { methods, hosts } = rule;
  // No connection is denied for what may be asked on it.
  if (request === undefined && rule.effect === 'deny' && asksOfRequest(rule)) return undefined;
  const ofPeer = peerMiss(rule, asked);
  if (ofPeer === 'far') return undefined;
  const missed: Missed[] = ofPeer === undefined ? [] : [ofPeer];
  if (!holdsAt(rule, nowMs)) missed.push({ key: 'time', words: () => `the time: ${timeWords(rule, nowMs)}` });
  if (request !== undefined) {
    if (!isForMethodAndHost({ methods, hosts: undefined }, request)) missed.push({ key: 'method', words: () => 'the method' });
    if (!isForPath(rule, request.path)) missed.push({ key: 'path', words: () => 'the path' });
    if (!isForMethodAndHost({ methods: undefined, hosts }, request)) missed.push({ key: 'host', words: () => 'the host' });
    if (!isForSubject(rule, request))
      missed.push({ key: 'subject', words: () => (request.subject === undefined ? 'a token' : 'the subject of the token') });
  }
  // One for somebody else and something else is far.
  return missed.length === 0 || missed.length > (ofPeer === undefined ? MOST_KEYS : 1) ? undefined : missed;
}

function peerMiss(rule: Rule, { peer, given, ofLists }: Asked): Missed | 'far' | undefined {
  const { peer: pattern } = rule;
  if (pattern.kind === 'any') return undefined;
  if (pattern.kind === 'list') {
    const { ids } = pattern;
    if (!ofLists.has(ids)) ofLists.set(ids, listMiss(ids, peer));
    return ofLists.get(ids);
  }
  if (namesPeer(rule, peer)) return undefined;
  const trustDomain = trustDomainOf(peer);
  if ((pattern.kind === 'exact' ? trustDomainOf(pattern.id) : pattern.trustDomain) !== trustDomain)
    return namesPeer({ ...rule, peer: inTrustDomain(pattern, trustDomain) }, peer)
      ? { key: 'trust domain', words: () => 'the trust domain' }
      : 'far';
  const relaxed = withoutOddSegment(pattern, trustDomain, given);
  if (relaxed === undefined || !namesPeer({ ...rule, peer: relaxed.pattern }, peer)) return 'far';
  return { key: 'segment', words: () => `one segment of the SPIFFE ID: it is for "${relaxed.wanted}" and not for "${relaxed.given}"` };
}

function listMiss(ids: IdList, peer: SpiffeId): Missed | 'far' | undefined {
  if (ids.lineOf(peer) !== undefined) return undefined;
  return ids.elsewhere(peer) === undefined ? 'far' : { key: 'trust domain', words: () => 'the trust domain' };
}

function inTrustDomain(pattern: Pattern, trustDomain: TrustDomain): Pattern {
  if (pattern.kind === 'segments') return { ...pattern, trustDomain };
  return { kind: 'exact', id: `${trustDomainId(trustDomain)}${pathOf(pattern.id)}` as SpiffeId };
}

/** The pattern with a wildcard for the one segment that the peer has otherwise; undefined if there is not just one. */
function withoutOddSegment(
  pattern: Pattern,
  trustDomain: TrustDomain,
  given: readonly string[],
): { readonly pattern: Pattern; readonly wanted: string; readonly given: string } | undefined {
  const segments: readonly (string | undefined)[] = pattern.kind === 'exact' ? segmentsOf(pattern.id) : pattern.segments;
  let odd: number | undefined;
  for (const [at, segment] of segments.entries()) {
    if (segment === undefined || segment === given[at]) continue;
    if (odd !== undefined) return undefined;
    odd = at;
  }
  const here = odd === undefined ? undefined : given[odd];
  if (odd === undefined || here === undefined) return undefined;
  const hasMore = pattern.kind === 'segments' && pattern.hasMore;
  return {
    pattern: { kind: 'segments', trustDomain, segments: segments.with(odd, undefined), hasMore },
    wanted: segments[odd] ?? '*',
    given: here,
  };
}

function segmentsOf(id: SpiffeId): readonly string[] {
  return pathOf(id).slice(1).split('/');
}

function timeWords({ notBeforeMs, notAfterMs }: Rule, nowMs: number): string {
  if (nowMs < notBeforeMs) return `it holds from ${new Date(notBeforeMs).toISOString()}`;
  if (nowMs >= notAfterMs) return `it held until ${new Date(notAfterMs).toISOString()}`;
  return 'none of its windows is open';
}
