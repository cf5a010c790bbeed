import { createBackoff, type Backoff } from '../lib/backoff.ts';
import type { Clock } from '../lib/clock.ts';
import type { X509Svid } from '../spiffe/x509-svid.ts';

/** Agents renew at about half of an SVID's life; at two thirds something is wrong, and time remains to mend it. */
const DUE_AFTER_LIFE = 2 / 3;
/** An agent that has nothing newer is not asked more often than this, nor, near the end, much less often. */
const ASK_AGAIN = { initialMs: 5000, maxMs: 60_000 };

/** Says when to ask for an SVID that should have been renewed by now. */
export class Ageing {
  readonly #clock: Clock;
  readonly #backoff: Backoff;
  #dueAtMs = Number.POSITIVE_INFINITY;
  #notBeforeMonotonicMs = 0;

  constructor(clock: Clock, random: () => number) {
    this.#clock = clock;
    this.#backoff = createBackoff({ ...ASK_AGAIN, random });
  }

  /** Another SVID is held from now on, or none. */
  renewed(svid: X509Svid | undefined): void {
    const leaf = svid?.chain[0];
    this.#dueAtMs =
      leaf === undefined ? Number.POSITIVE_INFINITY : leaf.notBeforeMs + (leaf.notAfterMs - leaf.notBeforeMs) * DUE_AFTER_LIFE;
    if (this.#clock.now() < this.#dueAtMs) this.#backoff.reset();
    // One that arrives aged, as after a start in the middle of an outage, was just given: asking at once would bring nothing.
    this.#notBeforeMonotonicMs = this.#clock.monotonic() + this.#backoff.next();
  }

  /** True if it is time to ask; then not again for a while. */
  isDue(): boolean {
    if (this.#clock.now() < this.#dueAtMs || this.#clock.monotonic() < this.#notBeforeMonotonicMs) return false;
    this.#notBeforeMonotonicMs = this.#clock.monotonic() + this.#backoff.next();
    return true;
  }
}
