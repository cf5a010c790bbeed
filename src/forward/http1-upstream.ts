import { Keeping } from '../http1/keep-alive.ts';
import type { Clock, Timer } from '../lib/clock.ts';
import type { Connection, ConnectionHandler } from '../transport/connection.ts';
import { PART_GRACE_MS } from './grace.ts';
import type { UpstreamFailure } from './outcome.ts';

export type UpstreamOutcome =
  | { readonly ok: true; readonly connection: Connection }
  | { readonly ok: false; readonly failure: UpstreamFailure };

/** Connects; `done` is told once, unless the attempt is aborted. */
export type OpenUpstream = (done: (outcome: UpstreamOutcome) => void) => { abort(): void };

/** What the connection in use tells. Of those that were let go nothing is told but that they are closed. */
export interface UpstreamSink {
  upstreamOpened(): void;
  upstreamFailed(failure: UpstreamFailure): void;
  upstreamData(chunk: Uint8Array): void;
  /** The other side has said all that it will say. */
  upstreamEnded(): void;
  upstreamDrained(): void;
  /** It has rested for as long as it may: let go of it. */
  upstreamRested(): void;
  /** It is gone. `hadEnded`: the other side had said all. */
  upstreamClosed(error: Error | undefined, hadEnded: boolean): void;
  /** The one in use is that no longer: what was known of it is of the past. */
  upstreamReleased(): void;
  /** Bytes came over a connection that was let go. */
  upstreamLeftover(bytes: number): void;
  /** Of all connections that were open, none is left. */
  upstreamsGone(): void;
}

/** What requests of one downstream connection are sent to: one connection at a time, opened anew when it is needed. */
export class Upstreams {
  /** A write was answered with: wait until `upstreamDrained`. */
  isFull = false;
  readonly #sink: UpstreamSink;
  readonly #clock: Clock;
  readonly #open: OpenUpstream;
  readonly #silentMs: number | undefined;
  #current: Upstream | undefined;
  #opening: { abort(): void } | undefined;
  /** As with deadlines: one timer looks at many rests. */
  #restTimer: Timer | undefined;
  /** The current one, with those that are on their way out. */
  readonly #all = new Set<Upstream>();

  /** `silentMs`: how long a connection may rest and be used again, if the other side says nothing of it; undefined: any time. */
  constructor(sink: UpstreamSink, clock: Clock, open: OpenUpstream, silentMs: number | undefined) {
    this.#sink = sink;
    this.#clock = clock;
    this.#open = open;
    this.#silentMs = silentMs;
  }

  get isOpen(): boolean {
    return this.#current !== undefined;
  }

  /** The other side of the current one has said all that it will say. */
  get hasEnded(): boolean {
    return this.#current?.hasEnded === true;
  }

  /** The current one has answered before. */
  get isReused(): boolean {
    return this.#current?.isReused === true;
  }

  get isEmpty(): boolean {
    return this.#all.size === 0;
  }

  connect(): void {
    let isOver = false;
    const opening = this.#open((outcome) => {
      isOver = true;
      this.#opening = undefined;
      if (!outcome.ok) {
        this.#sink.upstreamFailed(outcome.failure);
        return;
      }
      const upstream = new Upstream(outcome.connection, this, this.#silentMs);
      this.#all.add(upstream);
      this.#current = upstream;
      this.isFull = false;
      upstream.connection.start(upstream);
      this.#sink.upstreamOpened();
    });
    if (!isOver) this.#opening = opening;
  }

  /** All that the current one was asked is answered; `said` is its Keep-Alive. It rests until `wake`, or is let go of at once. */
  rest(nowMs: number, said: string): void {
    const upstream = this.#current;
    if (upstream === undefined) return;
    if (!upstream.keeping.mayRest(said)) {
      this.letGo();
      return;
    }
    upstream.isReused = true;
    upstream.restingSinceMs = nowMs;
    if (upstream.keeping.usableMs !== Infinity) this.#restTimer ??= this.#clock.after(upstream.keeping.usableMs, () => this.#checkRest());
  }

  /** There is something to ask, so one that the other side is about to close is let go of. Answers how long the current one has rested. */
  wake(nowMs: number): number {
    const upstream = this.#current;
    if (upstream?.restingSinceMs === undefined) return 0;
    const restedMs = nowMs - upstream.restingSinceMs;
    upstream.restingSinceMs = undefined;
    if (restedMs < upstream.keeping.usableMs) return restedMs;
    this.letGo();
    return 0;
  }

  #checkRest(): void {
    this.#restTimer = undefined;
    const upstream = this.#current;
    if (upstream?.restingSinceMs === undefined) return;
    const leftMs = upstream.restingSinceMs + upstream.keeping.usableMs - this.#clock.monotonic();
    if (leftMs > 0) this.#restTimer = this.#clock.after(leftMs, () => this.#checkRest());
    else this.#sink.upstreamRested();
  }

  write(chunk: Buffer): void {
    if (this.#current !== undefined && !this.#current.connection.write(chunk)) this.isFull = true;
  }

  endWrite(): void {
    this.#current?.connection.endWrite();
  }

  pause(): void {
    this.#current?.connection.pause();
  }

  resume(): void {
    this.#current?.connection.resume();
  }

  /** Ends the current one in order, so that the other side sees no error. */
  letGo(): void {
    const upstream = this.#take();
    if (upstream === undefined) return;
    const { connection } = upstream;
    connection.resume();
    connection.endWrite();
    upstream.graceTimer = this.#clock.after(PART_GRACE_MS, () => connection.abort());
  }

  /** Resets the current one, so that the other side takes no part for the whole. An attempt to connect is given up. */
  drop(): void {
    this.#opening?.abort();
    this.#opening = undefined;
    this.#take()?.connection.abort();
  }

  dropAll(): void {
    this.drop();
    for (const { connection } of this.#all) connection.abort();
  }

  data(upstream: Upstream, chunk: Uint8Array): void {
    if (upstream === this.#current) this.#sink.upstreamData(chunk);
    else this.#sink.upstreamLeftover(chunk.byteLength);
  }

  ended(upstream: Upstream): void {
    if (upstream === this.#current) this.#sink.upstreamEnded();
  }

  drained(upstream: Upstream): void {
    if (upstream !== this.#current) return;
    this.isFull = false;
    this.#sink.upstreamDrained();
  }

  closed(upstream: Upstream, error: Error | undefined): void {
    upstream.graceTimer?.cancel();
    this.#all.delete(upstream);
    if (upstream === this.#current) {
      this.#take();
      this.#sink.upstreamClosed(error, upstream.hasEnded);
    }
    if (this.#all.size === 0) this.#sink.upstreamsGone();
  }

  #take(): Upstream | undefined {
    const upstream = this.#current;
    this.#current = undefined;
    this.isFull = false;
    this.#restTimer?.cancel();
    this.#restTimer = undefined;
    if (upstream !== undefined) this.#sink.upstreamReleased();
    return upstream;
  }
}

class Upstream implements ConnectionHandler {
  readonly connection: Connection;
  readonly keeping: Keeping;
  hasEnded = false;
  isReused = false;
  /** Undefined while it is asked something, or has not been. */
  restingSinceMs: number | undefined;
  graceTimer: Timer | undefined;
  readonly #owner: Upstreams;

  constructor(connection: Connection, owner: Upstreams, silentMs: number | undefined) {
    this.connection = connection;
    this.#owner = owner;
    this.keeping = new Keeping(silentMs);
  }

  data(chunk: Uint8Array): void {
    this.#owner.data(this, chunk);
  }

  ended(): void {
    this.hasEnded = true;
    this.#owner.ended(this);
  }

  drained(): void {
    this.#owner.drained(this);
  }

  closed(error: Error | undefined): void {
    this.#owner.closed(this, error);
  }
}
