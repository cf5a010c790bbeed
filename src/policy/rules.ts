import type { Result } from '../lib/result.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';

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
 */
export declare function compileAllowList(entries: readonly string[]): Result<AllowList, readonly PatternProblem[]>;
