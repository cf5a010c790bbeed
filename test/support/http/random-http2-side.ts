/** Sides of HTTP/2 connections that do anything in any order, and are watched. */
import { MemoryConnection } from '../memory-connection.ts';
import {
  DATA,
  END_HEADERS,
  END_STREAM,
  frame,
  framesIn,
  GOAWAY,
  HEADERS,
  hpack,
  PADDED,
  PING,
  PREFACE,
  RST_STREAM,
  settings,
  SETTINGS,
  uint32,
  WINDOW_UPDATE,
  type Field,
} from './http2-frames.ts';
import { Referee } from './http2-referee.ts';

export interface Chances {
  (): number;
}

export function pickFrom<T>(random: Chances, list: readonly T[]): T {
  return list[Math.floor(random() * list.length)] as T;
}

const CONNECT: readonly Field[] = [
  [':method', 'CONNECT'],
  [':protocol', 'websocket'],
];

/** One side: what it has still to say, and what the referee of the other one knows of it. */
export class RandomSide {
  readonly connection: MemoryConnection;
  /** Of what Scute writes to it. */
  readonly referee: Referee;
  isGone = false;
  protected readonly random: Chances;
  readonly #opens: boolean;
  #toSay = Buffer.alloc(0);

  /** `opens`: Scute opens the streams. */
  constructor(random: Chances, opens: boolean) {
    this.random = random;
    this.#opens = opens;
    this.connection = new MemoryConnection({ slow: random() < 0.3 });
    this.referee = new Referee(opens);
  }

  queue(...frames: readonly Buffer[]): void {
    const all = Buffer.concat(frames);
    this.#told(all);
    this.#toSay = Buffer.concat([this.#toSay, all]);
  }

  /** Whole frames mostly; else a part, and the referee believes that all was said. */
  say(): void {
    if (this.isGone || this.#toSay.length === 0) return;
    const { random } = this;
    const said = random() < 0.8 ? this.#toSay : this.#toSay.subarray(0, Math.ceil(random() * this.#toSay.length));
    this.#toSay = this.#toSay.subarray(said.length);
    this.connection.say(said);
  }

  watch(): void {
    this.referee.watch(Buffer.concat(this.connection.written));
  }

  leave(): void {
    this.isGone = true;
    if (this.random() < 0.5) this.connection.finish();
    else this.connection.break();
  }

  /** What was said is what the other side's referee goes by. */
  #told(said: Buffer): void {
    const { referee } = this;
    const from = said.subarray(0, 3).toString() === 'PRI' ? PREFACE.length : 0;
    for (const { type, flags, stream, payload } of framesIn(said.subarray(from))) {
      if (type === HEADERS && !this.#opens && !referee.streams.has(stream)) referee.wasOpened(stream);
      if (type === WINDOW_UPDATE) referee.gaveWindow(stream, payload.readUInt32BE(0));
      if (type === SETTINGS && flags === 0) {
        const windows = Array.from({ length: payload.length / 6 }, (_, index) => payload.subarray(index * 6)).filter(
          (each) => each[1] === 4,
        );
        referee.gaveSettings(windows.at(-1)?.readUInt32BE(2));
      }
      if (type === RST_STREAM) referee.wasReset(stream);
    }
  }
}

export interface RandomClientOptions {
  /** It does only what clients do that mean well. */
  readonly isGood: boolean;
  /** Of requests without a body; others are POST. */
  readonly methods?: readonly string[];
  /** Some ask for a WebSocket by CONNECT. */
  readonly connects?: boolean;
}

export class RandomClient extends RandomSide {
  /** Octets of the body of each stream, and whether it was ended by the client. */
  readonly bodies = new Map<number, { bytes: number; hasEnded: boolean }>();
  readonly #isGood: boolean;
  readonly #methods: readonly string[];
  readonly #connects: boolean;
  #lastStream = -1;
  readonly #open = new Set<number>();

  constructor(random: Chances, { isGood, methods = ['GET'], connects = false }: RandomClientOptions) {
    super(random, false);
    this.#isGood = isGood;
    this.#methods = methods;
    this.#connects = connects;
    this.queue(Buffer.concat([PREFACE, settings(...(random() < 0.7 ? [] : [[4, pickFrom(random, [0, 5, 70_000])] as const]))]));
  }

  #chance(share: number): boolean {
    return this.random() < share;
  }

  step(): string {
    const { random } = this;
    const choice = random();
    const id = this.#open.size > 0 ? pickFrom(random, [...this.#open]) : 0;
    if (choice < 0.35 || id === 0) return this.#request();
    if (choice < 0.6) return this.#content(id);
    if (choice < 0.65) {
      this.queue(frame(HEADERS, END_STREAM | END_HEADERS, id, hpack([['last', 'one']])));
      this.#ended(id);
      return `client trailers on ${id}`;
    }
    if (choice < 0.72) {
      this.queue(frame(RST_STREAM, 0, id, uint32(8)));
      this.#open.delete(id);
      return `client resets ${id}`;
    }
    if (choice < 0.85) {
      const stream = pickFrom(random, [0, ...this.referee.streams.keys()]);
      const increment = pickFrom(random, [1, 100, 100_000]);
      this.queue(frame(WINDOW_UPDATE, 0, stream, uint32(increment)));
      return `client window ${increment} on ${stream}`;
    }
    if (choice < 0.9) {
      this.queue(frame(PING, 0, 0, Buffer.alloc(8)));
      return 'client ping';
    }
    if (choice < 0.95) {
      const window = pickFrom(random, [0, 1, 1000, 65_535]);
      this.queue(settings([4, window]));
      return `client settings ${window}`;
    }
    if (this.#isGood) return 'nothing';
    this.queue(
      pickFrom(random, [frame(GOAWAY, 0, 0, uint32(0, 0)), frame(77, 0, 0), frame(DATA, 0, 0, Buffer.alloc(1)), settings([4, 2 ** 31])]),
    );
    return 'client odd';
  }

  #request(): string {
    const ends = this.#chance(0.5);
    const stream = (this.#lastStream += this.#chance(0.9) ? 2 : 4);
    const connects = this.#connects && this.#chance(0.3) && (!this.#isGood || this.#isOfferedConnect());
    const fields: Field[] = [
      ...(connects ? CONNECT : [[':method', ends ? pickFrom(this.random, this.#methods) : 'POST'] as const]),
      [':scheme', 'https'],
      [':path', `/${stream}`],
      [':authority', 'api'],
    ];
    if (this.#chance(0.2)) fields.push(['content-type', 'application/grpc']);
    if (!ends && !connects && this.#chance(0.1)) fields.push(['expect', '100-continue']);
    if (!this.#isGood && this.#chance(0.1)) fields.push(['connection', 'close']);
    const block = hpack(fields);
    const cut = Math.floor(this.random() * block.length);
    const flags = ends ? END_STREAM : 0;
    if (this.#chance(0.9)) this.queue(frame(HEADERS, flags | END_HEADERS, stream, block));
    else this.queue(frame(HEADERS, flags, stream, block.subarray(0, cut)), frame(9, END_HEADERS, stream, block.subarray(cut)));
    this.bodies.set(stream, { bytes: 0, hasEnded: ends });
    if (!ends) this.#open.add(stream);
    return `client opens ${stream}${ends ? ' and ends' : ''}`;
  }

  #isOfferedConnect(): boolean {
    return framesIn(Buffer.concat(this.connection.written)).some(
      ({ type, payload }) => type === SETTINGS && Array.from({ length: payload.length / 6 }, (_, at) => payload[at * 6 + 1]).includes(8),
    );
  }

  #content(id: number): string {
    const ends = this.#chance(0.4);
    const body = Buffer.alloc(Math.floor(this.random() * 3000), 'b');
    const isPadded = this.#chance(0.1);
    const payload = isPadded ? Buffer.concat([Buffer.of(7), body, Buffer.alloc(7)]) : body;
    this.queue(frame(DATA, (ends ? END_STREAM : 0) | (isPadded ? PADDED : 0), id, payload));
    const own = this.bodies.get(id);
    if (own !== undefined) own.bytes += body.length;
    if (ends) this.#ended(id);
    return `client body ${body.length} on ${id}${ends ? ' and ends' : ''}`;
  }

  #ended(id: number): void {
    this.#open.delete(id);
    const own = this.bodies.get(id);
    if (own !== undefined) own.hasEnded = true;
  }
}

/** What came on each stream, as far as it is a response: `status` of the final head, the body, and whether it was ended. */
export function responsesIn(written: Buffer): ReadonlyMap<number, { readonly body: string; readonly hasEnded: boolean }> {
  const all = new Map<number, { body: string; hasEnded: boolean }>();
  for (const { type, flags, stream, payload } of framesIn(written)) {
    if (type !== DATA && type !== HEADERS) continue;
    const own = all.get(stream) ?? { body: '', hasEnded: false };
    all.set(stream, own);
    if (type === DATA) own.body += payload.toString('latin1');
    own.hasEnded ||= (flags & END_STREAM) !== 0;
  }
  return all;
}
