/** Reads header blocks (RFC 7541), and remembers what the last ones said. Pure. */
import { BlockCache, MAX_KEPT_BLOCK } from './block-cache.ts';
import { DynamicTable } from './dynamic-table.ts';
import { fieldSize, STATIC_TABLE, type HpackField } from './field.ts';
import { huffmanBound, huffmanDecode } from './huffman.ts';

/** Why a block cannot be read. After each of them the connection is out of step: COMPRESSION_ERROR (RFC 9113, section 4.3). */
export const HPACK_PROBLEMS = [
  /** 0, or beyond both tables (sections 2.3.3 and 6.1). */
  'index',
  /** Longer than five bytes, or 2^32 and more (section 5.1). */
  'integer',
  /** EOS, or padding that is too long or not of ones (section 5.2). */
  'huffman',
  /** The block ends within a field or a size update. */
  'truncated',
  /** A size update to more than we allow (section 6.3). */
  'table_size',
  /** A size update after a field (section 4.2). */
  'size_update_late',
  /** We had lowered the limit, and the block does not begin with an update to it or less (section 4.2). */
  'size_update_missing',
] as const;
export type HpackProblem = (typeof HPACK_PROBLEMS)[number];

export class HpackError extends Error {
  readonly reason: HpackProblem;

  constructor(reason: HpackProblem) {
    super(`a header block that cannot be read: ${reason}`);
    this.reason = reason;
  }
}

export interface HpackLimits {
  /** SETTINGS_HEADER_TABLE_SIZE, as the other side has it from us. */
  readonly maxTableSize: number;
  /** Bytes of names and values, and 32 for each field (RFC 9113, section 6.5.2). */
  readonly maxFieldSectionSize: number;
  readonly maxFields: number;
}

/** What an encoder begins with (RFC 9113, section 6.5.2). */
const INITIAL_TABLE_SIZE = 4096;
const STATIC_FIELDS = STATIC_TABLE.length - 1;
const MAX_INTEGER = 2 ** 32 - 1;
/** Beyond the first one. */
const MAX_INTEGER_BYTES = 4;

/** For strings of some length while they are decoded: longer ones get room of their own. */
const SCRATCH = Buffer.allocUnsafeSlow(16_384);
const NOTHING = Buffer.alloc(0);

/** For one direction of one connection. Every block of it must be decoded, in order: also trailers, and those of streams that are refused. */
export class HpackDecoder {
  readonly #maxFieldSectionSize: number;
  readonly #maxFields: number;
  readonly #table: DynamicTable;
  readonly #cache = new BlockCache();
  #limit: number;
  /** The lowest limit since the last block. */
  #lowest: number;
  #failed: HpackProblem | undefined;
  #block: Buffer = NOTHING;
  #at = 0;
  #end = 0;

  constructor({ maxTableSize, maxFieldSectionSize, maxFields }: HpackLimits) {
    this.#maxFieldSectionSize = maxFieldSectionSize;
    this.#maxFields = maxFields;
    this.#limit = maxTableSize;
    this.#lowest = maxTableSize;
    this.#table = new DynamicTable(Math.min(maxTableSize, INITIAL_TABLE_SIZE));
  }

  /** The other side has acknowledged another SETTINGS_HEADER_TABLE_SIZE of ours. */
  limitTableSize(bytes: number): void {
    this.#limit = bytes;
    this.#lowest = Math.min(this.#lowest, bytes);
    // Blocks may need a size update now.
    this.#cache.clear();
  }

  /**
   * The fields of one whole block, which lies in `bytes` from `from` to `to`. If it changed nothing in the table, they are frozen,
   * and the same block gives the very same array again until there is a change, or newer ones push it out; so what else is known
   * of a block may be kept by its array. Of one that is not frozen the array never comes again.
   * `too_large`: more than the limits. The table is right, so only this message is lost.
   * Throws an HpackError, and from then on always: the connection is lost.
   */
  decode(bytes: Buffer, from = 0, to = bytes.length): readonly HpackField[] | 'too_large' {
    if (this.#failed !== undefined) throw new HpackError(this.#failed);
    const key = to - from <= MAX_KEPT_BLOCK ? bytes.toString('latin1', from, to) : undefined;
    const known = key === undefined ? undefined : this.#cache.get(key);
    if (known !== undefined) return known;
    this.#block = bytes;
    this.#at = from;
    this.#end = to;
    const fields: HpackField[] = [];
    const { changed, tooLarge } = this.#read(fields);
    // The chunk that it lies in is not ours to keep.
    this.#block = NOTHING;
    if (changed) this.#cache.clear();
    if (tooLarge) return 'too_large';
    if (!changed && key !== undefined) this.#cache.set(key, Object.freeze(fields));
    return fields;
  }

  /** Takes the block to its end: into `fields`, as long as they are within the limits, and into the table. */
  #read(fields: HpackField[]): { readonly changed: boolean; readonly tooLarge: boolean } {
    let changed = false;
    let left = this.#maxFieldSectionSize;
    let isFirst = true;
    while (this.#at < this.#end) {
      const first = this.#block[this.#at++] ?? 0;
      if ((first & 0xe0) === 0x20) {
        if (!isFirst) throw this.#fail('size_update_late');
        this.#resize(this.#integer(first & 0x1f, 0x1f));
        changed = true;
        continue;
      }
      if (isFirst) {
        this.#missNoUpdate();
        isFirst = false;
      }
      let field: HpackField;
      if (first >= 0x80) field = this.#field(this.#integer(first & 0x7f, 0x7f));
      else if (first >= 0x40) {
        const name = this.#name(this.#integer(first & 0x3f, 0x3f), true);
        field = [name, this.#string(true)];
        this.#table.insert(field);
        changed = true;
      } else {
        // Strings that nobody will see are only looked through.
        const name = this.#name(this.#integer(first & 0x0f, 0x0f), left >= 0);
        const value = this.#string(left >= 0);
        field = first >= 0x10 ? [name, value, true] : [name, value];
      }
      if (left < 0) continue;
      left -= fieldSize(field);
      if (left >= 0 && fields.length < this.#maxFields) fields.push(field);
      else left = -1;
    }
    if (isFirst) this.#missNoUpdate();
    return { changed, tooLarge: left < 0 };
  }

  /** At the end of the updates: there was one, if it was needed. */
  #missNoUpdate(): void {
    if (this.#lowest < this.#table.maxBytes) throw this.#fail('size_update_missing');
  }

  #resize(bytes: number): void {
    if (bytes > this.#limit) throw this.#fail('table_size');
    // If the limit went down and up again, the first update says the lowest or less.
    if (bytes > this.#lowest && this.#lowest < this.#table.maxBytes) throw this.#fail('size_update_missing');
    this.#lowest = this.#limit;
    this.#table.resize(bytes);
  }

  #field(index: number): HpackField {
    const field = index <= STATIC_FIELDS ? STATIC_TABLE[index] : this.#table.at(index - STATIC_FIELDS - 1);
    if (field === undefined) throw this.#fail('index');
    return field;
  }

  #name(index: number, isWanted: boolean): string {
    return index === 0 ? this.#string(isWanted) : this.#field(index)[0];
  }

  /** Section 5.1: of the first byte there is `prefix`, which is `most` if bytes follow. */
  #integer(prefix: number, most: number): number {
    if (prefix < most) return prefix;
    let value = most;
    let weight = 1;
    for (let bytes = 0; bytes <= MAX_INTEGER_BYTES; bytes++, weight *= 128) {
      if (this.#at >= this.#end) throw this.#fail('truncated');
      const byte = this.#block[this.#at++] ?? 0;
      value += (byte & 0x7f) * weight;
      if (byte >= 0x80) continue;
      if (value > MAX_INTEGER) break;
      return value;
    }
    throw this.#fail('integer');
  }

  /** Section 5.2. Empty if it is not wanted. */
  #string(isWanted: boolean): string {
    if (this.#at >= this.#end) throw this.#fail('truncated');
    const first = this.#block[this.#at++] ?? 0;
    const length = this.#integer(first & 0x7f, 0x7f);
    const from = this.#at;
    const to = from + length;
    if (to > this.#end) throw this.#fail('truncated');
    this.#at = to;
    if (first < 0x80) return isWanted ? this.#block.toString('latin1', from, to) : '';
    const room = huffmanBound(length);
    const plain = room <= SCRATCH.length ? SCRATCH : Buffer.allocUnsafeSlow(room);
    const bytes = huffmanDecode(this.#block, from, to, plain);
    if (bytes === -1) throw this.#fail('huffman');
    return isWanted ? plain.toString('latin1', 0, bytes) : '';
  }

  #fail(reason: HpackProblem): HpackError {
    this.#failed = reason;
    this.#block = NOTHING;
    this.#cache.clear();
    return new HpackError(reason);
  }
}
