/** Counts by a name that is bounded in practice (configuration, error codes): beyond the limit all new names count as `other`. */
export interface Tally {
  add(name: string): void;
  /** Undefined if it may be among `other`. */
  of(name: string): number | undefined;
  /** Forgets the other names, and makes room for new ones. */
  keep(isKept: (name: string) => boolean): void;
  entries(): Iterable<readonly [string, number]>;
}

/** More series than this for one set of names would be a burden for whoever stores them. */
const MAX_TALLY_NAMES = 500;
/** A rule may list a thousand paths. */
const MAX_LABEL = 256;

/** `known` are there from the start, at 0. */
export function createTally(known: readonly string[]): Tally {
  const counts = new Map<string, number>(known.map((name) => [name, 0]));
  return {
    add(name) {
      const count = counts.get(name);
      if (count !== undefined) counts.set(name, count + 1);
      else if (counts.size < MAX_TALLY_NAMES) counts.set(name, 1);
      else counts.set('other', (counts.get('other') ?? 0) + 1);
    },
    of: (name) => counts.get(name) ?? (counts.has('other') ? undefined : 0),
    keep(isKept) {
      for (const name of counts.keys()) if (!known.includes(name) && name !== 'other' && !isKept(name)) counts.delete(name);
    },
    entries: () => counts,
  };
}

/** As labels have them: names that begin alike for 256 letters are counted together. */
export function countsByLabel(tally: Tally): ReadonlyMap<string, number> {
  const counts = new Map<string, number>();
  for (const [name, count] of tally.entries()) {
    const label = name.slice(0, MAX_LABEL);
    counts.set(label, (counts.get(label) ?? 0) + count);
  }
  return counts;
}
