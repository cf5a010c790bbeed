import type { Clock, Timer } from '../lib/clock.ts';
import { LONGEST_TIMER_MS } from '../lib/clock.ts';
import { createBackoff, type Backoff } from '../lib/backoff.ts';
import { err, type Result } from '../lib/result.ts';
import type { CredentialProblem, CredentialProblemCode } from '../telemetry/log/credential-records.ts';

/** A bearer token. */
export interface Token {
  /** Visible ASCII. Never logged. */
  readonly value: string;
  /** Wall time, milliseconds since 1970. */
  readonly expiresAtMs: number;
}

/** Gives a new token. Never rejects. */
export type TokenFetch = (signal: AbortSignal) => Promise<Result<Token, CredentialProblem>>;

export interface HeldTokenOptions {
  readonly fetch: TokenFetch;
  readonly clock: Clock;
  /** Uniform in [0, 1): jitter. */
  readonly random: () => number;
  /** A fetch is over. `nextInMs` is when the next one is due. */
  readonly fetched: (outcome: Result<{ readonly expiresAtMs: number }, CredentialProblem>, nextInMs: number) => void;
}

/** How long a request waits for a token at most. */
export const MAX_WAIT_MS = 5000;
/** The share of what is left of a token's life at which the next one is fetched, and how much of it is left to chance. */
const RENEWAL = 0.5;
const JITTER = 0.1;
/** What of its life a token is not used any more, so that it does not expire on its way, and the most that this may be. */
const MARGIN = 0.1;
const MAX_MARGIN_MS = 2000;
/** One that is used for less is as good as expired: it would be fetched again and again, as fast as it comes. */
const MIN_USE_MS = 250;
const RETRY = { initialMs: 1000, maxMs: 30_000 };

/** What is to be expected while the agent begins, too. */
const OF_START: ReadonlySet<CredentialProblemCode> = new Set(['identity_not_ready', 'agent_unavailable', 'not_entitled', 'bad_svid']);

interface Held {
  readonly token: Token;
  /** Wall and monotonic time until which it is used: whichever of the clocks is set or stands still, it is not used for longer. */
  readonly untilMs: number;
  readonly untilMonotonicMs: number;
}

/**
 * One token that is renewed ahead of its end, in the background, by one fetch at a time. An expired one is never given out, nor one that was
 * withdrawn.
 */
export class HeldToken {
  readonly #options: HeldTokenOptions;
  readonly #backoff: Backoff;
  readonly #waiting = new Set<(problem: CredentialProblem | undefined) => void>();
  #held: Held | undefined;
  #problem: CredentialProblem | undefined = { reason: 'identity_not_ready', detail: 'no identity has come yet' };
  #flight: AbortController | undefined;
  #timer: Timer | undefined;
  #nextAtMs: number | undefined;
  /** Monotonic time until which requests wait although none could be fetched: it has only just begun. */
  #waitsUntilMs = -Infinity;
  #isStopped = false;

  constructor(options: HeldTokenOptions) {
    this.#options = options;
    this.#backoff = createBackoff({ ...RETRY, random: options.random });
  }

  /** The first one is fetched at `retry`, or when requests have waited for it for as long as they may; it goes on until `stop`. */
  start(): void {
    this.#waitsUntilMs = this.#options.clock.monotonic() + MAX_WAIT_MS;
    this.#plan(MAX_WAIT_MS);
  }

  stop(): void {
    this.#isStopped = true;
    this.#timer?.cancel();
    this.#flight?.abort();
    this.#held = undefined;
  }

  /** One that is valid now: the same object for as long as it is the same token. */
  current(): Token | undefined {
    const held = this.#held;
    if (held === undefined) return undefined;
    const { clock } = this.#options;
    return clock.monotonic() < held.untilMonotonicMs && clock.now() < held.untilMs ? held.token : undefined;
  }

  get status(): {
    readonly expiresAtMs: number | undefined;
    readonly nextFetchAtMs: number | undefined;
    readonly problem: CredentialProblem | undefined;
  } {
    return {
      expiresAtMs: this.current()?.expiresAtMs,
      nextFetchAtMs: this.#nextAtMs,
      problem: this.#problem,
    };
  }

  /**
   * For a request that finds no valid token: `done` is told once why there is none, or undefined if there is one now. Who comes while the fetch is
   * put off after failures is told so at once; in the first moments after the start not if the agent may be to blame.
   */
  wait(done: (problem: CredentialProblem | undefined) => void): { abort(): void } {
    const { clock } = this.#options;
    // It has run out before its renewal was due: the machine slept, or the clock was set.
    if (this.#flight === undefined && this.#problem === undefined) this.#fetch();
    const leftMs = this.#waitsUntilMs - clock.monotonic();
    if (this.#flight === undefined && this.#problem !== undefined && !this.#isStarting(this.#problem)) {
      done(this.#problem);
      return { abort: () => undefined };
    }
    const leave = (): void => {
      timer.cancel();
      this.#waiting.delete(told);
    };
    const told = (problem: CredentialProblem | undefined): void => {
      leave();
      done(problem);
    };
    const timer = clock.after(this.#flight === undefined ? leftMs : MAX_WAIT_MS, () =>
      told(this.#problem ?? { reason: 'timeout', detail: `no token came within ${MAX_WAIT_MS} ms` }),
    );
    this.#waiting.add(told);
    return { abort: leave };
  }

  /** What kept it from being fetched may be over: it is asked for at once if none is held. */
  retry(): void {
    if (this.current() === undefined) this.#fetch();
  }

  /** Another one is to take its place soon: what vouched for this one has changed. */
  renew(): void {
    if (this.#flight === undefined) this.#plan(1000 * this.#options.random());
  }

  /** It is not ours any more. */
  withdraw(problem: CredentialProblem): void {
    this.#held = undefined;
    this.#flight?.abort();
    this.#flight = undefined;
    this.#failed(problem);
  }

  #fetch(): void {
    if (this.#flight !== undefined || this.#isStopped) return;
    this.#timer?.cancel();
    this.#nextAtMs = undefined;
    const flight = new AbortController();
    this.#flight = flight;
    void this.#finish(flight);
  }

  async #finish(flight: AbortController): Promise<void> {
    const outcome = await this.#options
      .fetch(flight.signal)
      .catch(() => err<CredentialProblem>({ reason: 'broken', detail: 'it could not be asked for, by a mistake of ours' }));
    // It was given up.
    if (this.#flight !== flight || this.#isStopped) return;
    this.#flight = undefined;
    if (outcome.ok) this.#take(outcome.value);
    else this.#failed(outcome.error);
  }

  #take(token: Token): void {
    const { clock, random, fetched } = this.#options;
    const { expiresAtMs } = token;
    const leftMs = expiresAtMs - clock.now();
    const usedMs = leftMs - Math.min(leftMs * MARGIN, MAX_MARGIN_MS);
    if (!(usedMs > MIN_USE_MS)) return this.#failed({ reason: 'expired', detail: 'the token that came had expired already' });
    this.#problem = undefined;
    this.#waitsUntilMs = -Infinity;
    this.#backoff.reset();
    this.#held = { token, untilMs: clock.now() + usedMs, untilMonotonicMs: clock.monotonic() + usedMs };
    const nextInMs = leftMs * (RENEWAL + JITTER * (random() - 0.5));
    this.#plan(nextInMs);
    fetched({ ok: true, value: { expiresAtMs } }, nextInMs);
    this.#tell(undefined);
  }

  #failed(problem: CredentialProblem): void {
    this.#problem = problem;
    const nextInMs = this.#backoff.next();
    this.#plan(nextInMs);
    this.#options.fetched(err(problem), nextInMs);
    if (!this.#isStarting(problem) && this.current() === undefined) this.#tell(problem);
  }

  /** Whether it may be because everything has only just begun. */
  #isStarting({ reason }: CredentialProblem): boolean {
    return OF_START.has(reason) && this.#options.clock.monotonic() < this.#waitsUntilMs;
  }

  #tell(problem: CredentialProblem | undefined): void {
    // Whoever is told may wait anew: not in this round.
    const round = new Set(this.#waiting);
    for (const told of round) if (this.#waiting.has(told)) told(problem);
  }

  #plan(inMs: number): void {
    const { clock } = this.#options;
    this.#timer?.cancel();
    this.#nextAtMs = clock.now() + inMs;
    const dueMs = clock.monotonic() + inMs;
    const look = (): void => {
      const leftMs = dueMs - clock.monotonic();
      if (leftMs <= 0) this.#fetch();
      else this.#timer = clock.after(Math.min(leftMs, LONGEST_TIMER_MS), look);
    };
    this.#timer = clock.after(Math.min(inMs, LONGEST_TIMER_MS), look);
  }
}
