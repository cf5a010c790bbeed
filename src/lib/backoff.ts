export interface BackoffOptions {
  /** The first delay, before jitter. */
  readonly initialMs: number;
  /** No delay is longer than this. */
  readonly maxMs: number;
  /** Uniform in [0, 1). Comes in so that tests are deterministic. */
  readonly random: () => number;
}

export interface Backoff {
  /** The next delay in milliseconds: doubles each time, with jitter between half and the whole of it. This one is at most `atMostMs`. */
  next(atMostMs?: number): number;
  /** Progress was made: start again from the first delay. */
  reset(): void;
  /** Repeating soon is pointless: every delay from here on is the longest, until `reset`. */
  slowest(): void;
}

/** Exponential backoff with jitter. Half of each delay is fixed, so that repeated failures can never make a tight loop. */
export function createBackoff({ initialMs, maxMs, random }: BackoffOptions): Backoff {
  let ceilingMs = initialMs;
  return {
    next(atMostMs = maxMs) {
      const longestMs = Math.min(ceilingMs, atMostMs);
      const delayMs = longestMs / 2 + (longestMs / 2) * random();
      ceilingMs = Math.min(ceilingMs * 2, maxMs);
      return delayMs;
    },
    reset() {
      ceilingMs = initialMs;
    },
    slowest() {
      ceilingMs = maxMs;
    },
  };
}
