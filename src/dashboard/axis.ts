/** One axis of time, from seconds to years. Pure. */

export interface Span {
  /** How far back and ahead it reaches, both above zero. */
  readonly pastMs: number;
  readonly futureMs: number;
}

/** Below it the axis is nearly even, above it a factor is a step. */
const EVEN_MS = 20_000;
/** Of the width, what is before now. */
const PAST = 0.36;

function steps(ms: number): number {
  return Math.log1p(ms / EVEN_MS);
}

/** Where a moment stands, from 0 to 1; `distanceMs` is below zero for what was. */
export function place(distanceMs: number, { pastMs, futureMs }: Span): number {
  const at =
    distanceMs < 0 ? PAST - PAST * (steps(-distanceMs) / steps(pastMs)) : PAST + (1 - PAST) * (steps(distanceMs) / steps(futureMs));
  return Math.min(Math.max(at, 0), 1);
}

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const TICKS: readonly (readonly [number, string])[] = [
  [10_000, '10 s'],
  [MINUTE, '1 min'],
  [10 * MINUTE, '10 min'],
  [HOUR, '1 h'],
  [6 * HOUR, '6 h'],
  [DAY, '1 day'],
  [7 * DAY, '1 week'],
  [30 * DAY, '1 month'],
  [182 * DAY, '6 months'],
  [365 * DAY, '1 year'],
  [3650 * DAY, '10 years'],
];

export interface Tick {
  readonly at: number;
  readonly text: string;
}

/** The marks below the axis, those left out that would stand on another. */
export function ticks(span: Span, apart: number): readonly Tick[] {
  const chosen: Tick[] = [];
  const take = (side: -1 | 1, most: number): void => {
    let last = place(0, span);
    for (const [ms, text] of TICKS) {
      const at = place(side * ms, span);
      if (ms > most || Math.abs(at - last) < apart || at > 1 - apart / 3 || at < apart / 3) continue;
      last = at;
      chosen.push({ at, text });
    }
  };
  take(-1, span.pastMs);
  take(1, span.futureMs);
  return chosen;
}

/** In which row the label of each of `at` stands, so that none stands on another; undefined where there is no room. Sorted from left to right. */
export function rows(at: readonly number[], apart: number, most: number): readonly (number | undefined)[] {
  const ends: number[] = [];
  return at.map((one) => {
    for (let row = 0; row < most; row++) {
      if (one - (ends[row] ?? -1) < apart) continue;
      ends[row] = one;
      return row;
    }
    return undefined;
  });
}
