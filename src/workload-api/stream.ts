import type { Backoff } from '../lib/backoff.ts';
import type { Clock } from '../lib/clock.ts';
import { WorkloadApiError, type StreamEndCode } from './errors.ts';

/** What a message was worth: something new, what we held already, or nothing (it was refused as a whole). */
export type Reception = 'new' | 'same' | 'rejected';

export interface StreamHandler {
  open(signal: AbortSignal): AsyncIterable<Uint8Array>;
  /** Called with the first message of each stream, before `receive`. */
  connected(): void;
  receive(message: Uint8Array): Reception;
  /** A stream has ended, or could not be opened; the next is opened in `retryInMs`. */
  ended(error: WorkloadApiError, retryInMs: number): void;
}

/** A stream that gave something usable and lived this long was no accident: the next failure starts the back-off anew. */
const STEADY_MS = 1000;

/** We ended these ourselves, for reasons that a new stream mends; who notices the reasons also limits how often. */
const AT_ONCE: ReadonlySet<StreamEndCode> = new Set<StreamEndCode>(['SOCKET_REPLACED', 'CLOCK_JUMPED', 'SVID_AGEING']);

/** Keeps one stream open: reopens it when it ends, waiting as long as the way it ended deserves. */
export class StreamKeeper {
  readonly #handler: StreamHandler;
  readonly #clock: Clock;
  readonly #backoff: Backoff;
  #current: AbortController | undefined;
  #interruption: WorkloadApiError | undefined;
  #streaming = false;
  #reopenedAtOnce = false;

  constructor(handler: StreamHandler, clock: Clock, backoff: Backoff) {
    this.#handler = handler;
    this.#clock = clock;
    this.#backoff = backoff;
  }

  /** True while a stream is open or being opened, false while waiting to try again. */
  get streaming(): boolean {
    return this.#streaming;
  }

  /** Ends the stream for `reason` and opens another; cuts a wait short. */
  reconnect(reason: WorkloadApiError): void {
    this.#interruption = reason;
    this.#current?.abort();
  }

  /** Returns when `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      this.#streaming = true;
      const end = await this.#interruptible(signal, (inner) => this.#streamOnce(inner));
      this.#streaming = false;
      if (signal.aborted) return;
      const retryInMs = this.#delayAfter(end);
      this.#handler.ended(end.error, retryInMs);
      if (retryInMs > 0) await this.#interruptible(signal, (inner) => this.#clock.sleep(retryInMs, inner));
    }
  }

  async #streamOnce(signal: AbortSignal): Promise<StreamEnd> {
    const openedAtMs = this.#clock.monotonic();
    this.#interruption = undefined;
    let messages = 0;
    let useful = false;
    let error: WorkloadApiError | undefined;
    try {
      for await (const message of this.#handler.open(signal)) {
        if (signal.aborted) break;
        messages += 1;
        if (messages === 1) this.#handler.connected();
        const reception = this.#handler.receive(message);
        if (reception === 'rejected') continue;
        useful = true;
        // Only progress resets: neither garbage nor an agent that repeats itself and hangs up may make us reconnect faster.
        if (reception === 'new') this.#backoff.reset();
      }
    } catch (thrown) {
      // Also a mistake in what reads messages: nothing that the agent sends may end the process, and it is reported as what ended the stream.
      error = WorkloadApiError.from(thrown, 'workload API stream');
    }
    error = this.#interruption ?? error ?? new WorkloadApiError('the agent ended the stream', { endCode: 'OK' });
    return { error, useful, steady: useful && this.#clock.monotonic() - openedAtMs >= STEADY_MS };
  }

  #delayAfter({ error, useful, steady }: StreamEnd): number {
    if (AT_ONCE.has(error.endCode)) return 0;
    if (steady) {
      this.#backoff.reset();
      this.#reopenedAtOnce = false;
    }
    if (error.endCode === 'OK' && useful && !this.#reopenedAtOnce) {
      this.#reopenedAtOnce = true;
      return 0;
    }
    if (!error.shouldRetry()) this.#backoff.slowest();
    return this.#backoff.next();
  }

  async #interruptible<T>(signal: AbortSignal, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const controller = new AbortController();
    const forward = (): void => controller.abort();
    if (signal.aborted) forward();
    signal.addEventListener('abort', forward, { once: true });
    this.#current = controller;
    try {
      return await work(controller.signal);
    } finally {
      signal.removeEventListener('abort', forward);
      this.#current = undefined;
    }
  }
}

interface StreamEnd {
  readonly error: WorkloadApiError;
  /** At least one message was new or the same. */
  readonly useful: boolean;
  readonly steady: boolean;
}
