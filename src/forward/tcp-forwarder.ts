import type { Connection, ConnectionHandler } from '../transport/connection.ts';
import type { ListenerCounters } from '../telemetry/log/records.ts';
import type { Session, Ticker } from './session.ts';

export type Side = 'downstream' | 'upstream';

export interface ForwardOptions {
  readonly downstream: Connection;
  readonly upstream: Connection;
  readonly session: Session;
  readonly counters: ListenerCounters;
  readonly ticker: Ticker;
  /** One side broke, with the error if there was one. The other is dropped next, so that it cannot take what it has for the whole. */
  broken(side: Side, error: Error | undefined): void;
  /** Both sides are closed. Called once. */
  done(): void;
}

/**
 * Moves bytes both ways until both sides have ended. A side that ends is half-closed on the other, whose answer still
 * goes through; a side that breaks breaks the other. A slow side holds no more than its own buffers.
 */
export function forwardBytes(options: ForwardOptions): void {
  const { downstream, upstream, session } = options;
  session.drop = () => {
    downstream.abort();
    upstream.abort();
  };
  const state: State = { options, ended: { downstream: false, upstream: false }, closed: 0 };
  // The upstream first: it must be able to take what the downstream may deliver at once.
  upstream.start(new UpstreamHandler(state));
  downstream.start(new DownstreamHandler(state));
}

interface State {
  readonly options: ForwardOptions;
  readonly ended: Record<Side, boolean>;
  closed: number;
}

class DownstreamHandler implements ConnectionHandler {
  readonly #state: State;

  constructor(state: State) {
    this.#state = state;
  }

  data(chunk: Uint8Array): void {
    const { downstream, upstream, session, counters, ticker } = this.#state.options;
    if (!ticker.lets(session)) return;
    const bytes = chunk.byteLength;
    session.bytesFromDownstream += bytes;
    session.lastActiveTick = ticker.tick;
    counters.downstreamReadBytes += bytes;
    counters.upstreamWrittenBytes += bytes;
    if (!upstream.write(chunk)) downstream.pause();
  }

  ended(): void {
    this.#state.ended.downstream = true;
    this.#state.options.upstream.endWrite();
  }

  drained(): void {
    this.#state.options.upstream.resume();
  }

  closed(error: Error | undefined): void {
    sideClosed(this.#state, 'downstream', error);
  }
}

class UpstreamHandler implements ConnectionHandler {
  readonly #state: State;

  constructor(state: State) {
    this.#state = state;
  }

  data(chunk: Uint8Array): void {
    const { downstream, upstream, session, counters, ticker } = this.#state.options;
    if (!ticker.lets(session)) return;
    const bytes = chunk.byteLength;
    session.bytesToDownstream += bytes;
    session.lastActiveTick = ticker.tick;
    counters.upstreamReadBytes += bytes;
    counters.downstreamWrittenBytes += bytes;
    if (!downstream.write(chunk)) upstream.pause();
  }

  ended(): void {
    this.#state.ended.upstream = true;
    this.#state.options.downstream.endWrite();
  }

  drained(): void {
    this.#state.options.downstream.resume();
  }

  closed(error: Error | undefined): void {
    sideClosed(this.#state, 'upstream', error);
  }
}

function sideClosed(state: State, side: Side, error: Error | undefined): void {
  const { options, ended } = state;
  state.closed += 1;
  // A side that is gone without having said so has broken too.
  if (error !== undefined || !ended[side]) {
    options.broken(side, error);
    const other = side === 'downstream' ? options.upstream : options.downstream;
    other.abort();
  }
  if (state.closed === 2) options.done();
}
