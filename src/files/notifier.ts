import { createBackoff } from '../lib/backoff.ts';
import type { Clock } from '../lib/clock.ts';
import { messageOf } from '../lib/errors.ts';
import type { FilesEvents } from '../telemetry/events/files-events.ts';
import type { NotifyFailure, NotifyStatus } from '../telemetry/log/files-records.ts';
import type { NotifyContext, NotifyTarget } from './notify-target.ts';

/** How often it is looked whether another process has taken the place of the one that was told. */
const LOOK_EVERY_MS = 1000;
const RETRY = { initialMs: 500, maxMs: 30_000 };
/** However often a set is replaced, somebody is told after so many times the delay. */
const LONGEST_DELAYS = 10;

export interface NotifierOptions {
  readonly set: string;
  readonly target: NotifyTarget;
  readonly delayMs: number;
  readonly events: FilesEvents;
  readonly clock: Clock;
  readonly random: () => number;
}

/** Tells one target of each replacement, until it has worked. */
export class Notifier {
  readonly #options: NotifierOptions;
  /** What is to be told, and since when: the first replacement that was not told of, and the last. */
  #pending: { readonly context: NotifyContext; readonly firstMs: number; readonly lastMs: number } | undefined;
  #last: NotifyContext | undefined;
  #isTelling = false;
  #lastSuccessMs: number | undefined;
  #problem: NotifyFailure | undefined;
  #wake: () => void = () => {};

  constructor(options: NotifierOptions) {
    this.#options = options;
    options.events.target(options.set, options.target);
  }

  get status(): NotifyStatus {
    const { kind, target } = this.#options.target;
    return {
      kind,
      target,
      isPending: this.#pending !== undefined || this.#isTelling,
      lastSuccessMs: this.#lastSuccessMs,
      problem: this.#problem,
    };
  }

  /** The set was replaced. */
  replaced(context: NotifyContext): void {
    this.#last = context;
    const nowMs = this.#options.clock.monotonic();
    this.#pending = { context, firstMs: this.#pending?.firstMs ?? nowMs, lastMs: nowMs };
    this.#options.events.pending(this.#options.set, this.#options.target);
    this.#wake();
  }

  /** Until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, random, target, set, events, delayMs } = this.#options;
    const backoff = createBackoff({ ...RETRY, random });
    while (!signal.aborted) {
      const pending = this.#pending;
      if (pending === undefined) {
        await this.#nap(target.isAnother === undefined || this.#last === undefined ? Infinity : LOOK_EVERY_MS, signal);
        if (this.#pending === undefined && this.#last !== undefined && !signal.aborted && (await target.isAnother?.()) === true)
          this.replaced(this.#last);
        continue;
      }
      const dueMs = Math.min(pending.lastMs + delayMs, pending.firstMs + delayMs * LONGEST_DELAYS);
      if (clock.monotonic() < dueMs) {
        await clock.sleep(dueMs - clock.monotonic(), signal);
        continue;
      }
      this.#pending = undefined;
      this.#isTelling = true;
      const beganMs = clock.monotonic();
      const failure = await target
        .tell(pending.context, signal)
        .catch((cause: unknown): NotifyFailure => ({ reason: 'failed', detail: messageOf(cause) }));
      this.#problem = failure;
      if (failure === undefined) {
        backoff.reset();
        this.#lastSuccessMs = clock.now();
        this.#isTelling = false;
        events.notified(set, target, clock.monotonic() - beganMs);
        continue;
      }
      // A replacement that came meanwhile is told of with it.
      this.#pending ??= pending;
      this.#isTelling = false;
      if (signal.aborted) return;
      const retryInMs = backoff.next();
      events.notifyFailed(set, target, failure, retryInMs);
      await clock.sleep(retryInMs, signal);
    }
  }

  async #nap(ms: number, signal: AbortSignal): Promise<void> {
    const awake = new AbortController();
    this.#wake = () => awake.abort();
    await this.#options.clock.sleep(ms, AbortSignal.any([signal, awake.signal]));
    this.#wake = () => {};
  }
}
