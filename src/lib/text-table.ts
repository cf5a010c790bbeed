/** Texts found by their keys. Immutable. */
export interface TextTable {
  readonly size: number;
  /** The entry with this key that was added last, by its number from 0; undefined if there is none. */
  find(key: string): number | undefined;
  /** The one with the same key that was added before it. */
  next(entry: number): number | undefined;
  text(entry: number): string;
  /** As it was added. */
  line(entry: number): number;
  /** The texts for which `has` says no: how many, and the first of them. A part at a time. */
  without(has: (text: string) => boolean, most: number): Generator<void, Difference>;
}

/** What one table has that another has not. */
export interface Difference {
  readonly count: number;
  readonly first: readonly string[];
}

export const NO_DIFFERENCE: Difference = Object.freeze({ count: 0, first: [] });

/** Powers of two, of which the exponents find a chunk: a division costs more than the rest of a step. */
const CHUNK_SHIFT = 20;
const CHUNK_BYTES = 2 ** CHUNK_SHIFT;
const ENTRIES_SHIFT = 14;
const CHUNK_ENTRIES = 2 ** ENTRIES_SHIFT;
/** Ahead of each text: its length and that of its key. */
const PREFIX_BYTES = 4;
const MAX_TEXT_BYTES = 65_535;
/** Positions are numbers of 32 bits. */
const MAX_CHUNKS = 4096;
/** How many entries are put in their places, or compared, before others may get a turn: a millisecond. */
const AT_ONCE = 1024;
/** Of each entry: where its text is, the digest of its key, its line, and one more than the entry with the same key before it. */
const WORDS = 4;

/**
 * Gathers texts for a table. All of it lies outside of V8's heap: a million strings there would be looked at in each full
 * collection, and a Map of them stops the event loop whenever it doubles.
 */
export class TextTableBuilder {
  readonly #texts: Buffer[] = [];
  readonly #entries: Uint32Array[] = [];
  #used = CHUNK_BYTES;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Memory for the texts. */
  get bytes(): number {
    return this.#texts.length * CHUNK_BYTES;
  }

  /** `text` is ASCII; its key is what it begins with. Throws a RangeError for a text, or for a table, that is too large. */
  add(text: string, line: number, keyLength = text.length): void {
    if (text.length > MAX_TEXT_BYTES) throw new RangeError(`a text of ${text.length} bytes`);
    if (this.#used + PREFIX_BYTES + text.length > CHUNK_BYTES) {
      if (this.#texts.length >= MAX_CHUNKS) throw new RangeError('too many texts');
      this.#texts.push(Buffer.allocUnsafeSlow(CHUNK_BYTES));
      this.#used = 0;
    }
    const chunk = this.#texts.at(-1);
    if (this.#size % CHUNK_ENTRIES === 0) this.#entries.push(new Uint32Array(CHUNK_ENTRIES * WORDS));
    const entries = this.#entries.at(-1);
    if (chunk === undefined || entries === undefined) throw new Error('a chunk was made and is not there');
    chunk.writeUInt16LE(text.length, this.#used);
    chunk.writeUInt16LE(keyLength, this.#used + 2);
    chunk.write(text, this.#used + PREFIX_BYTES, 'latin1');
    const at = (this.#size % CHUNK_ENTRIES) * WORDS;
    entries[at] = (this.#texts.length - 1) * CHUNK_BYTES + this.#used;
    entries[at + 1] = digestOf(text, keyLength);
    entries[at + 2] = line;
    this.#used += PREFIX_BYTES + text.length;
    this.#size += 1;
  }

  /** Makes the table, a part at a time. Nothing may be added any more. */
  *build(): Generator<void, TextTable> {
    let slots = 2;
    while (slots < this.#size * 2) slots *= 2;
    const table = new Table(this.#texts, this.#entries, this.#size, new Uint32Array(slots));
    for (let entry = 0; entry < this.#size; entry++) {
      table.place(entry);
      if (entry % AT_ONCE === AT_ONCE - 1) yield;
    }
    return table;
  }
}

class Table implements TextTable {
  readonly size: number;
  readonly #texts: readonly Buffer[];
  readonly #entries: readonly Uint32Array[];
  /** One more than the entry whose key has its place here or, where that was taken, before; 0 for none. At most half are taken. */
  readonly #slots: Uint32Array;

  constructor(texts: readonly Buffer[], entries: readonly Uint32Array[], size: number, slots: Uint32Array) {
    this.#texts = texts;
    this.#entries = entries;
    this.size = size;
    this.#slots = slots;
  }

  place(entry: number): void {
    const text = this.text(entry);
    const [chunk, at] = this.#prefix(entry);
    const slot = this.#slotOf(text, lengthAt(chunk, at + 2), this.#word(entry, 1));
    const entries = this.#entries[entry >>> ENTRIES_SHIFT];
    if (entries !== undefined) entries[(entry & (CHUNK_ENTRIES - 1)) * WORDS + 3] = this.#slots[slot] ?? 0;
    this.#slots[slot] = entry + 1;
  }

  find(key: string): number | undefined {
    return before(this.#slots[this.#slotOf(key, key.length, digestOf(key, key.length))] ?? 0);
  }

  next(entry: number): number | undefined {
    return before(this.#word(entry, 3));
  }

  text(entry: number): string {
    const [chunk, at] = this.#prefix(entry);
    return chunk.toString('latin1', at + PREFIX_BYTES, at + PREFIX_BYTES + lengthAt(chunk, at));
  }

  line(entry: number): number {
    return this.#word(entry, 2);
  }

  *without(has: (text: string) => boolean, most: number): Generator<void, Difference> {
    const first: string[] = [];
    let count = 0;
    for (let entry = 0; entry < this.size; entry++) {
      const text = this.text(entry);
      if (!has(text)) {
        count += 1;
        if (first.length < most) first.push(text);
      }
      if (entry % AT_ONCE === AT_ONCE - 1) yield;
    }
    return { count, first };
  }

  /** The place of the key that is the first `length` letters of `text`, or the free one where it belongs. */
  #slotOf(text: string, length: number, digest: number): number {
    const mask = this.#slots.length - 1;
    let slot = digest & mask;
    for (;;) {
      const entry = before(this.#slots[slot] ?? 0);
      if (entry === undefined || (this.#word(entry, 1) === digest && this.#hasKey(entry, text, length))) return slot;
      slot = (slot + 1) & mask;
    }
  }

  #hasKey(entry: number, text: string, length: number): boolean {
    const [chunk, at] = this.#prefix(entry);
    if (lengthAt(chunk, at + 2) !== length) return false;
    for (let index = 0; index < length; index++) if (chunk[at + PREFIX_BYTES + index] !== text.charCodeAt(index)) return false;
    return true;
  }

  #prefix(entry: number): readonly [Buffer, number] {
    const position = this.#word(entry, 0);
    const chunk = this.#texts[position >>> CHUNK_SHIFT];
    if (chunk === undefined) throw new RangeError(`there is no entry ${entry}`);
    return [chunk, position & (CHUNK_BYTES - 1)];
  }

  #word(entry: number, word: number): number {
    return this.#entries[entry >>> ENTRIES_SHIFT]?.[(entry & (CHUNK_ENTRIES - 1)) * WORDS + word] ?? 0;
  }
}

function lengthAt(chunk: Buffer, at: number): number {
  return (chunk[at] ?? 0) | ((chunk[at + 1] ?? 0) << 8);
}

function before(number: number): number | undefined {
  return number === 0 ? undefined : number - 1;
}

/** FNV-1a, stirred once more: places are the low bits. */
function digestOf(text: string, length: number): number {
  let digest = 0x811c9dc5;
  for (let index = 0; index < length; index++) digest = Math.imul(digest ^ text.charCodeAt(index), 0x01000193);
  digest = Math.imul(digest ^ (digest >>> 16), 0x85ebca6b);
  return (digest ^ (digest >>> 13)) >>> 0;
}
