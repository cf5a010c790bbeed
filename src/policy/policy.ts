import { atOnce } from '../lib/at-once.ts';
import { err, ok, type Result } from '../lib/result.ts';
import { pathOf, trustDomainOf, type SpiffeId } from '../spiffe/spiffe-id.ts';
import type { IdList } from './id-list.ts';
import type { RequestFacts } from './request.ts';
import { SegmentTrie } from './segment-trie.ts';
import {
  asksOfRequest,
  holdsAt,
  isForMethodAndHost,
  isForSubject,
  isTimed,
  nextLookAt,
  parseRule,
  type Effect,
  type IdsOf,
  type Mode,
  type Rule,
  type RuleProblem,
  type RuleSpec,
} from './rule.ts';

/** What a policy says of a peer, or of a request of or to it. */
export type Decision =
  | {
      readonly allowed: true;
      /** The rule that admits, in one line; `audit` where the policy itself is in audit and none does. */
      readonly rule: string;
      /** That rule; undefined where it is a bare entry that is the peer's very SPIFFE ID, or none. */
      readonly by: Rule | undefined;
      /** Only audit lets it pass: what an enforced policy would have said. */
      readonly audited: Denial | undefined;
    }
  | Denial;

export type Denial =
  | { readonly allowed: false; readonly reason: 'denied'; readonly rule: Rule }
  | { readonly allowed: false; readonly reason: 'not_allowed'; readonly rule: undefined };

/** A policy as written. */
export interface PolicySpec {
  readonly allow: readonly (string | RuleSpec)[];
  readonly deny?: readonly (string | RuleSpec)[] | undefined;
  /** `audit`: all that it would deny passes, and is told. */
  readonly mode?: Mode | undefined;
}

/** What belongs to a policy and is not written in it. */
export interface PolicyParts {
  /** By the files that its rules name. */
  readonly idsOf?: IdsOf | undefined;
  /** Where a rule is written, where that is a file of the policy's own: `policy.yaml:3:5`. */
  readonly placeOf?: ((effect: Effect, index: number) => string) | undefined;
}

/** `path` leads from the policy to the value that is wrong. */
export type PolicyProblem = RuleProblem;

/** What a policy says of one peer, gathered once. */
export interface PeerPolicy {
  /** Of one request. */
  judge(request: RequestFacts, nowMs: number): Decision;
  /**
   * Of a connection, before there is a request or where there are none: allowed if some request may be, and denied if none
   * may.
   */
  judgeConnection(nowMs: number): Decision;
  /** Of all requests at once, for whoever can tell none of them apart: allowed if every request is. */
  judgeEveryRequest(nowMs: number): Decision;
}

/**
 * A compiled policy. Immutable. Deny wins over allow, what no rule allows is denied, and the order of rules never matters.
 * Exact SPIFFE IDs cost one look-up, and one for each file of them, however many there are; patterns, and paths of requests, one walk along their segments.
 */
export interface Policy {
  /** What it was compiled from; of two policies with the same one, and the same lists, either will do. */
  readonly spec: PolicySpec;
  /** The lists that its rules name, by file. */
  readonly lists: ReadonlyMap<string, IdList>;
  readonly mode: Mode;
  /** The allow rules in one line each, as written and in order. */
  readonly entries: readonly string[];
  /** Of these, those that only name peers. */
  readonly bare: readonly string[];
  /** All others, and all that deny. */
  readonly rules: readonly Rule[];
  /** What rules ask of requests: a request without it cannot be judged. */
  readonly asksForMethod: boolean;
  readonly asksForPath: boolean;
  readonly asksForHost: boolean;
  /** Some request is allowed or denied for the subject of its JWT-SVID. */
  readonly asksForSubject: boolean;
  /** Whether a rule holds at some times and not at others, be they over or not. */
  readonly hasTimes: boolean;
  /** Where a rule is written, if the policy has a file of its own. */
  placeOf(effect: Effect, index: number): string | undefined;
  forPeer(peer: SpiffeId): PeerPolicy;
  /** A time after `nowMs` and not later than the next one at which an answer may change by itself; Infinity if none does. */
  nextLook(nowMs: number): number;
}

const NOT_ALLOWED: Denial = Object.freeze({ allowed: false, reason: 'not_allowed', rule: undefined });

/** Compiles a policy. The error has every problem of every rule. */
export function compilePolicy(written: PolicySpec, parts: PolicyParts = {}): Result<Policy, readonly PolicyProblem[]> {
  return atOnce(compileInTurns(written, parts));
}

/** As `compilePolicy`, a rule at a time. */
export function* compileInTurns(
  written: PolicySpec,
  { idsOf, placeOf }: PolicyParts = {},
): Generator<void, Result<Policy, readonly PolicyProblem[]>> {
  const { allow, deny = [], mode = 'enforce' } = written;
  const problems: PolicyProblem[] = [];
  const spec = Object.freeze({ allow: Object.freeze([...allow]), deny: Object.freeze([...deny]), mode });
  const compiled = new CompiledPolicy(spec, placeOf);
  for (const [effect, specs] of [
    ['allow', allow],
    ['deny', deny],
  ] as const) {
    for (const [index, spec] of specs.entries()) {
      const parsed = parseRule(spec, effect, index, idsOf);
      if (parsed.ok) compiled.add(parsed.value, typeof spec === 'string');
      else problems.push(...parsed.error.map(({ path, message }) => ({ path: [effect, index, ...path], message })));
      yield;
    }
  }
  return problems.length > 0 ? err(problems) : ok(Object.freeze(compiled));
}

/** Whether a rule is for such a peer: as in a policy of it alone. */
export function namesPeer(rule: Rule, peer: SpiffeId): boolean {
  if (rule.peer.kind === 'any') return true;
  if (rule.peer.kind === 'exact') return rule.peer.id === peer;
  if (rule.peer.kind === 'list') return rule.peer.ids.lineOf(peer) !== undefined;
  const index = new PeerIndex();
  index.add(rule);
  return index.find(peer).length > 0;
}

/** Whether a rule is for such a path, whatever else it asks for: as in a policy of it alone. */
export function isForPath({ paths, ...rule }: Rule, path: string): boolean {
  if (paths === undefined) return true;
  const group = new RuleGroup();
  group.add({ ...rule, ...ANYTHING, paths });
  const match = new Match(undefined);
  group.matchRequest({ method: '', path, host: '' }, 0, match);
  return match.isMade;
}

const ANYTHING = {
  methods: undefined,
  hosts: undefined,
  subject: undefined,
  notBeforeMs: -Infinity,
  notAfterMs: Infinity,
  windows: undefined,
};

class CompiledPolicy implements Policy {
  /** Alone of all this, it shows in JSON. */
  readonly spec: PolicySpec;
  readonly #placeOf: PolicyParts['placeOf'];
  readonly #lists = new Map<string, IdList>();
  readonly #entries: string[] = [];
  readonly #bare: string[] = [];
  readonly #rules: Rule[] = [];
  readonly #timed: Rule[] = [];
  /** Bare entries that are SPIFFE IDs: most of them all. */
  readonly #plain = new Set<string>();
  readonly #groups = new PeerIndex();
  /** What is said of all whom one group is about, and no other; and of strangers. */
  readonly #ofOne = new Map<RuleGroup | undefined, GatheredPolicy>();
  #asksForMethod = false;
  #asksForPath = false;
  #asksForHost = false;
  #asksForSubject = false;

  constructor(spec: PolicySpec, placeOf: PolicyParts['placeOf']) {
    this.spec = spec;
    this.#placeOf = placeOf;
  }

  /** While it is compiled. */
  add(rule: Rule, isBare: boolean): void {
    const { effect, text, peer, subject, methods, paths, hosts } = rule;
    const isBareAllow = isBare && effect === 'allow';
    if (effect === 'allow') this.#entries.push(text);
    if (isBareAllow) this.#bare.push(text);
    else this.#rules.push(rule);
    if (isBareAllow && peer.kind === 'exact') this.#plain.add(peer.id);
    else this.#groups.add(rule);
    if (peer.kind === 'list') this.#lists.set(peer.ids.file, peer.ids);
    if (isTimed(rule)) this.#timed.push(rule);
    this.#asksForMethod ||= methods !== undefined;
    this.#asksForPath ||= paths !== undefined;
    this.#asksForHost ||= hosts !== undefined;
    this.#asksForSubject ||= subject !== undefined;
  }

  get mode(): Mode {
    return this.spec.mode ?? 'enforce';
  }

  get lists(): ReadonlyMap<string, IdList> {
    return this.#lists;
  }

  placeOf(effect: Effect, index: number): string | undefined {
    return this.#placeOf?.(effect, index);
  }

  get entries(): readonly string[] {
    return this.#entries;
  }

  get bare(): readonly string[] {
    return this.#bare;
  }

  get rules(): readonly Rule[] {
    return this.#rules;
  }

  get asksForMethod(): boolean {
    return this.#asksForMethod;
  }

  get asksForPath(): boolean {
    return this.#asksForPath;
  }

  get asksForHost(): boolean {
    return this.#asksForHost;
  }

  get asksForSubject(): boolean {
    return this.#asksForSubject;
  }

  get hasTimes(): boolean {
    return this.#timed.length > 0;
  }

  forPeer(peer: SpiffeId): PeerPolicy {
    const groups = this.#groups.find(peer);
    if (this.#plain.has(peer)) return new GatheredPolicy(peer, groups, this.mode);
    if (groups.length > 1) return new GatheredPolicy(undefined, groups, this.mode);
    const [group] = groups;
    let known = this.#ofOne.get(group);
    if (known === undefined) {
      known = new GatheredPolicy(undefined, groups, this.mode);
      this.#ofOne.set(group, known);
    }
    return known;
  }

  nextLook(nowMs: number): number {
    return this.#timed.reduce((soonest, rule) => Math.min(soonest, nextLookAt(rule, nowMs)), Infinity);
  }
}

class GatheredPolicy implements PeerPolicy {
  /** A bare entry that is the peer's very SPIFFE ID. */
  readonly #bare: string | undefined;
  readonly #groups: readonly RuleGroup[];
  readonly #mode: Mode;
  /** The one answer there is, where no rule asks for anything but the peer. */
  readonly #always: Decision | undefined;

  constructor(bare: string | undefined, groups: readonly RuleGroup[], mode: Mode) {
    this.#bare = bare;
    this.#groups = groups;
    this.#mode = mode;
    if (groups.every((group) => group.isOfPeersAlone)) this.#always = this.judgeConnection(0);
  }

  judge(request: RequestFacts, nowMs: number): Decision {
    if (this.#always !== undefined) return this.#always;
    const match = new Match(this.#bare);
    for (const group of this.#groups) group.matchRequest(request, nowMs, match);
    return match.decide(this.#mode);
  }

  judgeConnection(nowMs: number): Decision {
    if (this.#always !== undefined) return this.#always;
    const match = new Match(this.#bare);
    for (const group of this.#groups) group.matchConnection(nowMs, match);
    return match.decide(this.#mode);
  }

  judgeEveryRequest(nowMs: number): Decision {
    if (this.#always !== undefined) return this.#always;
    const match = new Match(this.#bare);
    for (const group of this.#groups) group.matchEveryRequest(nowMs, match);
    return match.decide(this.#mode);
  }
}

/** The rules that match, of each kind the first that was written. */
class Match {
  readonly #bare: string | undefined;
  #allow: Rule | undefined;
  #deny: Rule | undefined;
  #auditAllow: Rule | undefined;
  #auditDeny: Rule | undefined;

  constructor(bare: string | undefined) {
    this.#bare = bare;
  }

  add(rule: Rule): void {
    if (rule.effect === 'deny') {
      if (rule.mode === 'enforce') this.#deny = firstOf(this.#deny, rule);
      else this.#auditDeny = firstOf(this.#auditDeny, rule);
    } else if (rule.mode === 'enforce') this.#allow = firstOf(this.#allow, rule);
    else this.#auditAllow = firstOf(this.#auditAllow, rule);
  }

  /** Whether there is any. */
  get isMade(): boolean {
    return (this.#bare ?? this.#allow ?? this.#deny ?? this.#auditAllow ?? this.#auditDeny) !== undefined;
  }

  decide(mode: Mode): Decision {
    const denial = this.#deny === undefined ? undefined : denied(this.#deny);
    const by = this.#bare === undefined ? this.#allow : undefined;
    const rule = this.#bare ?? by?.text;
    if (denial !== undefined) return mode === 'audit' ? { allowed: true, rule: rule ?? 'audit', by, audited: denial } : denial;
    const audited = this.#auditDeny === undefined ? undefined : denied(this.#auditDeny);
    if (rule !== undefined) return { allowed: true, rule, by, audited };
    const auditAllow = this.#auditAllow;
    if (auditAllow !== undefined) return { allowed: true, rule: auditAllow.text, by: auditAllow, audited: audited ?? NOT_ALLOWED };
    return mode === 'audit' ? { allowed: true, rule: 'audit', by: undefined, audited: audited ?? NOT_ALLOWED } : NOT_ALLOWED;
  }
}

function denied(rule: Rule): Denial {
  return { allowed: false, reason: 'denied', rule };
}

function firstOf(known: Rule | undefined, rule: Rule): Rule {
  return known === undefined || rule.index < known.index ? rule : known;
}

/** All rules for one pattern of peers. */
class RuleGroup {
  readonly #rules: Rule[] = [];
  /** Those that ask for no path. */
  readonly #ofAnyPath: Rule[] = [];
  readonly #byPath = new SegmentTrie<Rule[]>();
  #hasDenyPaths = false;
  /** None of them asks for a time or anything of a request. */
  isOfPeersAlone = true;

  add(rule: Rule): void {
    this.#rules.push(rule);
    if (asksOfRequest(rule) || isTimed(rule)) this.isOfPeersAlone = false;
    if (rule.paths === undefined) this.#ofAnyPath.push(rule);
    else {
      for (const path of rule.paths) this.#byPath.at(path, () => []).push(rule);
      if (rule.effect === 'deny') this.#hasDenyPaths = true;
    }
  }

  matchRequest(request: RequestFacts, nowMs: number, match: Match): void {
    const consider = (rule: Rule): void => {
      if (isForMethodAndHost(rule, request) && isForSubject(rule, request) && holdsAt(rule, nowMs)) match.add(rule);
    };
    for (const rule of this.#ofAnyPath) consider(rule);
    const { path } = request;
    // `OPTIONS *` asks for no path.
    if (path === '*') return;
    this.#byPath.find(path, (rules) => rules.forEach(consider));
    // A server may take `/admin/` for `/admin`: what is denied is denied under both names.
    if (this.#hasDenyPaths && path.length > 1 && path.endsWith('/'))
      this.#byPath.find(path.slice(0, -1), (rules) => rules.filter(({ effect }) => effect === 'deny').forEach(consider));
  }

  matchConnection(nowMs: number, match: Match): void {
    for (const rule of this.#rules) {
      // What is denied to some requests is not denied to all.
      if (rule.effect === 'deny' && asksOfRequest(rule)) continue;
      if (holdsAt(rule, nowMs)) match.add(rule);
    }
  }

  matchEveryRequest(nowMs: number, match: Match): void {
    for (const rule of this.#rules) {
      // What is allowed to some requests is not allowed to all, and what is denied to some is denied to one of them.
      if (rule.effect === 'allow' && asksOfRequest(rule)) continue;
      if (holdsAt(rule, nowMs)) match.add(rule);
    }
  }
}

/** The rules of each pattern of peers. */
class PeerIndex {
  readonly #exact = new Map<string, RuleGroup>();
  readonly #domains = new Map<string, SegmentTrie<RuleGroup>>();
  readonly #lists: { readonly ids: IdList; readonly group: RuleGroup }[] = [];
  /** Of rules that ask for a subject, whoever the peer is. */
  #ofAll: RuleGroup | undefined;

  add(rule: Rule): void {
    this.#groupOf(rule.peer).add(rule);
  }

  #groupOf(pattern: Rule['peer']): RuleGroup {
    if (pattern.kind === 'exact') {
      const known = this.#exact.get(pattern.id) ?? new RuleGroup();
      this.#exact.set(pattern.id, known);
      return known;
    }
    if (pattern.kind === 'any') return (this.#ofAll ??= new RuleGroup());
    if (pattern.kind === 'list') {
      const known = this.#lists.find(({ ids }) => ids === pattern.ids)?.group;
      const group = known ?? new RuleGroup();
      if (known === undefined) this.#lists.push({ ids: pattern.ids, group });
      return group;
    }
    const trie = this.#domains.get(pattern.trustDomain) ?? new SegmentTrie<RuleGroup>();
    this.#domains.set(pattern.trustDomain, trie);
    return trie.at(pattern, () => new RuleGroup());
  }

  find(peer: SpiffeId): readonly RuleGroup[] {
    const found: RuleGroup[] = [];
    const exact = this.#exact.get(peer);
    if (exact !== undefined) found.push(exact);
    if (this.#ofAll !== undefined) found.push(this.#ofAll);
    for (const { ids, group } of this.#lists) if (ids.lineOf(peer) !== undefined) found.push(group);
    if (this.#domains.size === 0) return found;
    const path = pathOf(peer);
    // A trust domain's own ID has no segments, and is never a peer.
    if (path !== '') this.#domains.get(trustDomainOf(peer))?.find(path, (group) => found.push(group));
    return found;
  }
}
