import type { Clock } from '../lib/clock.ts';

/** Timers drift and wall clocks are slewed by a little all the time; certificates do not mind. */
const JUMP_MS = 5000;

/**
 * Notices that the wall clock was set, or that the machine slept: wall time then moved by more, or less, than monotonic time, which stands
 * still during sleep.
 */
export class ClockWatch {
  readonly #clock: Clock;
  #offsetMs: number;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#offsetMs = clock.now() - clock.monotonic();
  }

  /** By how much wall time jumped since the last jump reported, or 0 for less than five seconds. Slow drift adds up and is reported once it is as much. */
  jumpedByMs(): number {
    const offsetMs = this.#clock.now() - this.#clock.monotonic();
    const jumpedMs = offsetMs - this.#offsetMs;
    if (Math.abs(jumpedMs) < JUMP_MS) return 0;
    this.#offsetMs = offsetMs;
    return jumpedMs;
  }
}
