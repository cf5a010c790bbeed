import type { HttpLimits } from '../config/config.ts';
import type { Clock, Timer } from '../lib/clock.ts';

/** What has taken too long. */
export interface DeadlineSink {
  headLate(): void;
  /** The body comes slower than `minBodyBytesPerSecond`. */
  bodyLate(): void;
  responseLate(): void;
}

/** How long a body may take to become as fast as it must be. */
const BODY_GRACE_MS = 5000;

/**
 * The times of one connection. A timer is looked at again when it has run out, and set for what is left: one serves many
 * requests, which so cost no timer each.
 */
export class Deadlines {
  readonly #sink: DeadlineSink;
  readonly #clock: Clock;
  readonly #limits: HttpLimits;
  #head: Timer | undefined;
  #body: Timer | undefined;
  #response: Timer | undefined;
  #waitingSinceMs: number | undefined;
  #bodySinceMs: number | undefined;
  /** Bytes of the body under way that came since `#bodySinceMs`. */
  #bodyBytes = 0;
  #isHeldUp = false;
  /** At some time since `#bodySinceMs`. */
  #wasHeldUp = false;

  constructor(sink: DeadlineSink, clock: Clock, limits: HttpLimits) {
    this.#sink = sink;
    this.#clock = clock;
    this.#limits = limits;
  }

  /** A head has begun, and its time runs if it does not yet. */
  headBegun(limitMs = this.#limits.headTimeoutMs): void {
    this.#head ??= this.#clock.after(limitMs, () => {
      this.#head = undefined;
      this.#sink.headLate();
    });
  }

  headEnded(): void {
    this.#head?.cancel();
    this.#head = undefined;
  }

  bodyRead(bytes: number): void {
    this.#bodyBytes += bytes;
  }

  /** More of a body is to come. */
  bodyAwaited(): void {
    if (this.#bodySinceMs !== undefined || this.#limits.minBodyBytesPerSecond === undefined) return;
    this.#bodySinceMs = this.#clock.monotonic();
    this.#bodyBytes = 0;
    this.#wasHeldUp = this.#isHeldUp;
    this.#body ??= this.#clock.after(BODY_GRACE_MS, () => this.#checkBody());
  }

  /** Whether the client is not read from at the moment: then it is not to blame. */
  heldUp(isNow: boolean): void {
    this.#isHeldUp = isNow;
    this.#wasHeldUp ||= isNow;
  }

  bodyEnded(): void {
    this.#bodySinceMs = undefined;
  }

  /** The other side takes nothing more of the request: the time for its response runs, if it does not yet. */
  requestStalled(): void {
    if (this.#waitingSinceMs === undefined) this.awaitResponse();
  }

  /** The whole request was sent: the time for its response runs, from now. */
  awaitResponse(): void {
    const { responseTimeoutMs } = this.#limits;
    if (responseTimeoutMs === undefined) return;
    this.#waitingSinceMs = this.#clock.monotonic();
    this.#response ??= this.#clock.after(responseTimeoutMs, () => this.#checkResponse(responseTimeoutMs));
  }

  /** Its head has come, or the other side goes on taking the request. */
  responseBegun(): void {
    this.#waitingSinceMs = undefined;
  }

  /** Nothing is under way any more; what comes next may begin times anew. */
  stop(): void {
    this.headEnded();
    this.bodyEnded();
    this.responseBegun();
  }

  /** Nothing comes next. */
  end(): void {
    this.stop();
    this.#body?.cancel();
    this.#body = undefined;
    this.#response?.cancel();
    this.#response = undefined;
  }

  #checkBody(): void {
    this.#body = undefined;
    const { minBodyBytesPerSecond } = this.#limits;
    if (this.#bodySinceMs === undefined || minBodyBytesPerSecond === undefined) return;
    const lastedMs = this.#clock.monotonic() - this.#bodySinceMs;
    if (lastedMs < BODY_GRACE_MS) {
      this.#body = this.#clock.after(BODY_GRACE_MS - lastedMs, () => this.#checkBody());
      return;
    }
    if (!this.#wasHeldUp && this.#bodyBytes < (minBodyBytesPerSecond * lastedMs) / 1000) {
      this.#sink.bodyLate();
      return;
    }
    this.#bodySinceMs = this.#clock.monotonic();
    this.#bodyBytes = 0;
    this.#wasHeldUp = this.#isHeldUp;
    this.#body = this.#clock.after(BODY_GRACE_MS, () => this.#checkBody());
  }

  #checkResponse(limitMs: number): void {
    this.#response = undefined;
    if (this.#waitingSinceMs === undefined) return;
    const leftMs = this.#waitingSinceMs + limitMs - this.#clock.monotonic();
    if (leftMs > 0) {
      this.#response = this.#clock.after(leftMs, () => this.#checkResponse(limitMs));
      return;
    }
    this.#sink.responseLate();
  }
}
