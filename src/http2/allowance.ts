/**
 * How much of something a side may do: so much at once, and so much a second after that. What is earned by useful work comes on
 * top of it. Pure.
 */
export class Allowance {
  readonly #most: number;
  readonly #perSecond: number;
  #left: number;
  #sinceMs: number;

  /** `nowMs`: monotonic time. */
  constructor(most: number, perSecond: number, nowMs: number) {
    this.#most = most;
    this.#perSecond = perSecond;
    this.#left = most;
    this.#sinceMs = nowMs;
  }

  /** False if there is none left. `now`, monotonic milliseconds, is asked only when what may be done at once has been done. */
  take(now: () => number): boolean {
    if (this.#left >= 1) {
      this.#left--;
      return true;
    }
    const nowMs = now();
    this.#left = Math.min(this.#left + ((nowMs - this.#sinceMs) * this.#perSecond) / 1000, this.#most);
    this.#sinceMs = nowMs;
    if (this.#left < 1) return false;
    this.#left--;
    return true;
  }

  earn(amount: number): void {
    if (this.#left < this.#most) this.#left = Math.min(this.#left + amount, this.#most);
  }
}
