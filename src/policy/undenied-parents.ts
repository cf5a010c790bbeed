import { namesPeer, type Policy } from './policy.ts';
import { isTimed, type Rule } from './rule.ts';
import type { SegmentPattern } from './segment-trie.ts';

/**
 * Paths of which all that lies below is denied, by `/admin/**`, and which are not denied themselves to everybody to whom that is: an oversight,
 * nearly always. As they would be written.
 */
export function undeniedParents({ rules }: Policy): readonly string[] {
  const denials = rules.filter(({ effect }) => effect === 'deny');
  const parents = denials.flatMap((rule) =>
    (rule.paths ?? []).flatMap(({ segments, hasMore }) => {
      if (!hasMore || segments.length === 0) return [];
      const parent = { segments, hasMore: false };
      const isDenied = denials.some((other) => deniesAsMuch(other, rule) && (other.paths ?? [ANY]).some((path) => covers(path, parent)));
      return isDenied ? [] : [`/${segments.map((segment) => segment ?? '*').join('/')}`];
    }),
  );
  return [...new Set(parents)];
}

const ANY: SegmentPattern = { segments: [], hasMore: true };

/** Whether `other` holds for all requests for which `rule` does, but for their paths. */
function deniesAsMuch(other: Rule, rule: Rule): boolean {
  if (other === rule) return true;
  if (other.mode === 'audit' && rule.mode !== 'audit') return false;
  const holdsAsLong =
    !isTimed(other) || (other.windows === undefined && other.notBeforeMs <= rule.notBeforeMs && other.notAfterMs >= rule.notAfterMs);
  return (
    holdsAsLong &&
    hasAll(other.methods, rule.methods) &&
    hasAll(other.hosts, rule.hosts) &&
    isSubjectOfAll(other, rule) &&
    namesAll(other, rule.peer)
  );
}

/** `undefined` is everything there is. */
function hasAll(all: ReadonlySet<string> | undefined, some: ReadonlySet<string> | undefined): boolean {
  return all === undefined || (some !== undefined && some.isSubsetOf(all));
}

function isSubjectOfAll({ subject }: Rule, rule: Rule): boolean {
  return subject === undefined || JSON.stringify(subject) === JSON.stringify(rule.subject);
}

function namesAll(rule: Rule, peers: Rule['peer']): boolean {
  if (rule.peer.kind === 'any' || peers.kind === 'any') return rule.peer.kind === 'any';
  if (peers.kind === 'exact') return namesPeer(rule, peers.id);
  if (peers.kind === 'list') return rule.peer.kind === 'list' && rule.peer.ids.digest === peers.ids.digest;
  return rule.peer.kind === 'segments' && rule.peer.trustDomain === peers.trustDomain && covers(rule.peer, peers);
}

/** Whether all that one pattern matches is matched by another. */
function covers(all: SegmentPattern, some: SegmentPattern): boolean {
  const isAsLong = all.hasMore
    ? some.segments.length > all.segments.length || (some.hasMore && some.segments.length === all.segments.length)
    : !some.hasMore && some.segments.length === all.segments.length;
  return isAsLong && all.segments.every((segment, at) => segment === undefined || segment === some.segments[at]);
}
