/**
 * A strict reader of DER (X.690): definite and minimal lengths, one-byte tags, nothing left over. Written here because a
 * lenient (BER) reader lets two programs see two different certificates in the same bytes, and because the libraries at
 * hand cost 30–60 ms of start-up.
 */

/** Thrown inside the parsers of this folder, which turn it into a Result at their edge. */
export class DerError extends Error {
  override name = 'DerError';
}

export const Tag = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  null: 0x05,
  oid: 0x06,
  enumerated: 0x0a,
  utf8String: 0x0c,
  numericString: 0x12,
  printableString: 0x13,
  teletexString: 0x14,
  ia5String: 0x16,
  utcTime: 0x17,
  generalizedTime: 0x18,
  visibleString: 0x1a,
  universalString: 0x1c,
  bmpString: 0x1e,
  sequence: 0x30,
  set: 0x31,
} as const;

/** The tag of context-specific `[number]`: constructed if it wraps others (or is an IMPLICIT SEQUENCE), else primitive. */
export function contextTag(number: number, form: 'primitive' | 'constructed'): number {
  return (form === 'constructed' ? 0xa0 : 0x80) | number;
}

/** One element: a window on the bytes that were given. Never handed out of this folder. */
export interface DerElement {
  readonly tag: number;
  /** The content octets. */
  readonly content: Uint8Array;
  /** Header and content. */
  readonly whole: Uint8Array;
}

/** Reads the elements that stand one after another in `bytes`. */
export class DerReader {
  readonly #bytes: Uint8Array;
  #offset = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get done(): boolean {
    return this.#offset === this.#bytes.length;
  }

  /** The next element, which must have `tag`. */
  read(tag: number): DerElement {
    const found = this.#byte(this.#offset);
    if (found !== tag) throw new DerError(`expected tag 0x${tag.toString(16)}, found 0x${found.toString(16)}`);
    return this.any();
  }

  /** The next element if it has `tag`; an OPTIONAL field. */
  optional(tag: number): DerElement | undefined {
    return this.#bytes[this.#offset] === tag ? this.any() : undefined;
  }

  /** A reader of the content of the next element, which must have `tag`. */
  enter(tag: number): DerReader {
    return new DerReader(this.read(tag).content);
  }

  any(): DerElement {
    const bytes = this.#bytes;
    const start = this.#offset;
    const tag = this.#byte(start);
    if ((tag & 0x1f) === 0x1f) throw new DerError('a tag of more than one byte');
    const first = this.#byte(start + 1);
    let contentStart = start + 2;
    let length = first;
    if (first >= 0x80) {
      const count = first & 0x7f;
      if (count === 0) throw new DerError('an indefinite length');
      if (count > 4) throw new DerError('a length of more than four bytes');
      length = 0;
      for (let index = 0; index < count; index += 1) length = length * 256 + this.#byte(contentStart + index);
      contentStart += count;
      if (length < 0x80 || (count > 1 && length < 256 ** (count - 1))) throw new DerError('a length that is not minimal');
    }
    const end = contentStart + length;
    if (end > bytes.length) throw new DerError(`an element of ${length} bytes where ${bytes.length - contentStart} are left`);
    this.#offset = end;
    return { tag, content: bytes.subarray(contentStart, end), whole: bytes.subarray(start, end) };
  }

  /** Everything must have been read. */
  finish(): void {
    if (!this.done) throw new DerError(`${this.#bytes.length - this.#offset} bytes too many`);
  }

  #byte(offset: number): number {
    const byte = this.#bytes[offset];
    if (byte === undefined) throw new DerError('an element cut short');
    return byte;
  }
}

/** The single element that `bytes` must be, of `tag`. */
export function readOnly(bytes: Uint8Array, tag: number): DerElement {
  const reader = new DerReader(bytes);
  const element = reader.read(tag);
  reader.finish();
  return element;
}

/** A reader inside the single element that `bytes` must be, of `tag`. */
export function enterOnly(bytes: Uint8Array, tag: number): DerReader {
  return new DerReader(readOnly(bytes, tag).content);
}

export function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}

/** `1.2.840.113549.1.1.11`, from the content of an OBJECT IDENTIFIER. */
export function decodeOid({ content }: DerElement): string {
  const arcs: number[] = [];
  let value = 0;
  let fresh = true;
  for (const byte of content) {
    if (fresh && byte === 0x80) throw new DerError('an object identifier that is not minimal');
    value = value * 128 + (byte & 0x7f);
    if (value > Number.MAX_SAFE_INTEGER / 128) throw new DerError('an object identifier with a huge arc');
    fresh = byte < 0x80;
    if (!fresh) continue;
    if (arcs.length === 0) {
      const first = Math.min(Math.floor(value / 40), 2);
      arcs.push(first, value - first * 40);
    } else arcs.push(value);
    value = 0;
  }
  if (!fresh || arcs.length === 0) throw new DerError('an object identifier cut short');
  return arcs.join('.');
}

/** BOOLEAN. An explicit FALSE is let through where DER would leave it out: some issuers write it, and it says only one thing. */
export function decodeBoolean({ content }: DerElement): boolean {
  if (content.length !== 1 || (content[0] !== 0x00 && content[0] !== 0xff)) throw new DerError('a malformed boolean');
  return content[0] === 0xff;
}

/** A small INTEGER that must not be negative. */
export function decodeSmallInteger(element: DerElement): number {
  const content = checkInteger(element);
  if ((content[0] ?? 0) >= 0x80) throw new DerError('a negative integer');
  if (content.length > 4) throw new DerError('an integer that is too large');
  let value = 0;
  for (const byte of content) value = value * 256 + byte;
  return value;
}

/** INTEGER as lower-case hex, two digits a byte as OpenSSL shows serial numbers, without the byte that only says `positive`; `-` before a negative one's two's complement. */
export function decodeIntegerHex(element: DerElement): string {
  const content = checkInteger(element);
  const hex = toHex(content);
  if ((content[0] ?? 0) >= 0x80) return `-${hex}`;
  return hex.replace(/^00(?=.)/, '');
}

/** BIT STRING of whole bytes, as keys and signatures are. */
export function decodeOctetBits({ content }: DerElement): Uint8Array {
  if (content.length === 0 || content[0] !== 0) throw new DerError('a bit string that is not whole bytes');
  return content.subarray(1);
}

/** No list of named bits that is read here has more than 9; a stranger could send hundreds of thousands. */
const MAX_NAMED_BITS_BYTES = 4;

/** BIT STRING of named bits: which are set. */
export function decodeNamedBits({ content }: DerElement): ReadonlySet<number> {
  if (content.length > 1 + MAX_NAMED_BITS_BYTES) throw new DerError(`a bit string of ${content.length - 1} bytes for a few named bits`);
  const unused = content[0];
  if (unused === undefined || unused > 7 || (content.length === 1 && unused !== 0)) throw new DerError('a malformed bit string');
  const last = content.length > 1 ? (content.at(-1) ?? 0) : 0;
  if ((last & ((1 << unused) - 1)) !== 0) throw new DerError('a bit string with unused bits set');
  const bits = new Set<number>();
  for (let index = 1; index < content.length; index += 1) {
    const byte = content[index] ?? 0;
    for (let bit = 0; bit < 8; bit += 1) if ((byte & (0x80 >> bit)) !== 0) bits.add((index - 1) * 8 + bit);
  }
  return bits;
}

/** UTCTime or GeneralizedTime in the only forms that RFC 5280 4.1.2.5 allows, in milliseconds since 1970. */
export function decodeTime({ tag, content }: DerElement): number {
  const text = Buffer.from(content).toString('latin1');
  const match =
    tag === Tag.utcTime
      ? /^(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/.exec(text)
      : tag === Tag.generalizedTime
        ? /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/.exec(text)
        : null;
  if (match === null) throw new DerError(`a malformed time ${JSON.stringify(text.slice(0, 40))}`);
  const [year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0] = match.slice(1).map(Number);
  const fullYear = tag === Tag.utcTime ? (year < 50 ? 2000 + year : 1900 + year) : year;
  const date = new Date(0);
  date.setUTCFullYear(fullYear, month - 1, day);
  date.setUTCHours(hour, minute, second);
  const real = date.getUTCFullYear() === fullYear && date.getUTCMonth() === month - 1 && date.getUTCDate() === day;
  if (!real || hour > 23 || minute > 59 || second > 59) throw new DerError(`a time that does not exist, ${text}`);
  return date.getTime();
}

function checkInteger({ content }: DerElement): Uint8Array {
  const [first, second] = content;
  if (first === undefined) throw new DerError('an empty integer');
  if (second !== undefined && ((first === 0x00 && second < 0x80) || (first === 0xff && second >= 0x80)))
    throw new DerError('an integer that is not minimal');
  return content;
}
