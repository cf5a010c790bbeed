import type { Clock } from '../lib/clock.ts';

/** So many at once, refilled at so many a second. Under debt it goes to `-capacity`: who never stops is known by that. */
export class TokenBucket {
  readonly #perSecond: number;
  readonly #capacity: number;
  readonly #clock: Clock;
  #tokens: number;
  #filledAtMs: number;

  constructor(perSecond: number, capacity: number, clock: Clock) {
    this.#perSecond = perSecond;
    this.#capacity = capacity;
    this.#clock = clock;
    this.#tokens = capacity;
    this.#filledAtMs = clock.monotonic();
  }

  /** `refused` where there is none left, `hopeless` where it was asked for as many again as it ever holds. */
  take(): 'taken' | 'refused' | 'hopeless' {
    const nowMs = this.#clock.monotonic();
    this.#tokens = Math.min(this.#capacity, this.#tokens + ((nowMs - this.#filledAtMs) / 1000) * this.#perSecond);
    this.#filledAtMs = nowMs;
    if (this.#tokens < 1 - this.#capacity) return 'hopeless';
    this.#tokens -= 1;
    return this.#tokens < 0 ? 'refused' : 'taken';
  }
}
