import type { Backoff } from '../lib/backoff.ts';
import type { Clock } from '../lib/clock.ts';
import type { Subscription } from './client.ts';
import { WorkloadApiError, type StreamEndCode } from './errors.ts';

/** What a message was worth: something new, what we held already, or nothing (it was refused as a whole). */
export type Reception = 'new' | 'same' | 'rejected';

export interface StreamHandler {
  readonly subscription: Subscription;
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

/** How an agent looks that is still starting, or has yet to hear of us: refusing, not listening, or not answering. */
const PASSING: ReadonlySet<StreamEndCode> = new Set<StreamEndCode>(['PERMISSION_DENIED', 'UNAVAILABLE', 'TRANSPORT']);
/** So such an agent is asked again within this, for so long; then as rarely as any other. */
const PASSING_WAIT_MS = 5000;
const PASSING_FOR_MS = 300_000;

/** How often to look for the agent's socket during a wait. */
const LOOK_MS = 250;
/** A socket that changes starts the back-off anew, but whoever can change it without end does not make us try without end. */
const HEED_AGAIN_MS = 1000;

/** Keeps one stream open: reopens it when it ends, waiting as long as the way it ended deserves. */
export class StreamKeeper {
  readonly #handler: StreamHandler;
  readonly #clock: Clock;
  readonly #backoff: Backoff;
  #current: AbortController | undefined;
  #interruption: WorkloadApiError | undefined;
  #streaming = false;
  #reopenedAtOnce = false;
  /** Monotonic, of the first failure since the back-off was at its start. */
  #failingSinceMs: number | undefined;
  /** Monotonic, of the last change of the socket that ended a wait. */
  #heededAtMs = Number.NEGATIVE_INFINITY;

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
      if (retryInMs > 0) await this.#interruptible(signal, (inner) => this.#rest(retryInMs, inner));
    }
  }

  async #streamOnce(signal: AbortSignal): Promise<StreamEnd> {
    const openedAtMs = this.#clock.monotonic();
    this.#interruption = undefined;
    let messages = 0;
    let useful = false;
    let error: WorkloadApiError | undefined;
    try {
      for await (const message of this.#handler.subscription.open(signal)) {
        if (signal.aborted) break;
        messages += 1;
        if (messages === 1) this.#handler.connected();
        const reception = this.#handler.receive(message);
        if (reception === 'rejected') continue;
        useful = true;
        // Only progress resets: neither garbage nor an agent that repeats itself and hangs up may make us reconnect faster.
        if (reception === 'new') this.#startAnew();
      }
    } catch (thrown) {
      // Also a mistake in what reads messages: nothing that the agent sends may end the process, and it is reported as what ended the stream.
      error = WorkloadApiError.from(thrown, 'workload API stream');
    }
    error = this.#interruption ?? error ?? new WorkloadApiError('the agent ended the stream', { endCode: 'OK' });
    return { error, useful, steady: useful && this.#clock.monotonic() - openedAtMs >= STEADY_MS };
  }

  #delayAfter({ error, useful, steady }: StreamEnd): number {
    if (error.endCode === 'SOCKET_REPLACED') this.#startAnew();
    if (AT_ONCE.has(error.endCode)) return 0;
    if (steady) {
      this.#startAnew();
      this.#reopenedAtOnce = false;
    }
    if (error.endCode === 'OK' && useful && !this.#reopenedAtOnce) {
      this.#reopenedAtOnce = true;
      return 0;
    }
    if (!error.shouldRetry()) this.#backoff.slowest();
    const nowMs = this.#clock.monotonic();
    this.#failingSinceMs ??= nowMs;
    const mayPass = PASSING.has(error.endCode) && nowMs - this.#failingSinceMs < PASSING_FOR_MS;
    return this.#backoff.next(mayPass ? PASSING_WAIT_MS : undefined);
  }

  #startAnew(): void {
    this.#backoff.reset();
    this.#failingSinceMs = undefined;
  }

  /** Waits for so long, or until there is another socket to try. */
  async #rest(waitMs: number, signal: AbortSignal): Promise<void> {
    const untilMs = this.#clock.monotonic() + waitMs;
    for (let leftMs = waitMs; leftMs > 0; leftMs = untilMs - this.#clock.monotonic()) {
      await this.#clock.sleep(Math.min(leftMs, LOOK_MS), signal);
      if (signal.aborted) return;
      const changed = await this.#handler.subscription.isSocketChanged();
      const nowMs = this.#clock.monotonic();
      if (!changed || nowMs - this.#heededAtMs < HEED_AGAIN_MS) continue;
      this.#heededAtMs = nowMs;
      this.#startAnew();
      return;
    }
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
