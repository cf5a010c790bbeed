import type { Clock, Timer } from '../lib/clock.ts';
import { Arrival } from '../identity/arrival.ts';
import type { IdentitySnapshot, SvidChoice } from '../identity/snapshot.ts';
import type { IdentityWaitResult } from '../telemetry/log/records.ts';
import type { Turns } from './turns.ts';

/** How a wait ended by itself: go on, or why not. */
export type WaitEnd = Exclude<IdentityWaitResult, 'left' | 'stopping'>;

export interface IdentityWaitOptions {
  readonly clock: Clock;
  /** In which those that waited go on. */
  readonly turns: Turns;
  readonly choice: SvidChoice;
  /** In force now: how long each waits, and how many at a time. */
  readonly limits: () => { readonly waitMs: number; readonly most: number };
  readonly ended: (result: IdentityWaitResult) => void;
}

/** What came to an outbound listener before its first SVID: applications start together with their sidecar. Nobody waits after that. */
export class IdentityWait {
  readonly #options: IdentityWaitOptions;
  readonly #arrival: Arrival;
  readonly #waiting = new Set<{ readonly timer: Timer; readonly done: (end: WaitEnd) => void }>();

  constructor(options: IdentityWaitOptions) {
    this.#options = options;
    this.#arrival = new Arrival(options.choice);
  }

  /** Whether there may be something to wait for. */
  get isAwaited(): boolean {
    return this.#arrival.isAwaited;
  }

  /** `done` is told once how the wait ended, maybe within this call; not if it was given up, which `leave` says why. */
  enter(done: (end: WaitEnd) => void): { leave(why: 'left' | 'stopping'): void } {
    const { clock, limits, ended } = this.#options;
    const { waitMs, most } = limits();
    const end = (result: WaitEnd): void => {
      ended(result);
      done(result);
    };
    if (waitMs === 0 || this.#waiting.size >= most) {
      end(waitMs === 0 ? 'timeout' : 'limit');
      return { leave: () => undefined };
    }
    const timer = clock.after(waitMs, () => {
      if (this.#waiting.delete(entry)) end('timeout');
    });
    const entry = { timer, done: end };
    this.#waiting.add(entry);
    return {
      leave: (why) => {
        if (!this.#waiting.delete(entry)) return;
        timer.cancel();
        ended(why);
      },
    };
  }

  /** The Workload API has said something: if that is what was waited for, or ends the hope of it, everybody goes on, first come, first served. */
  note(snapshot: IdentitySnapshot): void {
    this.#arrival.note(snapshot);
    if (this.#arrival.isAwaited) return;
    const end = snapshot.kind === 'held' ? 'came' : 'withdrawn';
    // Whoever goes on has waited for this, not for its turn.
    for (const { timer } of this.#waiting) timer.cancel();
    this.#options.turns.begin(this.#waiting, (entry) => {
      if (this.#waiting.delete(entry)) entry.done(end);
    });
  }
}
