import type { Clock, Timer } from './clock.ts';

/** Within it, a time that has come is noticed, whatever became of the clock. */
const LONGEST_LOOK_MS = 1000;

/**
 * Calls `look` when wall time has come to what it was set for, or is before the time at which it was set. Timers stand still while the
 * machine sleeps, and the wall clock may be set, forth and back: so the clock is asked again and again, whatever is still to come.
 */
export class WallAlarm {
  readonly #clock: Clock;
  readonly #look: () => void;
  #setAtMs = 0;
  #dueMs = Infinity;
  #timer: Timer | undefined;

  constructor(clock: Clock, look: () => void) {
    this.#clock = clock;
    this.#look = look;
  }

  /**
   * In place of what was set before; both in wall time. `nowMs` is the time that whoever sets it has gone by: what comes meanwhile is still
   * to come then. With a `dueMs` of Infinity only a clock that is set back is waited for.
   */
  set(nowMs: number, dueMs: number): void {
    this.#setAtMs = nowMs;
    this.#dueMs = dueMs;
    this.#wait();
  }

  /** Looks at once if it is time, though no timer has fired: for whoever is about to tell somebody what may be over. */
  check(): void {
    if (this.#timer !== undefined && this.#isTime()) this.#look();
  }

  stop(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #isTime(): boolean {
    const nowMs = this.#clock.now();
    return nowMs >= this.#dueMs || nowMs < this.#setAtMs;
  }

  #wait(): void {
    this.#timer?.cancel();
    this.#timer = this.#clock.after(Math.min(this.#dueMs - this.#clock.now(), LONGEST_LOOK_MS), () => {
      // Whoever looks sets it anew.
      if (this.#isTime()) this.#look();
      else this.#wait();
    });
  }
}
