import type { Clock, Timer } from '../../lib/clock.ts';
import { fault, NO_ERROR, PROTOCOL_ERROR, type Fault } from '../../http2/frame.ts';
import { ENABLE_PUSH, INITIAL_WINDOW_SIZE, MAX_HEADER_LIST_SIZE } from '../../http2/settings.ts';
import { PART_GRACE_MS } from '../grace.ts';
import type { OpenUpstream } from '../http1-upstream.ts';
import { connectFailure, type UpstreamFailure, type Who } from '../outcome.ts';
import type { Asked, Destination, DestinationOwner } from './destination.ts';
import { Wire, type Section, type WireOwner } from './wire.ts';

export interface ApplicationOptions {
  readonly clock: Clock;
  readonly open: OpenUpstream;
  /** For words. */
  readonly who: Who;
  readonly maxSectionBytes: number;
  readonly maxFields: number;
  /** How long it may take to say that it speaks HTTP/2, once it has accepted. */
  readonly greetingTimeoutMs: number;
  /** SETTINGS_INITIAL_WINDOW_SIZE of the client. */
  readonly initialWindow: number;
  /** What the client takes over all streams, now. */
  readonly connectionWindow: () => number;
}

/** What a connection to the application tells the client's. */
export interface ApplicationOwner extends DestinationOwner {
  /** It has said what it takes. */
  settled(application: Application): void;
  /** No further request goes to it; those that wait for it go elsewhere. */
  left(application: Application, waiting: readonly Asked[]): void;
}

/**
 * One connection to an application that speaks HTTP/2 (prior knowledge, RFC 9113, section 3.3). Streams have the ids that the
 * client gave them: on a second connection they begin with a higher one.
 */
export class Application implements Destination, WireOwner {
  announcedWindow: number;
  /** Undefined while it is connected to, and until it has said its SETTINGS. */
  wire: Wire | undefined;
  readonly #owner: ApplicationOwner;
  readonly #options: ApplicationOptions;
  readonly #streams = new Map<number, Asked>();
  /** They are sent when it takes them, in order. */
  #waiting: Asked[] = [];
  /** Those of which something is held for it. */
  readonly #held = new Set<Asked>();
  #opening: { abort(): void } | undefined;
  /** Also before it has said its SETTINGS. */
  #connected: Wire | undefined;
  #timer: Timer | undefined;
  #lastSent = 0;
  /** Why there is no connection. */
  #failure: UpstreamFailure | undefined;
  #isLeaving = false;
  #isEnding = false;
  #isSending = false;

  constructor(owner: ApplicationOwner, options: ApplicationOptions) {
    this.#owner = owner;
    this.#options = options;
    this.announcedWindow = options.initialWindow;
  }

  get isBusy(): boolean {
    return this.#streams.size > 0;
  }

  get isFull(): boolean {
    return this.#connected?.isFull === true;
  }

  get fullMs(): number {
    return this.#connected?.fullMs ?? 0;
  }

  get sendWindow(): number {
    return this.#connected?.sendWindow ?? 0;
  }

  raiseWindow(limit: number): void {
    this.#connected?.raiseWindow(limit);
  }

  connect(): void {
    let isOver = false;
    // Whoever asks for it has not done yet, and others may be about to.
    let isWithin = true;
    const opening = this.#options.open((outcome) => {
      isOver = true;
      this.#opening = undefined;
      if (!outcome.ok) {
        this.#failed(outcome.failure);
        if (!isWithin) this.#owner.turned();
        return;
      }
      const { clock, who, maxSectionBytes, maxFields, greetingTimeoutMs } = this.#options;
      const wire = new Wire(this, { connection: outcome.connection, clock, isClient: false, maxSectionBytes, maxFields });
      this.#connected = wire;
      this.#timer = clock.after(greetingTimeoutMs, () => {
        this.#failed(connectFailure(who, 'ETIMEDOUT', `${who} did not begin HTTP/2 in time`));
        this.#owner.turned();
      });
      wire.start([
        [ENABLE_PUSH, 0],
        [INITIAL_WINDOW_SIZE, this.announcedWindow],
        [MAX_HEADER_LIST_SIZE, maxSectionBytes],
      ]);
      wire.raiseWindow(this.#options.connectionWindow());
      this.#owner.turned();
    });
    isWithin = false;
    if (!isOver) this.#opening = opening;
  }

  ask(exchange: Asked): void {
    // It may have been refused within the call that opened it.
    if (this.#failure !== undefined) exchange.unreached(this.#failure);
    else {
      this.#waiting.push(exchange);
      this.proceed(exchange);
    }
  }

  proceed(exchange: Asked): void {
    this.#sendWaiting();
    if (this.wire !== undefined && this.#waiting.includes(exchange)) exchange.mustWait();
  }

  holds(exchange: Asked): void {
    if (this.#streams.has(exchange.id)) this.#held.add(exchange);
  }

  leave(exchange: Asked, code: number | undefined): void {
    this.#held.delete(exchange);
    if (this.#streams.delete(exchange.id)) {
      if (code !== undefined) this.wire?.sendReset(exchange.id, code);
      this.#sendWaiting();
      if (this.#isLeaving && this.#streams.size === 0) this.#end();
      return;
    }
    const at = this.#waiting.indexOf(exchange);
    if (at !== -1) this.#waiting.splice(at, 1);
    // Those behind it may have waited for it alone.
    if (at === 0) this.#sendWaiting();
  }

  changeInitialWindow(initialWindow: number): void {
    if (initialWindow === this.announcedWindow) return;
    this.announcedWindow = initialWindow;
    this.#connected?.sendSettings([[INITIAL_WINDOW_SIZE, initialWindow]]);
  }

  /** Not read from, if its client is full, or if it does not hear our answers. */
  pauseIf(clientIsFull: boolean): void {
    this.#connected?.pauseIf(clientIsFull || this.#connected.isStuck);
  }

  flush(): void {
    this.#connected?.flush();
  }

  /** What it was asked goes on, and nothing more is. */
  retire(): void {
    this.#leave();
    if (!this.isBusy) this.close();
  }

  close(): void {
    if (this.#streams.size > 0 || this.wire === undefined) this.abort();
    else this.#end();
  }

  abandon(): void {
    this.#leave();
    this.#lose('the application took nothing of what was there for it');
    this.abort();
  }

  abort(): void {
    this.#opening?.abort();
    this.#opening = undefined;
    this.#isLeaving = true;
    this.#timer?.cancel();
    if (this.#connected === undefined) this.#owner.closed(this);
    else this.#connected.abort();
  }

  // ——— what it says ———

  arrived(bytes: number): boolean {
    return this.#owner.arrived(bytes);
  }

  wrote(bytes: number): void {
    this.#owner.wrote(bytes);
  }

  section(stream: number, fields: Section, ends: boolean): Fault | undefined {
    const exchange = this.#streams.get(stream);
    return exchange === undefined ? this.#late(stream) : exchange.responseSection(fields, ends);
  }

  content(stream: number, bytes: Buffer, start: number, end: number, ends: boolean, overhead: number): Fault | undefined {
    const exchange = this.#streams.get(stream);
    if (exchange !== undefined) return exchange.responseContent(bytes, start, end, ends, overhead);
    this.#connected?.credit(end - start);
    return this.#late(stream);
  }

  reset(stream: number, code: number): Fault | undefined {
    const exchange = this.#streams.get(stream);
    if (exchange === undefined) return this.#late(stream);
    this.#streams.delete(stream);
    this.#held.delete(exchange);
    exchange.applicationReset(code);
    this.#sendWaiting();
    return undefined;
  }

  window(stream: number, increment: number): Fault | undefined {
    const exchange = this.#streams.get(stream);
    if (exchange === undefined) return this.#late(stream);
    exchange.applicationWindow(increment);
    return undefined;
  }

  widened(): void {
    const { wire } = this;
    if (wire === undefined) return;
    let left = this.#held.size;
    for (const exchange of this.#held) {
      // Who was served, and has still more, is behind those who were not.
      if (left-- === 0 || wire.sendWindow <= 0) break;
      this.#held.delete(exchange);
      exchange.flushRequest(wire);
    }
    this.#owner.widened(this);
  }

  settled(initialWindowBefore: number): Fault | undefined {
    const wire = this.#connected;
    if (wire === undefined) return undefined;
    const change = wire.remote.initialWindow - initialWindowBefore;
    for (const exchange of this.#streams.values()) {
      const problem = exchange.applicationWindowChanged(change, wire);
      if (problem !== undefined) return problem;
    }
    if (this.wire === undefined) {
      this.#timer?.cancel();
      this.wire = wire;
    }
    this.#owner.settled(this);
    this.#sendWaiting();
    for (const exchange of this.#waiting) exchange.mustWait();
    return undefined;
  }

  goaway(last: number, code: number): Fault | undefined {
    this.#leave();
    for (const exchange of this.#streams.values()) {
      if (exchange.id > last) exchange.refusedByApplication(code);
    }
    if (this.#streams.size === 0) this.#end();
    return undefined;
  }

  broke(problem: Fault): void {
    const wire = this.#connected;
    const { who } = this.#options;
    if (this.wire === undefined) {
      const detail = `${who} ${problem.reason === 'preface' ? 'does not speak HTTP/2' : 'broke the rules of HTTP/2'}`;
      this.#failed({ ...connectFailure(who, 'EPROTO', `${detail}: ${problem.detail}`), result: 'upstream_failed', detail });
      return;
    }
    this.#owner.faulted(problem);
    this.#leave();
    wire?.sendGoaway(0, problem.code);
    this.#lose(`${who} broke the rules of HTTP/2: ${problem.detail}`);
    wire?.abort();
  }

  failed(thrown: unknown): void {
    this.#owner.failed(thrown);
  }

  turned(): void {
    this.#owner.turned();
  }

  drained(): void {
    this.#owner.turned();
  }

  ended(): void {
    this.#failUnlessGreeted(undefined);
    this.#leave();
    this.#lose(this.#silence);
    this.#end();
    this.#owner.turned();
  }

  closed(error: Error | undefined): void {
    this.#timer?.cancel();
    this.#failUnlessGreeted(error);
    this.#leave();
    this.#lose(this.#silence);
    this.#owner.closed(this);
    this.#owner.turned();
  }

  // ——— what becomes of it ———

  get #silence(): string {
    return `${this.#options.who} closed the connection without a response`;
  }

  #send(exchange: Asked, wire: Wire): void {
    if (!exchange.maySend(wire)) return;
    this.#lastSent = exchange.id;
    this.#streams.set(exchange.id, exchange);
    exchange.send(wire);
  }

  #sendWaiting(): void {
    const { wire } = this;
    if (wire === undefined || this.#isLeaving || this.#isSending) return;
    // What becomes of one may be told from within.
    this.#isSending = true;
    for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
      if (this.#streams.size >= wire.remote.maxConcurrentStreams) break;
      const isHeldUp = next.isHeldUp();
      // It is over, if there is nothing to wait for.
      if (next !== this.#waiting[0]) continue;
      if (isHeldUp) break;
      this.#waiting.shift();
      this.#send(next, wire);
    }
    this.#isSending = false;
  }

  /** Of a stream that is over here: it may have been on its way. */
  #late(stream: number): Fault | undefined {
    const isKnown = stream % 2 === 1 && stream <= this.#lastSent;
    return isKnown ? undefined : fault(PROTOCOL_ERROR, 'stream', 'a stream that was never opened');
  }

  /** There is no connection, or no HTTP/2 on it. */
  #failed(failure: UpstreamFailure): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    this.#failure = failure;
    this.#leave();
    for (const exchange of waiting) exchange.unreached(failure);
    this.#timer?.cancel();
    if (this.#connected === undefined) this.#owner.closed(this);
    else this.#connected.abort();
  }

  /** It is gone: if it has not said SETTINGS, nobody was asked. */
  #failUnlessGreeted(error: Error | undefined): void {
    if (this.wire !== undefined || this.#waiting.length === 0) return;
    const { who } = this.#options;
    const detail = `${who} closed the connection without a word`;
    this.#failed({ ...connectFailure(who, 'ECONNRESET', error?.message ?? detail), result: 'upstream_failed', detail });
  }

  #leave(): void {
    if (this.#isLeaving) return;
    this.#isLeaving = true;
    const waiting = this.#waiting;
    this.#waiting = [];
    this.#owner.left(this, waiting);
  }

  /** What it has not answered, it will not. */
  #lose(detail: string): void {
    const lost = [...this.#streams.values()];
    this.#streams.clear();
    this.#held.clear();
    for (const exchange of lost) exchange.applicationLost(detail);
  }

  #end(): void {
    const wire = this.#connected;
    if (this.#isEnding || wire === undefined || wire.isClosed) return;
    this.#isEnding = true;
    this.#isLeaving = true;
    wire.sendGoaway(0, NO_ERROR);
    wire.pauseIf(false);
    wire.end();
    this.#timer?.cancel();
    this.#timer = this.#options.clock.after(PART_GRACE_MS, () => wire.abort());
  }
}
