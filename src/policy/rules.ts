import { err, ok, type Result } from '../lib/result.ts';
import { pathOf, trustDomainOf, type SpiffeId } from '../spiffe/spiffe-id.ts';
import type { TrustDomain } from '../spiffe/trust-domain.ts';
import { matchesSegments, parsePattern, type Pattern } from './pattern.ts';

/** A compiled allow list. Immutable. Exact SPIFFE IDs are one Map look-up, however many there are. */
export interface AllowList {
  /** The entries as written, in order. */
  readonly entries: readonly string[];
  /** The entry that admits `peer`, or undefined: deny by default, and an empty list admits nobody. */
  match(peer: SpiffeId): string | undefined;
}

export interface PatternProblem {
  readonly entry: string;
  readonly message: string;
}

/**
 * Compiles allow-list entries: an exact SPIFFE ID, or one with `*` for exactly one path segment or `**` as the last
 * segment for one or more. `spiffe://example.org/**` is the whole trust domain; the trust domain itself takes no wildcard.
 * The error has every bad entry.
 */
export function compileAllowList(entries: readonly string[]): Result<AllowList, readonly PatternProblem[]> {
  const exact = new Set<string>();
  const byDomain = new Map<TrustDomain, { readonly entry: string; readonly pattern: Pattern & { kind: 'segments' } }[]>();
  const problems: PatternProblem[] = [];
  for (const entry of entries) {
    const parsed = parsePattern(entry);
    if (!parsed.ok) {
      problems.push({ entry, message: parsed.error });
      continue;
    }
    const pattern = parsed.value;
    if (pattern.kind === 'exact') {
      exact.add(pattern.id);
      continue;
    }
    const rules = byDomain.get(pattern.trustDomain) ?? [];
    rules.push({ entry, pattern });
    byDomain.set(pattern.trustDomain, rules);
  }
  if (problems.length > 0) return err(problems);

  return ok(
    Object.freeze({
      entries: Object.freeze([...entries]),
      match(peer: SpiffeId) {
        if (exact.has(peer)) return peer;
        const rules = byDomain.get(trustDomainOf(peer));
        if (rules === undefined) return undefined;
        const path = pathOf(peer);
        // A trust domain's own ID has no segments, and is never a peer.
        if (path === '') return undefined;
        const segments = path.slice(1).split('/');
        return rules.find(({ pattern }) => matchesSegments(pattern, segments))?.entry;
      },
    }),
  );
}
