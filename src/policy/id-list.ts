import { NO_DIFFERENCE, TextTableBuilder, type Difference, type TextTable } from '../lib/text-table.ts';
import { pathOf, trustDomainOf, type SpiffeId } from '../spiffe/spiffe-id.ts';
import type { TrustDomain } from '../spiffe/trust-domain.ts';
import { parsePattern } from './pattern.ts';

/**
 * Exact SPIFFE IDs from a text file, as a rule names them. Immutable. A look-up costs the same however many there are, and none of them is
 * an object of its own.
 */
export interface IdList {
  /** The file, for sentences. */
  readonly file: string;
  /** Lines with an ID; one that stands there twice counts twice. */
  readonly size: number;
  /** Of the bytes of the file: lists with the same one are the same. */
  readonly digest: string;
  /** How it differs from the list that the file had before; undefined of a first one. */
  readonly change: IdListChange | undefined;
  /** Where the ID stands, from 1; undefined if it does not. */
  lineOf(id: SpiffeId): number | undefined;
  /** In how many trust domains `elsewhere` looks. */
  readonly domains: number;
  /** The first ID with the same path in another trust domain. */
  elsewhere(id: SpiffeId): SpiffeId | undefined;
}

export interface IdListChange {
  /** The digest of the list before. */
  readonly from: string;
  readonly added: Difference;
  readonly removed: Difference;
}

export const MAX_LISTED_IDS = 5_000_000;
export const MAX_LISTED_BYTES = 1_073_741_824;
/** Among how many trust domains the one is sought that was meant. */
const MAX_DOMAINS = 100;
/** IDs that are told of each difference. */
const MAX_TOLD = 20;

/** Gathers the IDs of one list. */
export class IdListBuilder {
  readonly #texts = new TextTableBuilder();
  readonly #domains = new Set<TrustDomain>();

  /** What is wrong with an ID, a phrase; undefined if it was taken. `line` is where it stands, from 1. */
  add(text: string, line: number): string | undefined {
    if (this.#texts.size >= MAX_LISTED_IDS) return `there are more than ${MAX_LISTED_IDS} SPIFFE IDs`;
    if (this.#texts.bytes >= MAX_LISTED_BYTES) return `there are more than ${MAX_LISTED_BYTES} bytes of SPIFFE IDs`;
    const parsed = parsePattern(text);
    if (!parsed.ok) return parsed.error;
    if (parsed.value.kind !== 'exact') return 'a list has SPIFFE IDs alone: write the pattern as a rule of its own';
    this.#texts.add(text, line);
    if (this.#domains.size < MAX_DOMAINS) this.#domains.add(trustDomainOf(parsed.value.id));
    return undefined;
  }

  /** Makes the list, a part at a time, and compares it with the one before. */
  *build(file: string, digest: string, before: IdList | undefined): Generator<void, IdList> {
    const table = yield* this.#texts.build();
    if (!(before instanceof CompiledIdList)) return new CompiledIdList(file, digest, table, this.#domains, undefined);
    const added = yield* table.without((text) => before.has(text), MAX_TOLD);
    const removed = yield* before.without(table, MAX_TOLD);
    return new CompiledIdList(file, digest, table, this.#domains, { from: before.digest, added, removed });
  }
}

class CompiledIdList implements IdList {
  readonly file: string;
  readonly digest: string;
  readonly change: IdListChange | undefined;
  readonly #table: TextTable;
  readonly #domains: ReadonlySet<TrustDomain>;

  constructor(file: string, digest: string, table: TextTable, domains: ReadonlySet<TrustDomain>, change: IdListChange | undefined) {
    this.file = file;
    this.digest = digest;
    this.change = change;
    this.#table = table;
    this.#domains = domains;
  }

  get size(): number {
    return this.#table.size;
  }

  get domains(): number {
    return this.#domains.size;
  }

  has(text: string): boolean {
    return this.#table.find(text) !== undefined;
  }

  lineOf(id: SpiffeId): number | undefined {
    const entry = this.#table.find(id);
    return entry === undefined ? undefined : this.#table.line(entry);
  }

  elsewhere(id: SpiffeId): SpiffeId | undefined {
    for (const domain of this.#domains) {
      const other = `spiffe://${domain}${pathOf(id)}` as SpiffeId;
      if (domain !== trustDomainOf(id) && this.has(other)) return other;
    }
    return undefined;
  }

  without(table: TextTable, most: number): Generator<void, Difference> {
    return this.#table.without((text) => table.find(text) !== undefined, most);
  }
}

/** How `list` differs from the one before it, as far as that is known. */
export function changeSince(before: IdList | undefined, list: IdList): Pick<IdListChange, 'added' | 'removed'> | undefined {
  if (before === undefined) return undefined;
  if (before.digest === list.digest) return { added: NO_DIFFERENCE, removed: NO_DIFFERENCE };
  return list.change?.from === before.digest ? list.change : undefined;
}
