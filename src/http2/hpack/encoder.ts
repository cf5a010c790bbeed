/** Writes header blocks (RFC 7541) that never touch the table of the other side. Pure. */
import { STATIC_TABLE, type HpackField } from './field.ts';

/** What the other side's decoder begins with (RFC 9113, section 6.5.2). */
const INITIAL_TABLE_SIZE = 4096;
const INDEXED = 0x80;
const NEVER_INDEXED = 0x10;
/** A size update to 0 (RFC 7541, section 6.3). */
const NO_TABLE = 0x20;
const NO_BYTE = /[\u0100-\uffff]/;
/** Of an integer, at most. */
const INTEGER_BYTES = 6;

/** For each name the index of its first entry, and that of each value that it has in the table. */
const KNOWN = new Map<string, { readonly index: number; readonly values: Map<string, number> }>();
for (const [index, field] of STATIC_TABLE.entries()) {
  if (field === undefined) continue;
  const known = KNOWN.get(field[0]) ?? { index, values: new Map<string, number>() };
  known.values.set(field[1], index);
  KNOWN.set(field[0], known);
}

/** For one direction of one connection. Blocks do not depend on each other: they may be sent in another order, or not at all. */
export class HpackEncoder {
  /** What the other side thinks that our table may hold. */
  #announced = INITIAL_TABLE_SIZE;
  #mustAnnounce = false;

  /**
   * The other side's SETTINGS_HEADER_TABLE_SIZE. If it is less than our table may hold, which we have no use for, the next block
   * begins with an update to 0 (RFC 7541, section 4.2), and that block must be sent before any other.
   */
  limitTableSize(bytes: number): void {
    if (bytes < this.#announced) this.#mustAnnounce = true;
  }

  /** One whole block. Throws a RangeError for a character that is no byte: it would be sent as another one. */
  encode(fields: readonly HpackField[]): Buffer {
    let most = 1;
    for (const [name, value] of fields) most += 1 + 2 * INTEGER_BYTES + name.length + value.length;
    const block = Buffer.allocUnsafe(most);
    let at = 0;
    if (this.#mustAnnounce) block[at++] = NO_TABLE;
    for (const [name, value, neverIndexed] of fields) {
      const known = KNOWN.get(name);
      const whole = neverIndexed === true ? undefined : known?.values.get(value);
      if (whole !== undefined) {
        block[at++] = INDEXED | whole;
        continue;
      }
      at = writeInteger(block, at, neverIndexed === true ? NEVER_INDEXED : 0, 0x0f, known?.index ?? 0);
      if (known === undefined) at = writeString(block, at, name);
      at = writeString(block, at, value);
    }
    if (this.#mustAnnounce) this.#announced = 0;
    this.#mustAnnounce = false;
    return block.subarray(0, at);
  }
}

/** Section 5.1: `flags` are what the first byte has beside the prefix, of which `most` is all. */
function writeInteger(block: Buffer, from: number, flags: number, most: number, value: number): number {
  let at = from;
  if (value < most) {
    block[at++] = flags | value;
    return at;
  }
  block[at++] = flags | most;
  let rest = value - most;
  for (; rest >= 0x80; rest >>>= 7) block[at++] = (rest & 0x7f) | 0x80;
  block[at++] = rest;
  return at;
}

/** Section 5.2. As it is: the code of Huffman would cost more than the bytes that it saves, here and at the other side. */
function writeString(block: Buffer, from: number, text: string): number {
  // Costs nothing where V8 has a byte for each character, as of all that was read.
  if (NO_BYTE.test(text)) throw new RangeError('a field with a character that is no byte');
  const at = writeInteger(block, from, 0, 0x7f, text.length);
  return at + block.write(text, at, 'latin1');
}
