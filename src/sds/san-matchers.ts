import { create } from '@bufbuild/protobuf';
import { StringMatcherSchema } from '../gen/matcher_pb.ts';
import { SubjectAltNameMatcher_SanType, SubjectAltNameMatcherSchema, type SubjectAltNameMatcher } from '../gen/secret_pb.ts';
import { NOTHING_REGEX, type SaidEntry } from './expression.ts';

/** Entries as Envoy's matchers: never none at all, which to Envoy is everybody. */
export function sanMatchers(entries: readonly SaidEntry[]): readonly SubjectAltNameMatcher[] {
  return (entries.length === 0 ? [{ regex: NOTHING_REGEX }] : entries).map(sanMatcher);
}

function sanMatcher(said: { readonly exact: string } | { readonly regex: string }): SubjectAltNameMatcher {
  const matcher = create(StringMatcherSchema, {
    matchPattern: 'exact' in said ? { case: 'exact', value: said.exact } : { case: 'safeRegex', value: { regex: said.regex } },
  });
  return create(SubjectAltNameMatcherSchema, { sanType: SubjectAltNameMatcher_SanType.URI, matcher });
}
