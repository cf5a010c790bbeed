/**
 * HTTP/2 frames written by hand, so that they may be wrong (RFC 9113, section 4; RFC 7541). Their numbers are written here once more, not
 * taken from `src/http2/frame.ts`: a wrong one there is to be seen by the tests, not shared by them.
 */
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { eventually } from '../eventually.ts';

export const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1');

export const DATA = 0;
export const HEADERS = 1;
export const PRIORITY = 2;
export const RST_STREAM = 3;
export const SETTINGS = 4;
export const PUSH_PROMISE = 5;
export const PING = 6;
export const GOAWAY = 7;
export const WINDOW_UPDATE = 8;
export const CONTINUATION = 9;

export const END_STREAM = 1;
export const ACK = 1;
export const END_HEADERS = 4;
export const PADDED = 8;

export const NO_ERROR = 0;
export const PROTOCOL_ERROR = 1;
export const INTERNAL_ERROR = 2;
export const REFUSED_STREAM = 7;
export const CANCEL = 8;
export const ENHANCE_YOUR_CALM = 11;

export function frame(type: number, flags: number, stream: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

export function uint32(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 4);
  for (const [index, value] of values.entries()) bytes.writeUInt32BE(value, index * 4);
  return bytes;
}

/** A setting by its number. */
export function settings(...pairs: readonly (readonly [number, number])[]): Buffer {
  const payload = Buffer.alloc(pairs.length * 6);
  for (const [index, [id, value]] of pairs.entries()) {
    payload.writeUInt16BE(id, index * 6);
    payload.writeUInt32BE(value, index * 6 + 2);
  }
  return frame(SETTINGS, 0, 0, payload);
}

export type Field = readonly [string, string];

/** Literal fields without indexing and without Huffman coding: any bytes at all. */
export function hpack(fields: readonly Field[]): Buffer {
  return Buffer.concat(fields.flatMap(([name, value]) => [Buffer.of(0), hpackString(name), hpackString(value)]));
}

function hpackString(text: string): Buffer {
  const bytes = Buffer.from(text, 'latin1');
  return Buffer.concat([hpackInteger(bytes.length, 7, 0), bytes]);
}

/** RFC 7541, section 5.1. */
export function hpackInteger(value: number, prefixBits: number, flags: number): Buffer {
  const most = 2 ** prefixBits - 1;
  if (value < most) return Buffer.of(flags | value);
  const bytes = [flags | most];
  let rest = value - most;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128);
  bytes.push(rest);
  return Buffer.from(bytes);
}

/** A field that is put into the dynamic table (RFC 7541, section 6.2.1). */
export function indexedField(name: string, value: string): Buffer {
  return Buffer.concat([Buffer.of(0x40), hpackString(name), hpackString(value)]);
}

/** The head of a request on a stream, whole. */
export function headers(stream: number, fields: readonly Field[], flags: number = END_STREAM | END_HEADERS): Buffer {
  return frame(HEADERS, flags, stream, hpack(fields));
}

export const GET: readonly Field[] = [
  [':method', 'GET'],
  [':scheme', 'https'],
  [':path', '/'],
  [':authority', 'api'],
];
export const POST: readonly Field[] = [[':method', 'POST'], ...GET.slice(1)];

export interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly stream: number;
  readonly payload: Buffer;
}

/** Whole frames, as they lie in the bytes. */
export function framesIn(bytes: Buffer): Frame[] {
  const frames: Frame[] = [];
  for (let at = 0; at + 9 <= bytes.length;) {
    const length = bytes.readUIntBE(at, 3);
    if (at + 9 + length > bytes.length) break;
    frames.push({
      type: bytes[at + 3] ?? 0,
      flags: bytes[at + 4] ?? 0,
      stream: bytes.readUInt32BE(at + 5) & 0x7fffffff,
      payload: bytes.subarray(at + 9, at + 9 + length),
    });
    at += 9 + length;
  }
  return frames;
}

/** What became of a stream: the status, if a head came; the body; and how it ended. */
export interface StreamOutcome {
  readonly status: number | undefined;
  readonly body: string;
  readonly ended: boolean;
  readonly reset: number | undefined;
}

/** A connection on which frames are written by hand. */
export interface FrameWire<S extends Socket = TLSSocket> {
  readonly socket: S;
  send(...frames: readonly Uint8Array[]): void;
  frames(): Frame[];
  /** What came on a stream so far. */
  stream(id: number): StreamOutcome;
  /** Resolves when the stream ended, one way or the other. */
  streamOver(id: number): Promise<StreamOutcome>;
  /** Resolves when a frame came for which this is true. */
  until(fits: (frame: Frame) => boolean): Promise<Frame>;
  /** Resolves when the connection is over: to the code of the last GOAWAY, or undefined. */
  over(): Promise<number | undefined>;
}

/** Says the preface and SETTINGS, and acknowledges those of the other side. */
export function frameWire<S extends Socket>(socket: S, ...first: readonly Uint8Array[]): FrameWire<S> {
  const chunks: Buffer[] = [];
  let acknowledged = false;
  const frames = (): Frame[] => framesIn(Buffer.concat(chunks));
  socket.on('data', (chunk: Buffer) => {
    chunks.push(chunk);
    if (acknowledged || !frames().some(({ type, flags }) => type === SETTINGS && flags === 0)) return;
    acknowledged = true;
    if (socket.writable) socket.write(frame(SETTINGS, ACK, 0));
  });
  socket.on('error', () => undefined);
  socket.on('end', () => socket.end());
  socket.write(Buffer.concat([PREFACE, settings(), ...first]));
  const stream = (id: number): StreamOutcome => {
    const own = frames().filter((each) => each.stream === id);
    const head = own.find(({ type }) => type === HEADERS);
    const reset = own.find(({ type }) => type === RST_STREAM);
    const data = own.filter(({ type }) => type === DATA);
    return {
      status: head && statusIn(head.payload),
      body: Buffer.concat(data.map(({ payload }) => payload)).toString('latin1'),
      ended: own.some(({ type, flags }) => (type === DATA || type === HEADERS) && (flags & END_STREAM) !== 0),
      reset: reset?.payload.readUInt32BE(0),
    };
  };
  return {
    socket,
    send: (...all) => void socket.write(Buffer.concat(all)),
    frames,
    stream,
    streamOver: (id) =>
      eventually(() => {
        const outcome = stream(id);
        if (!outcome.ended && outcome.reset === undefined) throw new Error(`stream ${id} is open: ${JSON.stringify(frames())}`);
        return outcome;
      }),
    until: (fits) =>
      eventually(() => {
        const found = frames().find(fits);
        if (found === undefined) throw new Error(`no such frame among ${JSON.stringify(frames())}`);
        return found;
      }),
    async over() {
      if (!socket.closed) await new Promise((resolve) => socket.once('close', resolve));
      return frames()
        .findLast(({ type }) => type === GOAWAY)
        ?.payload.readUInt32BE(4);
    },
  };
}

/** Of a head that nghttp2 has written: `:status` is its first field, from the static table or as three digits. */
function statusIn(block: Buffer): number {
  let at = 0;
  // Changes of the size of the table.
  while (((block[at] ?? 0) & 0xe0) === 0x20) {
    const more = ((block[at] ?? 0) & 0x1f) === 0x1f;
    at++;
    if (more) while (((block[at++] ?? 0) & 0x80) !== 0);
  }
  const first = block[at] ?? 0;
  const known = [0, 0, 0, 0, 0, 0, 0, 0, 200, 204, 206, 304, 400, 404, 500][first & 0x7f];
  if ((first & 0x80) !== 0 && known !== undefined) return known;
  const length = block[at + 1] ?? 0;
  const text = block.subarray(at + 2, at + 2 + (length & 0x7f));
  return Number((length & 0x80) === 0 ? text.toString('latin1') : digitsOf(text));
}

/** Digits in the Huffman code of RFC 7541, appendix B: 0 to 2 have five bits, the others six. */
function digitsOf(bytes: Buffer): string {
  let bits = [...bytes].map((byte) => byte.toString(2).padStart(8, '0')).join('');
  let digits = '';
  while (bits.length >= 5 && !/^1+$/.test(bits)) {
    const five = Number.parseInt(bits.slice(0, 5), 2);
    if (five <= 2) {
      digits += String(five);
      bits = bits.slice(5);
    } else {
      digits += String(Number.parseInt(bits.slice(0, 6), 2) - 0x16);
      bits = bits.slice(6);
    }
  }
  return digits;
}
