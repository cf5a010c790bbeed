import type { AcceptedConnection } from '../transport/connection.ts';
import type { Clock, Timer } from '../lib/clock.ts';
import type { ListenerCounters, RefusedAcceptReason } from '../telemetry/records.ts';

export interface GateLimits {
  readonly maxConnections: number;
  readonly maxHandshakes: number;
  readonly maxWaiting: number;
  /** A connection that sent nothing for this long is cut, whether it waits or not. */
  readonly handshakeTimeoutMs: number;
}

export interface GateOptions {
  readonly clock: Clock;
  readonly counters: ListenerCounters;
  /** The other side must speak first, as in TLS; false where a server may be waited for to greet. */
  readonly clientSpeaksFirst: boolean;
  limits(): GateLimits;
  /** The connection has a place among the handshakes. It must be given back with `handshakeEnded`. */
  begin(accepted: AcceptedConnection): void;
  /** The connection was dropped, or is to be dropped, unread. */
  refuse(accepted: AcceptedConnection, reason: RefusedAcceptReason | 'handshake_timeout', detail: string): void;
  /** The other side left while it waited. */
  left(accepted: AcceptedConnection): void;
}

/**
 * Who may begin a handshake. Node cannot pause accepting, so a connection beyond the limits waits unread in a bounded
 * queue, and one beyond the queue is refused. Peers that are not yet authenticated only ever hold places for handshakes,
 * never for connections; and when those places become scarce, a connection must send its first byte to get one, so that
 * silent ones cost no more than a socket.
 */
export class Gate {
  readonly #options: GateOptions;
  /** Have sent something, or need not: first come, first served. */
  readonly #queue = new Set<AcceptedConnection>();
  /** Silent so far, with the timer that cuts them. */
  readonly #silent = new Map<AcceptedConnection, Timer>();
  /** Authenticated, and waiting for a place among the connections. They keep their place among the handshakes. */
  readonly #admitted = new Set<() => void>();
  #serving = false;
  #freedMeanwhile = false;

  constructor(options: GateOptions) {
    this.#options = options;
  }

  arrive(accepted: AcceptedConnection): void {
    const { counters } = this.#options;
    const limits = this.#options.limits();
    const plenty = counters.handshaking < limits.maxHandshakes / 4;
    if (plenty || !this.#options.clientSpeaksFirst) this.#enqueueOrBegin(accepted, limits);
    else if (counters.waiting < limits.maxWaiting) this.#watch(accepted, limits);
    else this.#options.refuse(accepted, 'handshake_limit', `${limits.maxWaiting} connections wait already`);
  }

  /** A place among the handshakes is free again. */
  handshakeEnded(): void {
    this.#options.counters.handshaking -= 1;
    this.#next();
  }

  /** True: the caller has a place among the connections. False: `again` is called when one is free, to ask anew. */
  takePlace(again: () => void): boolean {
    const { counters } = this.#options;
    if (counters.open < this.#options.limits().maxConnections) {
      counters.open += 1;
      counters.opened += 1;
      return true;
    }
    this.#admitted.add(again);
    return false;
  }

  /** For whoever is not allowed and only here to be told so: a place if more than half are free. It never waits for one. */
  takeSparePlace(): boolean {
    const { counters } = this.#options;
    if (counters.open >= this.#options.limits().maxConnections / 2) return false;
    counters.open += 1;
    counters.opened += 1;
    return true;
  }

  /** Whoever asked with `again` does not wait any longer. */
  forget(again: () => void): void {
    this.#admitted.delete(again);
  }

  placeFree(): void {
    this.#options.counters.open -= 1;
    this.#next();
  }

  /** The limits may have grown. */
  limitsChanged(): void {
    this.#next();
  }

  /** Refuses all that wait. */
  close(reason: RefusedAcceptReason, detail: string): void {
    const waiting = [...this.#queue, ...this.#silent.keys()];
    for (const timer of this.#silent.values()) timer.cancel();
    this.#queue.clear();
    this.#silent.clear();
    this.#options.counters.waiting -= waiting.length;
    for (const accepted of waiting) this.#options.refuse(accepted, reason, detail);
  }

  #enqueueOrBegin(accepted: AcceptedConnection, limits: GateLimits): void {
    const { counters } = this.#options;
    if (this.#mayBegin(limits)) {
      counters.handshaking += 1;
      this.#options.begin(accepted);
    } else if (counters.waiting < limits.maxWaiting) {
      counters.waiting += 1;
      this.#queue.add(accepted);
    } else {
      const reason = counters.open >= limits.maxConnections ? 'connection_limit' : 'handshake_limit';
      this.#options.refuse(accepted, reason, `${limits.maxWaiting} connections wait already`);
    }
  }

  #watch(accepted: AcceptedConnection, limits: GateLimits): void {
    const { clock, counters } = this.#options;
    counters.waiting += 1;
    const timer = clock.after(limits.handshakeTimeoutMs, () => {
      this.#silent.delete(accepted);
      counters.waiting -= 1;
      this.#options.refuse(accepted, 'handshake_timeout', `nothing was sent within ${limits.handshakeTimeoutMs} ms`);
    });
    this.#silent.set(accepted, timer);
    accepted.waitForBytes((arrived) => {
      if (!this.#silent.delete(accepted)) return;
      timer.cancel();
      counters.waiting -= 1;
      if (arrived) this.#enqueueOrBegin(accepted, this.#options.limits());
      else this.#options.left(accepted);
    });
  }

  #mayBegin(limits: GateLimits): boolean {
    const { counters } = this.#options;
    return counters.open < limits.maxConnections && counters.handshaking < limits.maxHandshakes;
  }

  /** Gives free places to those that wait. Who gets one may be done with it at once, and call this again: the loop goes on then, never deeper. */
  #next(): void {
    this.#freedMeanwhile = true;
    if (this.#serving) return;
    this.#serving = true;
    while (this.#freedMeanwhile) {
      this.#freedMeanwhile = false;
      this.#serve();
    }
    this.#serving = false;
  }

  #serve(): void {
    const { counters } = this.#options;
    const limits = this.#options.limits();
    for (const again of this.#admitted) {
      if (counters.open >= limits.maxConnections) return;
      this.#admitted.delete(again);
      again();
    }
    for (const accepted of this.#queue) {
      if (!this.#mayBegin(limits)) return;
      this.#queue.delete(accepted);
      counters.waiting -= 1;
      counters.handshaking += 1;
      this.#options.begin(accepted);
    }
  }
}
