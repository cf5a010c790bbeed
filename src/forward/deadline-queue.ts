import type { Clock, Timer } from '../lib/clock.ts';

/** Deadlines that are all equally far away when they are set: the first that was set is the first to be due, so one timer serves them. */
export class DeadlineQueue<T> {
  readonly #clock: Clock;
  readonly #afterMs: number | undefined;
  readonly #late: (item: T) => void;
  /** When each is due, in that order. */
  readonly #due = new Map<T, number>();
  #timer: Timer | undefined;

  /** `afterMs` undefined: there are none. */
  constructor(clock: Clock, afterMs: number | undefined, late: (item: T) => void) {
    this.#clock = clock;
    this.#afterMs = afterMs;
    this.#late = late;
  }

  /** From now on; instead of the one before. */
  set(item: T): void {
    if (this.#afterMs === undefined) return;
    this.#due.delete(item);
    this.#due.set(item, this.#clock.monotonic() + this.#afterMs);
    if (this.#timer === undefined) this.#arm(this.#afterMs);
  }

  delete(item: T): void {
    this.#due.delete(item);
  }

  clear(): void {
    this.#due.clear();
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #arm(ms: number): void {
    this.#timer?.cancel();
    this.#timer = this.#clock.after(ms, () => this.#look());
  }

  /** The timer may have been set for an item that is gone. */
  #look(): void {
    this.#timer = undefined;
    const nowMs = this.#clock.monotonic();
    for (const [item, dueMs] of this.#due) {
      if (dueMs > nowMs) {
        // What one that is late has set meanwhile is due after this.
        this.#arm(dueMs - nowMs);
        return;
      }
      this.#due.delete(item);
      this.#late(item);
    }
  }
}
