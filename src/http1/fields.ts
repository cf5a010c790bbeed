/** What request heads, response heads and trailers have in common: lines that end in CRLF, and fields (RFC 9110, section 5; RFC 9112, section 5). Pure. */

const CR = 13;
const LF = 10;
const SP = 32;
const HTAB = 9;
const COLON = 58;

/** Bytes of a token (RFC 9110, section 5.6.2): 1. */
export const TOKEN = new Uint8Array(256);
/** Bytes of a field value: visible ASCII, SP, HTAB and obs-text: 1. */
const VALUE = new Uint8Array(256);
/**
 * How a name is compared: letters in lower case, digits as they are, all else as `-`. Applications see names through the
 * conventions of CGI, where `X_Forwarded-Client.Cert` and `X-Forwarded-Client-Cert` are one variable.
 */
const FOLDED = new Uint8Array(256);
for (let byte = 0; byte < 256; byte++) {
  const character = String.fromCharCode(byte);
  if (/[A-Za-z0-9!#$%&'*+.^_`|~-]/.test(character)) TOKEN[byte] = 1;
  if (byte === HTAB || (byte >= SP && byte !== 127)) VALUE[byte] = 1;
  FOLDED[byte] = /[A-Za-z0-9]/.test(character) ? character.toLowerCase().charCodeAt(0) : 45;
}

export type BlockOutcome = 'more' | 'whole' | 'bad_line_end' | 'too_long';

/**
 * Gathers the lines up to and including an empty one, however the bytes are cut. A block that lies in one chunk is read
 * in place. Every LF must follow a CR: where a block is gathered, that is seen at once, else it is left for the parser to
 * refuse, as is a lone CR, which it takes for no byte of a value.
 */
export class BlockReader {
  /** After `whole`: where the block lies, and where the chunk goes on. `bytes` is the chunk itself, or a buffer of ours until the next `read`. */
  bytes: Buffer = EMPTY;
  start = 0;
  end = 0;
  next = 0;
  readonly #maxBytes: number;
  #held: Buffer = EMPTY;
  #heldBytes = 0;
  /** Bytes of the present line that are held. */
  #lineBytes = 0;

  /** `maxBytes` counts the empty line. */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Whether a part of a block is held. */
  get begun(): boolean {
    return this.#heldBytes > 0;
  }

  /** After `whole`, for a block that was refused: whether that is because an LF follows no CR, which depends on no cut then. */
  get hasBareLineEnd(): boolean {
    for (let at = this.bytes.indexOf(LF, this.start); at !== -1 && at < this.end; at = this.bytes.indexOf(LF, at + 1)) {
      if (at === this.start || this.bytes[at - 1] !== CR) return true;
    }
    return false;
  }

  read(chunk: Buffer, from: number): BlockOutcome {
    // Nearly every block lies in one chunk, and is found by one search: what its lines end in, the parser sees.
    if (this.#heldBytes === 0 && !(chunk[from] === CR && chunk[from + 1] === LF)) {
      const last = chunk.indexOf(EMPTY_LINE, from);
      if (last !== -1 && last + EMPTY_LINE.length <= from + this.#maxBytes) {
        this.#finish(chunk, from, last + EMPTY_LINE.length);
        return 'whole';
      }
    }
    return this.#readLines(chunk, from);
  }

  #readLines(chunk: Buffer, from: number): BlockOutcome {
    const limit = from + this.#maxBytes - this.#heldBytes;
    let lineStart = from - this.#lineBytes;
    let at = from;
    for (;;) {
      const lf = chunk.indexOf(LF, at);
      if (lf === -1 || lf >= limit) {
        if (chunk.length >= limit) return 'too_long';
        this.#hold(chunk, from, chunk.length);
        this.#lineBytes = chunk.length - lineStart;
        return 'more';
      }
      const before = lf > from ? chunk[lf - 1] : this.#heldBytes > 0 ? this.#held[this.#heldBytes - 1] : 0;
      if (before !== CR) return 'bad_line_end';
      at = lf + 1;
      if (lf - lineStart === 1) {
        this.#finish(chunk, from, at);
        return 'whole';
      }
      lineStart = at;
    }
  }

  #finish(chunk: Buffer, from: number, end: number): void {
    this.next = end;
    if (this.#heldBytes === 0) {
      this.bytes = chunk;
      this.start = from;
      this.end = end;
    } else {
      this.#hold(chunk, from, end);
      this.bytes = this.#held;
      this.start = 0;
      this.end = this.#heldBytes;
      this.#held = EMPTY;
      this.#heldBytes = 0;
    }
    this.#lineBytes = 0;
  }

  #hold(chunk: Buffer, from: number, end: number): void {
    const needed = this.#heldBytes + end - from;
    if (needed > this.#held.length) {
      const larger = Buffer.allocUnsafe(Math.min(Math.max(needed, this.#held.length * 2, 512), Math.max(this.#maxBytes, needed)));
      this.#held.copy(larger, 0, 0, this.#heldBytes);
      this.#held = larger;
    }
    chunk.copy(this.#held, this.#heldBytes, from, end);
    this.#heldBytes = needed;
  }
}

const EMPTY: Buffer = Buffer.alloc(0);
/** The end of the last line, and an empty one. */
const EMPTY_LINE: Buffer = Buffer.from('\r\n\r\n', 'latin1');

export type FieldProblem = 'bad_field_name' | 'bad_field_value' | 'too_many_fields';

/** Where the fields of a block lie. One object is used again and again: it is valid until the next `parse`. */
export class Fields {
  count = 0;
  bytes: Buffer = EMPTY;
  /** Of each field: start of the line, end of the name, start and end of the value, end of the line. */
  readonly #at: Int32Array;
  readonly max: number;

  constructor(maxFields: number) {
    this.max = maxFields;
    this.#at = new Int32Array(maxFields * 5);
  }

  /** Reads field lines from `from` to the empty line, which ends at `end`. */
  parse(bytes: Buffer, from: number, end: number): FieldProblem | undefined {
    this.bytes = bytes;
    this.count = 0;
    const last = end - 2;
    let at = from;
    while (at < last) {
      if (this.count === this.max) return 'too_many_fields';
      const line = at;
      while (TOKEN[bytes[at] ?? 0] === 1) at++;
      // Nothing may stand before the colon: neither a space nor, at the start of the line, a fold.
      if (at === line || bytes[at] !== COLON) return 'bad_field_name';
      const nameEnd = at++;
      while (bytes[at] === SP || bytes[at] === HTAB) at++;
      const valueStart = at;
      while (VALUE[bytes[at] ?? 0] === 1) at++;
      if (bytes[at] !== CR || bytes[at + 1] !== LF) return 'bad_field_value';
      let valueEnd = at;
      while (valueEnd > valueStart && (bytes[valueEnd - 1] === SP || bytes[valueEnd - 1] === HTAB)) valueEnd--;
      at += 2;
      const slot = this.count++ * 5;
      this.#at[slot] = line;
      this.#at[slot + 1] = nameEnd;
      this.#at[slot + 2] = valueStart;
      this.#at[slot + 3] = valueEnd;
      this.#at[slot + 4] = at;
    }
    return undefined;
  }

  lineStart(field: number): number {
    return this.#at[field * 5] ?? 0;
  }

  lineEnd(field: number): number {
    return this.#at[field * 5 + 4] ?? 0;
  }

  nameLength(field: number): number {
    return (this.#at[field * 5 + 1] ?? 0) - (this.#at[field * 5] ?? 0);
  }

  name(field: number): string {
    return this.bytes.toString('latin1', this.#at[field * 5], this.#at[field * 5 + 1]);
  }

  valueStart(field: number): number {
    return this.#at[field * 5 + 2] ?? 0;
  }

  valueEnd(field: number): number {
    return this.#at[field * 5 + 3] ?? 0;
  }

  /** Whether white space other than spaces stands before the value, or any after it: not every reader takes it off. */
  hasOddSpace(field: number): boolean {
    if (this.valueEnd(field) !== this.lineEnd(field) - 2) return true;
    for (let at = (this.#at[field * 5 + 1] ?? 0) + 1; at < this.valueStart(field); at++) if (this.bytes[at] === HTAB) return true;
    return false;
  }

  value(field: number): string {
    return this.bytes.toString('latin1', this.#at[field * 5 + 2], this.#at[field * 5 + 3]);
  }

  /** Whether the name is `name`, which is in lower case, in any case. */
  isNamed(field: number, name: Uint8Array): boolean {
    const start = this.lineStart(field);
    for (let index = 0; index < name.length; index++) {
      const byte = this.bytes[start + index] ?? 0;
      if ((byte >= 65 && byte <= 90 ? byte | 32 : byte) !== name[index]) return false;
    }
    return this.nameLength(field) === name.length;
  }

  /** Whether the name reads as `name`, which is folded, to an application. */
  readsAs(field: number, name: Uint8Array): boolean {
    if (this.nameLength(field) !== name.length) return false;
    const start = this.lineStart(field);
    for (let index = 0; index < name.length; index++) {
      if (FOLDED[this.bytes[start + index] ?? 0] !== name[index]) return false;
    }
    return true;
  }
}

/** Readers that took these from a trailer would frame the message anew, find another one, or end the connection with it. */
const FRAMING = ['host', 'content-length', 'transfer-encoding', 'connection', 'upgrade'].map(nameBytes);

/** Whether one of these trailers would do so. */
export function framesAnew(trailers: Fields): boolean {
  for (let field = 0; field < trailers.count; field++) if (FRAMING.some((name) => trailers.readsAs(field, name))) return true;
  return false;
}

/** A name as `Fields.readsAs` compares it. */
export function foldName(name: string): string {
  return name.toLowerCase().replace(/[^a-z0-9]/g, '-');
}

/** The bytes of a name for comparisons. */
export function nameBytes(name: string): Uint8Array {
  return Buffer.from(name, 'latin1');
}

/** Far more than anybody names, and few enough to compare every field with each of them. */
export const MAX_MEMBERS = 64;

/**
 * The members of a list of tokens (RFC 9110, section 5.6.1), in lower case; undefined if it is none, or has more than
 * `MAX_MEMBERS`. Empty members are skipped, and counted.
 */
export function tokenList(value: string): string[] | undefined {
  const members: string[] = [];
  const parts = value.split(',', MAX_MEMBERS + 1);
  if (parts.length > MAX_MEMBERS) return undefined;
  for (const part of parts) {
    if (part === '') continue;
    const member = withoutSpaces(part).toLowerCase();
    if (member === '') continue;
    for (let index = 0; index < member.length; index++) if (TOKEN[member.charCodeAt(index)] !== 1) return undefined;
    members.push(member);
  }
  return members;
}

/** A member of a list without the spaces and tabs around it. */
export function withoutSpaces(text: string): string {
  let start = 0;
  let end = text.length;
  while (start < end && isSpace(text.charCodeAt(start))) start++;
  while (end > start && isSpace(text.charCodeAt(end - 1))) end--;
  return text.slice(start, end);
}

function isSpace(code: number): boolean {
  return code === SP || code === HTAB;
}

/** The number that a Content-Length says: digits alone, no larger than a number holds exactly; else undefined. */
export function parseLength(bytes: Buffer, start: number, end: number): number | undefined {
  if (start === end || end - start > 15) return undefined;
  let length = 0;
  for (let at = start; at < end; at++) {
    const digit = (bytes[at] ?? 0) - 48;
    if (digit < 0 || digit > 9) return undefined;
    length = length * 10 + digit;
  }
  return length;
}

/** `none`: no body. `close`: until the connection ends, which only a response can have. */
export type Framing =
  | { readonly kind: 'none' }
  | { readonly kind: 'length'; readonly length: number }
  | { readonly kind: 'chunked' }
  | { readonly kind: 'close' };

export const NO_BODY: Framing = { kind: 'none' };
export const CHUNKED: Framing = { kind: 'chunked' };
