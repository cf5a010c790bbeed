import { monitorEventLoopDelay, performance, type RecordableHistogram } from 'node:perf_hooks';

/** Of one turn of the event loop: how long it worked before it looked for events again. */
export interface TurnTimes {
  /** Seconds. */
  readonly p99: number;
  readonly max: number;
}

/** How long the two spans are of which the worse counts: whoever asks at least once in one of them misses nothing. */
export const SPAN_MS = 60_000;

/** The part of Node's histogram that is used, in nanoseconds. */
export type TurnHistogram = Pick<RecordableHistogram, 'count' | 'max' | 'percentile' | 'reset'>;

let shared: (() => TurnTimes) | undefined;

/**
 * The turns of this process's event loop. They are counted by libuv's own hooks, once a turn: no timer wakes an idle process, as
 * the usual sampler does each 10 ms, and a turn costs one entry in a histogram.
 */
export function eventLoopDelay(): TurnTimes {
  if (shared === undefined) {
    const histogram = monitorEventLoopDelay({ samplePerIteration: true });
    histogram.enable();
    // The first entry would be all the time since then, idle or not.
    setImmediate(() => histogram.reset()).unref();
    shared = worstOfSpans(histogram, () => performance.now());
  }
  return shared();
}

/** Reads the span that runs and the one before it; begins another when a span is over. */
export function worstOfSpans(histogram: TurnHistogram, nowMs: () => number): () => TurnTimes {
  let before: TurnTimes = { p99: 0, max: 0 };
  let begun = nowMs();
  return () => {
    const now = read(histogram);
    const worst = { p99: Math.max(before.p99, now.p99), max: Math.max(before.max, now.max) };
    if (nowMs() - begun >= SPAN_MS) {
      before = now;
      begun = nowMs();
      histogram.reset();
    }
    return worst;
  };
}

function read(histogram: TurnHistogram): TurnTimes {
  return histogram.count === 0 ? { p99: 0, max: 0 } : { p99: histogram.percentile(99) / 1e9, max: histogram.max / 1e9 };
}
