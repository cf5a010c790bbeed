import { chooseSvid, type IdentitySnapshot, type SvidChoice } from './snapshot.ts';

/** What can be said of an own SVID at one moment. Only `valid` may be presented to anybody. */
export type FreshnessState = 'absent' | 'not_yet_valid' | 'valid' | 'expired';

export interface Freshness {
  readonly state: FreshnessState;
  /** Wall time, milliseconds since 1970, from which `state` is another unless a new snapshot comes first; undefined if time alone changes nothing. */
  readonly changesAtMs: number | undefined;
}

/** The state of the SVID that `choice` names. The period of validity includes both of its ends (RFC 5280, section 4.1.2.5). */
export function freshnessOf(snapshot: IdentitySnapshot | undefined, choice: SvidChoice, nowMs: number): Freshness {
  const leaf = chooseSvid(snapshot, choice)?.chain[0];
  if (leaf === undefined) return { state: 'absent', changesAtMs: undefined };
  if (nowMs < leaf.notBeforeMs) return { state: 'not_yet_valid', changesAtMs: leaf.notBeforeMs };
  if (nowMs <= leaf.notAfterMs) return { state: 'valid', changesAtMs: leaf.notAfterMs + 1 };
  return { state: 'expired', changesAtMs: undefined };
}
