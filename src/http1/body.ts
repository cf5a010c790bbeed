/** Finds where a message body ends, to the byte, without touching it (RFC 9112, sections 6 and 7). Pure. */
import { TOKEN, type Framing } from './fields.ts';

/** Bytes of chunk extensions over one body: they are read by nobody, and cost the receiver. */
const MAX_EXTENSION_BYTES = 4096;
/** Hexadecimal digits of one chunk size, leading zeros included: 2^48 bytes. */
const MAX_SIZE_DIGITS = 12;

type ChunkState =
  | 'size_first'
  | 'size'
  | 'extension_name_first'
  | 'extension_name'
  | 'extension_value_first'
  | 'extension_value'
  | 'size_lf'
  | 'data'
  | 'data_cr'
  | 'data_lf';

/** Where a body is: `body`, then for chunked ones `trailers`, which the caller reads, then `done`. */
export type BodyState = 'body' | 'trailers' | 'done' | 'bad';

/** Who wants the content of chunks without what is around it. */
export interface ContentSink {
  chunkContent(chunk: Buffer, start: number, end: number): void;
}

/** Scans one body after the other: `begin`, then `scan` until it is no longer in `body`. */
export class BodyScanner {
  state: BodyState = 'done';
  /** Of the content: chunk sizes and extensions are not counted. */
  contentBytes = 0;
  #kind: Framing['kind'] = 'none';
  #left = 0;
  #chunk: ChunkState = 'size_first';
  #digits = 0;
  #extensionBytes = 0;

  begin(framing: Framing): void {
    this.#kind = framing.kind;
    this.contentBytes = 0;
    this.state = framing.kind === 'none' ? 'done' : 'body';
    if (framing.kind === 'length') {
      this.#left = framing.length;
      if (framing.length === 0) this.state = 'done';
    }
    if (framing.kind !== 'chunked') return;
    this.#chunk = 'size_first';
    this.#left = 0;
    this.#extensionBytes = 0;
  }

  /** Content that is announced, as far as it is known by now: for limits. */
  get announcedBytes(): number {
    return this.#kind === 'length' || this.#kind === 'chunked' ? this.contentBytes + this.#left : this.contentBytes;
  }

  /**
   * Takes bytes from `from` on; answers where the body, as far as it goes in this chunk, ends. Of a chunked body, `content` is told where
   * its content lies; of others, that is all of it.
   */
  scan(chunk: Buffer, from: number, content?: ContentSink): number {
    switch (this.#kind) {
      case 'none':
        return from;
      case 'close':
        this.contentBytes += chunk.length - from;
        return chunk.length;
      case 'length': {
        const taken = Math.min(this.#left, chunk.length - from);
        this.#left -= taken;
        this.contentBytes += taken;
        if (this.#left === 0) this.state = 'done';
        return from + taken;
      }
      case 'chunked':
        return this.#scanChunks(chunk, from, content);
    }
  }

  /** The caller has read the trailers. */
  finish(): void {
    this.state = 'done';
  }

  #scanChunks(chunk: Buffer, from: number, content: ContentSink | undefined): number {
    let at = from;
    while (at < chunk.length) {
      const byte = chunk[at] ?? 0;
      switch (this.#chunk) {
        case 'size_first':
        case 'size': {
          const digit = hexDigit(byte);
          if (digit !== -1) {
            if (this.#chunk === 'size_first') this.#digits = 0;
            if (++this.#digits > MAX_SIZE_DIGITS) return this.#bad(at);
            this.#left = this.#left * 16 + digit;
            this.#chunk = 'size';
          } else if (this.#chunk === 'size_first') return this.#bad(at);
          else if (byte === 13) this.#chunk = 'size_lf';
          else if (byte === 59) this.#chunk = 'extension_name_first';
          else return this.#bad(at);
          at++;
          break;
        }
        case 'extension_name_first':
        case 'extension_name':
        case 'extension_value_first':
        case 'extension_value':
          if (++this.#extensionBytes > MAX_EXTENSION_BYTES || !this.#extension(byte)) return this.#bad(at);
          at++;
          break;
        case 'size_lf':
          if (byte !== 10) return this.#bad(at);
          at++;
          if (this.#left === 0) {
            this.state = 'trailers';
            return at;
          }
          this.#chunk = 'data';
          break;
        case 'data': {
          const taken = Math.min(this.#left, chunk.length - at);
          this.#left -= taken;
          this.contentBytes += taken;
          content?.chunkContent(chunk, at, at + taken);
          at += taken;
          if (this.#left === 0) this.#chunk = 'data_cr';
          break;
        }
        case 'data_cr':
          if (byte !== 13) return this.#bad(at);
          at++;
          this.#chunk = 'data_lf';
          break;
        case 'data_lf':
          if (byte !== 10) return this.#bad(at);
          at++;
          this.#chunk = 'size_first';
          break;
      }
    }
    return at;
  }

  /** `;name` or `;name=value`, both tokens: spaces and quoted strings are where readers differ. */
  #extension(byte: number): boolean {
    const isFirst = this.#chunk === 'extension_name_first' || this.#chunk === 'extension_value_first';
    const inName = this.#chunk === 'extension_name_first' || this.#chunk === 'extension_name';
    if (TOKEN[byte] === 1) this.#chunk = inName ? 'extension_name' : 'extension_value';
    else if (isFirst) return false;
    else if (byte === 13) this.#chunk = 'size_lf';
    else if (byte === 59) this.#chunk = 'extension_name_first';
    else if (byte === 61 && inName) this.#chunk = 'extension_value_first';
    else return false;
    return true;
  }

  #bad(at: number): number {
    this.state = 'bad';
    return at;
  }
}

function hexDigit(byte: number): number {
  if (byte >= 48 && byte <= 57) return byte - 48;
  const letter = byte | 32;
  return letter >= 97 && letter <= 102 ? letter - 87 : -1;
}
