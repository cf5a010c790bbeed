/** What of a policy Envoy's matchers can say. Pure. */
import { err, ok, type Result } from '../lib/result.ts';
import type { RuleRef } from '../policy/explain.ts';
import { parsePattern, type Pattern } from '../policy/pattern.ts';
import type { Policy } from '../policy/policy.ts';
import { asksOfRequest, holdsAt, isTimed, type Rule } from '../policy/rule.ts';
import { trustDomainOf, type SpiffeId } from '../spiffe/spiffe-id.ts';
import type { TrustDomain } from '../spiffe/trust-domain.ts';

export type MatcherProblem = 'empty_allow_list' | 'inexpressible';

/** Why matchers cannot say a policy. */
export interface Unsaid {
  readonly problem: MatcherProblem;
  /** A sentence, with the rule. */
  readonly detail: string;
  /** Undefined: it is not one rule. */
  readonly rule: RuleRef | undefined;
}

/** Whom a rule admits, in Envoy's terms and as it was written. */
export type SaidEntry = { readonly trustDomain: TrustDomain; readonly pattern: Pattern } & (
  | { readonly exact: SpiffeId }
  | { readonly regex: string }
);

export interface SaidRule {
  readonly rule: RuleRef;
  readonly entry: SaidEntry;
  /** Undefined: it always holds. */
  readonly times: Pick<Rule, 'notBeforeMs' | 'notAfterMs' | 'windows'> | undefined;
}

export interface SaidPolicy {
  /** The one trust domain whose authorities may be trusted beside these entries. */
  readonly trustDomain: TrustDomain;
  /** Of the rules that hold at the time, each once and in an order of its own. None: nobody is admitted, until another time. */
  readonly entries: readonly SaidEntry[];
}

/**
 * A policy in Envoy's terms, for a secret of one trust domain, or (undefined) of whichever it needs. Envoy binds a certificate to the trust
 * domain of one of its URIs, and admits it by any other: an authority of one trust domain could issue an ID of another. So beside a list
 * stand the authorities of one trust domain alone: entries of others are left out where the secret is of one, and a list of several is not
 * said where it is of several.
 *
 * Whether it can be said never depends on `nowMs`, which is wall time: Envoy would keep what it had before, and admit whom a rule that is
 * over admitted.
 */
export function sayPolicy(policy: Policy, domain: TrustDomain | undefined, nowMs: number): Result<SaidPolicy, Unsaid> {
  const said = sayRules(policy);
  if (!said.ok) return said;
  const rules = domain === undefined ? said.value : said.value.filter(({ entry }) => entry.trustDomain === domain);
  const [trustDomain, ...others] = new Set(rules.map(({ entry }) => entry.trustDomain));
  if (trustDomain === undefined) {
    const detail = said.value.length === 0 ? 'the allow list is empty' : `no entry of the allow list is of ${domain}`;
    return err({ problem: 'empty_allow_list', detail, rule: undefined });
  }
  if (others.length > 0) {
    const which = [trustDomain, ...others].join(' and ');
    const detail = `in one secret, an authority of ${which} could issue the IDs of the other`;
    return err({ problem: 'inexpressible', detail, rule: undefined });
  }
  const held = new Map<string, SaidEntry>();
  for (const { entry, times } of rules)
    if (times === undefined || holdsAt(times, nowMs)) held.set('exact' in entry ? `= ${entry.exact}` : `~ ${entry.regex}`, entry);
  return ok({ trustDomain, entries: [...held].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([, entry]) => entry) });
}

/**
 * The rules of a policy, of all times, in Envoy's terms. What matchers cannot say exactly, they do not say: rules that deny or look at
 * requests, and audit.
 */
export function sayRules(policy: Policy): Result<readonly SaidRule[], Unsaid> {
  const unsaid = unsaidOf(policy);
  if (unsaid !== undefined) return err(unsaid);
  const said: SaidRule[] = [];
  for (const [index, text] of policy.spec.allow.entries()) {
    if (typeof text !== 'string') continue;
    const pattern = parsePattern(text);
    const rule: RuleRef = { effect: 'allow', index, text };
    const entry = pattern.ok ? sayPattern(pattern.value) : pattern;
    if (!entry.ok) return err(tooMuch(rule, entry.error));
    said.push({ rule, entry: entry.value, times: undefined });
  }
  for (const rule of policy.rules) {
    const entry = sayPeers(rule.peer);
    if (!entry.ok) return err(tooMuch(rule, entry.error));
    said.push({ rule, entry: entry.value, times: isTimed(rule) ? rule : undefined });
  }
  return ok(said);
}

function unsaidOf({ mode, rules }: Policy): Unsaid | undefined {
  const rule = rules.find((one) => one.effect === 'deny' || one.mode === 'audit' || asksOfRequest(one));
  if (rule !== undefined) return tooMuch(rule, 'they only name whom to admit');
  if (mode === 'enforce') return undefined;
  const detail = 'a policy in audit cannot be said in matchers: Envoy would deny, and nobody would be told';
  return { problem: 'inexpressible', detail, rule: undefined };
}

function tooMuch(rule: RuleRef, why: string): Unsaid {
  return { problem: 'inexpressible', detail: `the rule ${JSON.stringify(rule.text)} cannot be said in matchers: ${why}`, rule };
}

function sayPeers(peer: Rule['peer']): Result<SaidEntry, string> {
  if (peer.kind === 'list') return err('it is a list in a file, which may be long');
  return peer.kind === 'any' ? err('it is about the subject of a token') : sayPattern(peer);
}

function sayPattern(pattern: Pattern): Result<SaidEntry, string> {
  if (pattern.kind === 'exact') return ok({ trustDomain: trustDomainOf(pattern.id), pattern, exact: pattern.id });
  if (programSizeOf(pattern) > MAX_PROGRAM_SIZE) return err('Envoy would refuse so long a pattern after its first wildcard');
  return ok({ trustDomain: pattern.trustDomain, pattern, regex: regexOf(pattern) });
}

/** For people whose policy matchers cannot say. */
export const OTHER_WAY =
  'Envoy can ask Scute about each request or connection instead: ext_authz with envoy.service.auth.v3.Authorization/Check on the SDS socket (sds.authorization)';

/** Matches no text at all. */
export const NOTHING_REGEX = '[^\\s\\S]';

/**
 * One segment of a SPIFFE ID's path: its letters, and neither "." nor "..": a letter behind any dots, or three dots, then anything. As short as
 * that can be said without look-ahead, which RE2 does not have.
 */
const SEGMENT = '(?:\\.*[\\w-]|\\.{3})[\\w.-]*';

/**
 * Anchored, though Envoy matches the whole text anyway. Admits exactly the SPIFFE IDs that the pattern admits, but for their length: an authority
 * that signs one of more than 2048 bytes has it admitted, of its own trust domain.
 */
export function regexOf(pattern: Pattern & { kind: 'segments' }): string {
  const fixed = pattern.segments.map((segment) => `/${segment === undefined ? SEGMENT : escape(segment)}`).join('');
  return `^spiffe://${escape(pattern.trustDomain)}${fixed}${pattern.hasMore ? `(?:/${SEGMENT})+` : ''}$`;
}

/** Envoy refuses a regular expression, and the secret with it, whose program in RE2 is larger (`re2.max_program_size.error_level`). */
const MAX_PROGRAM_SIZE = 100;

/** At least the instructions of RE2 for what `regexOf` gives; it sets aside what comes before the first wildcard. */
export function programSizeOf({ segments, hasMore }: Pattern & { kind: 'segments' }): number {
  const first = segments.indexOf(undefined);
  let size = 4;
  for (const segment of first === -1 ? [] : segments.slice(first)) size += 1 + (segment === undefined ? SEGMENT_SIZE : segment.length);
  return hasMore ? size + SEGMENT_SIZE + 4 : size;
}

const SEGMENT_SIZE = 14;

/** Names hold letters, digits, "-", "_" and ".", of which the last alone means something else. */
function escape(name: string): string {
  return name.replaceAll('.', '\\.');
}
