import { create } from '@bufbuild/protobuf';
import { StringMatcherSchema, type StringMatcher } from '../gen/matcher_pb.ts';
import { SubjectAltNameMatcher_SanType, SubjectAltNameMatcherSchema, type SubjectAltNameMatcher } from '../gen/secret_pb.ts';
import { err, ok, type Result } from '../lib/result.ts';
import { parsePattern, type Pattern } from '../policy/pattern.ts';
import type { Policy } from '../policy/policy.ts';
import { trustDomainOf } from '../spiffe/spiffe-id.ts';
import type { TrustDomain } from '../spiffe/trust-domain.ts';

export type MatcherProblem = 'empty_allow_list' | 'inexpressible';

export interface SanMatchers {
  /** The one trust domain whose authorities may be trusted beside these matchers. */
  readonly trustDomain: TrustDomain;
  /** Never empty, which to Envoy is everybody. */
  readonly matchers: readonly SubjectAltNameMatcher[];
}

/**
 * A policy as Envoy's matchers, for a secret of one trust domain, or (undefined) of whichever it needs. What matchers cannot say exactly, they do not
 * say: rules that deny, that hold at some times, that look at requests, and audit. Envoy binds a certificate to the trust domain of one of its URIs,
 * and admits it by any other: an authority of one trust domain could issue an ID of another. So beside a list stand the authorities of one trust
 * domain alone: entries of others are left out where the secret is of one, and a list of several is not said where it is of several.
 */
export function sanMatchers(
  policy: Policy,
  domain: TrustDomain | undefined,
): Result<SanMatchers, { readonly problem: MatcherProblem; readonly detail: string }> {
  const unsaid = unsaidOf(policy);
  if (unsaid !== undefined) return err({ problem: 'inexpressible', detail: unsaid });
  const matchers = new Map<TrustDomain, SubjectAltNameMatcher[]>();
  for (const entry of policy.bare) {
    const said = sayEntry(entry);
    if (!said.ok) return err({ problem: 'inexpressible', detail: said.error });
    const { trustDomain } = said.value;
    if (domain !== undefined && trustDomain !== domain) continue;
    const matcher = create(SubjectAltNameMatcherSchema, { sanType: SubjectAltNameMatcher_SanType.URI, matcher: matcherOf(said.value) });
    const ofDomain = matchers.get(trustDomain);
    if (ofDomain === undefined) matchers.set(trustDomain, [matcher]);
    else ofDomain.push(matcher);
  }
  const [only, ...more] = matchers;
  if (only === undefined) {
    const detail = policy.bare.length === 0 ? 'the allow list is empty' : `no entry of the allow list is of ${domain}`;
    return err({ problem: 'empty_allow_list', detail });
  }
  if (more.length > 0) {
    const which = [...matchers.keys()].join(' and ');
    return err({ problem: 'inexpressible', detail: `in one secret, an authority of ${which} could issue the IDs of the other` });
  }
  const [trustDomain, ofDomain] = only;
  return ok({ trustDomain, matchers: ofDomain });
}

/** Why matchers cannot do what a policy does, a sentence with the rule; undefined if they can. */
export function unsaidOf({ mode, rules }: Policy): string | undefined {
  const [rule] = rules;
  if (rule !== undefined) return `the rule ${JSON.stringify(rule.text)} cannot be said in matchers, which only name whom to admit`;
  return mode === 'audit' ? 'a policy in audit cannot be said in matchers: Envoy would deny, and nobody would be told' : undefined;
}

/** An entry of an allow list in Envoy's terms. */
export type SaidEntry = { readonly trustDomain: TrustDomain } & ({ readonly exact: string } | { readonly regex: string });

/** What Envoy is told of an entry, or why it cannot be told, a sentence: what cannot be said exactly is not said loosely. */
export function sayEntry(entry: string): Result<SaidEntry, string> {
  const pattern = parsePattern(entry);
  if (!pattern.ok) return err(`${JSON.stringify(entry)} cannot be said in matchers: ${pattern.error}`);
  if (pattern.value.kind === 'exact') return ok({ trustDomain: trustDomainOf(pattern.value.id), exact: pattern.value.id });
  if (programSizeOf(pattern.value) > MAX_PROGRAM_SIZE) {
    return err(`${JSON.stringify(entry)} cannot be said in matchers: Envoy would refuse so long a pattern after its first wildcard`);
  }
  return ok({ trustDomain: pattern.value.trustDomain, regex: regexOf(pattern.value) });
}

function matcherOf(said: SaidEntry): StringMatcher {
  return create(StringMatcherSchema, {
    matchPattern: 'exact' in said ? { case: 'exact', value: said.exact } : { case: 'safeRegex', value: { regex: said.regex } },
  });
}

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
