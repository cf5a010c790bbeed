/** HPACK as nghttp2 reads and writes it: Node's HTTP/2, on frames that are written and read by hand. */
import { connect, performServerHandshake, sensitiveHeaders, type ClientHttp2Session, type ServerHttp2Session } from 'node:http2';
import { Duplex } from 'node:stream';
import {
  ACK,
  END_HEADERS,
  END_STREAM,
  frame,
  framesIn,
  GOAWAY,
  HEADERS,
  PING,
  PREFACE,
  SETTINGS,
  settings,
  type Frame,
} from './http2-frames.ts';

const SETTINGS_HEADER_TABLE_SIZE = 1;
const COMPRESSION_ERROR = 9;
const PING_BYTES = 8;

/** Both directions of one connection of Node's: `push` is what it reads, and `frames` what it wrote. */
class Wire {
  readonly duplex: Duplex;
  readonly #skip: number;
  #bytes = Buffer.alloc(0);
  #told: (() => void) | undefined;

  constructor(prefaceBytes: number) {
    this.duplex = new Duplex({
      read: () => undefined,
      write: (chunk: Buffer, _encoding, done) => {
        this.#bytes = Buffer.concat([this.#bytes, chunk]);
        done();
        this.#told?.();
      },
    });
    this.#skip = prefaceBytes;
  }

  frames(): Frame[] {
    return framesIn(this.#bytes.subarray(this.#skip));
  }

  /** Resolves when it is true of the frames that were written. */
  async until(fits: (frames: readonly Frame[]) => boolean): Promise<void> {
    while (!fits(this.frames())) await new Promise<void>((resolve) => (this.#told = resolve));
  }
}

export interface Nghttp2Fields {
  readonly names: readonly string[];
  readonly values: readonly string[];
  /** Names of those that are never to be indexed. */
  readonly sensitive: readonly string[];
}

/** `message`: the fields, if they are a request; `malformed` if they are none; `lost`: COMPRESSION_ERROR. */
export type Nghttp2Outcome = { readonly kind: 'message'; readonly fields: Nghttp2Fields } | { readonly kind: 'malformed' | 'lost' };

/** A server, which begins with a table of 4096 bytes. */
export class Nghttp2Decoder {
  readonly #wire = new Wire(0);
  readonly #session: ServerHttp2Session;
  #stream = -1;
  #pings = 0;
  #fields: Nghttp2Fields | undefined;

  constructor() {
    this.#session = performServerHandshake(this.#wire.duplex, { settings: { maxHeaderListSize: 1_000_000 } });
    this.#session.on('error', () => undefined);
    this.#session.on('stream', (stream, headers, _flags, raw) => {
      stream.on('error', () => undefined);
      this.#fields = {
        names: raw.filter((_, index) => index % 2 === 0),
        values: raw.filter((_, index) => index % 2 === 1),
        sensitive: Reflect.get(headers, sensitiveHeaders) as readonly string[],
      };
    });
    this.#wire.duplex.push(Buffer.concat([PREFACE, settings(), frame(SETTINGS, ACK, 0)]));
  }

  async limitTableSize(bytes: number): Promise<void> {
    await this.#goneThrough();
    this.#session.settings({ headerTableSize: bytes });
    this.#wire.duplex.push(frame(SETTINGS, ACK, 0));
    await this.#goneThrough();
  }

  /** One block, as the head of a request. */
  async decode(block: Uint8Array): Promise<Nghttp2Outcome> {
    this.#stream += 2;
    this.#fields = undefined;
    this.#wire.duplex.push(frame(HEADERS, END_STREAM | END_HEADERS, this.#stream, block));
    if (!(await this.#goneThrough())) return { kind: 'lost' };
    return this.#fields === undefined ? { kind: 'malformed' } : { kind: 'message', fields: this.#fields };
  }

  close(): void {
    this.#session.destroy();
  }

  /** True when all before has been read, and the connection is still there. Throws if it was lost by anything but HPACK. */
  async #goneThrough(): Promise<boolean> {
    const wanted = ++this.#pings;
    this.#wire.duplex.push(frame(PING, 0, 0, Buffer.alloc(PING_BYTES)));
    const isAnswer = ({ type, flags }: Frame): boolean => type === PING && (flags & ACK) !== 0;
    const goaway = (frames: readonly Frame[]): Frame | undefined => frames.find(({ type }) => type === GOAWAY);
    await this.#wire.until((frames) => goaway(frames) !== undefined || frames.filter(isAnswer).length >= wanted);
    const code = goaway(this.#wire.frames())?.payload.readUInt32BE(4);
    if (code !== undefined && code !== COMPRESSION_ERROR) throw new Error(`nghttp2 says GOAWAY with ${code}`);
    return code === undefined;
  }
}

export type Written = { readonly kind: 'block'; readonly bytes: Buffer } | { readonly kind: 'acknowledged' };

/** A client, whose table may have 4096 bytes at first. */
export class Nghttp2Encoder {
  readonly #wire = new Wire(PREFACE.length);
  readonly #session: ClientHttp2Session;
  #read = 0;

  constructor() {
    this.#session = connect('http://api', { createConnection: () => this.#wire.duplex });
    this.#session.on('error', () => undefined);
    this.#wire.duplex.push(settings());
  }

  limitTableSize(bytes: number): void {
    this.#wire.duplex.push(settings([SETTINGS_HEADER_TABLE_SIZE, bytes]));
  }

  /** Names and values in turn. Resolves to all that was written up to it: blocks, and that settings were taken. */
  async encode(headers: readonly string[], sensitive: readonly string[]): Promise<Written[]> {
    const count = (frames: readonly Frame[]): number => frames.filter(({ type }) => type === HEADERS).length;
    const wanted = count(this.#wire.frames()) + 1;
    const request = this.#session.request(Object.assign([...headers], { [sensitiveHeaders]: [...sensitive] }), { endStream: true });
    request.on('error', () => undefined);
    await this.#wire.until((frames) => count(frames) >= wanted);
    const frames = this.#wire.frames();
    const late = frames.slice(this.#read);
    this.#read = frames.length;
    return late.flatMap(({ type, flags, payload }): Written[] => {
      if (type === HEADERS) return [{ kind: 'block', bytes: payload }];
      return type === SETTINGS && (flags & ACK) !== 0 ? [{ kind: 'acknowledged' }] : [];
    });
  }

  close(): void {
    this.#session.destroy();
  }
}
