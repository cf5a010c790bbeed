import type { Clock, Timer } from '../../lib/clock.ts';

/**
 * What time it is in this turn: asked once, however many frames come in it. Whoever is called by a socket begins with `next`; after
 * the turn nobody may ask before.
 */
export class TurnClock implements Clock {
  readonly #clock: Clock;
  #monotonicMs: number | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  now(): number {
    return this.#clock.now();
  }

  monotonic(): number {
    return (this.#monotonicMs ??= this.#clock.monotonic());
  }

  next(): void {
    this.#monotonicMs = undefined;
  }

  after(delayMs: number, task: () => void): Timer {
    return this.#clock.after(delayMs, () => {
      this.next();
      task();
    });
  }

  sleep(delayMs: number, signal: AbortSignal): Promise<void> {
    return this.#clock.sleep(delayMs, signal);
  }
}
