import type { AcceptedConnection } from '../transport/connection.ts';
import type { Clock, Timer } from '../lib/clock.ts';
import type { ListenerCounters, RefusedAcceptReason } from '../telemetry/log/records.ts';
import type { WaitingRoom } from './waiting-room.ts';

export interface GateLimits {
  readonly maxConnections: number;
  readonly maxHandshakes: number;
  readonly maxWaiting: number;
  /** Who must speak does so within this time; nobody waits longer than twice as long after that. */
  readonly handshakeTimeoutMs: number;
}

export interface GateOptions {
  readonly clock: Clock;
  readonly counters: ListenerCounters;
  /** The other side must speak first, as in TLS; false where a server may be waited for to greet. */
  readonly clientSpeaksFirst: boolean;
  readonly room: WaitingRoom;
  limits(): GateLimits;
  /** The connection has a place among the handshakes. It must be given back with `handshakeEnded`. */
  readonly begin: (accepted: AcceptedConnection) => void;
  /** The connection was dropped, or is to be dropped, unread. */
  readonly refuse: (accepted: AcceptedConnection, reason: RefusedAcceptReason | 'handshake_timeout', detail: string) => void;
  /** The other side left while it waited. */
  readonly left: (accepted: AcceptedConnection) => void;
}

/**
 * Who may begin a handshake. Node cannot pause accepting, so a connection beyond the limits waits, for a bounded time, in a
 * bounded queue, and one beyond the queue is refused. Peers that are not yet authenticated only ever hold places for
 * handshakes, never for connections; and when those places become scarce, or there are none, a connection must send its first
 * byte to get one, so that silent ones cost no more than a socket.
 */
export class Gate {
  readonly #options: GateOptions;
  /** Whoever waits, with the timer that ends it. */
  readonly #waiting = new Map<AcceptedConnection, Timer>();
  /** Of them those that have sent something, or need not: first come, first served. The others are silent so far. */
  readonly #queue = new Set<AcceptedConnection>();
  /** Authenticated, and waiting for a place among the connections. They keep their place among the handshakes. */
  readonly #admitted = new Set<() => void>();
  #serving = false;
  #freedMeanwhile = false;

  constructor(options: GateOptions) {
    this.#options = options;
  }

  arrive(accepted: AcceptedConnection): void {
    const { counters, clientSpeaksFirst, refuse } = this.#options;
    const limits = this.#options.limits();
    const mustSpeak = clientSpeaksFirst && counters.handshaking >= limits.maxHandshakes / 4;
    if (!mustSpeak && this.#mayBegin(limits)) this.#begin(accepted);
    else if (counters.waiting < limits.maxWaiting) this.#wait(accepted, limits);
    else refuse(accepted, mustSpeak ? 'handshake_limit' : this.#whatIsFull(limits), `${limits.maxWaiting} connections wait already`);
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
    for (const accepted of this.#waiting.keys()) {
      this.#endWait(accepted);
      this.#options.refuse(accepted, reason, detail);
    }
  }

  #begin(accepted: AcceptedConnection): void {
    this.#options.counters.handshaking += 1;
    this.#options.begin(accepted);
  }

  #wait(accepted: AcceptedConnection, limits: GateLimits): void {
    const { counters, clientSpeaksFirst, room, refuse, left } = this.#options;
    const isGone = (): void => {
      this.#endWait(accepted);
      left(accepted);
    };
    counters.waiting += 1;
    if (clientSpeaksFirst) this.#limitSilence(accepted, limits);
    else this.#enqueue(accepted, limits);
    room.enter(accepted, {
      spoke: () => this.#spoke(accepted),
      // In TLS there is no handshake after it.
      ...(clientSpeaksFirst ? { ended: isGone } : {}),
      closed: isGone,
      crowdedOut: (detail) => {
        this.#endWait(accepted);
        refuse(accepted, 'waiting_limit', detail);
      },
    });
  }

  #limitSilence(accepted: AcceptedConnection, { handshakeTimeoutMs }: GateLimits): void {
    const late = (): void => {
      this.#endWait(accepted);
      this.#options.refuse(accepted, 'handshake_timeout', `nothing was sent within ${handshakeTimeoutMs} ms`);
    };
    this.#waiting.set(accepted, this.#options.clock.after(handshakeTimeoutMs, late));
  }

  /** As many handshakes as there may be can take as long as they may: whoever comes behind them outlasts them. */
  #enqueue(accepted: AcceptedConnection, { handshakeTimeoutMs }: GateLimits): void {
    const timeoutMs = 2 * handshakeTimeoutMs;
    const late = (): void => {
      this.#endWait(accepted);
      this.#options.refuse(accepted, this.#whatIsFull(this.#options.limits()), `no place was free within ${timeoutMs} ms`);
    };
    this.#waiting.set(accepted, this.#options.clock.after(timeoutMs, late));
    this.#queue.add(accepted);
  }

  #spoke(accepted: AcceptedConnection): void {
    if (this.#queue.has(accepted)) return;
    const limits = this.#options.limits();
    if (this.#mayBegin(limits)) {
      this.#endWait(accepted);
      this.#begin(accepted);
    } else {
      this.#waiting.get(accepted)?.cancel();
      this.#enqueue(accepted, limits);
    }
  }

  #endWait(accepted: AcceptedConnection): void {
    this.#waiting.get(accepted)?.cancel();
    this.#waiting.delete(accepted);
    this.#queue.delete(accepted);
    this.#options.counters.waiting -= 1;
    this.#options.room.leave(accepted);
  }

  #whatIsFull({ maxConnections }: GateLimits): 'connection_limit' | 'handshake_limit' {
    return this.#options.counters.open >= maxConnections ? 'connection_limit' : 'handshake_limit';
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
      this.#endWait(accepted);
      this.#begin(accepted);
    }
  }
}
