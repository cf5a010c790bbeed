import { asBuffer } from '../../lib/bytes.ts';
import type { Clock } from '../../lib/clock.ts';
import { Allowance } from '../../http2/allowance.ts';
import {
  ACK,
  COMPRESSION_ERROR,
  CONTINUATION,
  DATA,
  DEFAULT_WINDOW,
  END_HEADERS,
  END_STREAM,
  ENHANCE_YOUR_CALM,
  fault,
  FLOW_CONTROL_ERROR,
  GOAWAY,
  HEADERS,
  MAX_WINDOW,
  PING,
  PREFACE,
  PROTOCOL_ERROR,
  RST_STREAM,
  SETTINGS,
  WINDOW_UPDATE,
  type Fault,
} from '../../http2/frame.ts';
import { FrameReader, type FrameSink } from '../../http2/frame-reader.ts';
import { HpackDecoder, HpackError } from '../../http2/hpack/decoder.ts';
import { HpackEncoder } from '../../http2/hpack/encoder.ts';
import type { HpackField } from '../../http2/hpack/field.ts';
import { Settings, settingsPayload } from '../../http2/settings.ts';
import type { Connection, ConnectionHandler } from '../../transport/connection.ts';
import { Outbox } from './outbox.ts';

/** A field section, or `too_large` if it is more than was announced. */
export type Section = readonly HpackField[] | 'too_large';

/** What a wire tells of streams, and of itself. What it is answered with ends the connection. Buffers are valid until it returns. */
export interface WireOwner {
  /** Bytes have come. False: nobody wants them. */
  arrived(bytes: number): boolean;
  section(stream: number, fields: Section, ends: boolean): Fault | undefined;
  content(stream: number, bytes: Buffer, start: number, end: number, ends: boolean, overhead: number): Fault | undefined;
  reset(stream: number, code: number): Fault | undefined;
  window(stream: number, increment: number): Fault | undefined;
  /** The window of the connection is larger. */
  widened(): void;
  /** SETTINGS have come; the initial window was another one before. */
  settled(initialWindowBefore: number): Fault | undefined;
  goaway(last: number, code: number): Fault | undefined;
  /** It broke the rules: nothing more is read. */
  broke(problem: Fault): void;
  /** A mistake of ours: nothing more is read. */
  failed(thrown: unknown): void;
  /** What had come is read. */
  turned(): void;
  wrote(bytes: number): void;
  drained(): void;
  ended(): void;
  closed(error: Error | undefined): void;
}

export interface WireOptions {
  readonly connection: Connection;
  readonly clock: Clock;
  /** The other side is a client. */
  readonly isClient: boolean;
  /** Nothing is said to a client before it has begun as it must: one that does not may be told so in another protocol. */
  readonly awaitsPreface?: boolean;
  /** SETTINGS_MAX_HEADER_LIST_SIZE, and in how many fields. */
  readonly maxSectionBytes: number;
  readonly maxFields: number;
}

/** Frames that say nothing of a request, at once and a second after that. What is said of requests earns more. */
const CONTROLS_AT_ONCE = 1000;
const CONTROLS_A_SECOND = 100;
/** Streams that a client may reset, or have us reset for a fault of its own (CVE-2023-44487, CVE-2025-8671). */
const RESETS_AT_ONCE = 1000;
const RESETS_A_SECOND = 33;
/** Earned by a field section, and by so many octets of DATA in either direction: who reads them may answer with windows and PINGs. */
const EARNED_BY_SECTION = 4;
const DATA_SHIFT = 6;
/** Our own table for what the other side compresses is as the standard has it. */
const TABLE_BYTES = 4096;
/** What may come ahead of its WINDOW_UPDATE over all streams, at most: so much of a connection may be held for a side that takes nothing. */
export const LARGEST_WINDOW = 1024 * 1024;
/**
 * What may be written still to a side that takes nothing, before it is not read from either. Who reads nothing until its own write is
 * through would else wait for us, and we for it; and what is owed to one that only writes would have no end.
 */
const MOST_BEYOND_FULL = 128 * 1024;
const NO_FIELDS: readonly HpackField[] = Object.freeze([]);

/** One side of HTTP/2 on a connection: frames in and out, SETTINGS, and the windows of the connection. Of streams it knows nothing. */
export class Wire implements ConnectionHandler, FrameSink {
  /** What the other side said of itself. */
  readonly remote = new Settings();
  /** Octets of DATA that it takes still, over all streams. */
  sendWindow = DEFAULT_WINDOW;
  /** A write was answered with: wait until `drained`. */
  isFull = false;
  isClosed = false;
  #fullSinceMs: number | undefined;
  /** Octets that were written since it is full. */
  #beyondFull = 0;
  readonly #owner: WireOwner;
  readonly #connection: Connection;
  readonly #isClient: boolean;
  readonly #awaitsPreface: boolean;
  /** SETTINGS of ours that wait for the preface. */
  #greeting: readonly (readonly [number, number])[] | undefined;
  readonly #reader: FrameReader;
  readonly #decoder: HpackDecoder;
  /** Only for what must be said of its table: field blocks that are kept are the same for everybody. */
  readonly #encoder = new HpackEncoder();
  #saysTableSize = false;
  readonly #outbox: Outbox;
  readonly #controls: Allowance;
  readonly #resets: Allowance;
  readonly #now: () => number;
  /** Octets that it may send still, those that were taken and not yet said so, and how many there may be of both. */
  #receiveWindow = DEFAULT_WINDOW;
  #credit = 0;
  #windowLimit = DEFAULT_WINDOW;
  #isPaused = false;

  constructor(owner: WireOwner, { connection, clock, isClient, awaitsPreface = false, maxSectionBytes, maxFields }: WireOptions) {
    this.#owner = owner;
    this.#connection = connection;
    this.#isClient = isClient;
    this.#awaitsPreface = awaitsPreface;
    this.#now = () => clock.monotonic();
    // Octets of Huffman's code may be more than what they say.
    this.#reader = new FrameReader(this, { isClient, maxBlockBytes: maxSectionBytes * 2 });
    this.#decoder = new HpackDecoder({ maxTableSize: TABLE_BYTES, maxFieldSectionSize: maxSectionBytes, maxFields });
    this.#controls = new Allowance(CONTROLS_AT_ONCE, CONTROLS_A_SECOND, clock.monotonic());
    this.#resets = new Allowance(RESETS_AT_ONCE, RESETS_A_SECOND, clock.monotonic());
    this.#outbox = new Outbox((bytes) => {
      this.#owner.wrote(bytes.length);
      if (this.isFull) this.#beyondFull += bytes.length;
      if (connection.write(bytes)) return;
      this.isFull = true;
      this.#fullSinceMs ??= clock.monotonic();
    });
  }

  /** Begins to read; `settings` are ours. */
  start(settings: readonly (readonly [number, number])[]): void {
    if (!this.#isClient) this.#outbox.bytes(PREFACE, 0, PREFACE.length);
    if (this.#awaitsPreface) this.#greeting = settings;
    else this.sendSettings(settings);
    this.flush();
    this.#connection.start(this);
  }

  /** Nothing is said before it. */
  #greet(): void {
    const settings = this.#greeting;
    this.#greeting = undefined;
    if (settings !== undefined) this.sendSettings(settings);
  }

  /** The other side has begun as it must. */
  get hasBegun(): boolean {
    return this.#reader.hasBegun;
  }

  get isWithinBlock(): boolean {
    return this.#reader.isWithinBlock;
  }

  // ——— the connection ———

  data(raw: Uint8Array): void {
    if (!this.#owner.arrived(raw.byteLength)) return;
    try {
      const problem = this.#reader.read(asBuffer(raw));
      if (problem !== undefined) this.#owner.broke(problem);
    } catch (thrown) {
      // Thrown on, it would end the process, for a peer to do.
      this.#reader.stop();
      this.#owner.failed(thrown);
    }
    this.#owner.turned();
  }

  ended(): void {
    this.#owner.ended();
  }

  drained(): void {
    this.isFull = false;
    this.#fullSinceMs = undefined;
    this.#beyondFull = 0;
    this.#owner.drained();
  }

  closed(error: Error | undefined): void {
    this.isClosed = true;
    this.#reader.stop();
    this.#owner.closed(error);
  }

  /** Nothing more is read, nor told. */
  stop(): void {
    this.#reader.stop();
  }

  /** Reads on, or not. */
  pauseIf(mustPause: boolean): void {
    if (mustPause === this.#isPaused || this.isClosed) return;
    this.#isPaused = mustPause;
    if (mustPause) this.#connection.pause();
    else this.#connection.resume();
  }

  /** It takes nothing, and goes on with what must be answered. */
  get isStuck(): boolean {
    return this.#beyondFull > MOST_BEYOND_FULL;
  }

  /** So long it has taken nothing. */
  get fullMs(): number {
    return this.#fullSinceMs === undefined ? 0 : this.#now() - this.#fullSinceMs;
  }

  get isPaused(): boolean {
    return this.#isPaused;
  }

  flush(): void {
    this.#outbox.flush();
  }

  /** Says this to who does not speak HTTP/2. False, and nothing is said, if something was before. */
  sayInstead(bytes: Buffer): boolean {
    if (this.#greeting === undefined || this.isClosed) return false;
    this.#greeting = undefined;
    this.#outbox.bytes(bytes, 0, bytes.length);
    return true;
  }

  /** What was written is sent, and then the end. */
  end(): void {
    this.flush();
    this.#connection.endWrite();
  }

  abort(): void {
    this.stop();
    this.flush();
    this.#connection.abort();
  }

  // ——— what comes ———

  content(stream: number, bytes: Buffer, start: number, end: number, ends: boolean, overhead: number): Fault | undefined {
    const size = end - start + overhead;
    if (size > this.#receiveWindow) return fault(FLOW_CONTROL_ERROR, 'flow_control', 'more DATA than the window of the connection');
    this.#receiveWindow -= size;
    this.#controls.earn(size >>> DATA_SHIFT);
    if (overhead > 0) this.credit(overhead);
    return this.#owner.content(stream, bytes, start, end, ends, overhead);
  }

  block(stream: number, bytes: Buffer, start: number, end: number, ends: boolean): Fault | undefined {
    let fields: Section;
    try {
      fields = this.#decoder.decode(bytes, start, end);
    } catch (thrown) {
      if (!(thrown instanceof HpackError)) throw thrown;
      return fault(COMPRESSION_ERROR, 'compression', `a field block that cannot be read: ${thrown.reason}`);
    }
    this.#controls.earn(EARNED_BY_SECTION);
    return this.#owner.section(stream, fields, ends);
  }

  reset(stream: number, code: number): Fault | undefined {
    return (this.#isClient ? this.countReset() : undefined) ?? this.#owner.reset(stream, code);
  }

  /** A stream was reset by the client, or by us for a fault of the client's. */
  countReset(): Fault | undefined {
    return this.#resets.take(this.#now) ? undefined : fault(ENHANCE_YOUR_CALM, 'reset_flood', 'too many streams that are opened and reset');
  }

  settings(bytes: Buffer, start: number, length: number): Fault | undefined {
    const { remote } = this;
    this.#greet();
    const before = remote.initialWindow;
    const problem = this.#countControl() ?? remote.take(bytes, start, length, this.#isClient);
    if (problem !== undefined) return problem;
    this.#encoder.limitTableSize(remote.headerTableSize);
    this.#saysTableSize = true;
    this.#outbox.frameHead(0, SETTINGS, ACK, 0);
    return this.#owner.settled(before);
  }

  settingsTaken(): Fault | undefined {
    return this.#countControl();
  }

  ping(bytes: Buffer, start: number, isAck: boolean): Fault | undefined {
    const problem = this.#countControl();
    if (problem !== undefined || isAck) return problem;
    this.#outbox.frameHead(8, PING, ACK, 0);
    this.#outbox.bytes(bytes, start, start + 8);
    return undefined;
  }

  goaway(last: number, code: number): Fault | undefined {
    return this.#countControl() ?? this.#owner.goaway(last, code);
  }

  window(stream: number, increment: number): Fault | undefined {
    const problem = this.#countControl();
    if (problem !== undefined) return problem;
    if (stream !== 0) return this.#owner.window(stream, increment);
    if (increment === 0) return fault(PROTOCOL_ERROR, 'flow_control', 'WINDOW_UPDATE of nothing');
    if (this.sendWindow + increment > MAX_WINDOW)
      return fault(FLOW_CONTROL_ERROR, 'flow_control', 'the window of the connection is too large');
    this.sendWindow += increment;
    this.#owner.widened();
    return undefined;
  }

  idle(): Fault | undefined {
    return this.#countControl();
  }

  #countControl(): Fault | undefined {
    if (this.#controls.take(this.#now)) return undefined;
    return fault(ENHANCE_YOUR_CALM, 'control_flood', 'too many frames that say nothing of a request');
  }

  // ——— windows of what comes ———

  /** So many octets of DATA were taken: the other side may send as many more. */
  credit(bytes: number): void {
    if (this.isClosed) return;
    this.#credit += bytes;
    if (this.#credit * 2 >= this.#windowLimit) this.#widen(this.#credit);
  }

  /** The other side may have more under way than before. */
  raiseWindow(limit: number): void {
    const more = Math.min(limit, LARGEST_WINDOW) - this.#windowLimit;
    if (more <= 0 || this.isClosed) return;
    this.#windowLimit += more;
    this.#credit += more;
    this.#widen(this.#credit);
  }

  #widen(bytes: number): void {
    this.#credit = 0;
    this.#receiveWindow += bytes;
    this.sendWindowUpdate(0, bytes);
  }

  // ——— what is said ———

  /** A field block of ours. Between other frames, and with nothing inside of it. */
  sendBlock(stream: number, block: Buffer, ends: boolean): void {
    if (this.isClosed) return;
    const outbox = this.#outbox;
    const { maxFrameBytes } = this.remote;
    const flags = ends ? END_STREAM : 0;
    this.#controls.earn(EARNED_BY_SECTION);
    const prefix = this.#saysTableSize ? this.#encoder.encode(NO_FIELDS) : undefined;
    this.#saysTableSize = false;
    if (prefix === undefined && block.length <= maxFrameBytes) {
      outbox.frameHead(block.length, HEADERS, flags | END_HEADERS, stream);
      outbox.bytes(block, 0, block.length);
      return;
    }
    const whole = prefix === undefined ? block : Buffer.concat([prefix, block]);
    let at = 0;
    do {
      const end = Math.min(at + maxFrameBytes, whole.length);
      const last = end === whole.length ? END_HEADERS : 0;
      outbox.frameHead(end - at, at === 0 ? HEADERS : CONTINUATION, at === 0 ? flags | last : last, stream);
      outbox.bytes(whole, at, end);
      at = end;
    } while (at < whole.length);
  }

  /** DATA, for which there must be a window. */
  sendData(stream: number, bytes: Buffer, start: number, end: number, ends: boolean): void {
    if (this.isClosed) return;
    const outbox = this.#outbox;
    const { maxFrameBytes } = this.remote;
    this.sendWindow -= end - start;
    this.#controls.earn(1 + ((end - start) >>> DATA_SHIFT));
    let at = start;
    do {
      const to = Math.min(at + maxFrameBytes, end);
      outbox.frameHead(to - at, DATA, ends && to === end ? END_STREAM : 0, stream);
      outbox.bytes(bytes, at, to);
      at = to;
    } while (at < end);
  }

  sendReset(stream: number, code: number): void {
    if (this.isClosed) return;
    this.#outbox.frameHead(4, RST_STREAM, 0, stream);
    this.#outbox.uint32(code);
  }

  sendWindowUpdate(stream: number, increment: number): void {
    if (this.isClosed) return;
    this.#outbox.frameHead(4, WINDOW_UPDATE, 0, stream);
    this.#outbox.uint32(increment);
  }

  sendSettings(pairs: readonly (readonly [number, number])[]): void {
    if (this.isClosed) return;
    const payload = settingsPayload(pairs);
    this.#outbox.frameHead(payload.length, SETTINGS, 0, 0);
    this.#outbox.bytes(payload, 0, payload.length);
  }

  sendGoaway(last: number, code: number): void {
    if (this.isClosed) return;
    this.#greet();
    this.#outbox.frameHead(8, GOAWAY, 0, 0);
    this.#outbox.uint32(last);
    this.#outbox.uint32(code);
  }
}
