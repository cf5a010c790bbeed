import { create } from '@bufbuild/protobuf';
import { StringMatcherSchema, type StringMatcher } from '../gen/matcher_pb.ts';
import { SubjectAltNameMatcher_SanType, SubjectAltNameMatcherSchema, type SubjectAltNameMatcher } from '../gen/secret_pb.ts';
import { err, ok, type Result } from '../lib/result.ts';
import { parsePattern, type Pattern } from '../policy/pattern.ts';
import type { AllowList } from '../policy/rules.ts';
import { trustDomainOf } from '../spiffe/spiffe-id.ts';
import type { TrustDomain } from '../spiffe/trust-domain.ts';

export type MatcherProblem = 'empty_allow_list' | 'inexpressible';

/**
 * An allow list as Envoy's matchers, for a secret that vouches for `domains` alone: entries of other trust domains are left out, since without
 * Envoy's SPIFFE validator an authority of one could issue an ID of another. Never an empty list, which to Envoy is everybody.
 */
export function sanMatchers(
  list: AllowList,
  domains: ReadonlySet<TrustDomain>,
): Result<readonly SubjectAltNameMatcher[], { readonly problem: MatcherProblem; readonly detail: string }> {
  const matchers: SubjectAltNameMatcher[] = [];
  for (const entry of list.entries) {
    const pattern = parsePattern(entry);
    // Whatever the list may come to hold some day: what cannot be said is not said loosely.
    if (!pattern.ok)
      return err({ problem: 'inexpressible', detail: `${JSON.stringify(entry)} cannot be said in matchers: ${pattern.error}` });
    if (!domains.has(domainOf(pattern.value))) continue;
    matchers.push(create(SubjectAltNameMatcherSchema, { sanType: SubjectAltNameMatcher_SanType.URI, matcher: matcherOf(pattern.value) }));
  }
  if (matchers.length > 0) return ok(matchers);
  const detail = list.entries.length === 0 ? 'the allow list is empty' : `no entry of the allow list is of ${[...domains].join(' or ')}`;
  return err({ problem: 'empty_allow_list', detail });
}

function domainOf(pattern: Pattern): TrustDomain {
  return pattern.kind === 'exact' ? trustDomainOf(pattern.id) : pattern.trustDomain;
}

function matcherOf(pattern: Pattern): StringMatcher {
  return create(StringMatcherSchema, {
    matchPattern:
      pattern.kind === 'exact' ? { case: 'exact', value: pattern.id } : { case: 'safeRegex', value: { regex: regexOf(pattern) } },
  });
}

/** One segment of a SPIFFE ID's path: its letters, and neither "." nor "..", which RE2, having no look-ahead, must be told piece by piece. */
const SEGMENT = '(?:[A-Za-z0-9_-][A-Za-z0-9._-]*|\\.[A-Za-z0-9_-][A-Za-z0-9._-]*|\\.\\.[A-Za-z0-9._-]+)';

/** Anchored, though Envoy matches the whole text anyway. Admits exactly the SPIFFE IDs that the pattern admits. */
export function regexOf(pattern: Pattern & { kind: 'segments' }): string {
  const fixed = pattern.segments.map((segment) => `/${segment === undefined ? SEGMENT : escape(segment)}`).join('');
  return `^spiffe://${escape(pattern.trustDomain)}${fixed}${pattern.hasMore ? `(?:/${SEGMENT})+` : ''}$`;
}

/** Names hold letters, digits, "-", "_" and ".", of which the last alone means something else. */
function escape(name: string): string {
  return name.replaceAll('.', '\\.');
}
