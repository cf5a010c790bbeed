import type { Clock, Timer } from '../lib/clock.ts';
import type { Connection } from '../transport/connection.ts';

/**
 * How long a client may take to read an answer of ours, and to agree to the end of its connection. Of a response, no more than the idle
 * limit is asked: megabytes of it may still be in the kernel for a slow reader.
 */
export const CLOSE_GRACE_MS = 5000;
/** How long it may take to read that its connection is dropped, or what is left after it has ended its side. */
export const DROP_GRACE_MS = 1000;
/** How long one that is not allowed may take to ask for what it will not get. */
export const DENIED_HEAD_MS = 2000;
/** How long an application or a server may take to agree to the end of a connection that nothing is asked on. */
export const PART_GRACE_MS = 1000;

/** How long a connection that ends may still take: then it is broken off. What was said first may still be sooner, and never later. */
export class Grace {
  readonly #clock: Clock;
  readonly #connection: Pick<Connection, 'abort'>;
  #timer: Timer | undefined;
  #atMs = Infinity;

  constructor(clock: Clock, connection: Pick<Connection, 'abort'>) {
    this.#clock = clock;
    this.#connection = connection;
  }

  limit(ms: number): void {
    const atMs = this.#clock.monotonic() + ms;
    if (atMs >= this.#atMs) return;
    this.#timer?.cancel();
    this.#atMs = atMs;
    this.#timer = this.#clock.after(ms, () => this.#connection.abort());
  }

  /** The connection is closed: nothing of it is broken off any more. */
  over(): void {
    this.#timer?.cancel();
    this.#atMs = -Infinity;
  }
}
