/** Finds the frames in the bytes of a connection, however these are cut (RFC 9113, sections 4 and 6). Pure. */
import {
  ACK,
  CONTINUATION,
  DATA,
  DEFAULT_FRAME_BYTES,
  END_HEADERS,
  END_STREAM,
  ENHANCE_YOUR_CALM,
  fault,
  FRAME_HEAD_BYTES,
  FRAME_SIZE_ERROR,
  GOAWAY,
  HAS_PRIORITY,
  HEADERS,
  PADDED,
  PING,
  PREFACE,
  PRIORITY,
  PROTOCOL_ERROR,
  PUSH_PROMISE,
  RST_STREAM,
  SETTINGS,
  uint31,
  WINDOW_UPDATE,
  type Fault,
} from './frame.ts';

/** What a reader tells, in the order of the bytes. What it answers with ends the connection. Buffers are valid until it returns. */
export interface FrameSink {
  /**
   * A part of DATA, of which a frame may come in several. `ends`: it is the last of its stream. `overhead`: octets of padding, which
   * count for windows and are not here.
   */
  content(stream: number, bytes: Buffer, start: number, end: number, ends: boolean, overhead: number): Fault | undefined;
  /** A whole field block: without padding and priority, and with all that its CONTINUATION frames have. */
  block(stream: number, bytes: Buffer, start: number, end: number, ends: boolean): Fault | undefined;
  reset(stream: number, code: number): Fault | undefined;
  /** `length` octets from `start`, six a setting. */
  settings(bytes: Buffer, start: number, length: number): Fault | undefined;
  settingsTaken(): Fault | undefined;
  /** Eight octets from `start`. */
  ping(bytes: Buffer, start: number, isAck: boolean): Fault | undefined;
  goaway(last: number, code: number): Fault | undefined;
  /** `stream` is 0 for the connection. */
  window(stream: number, increment: number): Fault | undefined;
  /** A frame that says nothing: PRIORITY, or one of no known type, or DATA without an octet and without an end. */
  idle(): Fault | undefined;
}

export interface FrameReaderOptions {
  /** It says the preface first. */
  readonly isClient: boolean;
  /** Octets of a field block, over all of its frames. */
  readonly maxBlockBytes: number;
}

/** Frames that continue a field block: it may be cut finely, but not in crumbs without end (CVE-2024-27316). */
const MAX_CONTINUATIONS = 64;
const NOTHING: Buffer = Buffer.alloc(0);

export class FrameReader {
  readonly #sink: FrameSink;
  readonly #maxBlockBytes: number;
  #prefaceLeft: number;
  #isFirst = true;
  #stopped = false;

  readonly #head: Buffer = Buffer.alloc(FRAME_HEAD_BYTES);
  #headBytes = 0;

  // The frame under way; `left` octets of it are still to come.
  #isWithin = false;
  #type = 0;
  #flags = 0;
  #stream = 0;
  #length = 0;
  #left = 0;
  /** Of DATA: what is padding at its end, and octets of it all; undefined as long as the octet that says so has not come. */
  #padding: number | undefined = 0;
  #overhead = 0;
  /** What has come of the payload of another frame, which is read when it is whole. */
  #held: Buffer = NOTHING;
  #heldBytes = 0;

  // The field block under way.
  #blockStream = 0;
  #blockEnds = false;
  #block: Buffer[] = [];
  #blockBytes = 0;
  #continuations = 0;

  constructor(sink: FrameSink, { isClient, maxBlockBytes }: FrameReaderOptions) {
    this.#sink = sink;
    this.#maxBlockBytes = maxBlockBytes;
    this.#prefaceLeft = isClient ? PREFACE.length : 0;
  }

  /** A field block has begun and is not whole. */
  get isWithinBlock(): boolean {
    return this.#blockStream !== 0 || (this.#isWithin && this.#type === HEADERS);
  }

  /** The preface and the first SETTINGS have come. */
  get hasBegun(): boolean {
    return !this.#isFirst;
  }

  /** Nothing more is told, not even of the rest of what is being read. */
  stop(): void {
    this.#stopped = true;
  }

  read(chunk: Buffer): Fault | undefined {
    let at = 0;
    if (this.#prefaceLeft > 0) {
      for (; at < chunk.length && this.#prefaceLeft > 0; at++, this.#prefaceLeft--) {
        if (chunk[at] !== PREFACE[PREFACE.length - this.#prefaceLeft]) {
          return this.#fail(fault(PROTOCOL_ERROR, 'preface', 'it does not begin with the preface of HTTP/2'));
        }
      }
    }
    while (!this.#stopped) {
      if (!this.#isWithin) {
        if (at === chunk.length) return undefined;
        if (this.#headBytes === 0 && chunk.length - at >= FRAME_HEAD_BYTES) {
          this.#takeHead(chunk, at);
          at += FRAME_HEAD_BYTES;
        } else {
          const copied = chunk.copy(this.#head, this.#headBytes, at, at + FRAME_HEAD_BYTES - this.#headBytes);
          at += copied;
          this.#headBytes += copied;
          if (this.#headBytes < FRAME_HEAD_BYTES) return undefined;
          this.#headBytes = 0;
          this.#takeHead(this.#head, 0);
        }
        const problem = this.#begin();
        if (problem !== undefined) return this.#fail(problem);
      }
      if (this.#left > 0 && at === chunk.length) return undefined;
      const end = Math.min(at + this.#left, chunk.length);
      this.#left -= end - at;
      this.#isWithin = this.#left > 0;
      const problem = this.#payload(chunk, at, end);
      if (problem !== undefined) return this.#fail(problem);
      at = end;
    }
    return undefined;
  }

  #fail(problem: Fault): Fault {
    this.#stopped = true;
    return problem;
  }

  #takeHead(bytes: Buffer, at: number): void {
    this.#length = ((bytes[at] ?? 0) << 16) | ((bytes[at + 1] ?? 0) << 8) | (bytes[at + 2] ?? 0);
    this.#type = bytes[at + 3] ?? 0;
    this.#flags = bytes[at + 4] ?? 0;
    this.#stream = uint31(bytes, at + 5);
    this.#left = this.#length;
    this.#isWithin = true;
  }

  /** What the head of a frame says alone. */
  #begin(): Fault | undefined {
    const type = this.#type;
    const stream = this.#stream;
    const length = this.#length;
    if (this.#isFirst) {
      if (type !== SETTINGS || (this.#flags & ACK) !== 0) return fault(PROTOCOL_ERROR, 'preface', 'it does not begin with SETTINGS');
      this.#isFirst = false;
    }
    if (this.#blockStream !== 0 && (type !== CONTINUATION || stream !== this.#blockStream)) return bad('a frame within a field block');
    if (length > DEFAULT_FRAME_BYTES) return badSize('a frame that is larger than SETTINGS_MAX_FRAME_SIZE');
    switch (type) {
      case DATA:
        if (stream === 0) return bad('DATA for no stream');
        this.#padding = (this.#flags & PADDED) === 0 ? 0 : undefined;
        this.#overhead = 0;
        return this.#padding === undefined && length === 0 ? badSize('DATA without the padding that it has') : undefined;
      case HEADERS:
        return stream === 0 ? bad('HEADERS for no stream') : undefined;
      case PRIORITY:
        if (stream === 0) return bad('PRIORITY for no stream');
        return length === 5 ? undefined : badSize('PRIORITY of a wrong size');
      case RST_STREAM:
        if (stream === 0) return bad('RST_STREAM for no stream');
        return length === 4 ? undefined : badSize('RST_STREAM of a wrong size');
      case SETTINGS:
        if (stream !== 0) return bad('SETTINGS for a stream');
        return ((this.#flags & ACK) === 0 ? length % 6 : length) === 0 ? undefined : badSize('SETTINGS of a wrong size');
      case PUSH_PROMISE:
        return bad('PUSH_PROMISE, which nobody may send here');
      case PING:
        if (stream !== 0) return bad('PING for a stream');
        return length === 8 ? undefined : badSize('PING of a wrong size');
      case GOAWAY:
        if (stream !== 0) return bad('GOAWAY for a stream');
        return length >= 8 ? undefined : badSize('GOAWAY of a wrong size');
      case WINDOW_UPDATE:
        return length === 4 ? undefined : badSize('WINDOW_UPDATE of a wrong size');
      case CONTINUATION:
        return this.#blockStream === 0 ? bad('CONTINUATION of nothing') : undefined;
      default:
        return undefined;
    }
  }

  /** The octets from `start` to `end` are the next of the frame: the last of it if it is not within any more. */
  #payload(chunk: Buffer, start: number, end: number): Fault | undefined {
    if (this.#type === DATA) return this.#data(chunk, start, end);
    // Of a frame of no known type, nothing is kept.
    if (this.#type > CONTINUATION) return this.#isWithin ? undefined : this.#sink.idle();
    if (!this.#isWithin && this.#heldBytes === 0) return this.#whole(chunk, start, end);
    if (this.#heldBytes === 0) this.#held = Buffer.allocUnsafeSlow(this.#length);
    this.#heldBytes += chunk.copy(this.#held, this.#heldBytes, start, end);
    if (this.#isWithin) return undefined;
    const held = this.#held;
    this.#held = NOTHING;
    this.#heldBytes = 0;
    return this.#whole(held, 0, held.length);
  }

  #data(chunk: Buffer, start: number, end: number): Fault | undefined {
    let from = start;
    if (this.#padding === undefined) {
      this.#padding = chunk[from++] ?? 0;
      this.#overhead = this.#padding + 1;
      if (this.#overhead > this.#length) return bad('DATA with more padding than there is');
    }
    // What is still to come of the frame, beyond `end`, has the padding at its end.
    const to = Math.max(Math.min(end, end + this.#left - this.#padding), from);
    const isLast = !this.#isWithin;
    const ends = isLast && (this.#flags & END_STREAM) !== 0;
    // Padding alone is nothing said.
    if (isLast && this.#length === this.#overhead && !ends) {
      const problem = this.#sink.idle();
      if (problem !== undefined) return problem;
    }
    // Padding alone says nothing until the frame is whole.
    if (from === to && !isLast) return undefined;
    return this.#sink.content(this.#stream, chunk, from, to, ends, isLast ? this.#overhead : 0);
  }

  #whole(bytes: Buffer, start: number, end: number): Fault | undefined {
    const stream = this.#stream;
    switch (this.#type) {
      case HEADERS:
        return this.#headers(bytes, start, end);
      case CONTINUATION:
        if (++this.#continuations > MAX_CONTINUATIONS) {
          return fault(ENHANCE_YOUR_CALM, 'header_flood', `a field block in more than ${MAX_CONTINUATIONS} frames`);
        }
        return this.#fragment(bytes, start, end);
      case PRIORITY:
        if (uint31(bytes, start) === stream) return bad('a stream that depends on itself');
        return this.#sink.idle();
      case RST_STREAM:
        return this.#sink.reset(stream, bytes.readUInt32BE(start));
      case SETTINGS:
        return (this.#flags & ACK) === 0 ? this.#sink.settings(bytes, start, end - start) : this.#sink.settingsTaken();
      case PING:
        return this.#sink.ping(bytes, start, (this.#flags & ACK) !== 0);
      case GOAWAY:
        return this.#sink.goaway(uint31(bytes, start), bytes.readUInt32BE(start + 4));
      default:
        return this.#sink.window(stream, uint31(bytes, start));
    }
  }

  #headers(bytes: Buffer, start: number, end: number): Fault | undefined {
    const flags = this.#flags;
    let from = start;
    let to = end;
    if ((flags & PADDED) !== 0) to -= bytes[from++] ?? 0;
    if ((flags & HAS_PRIORITY) !== 0) {
      if (from + 5 <= end && uint31(bytes, from) === this.#stream) return bad('a stream that depends on itself');
      from += 5;
    }
    if (from > to) return from > end ? badSize('HEADERS without what they say they have') : bad('HEADERS with more padding than there is');
    const ends = (flags & END_STREAM) !== 0;
    if ((flags & END_HEADERS) !== 0) {
      if (to - from > this.#maxBlockBytes) return TOO_LARGE;
      return this.#sink.block(this.#stream, bytes, from, to, ends);
    }
    this.#blockStream = this.#stream;
    this.#blockEnds = ends;
    return this.#fragment(bytes, from, to);
  }

  #fragment(bytes: Buffer, start: number, end: number): Fault | undefined {
    this.#blockBytes += end - start;
    // It cannot be skipped: what it puts into the table is referred to later.
    if (this.#blockBytes > this.#maxBlockBytes) return TOO_LARGE;
    if (end > start) this.#block.push(ownCopy(bytes, start, end));
    if ((this.#flags & END_HEADERS) === 0) return undefined;
    const whole = Buffer.concat(this.#block, this.#blockBytes);
    const stream = this.#blockStream;
    this.#block = [];
    this.#blockBytes = 0;
    this.#continuations = 0;
    this.#blockStream = 0;
    return this.#sink.block(stream, whole, 0, whole.length, this.#blockEnds);
  }
}

const TOO_LARGE = fault(ENHANCE_YOUR_CALM, 'header_flood', 'a field block that is far too large');

/** Not a piece of Buffer's pool, all of which it would hold as long as the rest of a block is to come. */
function ownCopy(bytes: Buffer, start: number, end: number): Buffer {
  const copy = Buffer.allocUnsafeSlow(end - start);
  bytes.copy(copy, 0, start, end);
  return copy;
}

function bad(detail: string): Fault {
  return fault(PROTOCOL_ERROR, 'frame', detail);
}

function badSize(detail: string): Fault {
  return fault(FRAME_SIZE_ERROR, 'frame', detail);
}
