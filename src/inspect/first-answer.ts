import type { Clock } from '../lib/clock.ts';
import { err, ok, type Result } from '../lib/result.ts';

/**
 * Of an agent that goes on telling, the first thing that it tells. What went wrong counts also when it is told a moment later, for an agent
 * that refuses takes back first what it gave. Whoever waits for one that starts asks again.
 */
export class FirstAnswer {
  readonly #over = new AbortController();
  #failure: string | undefined;

  /** Aborts when it has come, or is not waited for any more. */
  get over(): AbortSignal {
    return this.#over.signal;
  }

  came(): void {
    this.#over.abort();
  }

  failed(why: string): void {
    this.#failure ??= why;
    this.#over.abort();
  }

  /** Waits for so long, and then until what was begun is `ended`. The error is why it failed; without one, it may still not have come. */
  async wait({ clock, timeoutMs, stopped }: Patience, ended: () => Promise<void>): Promise<Result<undefined, string>> {
    await clock.sleep(timeoutMs, AbortSignal.any([this.over, stopped]));
    this.#over.abort();
    await ended();
    if (stopped.aborted) return err('stopped');
    return this.#failure === undefined ? ok(undefined) : err(this.#failure);
  }
}

export interface Patience {
  readonly clock: Pick<Clock, 'sleep'>;
  readonly timeoutMs: number;
  readonly stopped: AbortSignal;
}
