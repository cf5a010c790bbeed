/** Connections as an encoder of HPACK could have them, and as none should: header blocks, changes of the table's size, broken bytes. */
import { STATIC_TABLE } from '../../src/http2/hpack/field.ts';
import { HUFFMAN_BITS } from '../../src/http2/hpack/huffman.ts';
import { hpackInteger } from '../support/http/http2-frames.ts';
import type { Draws } from './random.ts';

export type HpackEvent =
  | { readonly kind: 'block'; readonly bytes: Buffer }
  /** SETTINGS_HEADER_TABLE_SIZE that the decoder's side has sent, and the encoder's has acknowledged. */
  | { readonly kind: 'limit'; readonly bytes: number };

export interface HpackConnection {
  /** What the decoder begins with. */
  readonly tableSize: number;
  readonly events: readonly HpackEvent[];
}

/** What the connection is made of: any bytes, or what nghttp2 takes as a request. */
export interface Vocabulary {
  /** Of which the decoder begins with one. */
  readonly tableSizes: readonly number[];
  readonly names: readonly string[];
  readonly values: readonly string[];
  /** Characters of values and names that are made up. */
  readonly nameCharacters: string;
  readonly valueCharacters: string;
  /** Of the static table, what may be referred to. */
  readonly statics: readonly number[];
  /** Once in so many blocks, bytes are broken, or an update is missing. */
  readonly wrongOnceIn: number;
}

const TABLE_SIZES = [4096, 4096, 4096, 0, 31, 64, 150, 400, 1000, 5000, 16_384];

const ANY_BYTE = Array.from({ length: 256 }, (_, byte) => String.fromCharCode(byte)).join('');

export const ANYTHING: Vocabulary = {
  tableSizes: TABLE_SIZES,
  names: ['x', 'x-trace', 'grpc-timeout', 'cookie', ':path', ':bad', 'X-Upper', '', 'a'.repeat(40), '__proto__'],
  values: ['', '/', 'v', 'application/grpc', '\x00\r\n', '0123456789'.repeat(30), 'x'.repeat(3000), '\xff\xfe\xf9\x16\x0a'],
  nameCharacters: ANY_BYTE,
  valueCharacters: ANY_BYTE,
  statics: STATIC_TABLE.flatMap((field, index) => (field === undefined ? [] : [index])),
  wrongOnceIn: 8,
};

const STATIC_FIELDS = 61;

/** A connection of a few blocks. `begin` is what each block has at its beginning, after changes of the table's size. */
export function drawHpackConnection(draws: Draws, words: Vocabulary, begin: Buffer = Buffer.alloc(0)): HpackConnection {
  const tableSize = draws.of(words.tableSizes);
  const writer = new Writer(draws, words, tableSize);
  const events: HpackEvent[] = [];
  for (let left = 1 + draws.below(8); left > 0; left--) {
    while (draws.once(6)) {
      const bytes = draws.of(TABLE_SIZES);
      writer.limits.push(bytes);
      events.push({ kind: 'limit', bytes });
    }
    const repeated = events.findLast((event) => event.kind === 'block');
    // The same bytes again are what a cache must not get wrong.
    if (repeated !== undefined && draws.once(4)) events.push(repeated);
    else events.push({ kind: 'block', bytes: writer.block(begin) });
  }
  return { tableSize, events };
}

/** What the encoder has in its table, told in the plainest way. */
class Writer {
  limits: number[] = [];
  readonly #draws: Draws;
  readonly #words: Vocabulary;
  #limit: number;
  #maxBytes: number;
  /** The newest first. */
  #table: (readonly [string, string])[] = [];

  constructor(draws: Draws, words: Vocabulary, tableSize: number) {
    this.#draws = draws;
    this.#words = words;
    this.#limit = tableSize;
    this.#maxBytes = Math.min(tableSize, 4096);
  }

  block(begin: Buffer): Buffer {
    const draws = this.#draws;
    const parts = [...this.#sizeUpdates(), begin];
    for (let left = draws.below(8); left > 0; left--) parts.push(this.#field());
    const block = Buffer.concat(parts);
    return this.#goesWrong() ? mutate(draws, block) : block;
  }

  #goesWrong(): boolean {
    return this.#draws.once(this.#words.wrongOnceIn);
  }

  #sizeUpdates(): Buffer[] {
    const draws = this.#draws;
    const lowest = Math.min(...this.limits, Number.POSITIVE_INFINITY);
    this.#limit = this.limits.at(-1) ?? this.#limit;
    this.limits = [];
    const updates: Buffer[] = [];
    if (lowest < this.#maxBytes && !this.#goesWrong()) updates.push(this.#sizeUpdate(draws.once(2) ? lowest : draws.below(lowest + 1)));
    while (draws.once(8)) updates.push(this.#sizeUpdate(draws.below(this.#limit + 1)));
    if (draws.once(100)) updates.push(this.#sizeUpdate(this.#limit + 1));
    return updates;
  }

  #sizeUpdate(bytes: number): Buffer {
    this.#maxBytes = bytes;
    this.#evict();
    return hpackInteger(bytes, 5, 0x20);
  }

  #evict(): void {
    const size = (): number => this.#table.reduce((sum, [name, value]) => sum + name.length + value.length + 32, 0);
    while (size() > this.#maxBytes) this.#table.pop();
  }

  #field(): Buffer {
    const draws = this.#draws;
    if (draws.once(2)) return hpackInteger(this.#index(), 7, 0x80);
    if (draws.once(100)) return this.#sizeUpdate(draws.below(this.#limit + 1));
    const index = draws.once(2) ? 0 : this.#index();
    const name = index === 0 ? this.#text(this.#words.names, this.#words.nameCharacters, 1) : this.#nameAt(index);
    const value = this.#text(this.#words.values, this.#words.valueCharacters, 0);
    const rest = [...(index === 0 ? [hpackText(draws, name)] : []), hpackText(draws, value)];
    const [prefixBits, flags] = draws.of([
      [6, 0x40],
      [6, 0x40],
      [4, 0],
      [4, 0x10],
    ] as const);
    if (flags === 0x40) {
      this.#table.unshift([name, value]);
      this.#evict();
    }
    return Buffer.concat([hpackInteger(index, prefixBits, flags), ...rest]);
  }

  #index(): number {
    const draws = this.#draws;
    if (draws.once(150)) return draws.of([0, STATIC_FIELDS + 1 + this.#table.length, 2 ** 31]);
    return this.#table.length === 0 || draws.once(3) ? draws.of(this.#words.statics) : STATIC_FIELDS + 1 + draws.below(this.#table.length);
  }

  #nameAt(index: number): string {
    return (index <= STATIC_FIELDS ? STATIC_TABLE[index] : this.#table[index - STATIC_FIELDS - 1])?.[0] ?? '';
  }

  #text(known: readonly string[], characters: string, least: number): string {
    const draws = this.#draws;
    if (!draws.once(3)) return draws.of(known);
    return Array.from({ length: least + draws.below(20) }, () => characters[draws.below(characters.length)] ?? '').join('');
  }
}

function mutate(draws: Draws, block: Buffer): Buffer {
  let bytes = [...block];
  for (let left = 1 + draws.below(3); left > 0; left--) {
    const at = draws.below(bytes.length + 1);
    switch (draws.below(5)) {
      case 0:
        bytes = bytes.slice(0, at);
        break;
      case 1:
        bytes.splice(at, 0, draws.of([0, 0x20, 0x3f, 0x40, 0x7f, 0x80, 0xff, draws.below(256)]));
        break;
      case 2:
        bytes.splice(at, 1 + draws.below(3));
        break;
      case 3:
        // A number with more bytes than it needs.
        bytes.splice(at, 0, draws.of([0x7f, 0xff, 0x0f, 0x3f]), ...Array.from({ length: draws.below(10) }, () => 0x80), draws.below(4));
        break;
      default:
        if (at < bytes.length) bytes[at] = (bytes[at] ?? 0) ^ (1 << draws.below(8));
    }
  }
  return Buffer.from(bytes);
}

function hpackText(draws: Draws, text: string): Buffer {
  const bytes = draws.once(2) ? huffman(text) : undefined;
  if (bytes !== undefined) return Buffer.concat([hpackInteger(bytes.length, 7, 0x80), bytes]);
  return Buffer.concat([hpackInteger(text.length, 7, 0), Buffer.from(text, 'latin1')]);
}

const HUFFMAN_CODES = codes();

/** RFC 7541, appendix B: the codes of one length count up, in the order of bytes. */
function codes(): readonly number[] {
  const all: number[] = [];
  let code = 0;
  for (let bits = 1; bits <= 30; bits++, code *= 2) {
    for (const [byte, length] of HUFFMAN_BITS.entries()) if (length === bits) all[byte] = code++;
  }
  return all;
}

function huffman(text: string): Buffer {
  const coded: number[] = [];
  let rest = 0;
  let bits = 0;
  for (const byte of Buffer.from(text, 'latin1')) {
    const length = HUFFMAN_BITS[byte] ?? 0;
    rest = rest * 2 ** length + (HUFFMAN_CODES[byte] ?? 0);
    for (bits += length; bits >= 8; rest %= 2 ** bits) {
      bits -= 8;
      coded.push(Math.floor(rest / 2 ** bits));
    }
  }
  if (bits > 0) coded.push((rest + 1) * 2 ** (8 - bits) - 1);
  return Buffer.from(coded);
}
