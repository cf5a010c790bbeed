/**
 * What a client of HTTP/2 sends, with another `:authority` in each request. gRPC's clients are at odds over what it is on a Unix
 * socket: grpc-java says the socket's path, on which nghttp2, and so Node, resets the stream, without an option. Pure.
 */
import {
  CONTINUATION,
  DEFAULT_FRAME_BYTES,
  END_HEADERS,
  END_STREAM,
  FRAME_HEAD_BYTES,
  HAS_PRIORITY,
  HEADERS,
  PADDED,
  PREFACE,
  putFrameHead,
  uint31,
} from './frame.ts';
import { HpackDecoder, HpackError } from './hpack/decoder.ts';
import { HpackEncoder } from './hpack/encoder.ts';
import type { HpackField } from './hpack/field.ts';

/** For servers that do not look at it. */
const AUTHORITY = 'localhost';

/** SETTINGS_HEADER_TABLE_SIZE as it is from the start (RFC 9113, section 6.5.2): servers of Node leave it alone, as they do the size of frames. */
const MAX_TABLE_BYTES = 4096;
/** Of Node, for all fields of a request together. */
const MAX_SECTION_BYTES = 65_535;
/** More than Node takes, which says so by itself. */
const MAX_FIELDS = 512;
/** As nghttp2 has it, which does not see those of the client. */
const MAX_CONTINUATIONS = 8;
/** An index that there is not (RFC 7541, section 6.1): COMPRESSION_ERROR, whatever went before. */
const NO_BLOCK = Buffer.of(0x80);
/** Without a method: only this stream is lost. */
const EMPTY_BLOCK = Buffer.alloc(0);

interface HeaderBlock {
  readonly stream: number;
  readonly endsStream: boolean;
  readonly fragments: Buffer[];
}

/**
 * For one connection. All frames but those of heads pass as they are; heads are read, and written anew. What cannot be read is
 * handed on in such a way that the server ends the connection, with its own words, and nothing after it.
 */
export class AnyAuthority {
  readonly #decoder = new HpackDecoder({ maxTableSize: MAX_TABLE_BYTES, maxFieldSectionSize: MAX_SECTION_BYTES, maxFields: MAX_FIELDS });
  readonly #encoder = new HpackEncoder();
  /** By the fields of a block that came before: those of a client are mostly the same. */
  readonly #written = new WeakMap<readonly HpackField[], Buffer>();
  /** Bytes that pass as they are. */
  #passing = PREFACE.length;
  /** The beginning of a frame that is not whole. */
  #rest: Buffer = EMPTY_BLOCK;
  /** What goes on in the next frame. */
  #open: HeaderBlock | undefined;
  #isOver = false;

  /** Nothing passes any more. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** What the server shall have of these bytes, and of those that waited for them. */
  read(chunk: Buffer): Buffer[] {
    const out: Buffer[] = [];
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    let at = 0;
    while (!this.#isOver) {
      if (this.#passing > 0) {
        const end = Math.min(bytes.length, at + this.#passing);
        this.#passing -= end - at;
        if (end > at) out.push(bytes.subarray(at, end));
        at = end;
      }
      if (bytes.length - at < FRAME_HEAD_BYTES) break;
      const length = bytes.readUIntBE(at, 3);
      const type = bytes[at + 3] ?? 0;
      if (!this.#isOurs(type)) {
        this.#passing = FRAME_HEAD_BYTES + length;
        continue;
      }
      if (length > DEFAULT_FRAME_BYTES || (this.#open !== undefined && type !== CONTINUATION)) {
        // The head alone says what is wrong.
        this.#end(out, bytes.subarray(at, at + FRAME_HEAD_BYTES));
        break;
      }
      const end = at + FRAME_HEAD_BYTES + length;
      if (end > bytes.length) break;
      this.#frame(out, bytes.subarray(at, end));
      at = end;
    }
    this.#rest = this.#isOver || at === bytes.length ? EMPTY_BLOCK : Buffer.from(bytes.subarray(at));
    return out;
  }

  /** Within a header block there is no other frame, and a CONTINUATION outside of one is the server's to refuse. */
  #isOurs(type: number): boolean {
    return type === HEADERS || this.#open !== undefined;
  }

  #frame(out: Buffer[], frame: Buffer): void {
    const flags = frame[4] ?? 0;
    const stream = uint31(frame, 5);
    if (this.#open === undefined) {
      const fragment = fragmentOf(frame, flags);
      if (fragment === undefined) return this.#end(out, frame);
      this.#open = { stream, endsStream: (flags & END_STREAM) !== 0, fragments: [fragment] };
    } else {
      if (stream !== this.#open.stream) return this.#end(out, frame);
      this.#open.fragments.push(frame.subarray(FRAME_HEAD_BYTES));
    }
    const { fragments, endsStream } = this.#open;
    const isTooLong = fragments.length > MAX_CONTINUATIONS + 1;
    if ((flags & END_HEADERS) === 0 && !isTooLong) {
      // The chunk that it lies in is not kept.
      fragments.push(Buffer.from(fragments.pop() ?? EMPTY_BLOCK));
      return;
    }
    const block = isTooLong
      ? undefined
      : this.#rewritten(fragments.length === 1 ? (fragments[0] ?? EMPTY_BLOCK) : Buffer.concat(fragments));
    writeBlock(out, this.#open.stream, endsStream, block ?? NO_BLOCK);
    this.#open = undefined;
    if (block === undefined) this.#isOver = true;
  }

  /** Undefined: it cannot be read. */
  #rewritten(block: Buffer): Buffer | undefined {
    try {
      const fields = this.#decoder.decode(block);
      if (fields === 'too_large') return EMPTY_BLOCK;
      const known = this.#written.get(fields);
      if (known !== undefined) return known;
      const written = this.#encoder.encode(withAuthority(fields));
      this.#written.set(fields, written);
      return written;
    } catch (problem) {
      if (problem instanceof HpackError) return undefined;
      throw problem;
    }
  }

  /** Hands on what the server cannot take where it comes. */
  #end(out: Buffer[], frame: Buffer): void {
    if (this.#open !== undefined) out.push(headOf(HEADERS, 0, this.#open.stream, 0));
    out.push(frame);
    this.#open = undefined;
    this.#isOver = true;
  }
}

/** Without padding and priority; undefined if these are longer than the frame. */
function fragmentOf(frame: Buffer, flags: number): Buffer | undefined {
  let from = FRAME_HEAD_BYTES;
  let padding = 0;
  if ((flags & PADDED) !== 0) padding = frame[from++] ?? Infinity;
  if ((flags & HAS_PRIORITY) !== 0) from += 5;
  const to = frame.length - padding;
  return from > to ? undefined : frame.subarray(from, to);
}

/** Trailers have no pseudo-header fields, and get none. All else is as it was sent, for the server to judge. */
function withAuthority(fields: readonly HpackField[]): readonly HpackField[] {
  if (!fields.some(([name]) => name.startsWith(':'))) return fields;
  const changed = fields.map((field): HpackField => (isAuthority(field) ? [field[0], AUTHORITY] : field));
  return changed.some(isAuthority) ? changed : [[':authority', AUTHORITY], ...changed];
}

function isAuthority([name]: HpackField): boolean {
  return name === ':authority' || name === 'host';
}

/** HEADERS, with CONTINUATION for what has no room. */
function writeBlock(out: Buffer[], stream: number, endsStream: boolean, block: Buffer): void {
  let type = HEADERS;
  let flags = endsStream ? END_STREAM : 0;
  let at = 0;
  do {
    const end = Math.min(block.length, at + DEFAULT_FRAME_BYTES);
    if (end === block.length) flags |= END_HEADERS;
    out.push(headOf(type, flags, stream, end - at), block.subarray(at, end));
    at = end;
    type = CONTINUATION;
    flags = 0;
  } while (at < block.length);
}

function headOf(type: number, flags: number, stream: number, length: number): Buffer {
  const head = Buffer.allocUnsafe(FRAME_HEAD_BYTES);
  putFrameHead(head, 0, length, type, flags, stream);
  return head;
}
