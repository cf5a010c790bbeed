import type { Clock, Timer } from '../../src/lib/clock.ts';

interface Due {
  readonly atMs: number;
  readonly task: () => void;
}

/** Time that moves only by hand. Wall time starts at the real one, so that certificates made by a test are valid. */
export class FakeClock implements Clock {
  #wallMs = Date.now();
  #monotonicMs = 0;
  readonly #timers = new Set<Due>();
  #sleeping = 0;

  now(): number {
    return this.#wallMs;
  }

  monotonic(): number {
    return this.#monotonicMs;
  }

  /** How many timers are armed: nothing may be left when a test ends. */
  get armed(): number {
    return this.#timers.size;
  }

  /** How many sleep: who looks at something once in a while does so between two looks. */
  get sleeping(): number {
    return this.#sleeping;
  }

  after(delayMs: number, task: () => void): Timer {
    const due = { atMs: this.#monotonicMs + Math.max(delayMs, 0), task };
    this.#timers.add(due);
    return { cancel: () => void this.#timers.delete(due) };
  }

  sleep(delayMs: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal.aborted) return resolve();
      this.#sleeping++;
      const finish = (): void => {
        this.#sleeping--;
        timer.cancel();
        signal.removeEventListener('abort', finish);
        resolve();
      };
      const timer = this.after(delayMs, finish);
      signal.addEventListener('abort', finish, { once: true });
    });
  }

  /** Both clocks move on, and what falls due on the way runs in its order. */
  advance(ms: number): void {
    const untilMs = this.#monotonicMs + ms;
    for (;;) {
      const next = [...this.#timers].filter((due) => due.atMs <= untilMs).toSorted((a, b) => a.atMs - b.atMs)[0];
      if (next === undefined) break;
      this.#timers.delete(next);
      this.#move(Math.max(next.atMs - this.#monotonicMs, 0));
      next.task();
    }
    this.#move(untilMs - this.#monotonicMs);
  }

  /** The wall clock is set, or the machine slept: wall time alone moves. */
  jump(ms: number): void {
    this.#wallMs += ms;
  }

  #move(ms: number): void {
    this.#monotonicMs += ms;
    this.#wallMs += ms;
  }
}
