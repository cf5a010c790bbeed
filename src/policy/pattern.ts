import { err, ok, type Result } from '../lib/result.ts';
import { parseSpiffeId, pathOf, trustDomainOf, type SpiffeId, type SpiffeIdProblem } from '../spiffe/spiffe-id.ts';
import { parseTrustDomain, type TrustDomain } from '../spiffe/trust-domain.ts';

/** One allow-list entry, compiled. */
export type Pattern =
  | { readonly kind: 'exact'; readonly id: SpiffeId }
  | {
      readonly kind: 'segments';
      readonly trustDomain: TrustDomain;
      /** What each segment must be; undefined is any one segment. */
      readonly segments: readonly (string | undefined)[];
      /** Ends in `**`: one or more further segments. */
      readonly hasMore: boolean;
    };

const SCHEME = 'spiffe://';

/** Compiles an entry: `spiffe://example.org/web`, or one with `*` for one segment or a last `**` for one or more. The error is a sentence. */
export function parsePattern(entry: string): Result<Pattern, string> {
  if (!entry.includes('*')) return parseExact(entry);
  if (!entry.startsWith(SCHEME)) return err(explain('wrong_scheme'));
  const [authority = '', ...segments] = entry.slice(SCHEME.length).split('/');
  if (authority.includes('*')) return err('the trust domain takes no wildcard: name each trust domain');
  const domain = parseTrustDomain(authority);
  if (!domain.ok) return err(explain(domain.error));
  for (const [index, segment] of segments.entries()) {
    if (segment === '**' && index !== segments.length - 1)
      return err('"**" stands for the whole rest of the path, so it can only be the last segment');
    if (segment.includes('*') && segment !== '*' && segment !== '**')
      return err(`a wildcard stands for whole segments, and ${JSON.stringify(segment)} is part of one: write "*"`);
  }
  // With its wildcards filled in, the entry must be a SPIFFE ID, or it could never match one.
  const filled = parseSpiffeId(`${SCHEME}${[authority, ...segments.map((segment) => segment.replaceAll('*', 'x'))].join('/')}`);
  if (!filled.ok) return err(explain(filled.error));
  const hasMore = segments.at(-1) === '**';
  const fixed = hasMore ? segments.slice(0, -1) : segments;
  return ok({
    kind: 'segments',
    trustDomain: domain.value,
    segments: fixed.map((segment) => (segment === '*' ? undefined : segment)),
    hasMore,
  });
}

/** Whether an ID is one of the pattern's. */
export function matchesPattern(pattern: Pattern, id: SpiffeId): boolean {
  if (pattern.kind === 'exact') return pattern.id === id;
  const { trustDomain, segments, hasMore } = pattern;
  const path = pathOf(id);
  if (path === '' || trustDomainOf(id) !== trustDomain) return false;
  const given = path.slice(1).split('/');
  const isAsLong = hasMore ? given.length > segments.length : given.length === segments.length;
  return isAsLong && segments.every((segment, at) => segment === undefined || segment === given[at]);
}

function parseExact(entry: string): Result<Pattern, string> {
  const id = parseSpiffeId(entry);
  if (!id.ok) return err(explain(id.error));
  if (pathOf(id.value) === '') {
    const all = `spiffe://${trustDomainOf(id.value)}/**`;
    return err(`this names a trust domain, which no workload is called: write "${all}" to admit all of it`);
  }
  return ok({ kind: 'exact', id: id.value });
}

function explain(problem: SpiffeIdProblem): string {
  return PROBLEM_TEXTS[problem];
}

const PROBLEM_TEXTS: Readonly<Record<SpiffeIdProblem, string>> = {
  wrong_scheme: 'a SPIFFE ID begins with "spiffe://"',
  too_long: 'a SPIFFE ID has at most 2048 bytes',
  empty_trust_domain: 'the trust domain is empty',
  trust_domain_too_long: 'a trust domain has at most 255 bytes',
  bad_trust_domain_character: 'a trust domain has only lower-case letters, digits, ".", "-" and "_"',
  trailing_slash: 'a path does not end with "/"',
  empty_segment: 'a path has no empty segments',
  dot_segment: 'a path has no "." or ".." segments',
  bad_path_character: 'a path has only letters, digits, ".", "-" and "_" between its slashes',
};
