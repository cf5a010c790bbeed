import type { Sink } from './destination.ts';

/** Who takes what passes. */
type Taker = Pick<Sink, 'sendWindow' | 'sendData' | 'sendBlock'>;

/**
 * One direction of a stream: what the receiving side takes now is passed on, and the rest is held. There is a rest where the two
 * sides have different windows, and it is no more than the one had given.
 */
export class Half {
  /** Octets of DATA that the receiving side takes still. Less than none, if it has changed its mind (RFC 9113, section 6.9.2). */
  window: number;
  heldBytes = 0;
  /** The sending side has said all. */
  hasEnded = false;
  /** The receiving side was told so. */
  isDone = false;
  /** What is held: from `#from` in the first to `#to` in the last. Small pieces share one, so that crumbs cost no more than bread. */
  #held: Buffer[] = NONE;
  #from = 0;
  #to = 0;
  #trailers: Buffer | undefined;

  constructor(window: number) {
    this.window = window;
  }

  get isHolding(): boolean {
    return this.heldBytes > 0 || (this.hasEnded && !this.isDone);
  }

  /** Something comes before the end. */
  get hasMoreThanEnd(): boolean {
    return this.heldBytes > 0 || this.#trailers !== undefined;
  }

  /** Nothing more is taken now. */
  isBlocked(sink: Taker | undefined): boolean {
    return sink === undefined || this.heldBytes > 0 || this.window <= 0 || sink.sendWindow <= 0;
  }

  /** Takes a part of the body. Answers how much of what was taken was passed on. `sink` undefined: there is nobody to take it yet. */
  push(sink: Taker | undefined, stream: number, bytes: Buffer, start: number, end: number, ends: boolean): number {
    const size = end - start;
    const isFirst = this.heldBytes === 0;
    this.hasEnded = ends;
    const fits = sink === undefined || !isFirst ? 0 : this.#fitting(sink, size);
    if (fits === size && sink !== undefined && isFirst) {
      if (size > 0 || ends) this.#pass(sink, stream, bytes, start, end, ends);
      return size;
    }
    if (fits > 0 && sink !== undefined) this.#pass(sink, stream, bytes, start, start + fits, false);
    if (fits < size) this.#hold(bytes, start + fits, end);
    return fits;
  }

  /** The last of it is a field block. */
  endWith(sink: Taker | undefined, stream: number, trailers: Buffer): void {
    this.hasEnded = true;
    if (sink === undefined || this.heldBytes > 0) this.#trailers = trailers;
    else {
      this.isDone = true;
      sink.sendBlock(stream, trailers, true);
    }
  }

  /** Passes on what is held, as far as it is taken now. Answers how much that was. */
  flush(sink: Taker, stream: number): number {
    let passed = 0;
    for (let next = this.#held[0]; next !== undefined; next = this.#held[0]) {
      const isLast = this.#held.length === 1;
      const end = isLast ? this.#to : next.length;
      const fits = this.#fitting(sink, end - this.#from);
      if (fits === 0) break;
      const isWhole = this.#from + fits === end;
      this.#pass(sink, stream, next, this.#from, this.#from + fits, isWhole && isLast && this.hasEnded && this.#trailers === undefined);
      passed += fits;
      this.heldBytes -= fits;
      this.#from = isWhole ? 0 : this.#from + fits;
      if (isWhole && isLast) this.#held = NONE;
      else if (isWhole) this.#held.shift();
    }
    if (this.heldBytes === 0 && this.hasEnded && !this.isDone) {
      this.isDone = true;
      if (this.#trailers === undefined) sink.sendData(stream, EMPTY, 0, 0, true);
      else sink.sendBlock(stream, this.#trailers, true);
    }
    return passed;
  }

  /** Forgets what is held. Answers how much that was. */
  drop(): number {
    const bytes = this.heldBytes;
    this.#held = NONE;
    this.#from = 0;
    this.heldBytes = 0;
    this.#trailers = undefined;
    return bytes;
  }

  /** The bytes are the transport's: they are copied, to memory of their own, for a piece of Buffer's pool holds all of it. */
  #hold(bytes: Buffer, start: number, end: number): void {
    this.heldBytes += end - start;
    for (let at = start; at < end;) {
      let last = this.#held.at(-1);
      if (last === undefined || this.#to === last.length) {
        last = Buffer.allocUnsafeSlow(Math.min(Math.max(end - at, this.heldBytes, LEAST_HELD_BYTES), MOST_HELD_BYTES));
        if (this.#held.length === 0) this.#held = [last];
        else this.#held.push(last);
        this.#to = 0;
      }
      const copied = bytes.copy(last, this.#to, at, end);
      this.#to += copied;
      at += copied;
    }
  }

  #fitting(sink: Taker, size: number): number {
    return Math.max(Math.min(size, this.window, sink.sendWindow), 0);
  }

  #pass(sink: Taker, stream: number, bytes: Buffer, start: number, end: number, ends: boolean): void {
    this.window -= end - start;
    if (ends) this.isDone = true;
    sink.sendData(stream, bytes, start, end, ends);
  }
}

/** Of a buffer for what is held. */
const LEAST_HELD_BYTES = 512;
const MOST_HELD_BYTES = 16 * 1024;
/** Never written to. */
const NONE: Buffer[] = [];
const EMPTY: Buffer = Buffer.alloc(0);
