import type { IdentitySnapshot } from '../identity/snapshot.ts';
import type { Clock, Timer } from '../lib/clock.ts';
import type { ManagerEvents } from '../telemetry/events/manager-events.ts';
import { statusLine } from './status.ts';
import type { Tell } from './notify.ts';

/** What is told of. */
export interface Watched {
  identity(): IdentitySnapshot | undefined;
  /** The names of the checks that fail and block. */
  notReady(): readonly string[];
}

export interface ManagerOptions {
  readonly tell: Tell;
  readonly clock: Clock;
  readonly events: ManagerEvents;
  readonly watched: Watched;
  /** Undefined: nobody waits for a sign of life. */
  readonly watchdogMs: number | undefined;
}

/** How often it is looked what there is to tell. */
const LOOK_EVERY_MS = 200;
/** Without these nobody is served, whatever else is well. */
const VITAL: ReadonlySet<string> = new Set(['self_test', 'listeners']);

/**
 * Tells a service manager how we are (sd_notify(3)): READY once everything is there that blocks readiness, the status as it changes, RELOADING
 * and READY again, STOPPING. Signs of life are given as long as the event loop runs, which gives them, and listeners are bound.
 */
export class Manager {
  readonly #options: ManagerOptions;
  #isReady = false;
  #isReloading = false;
  #isStopping = false;
  #status = '';
  #last: Promise<void> = Promise.resolve();
  #lookTimer: Timer | undefined;
  #watchdogTimer: Timer | undefined;

  constructor(options: ManagerOptions) {
    this.#options = options;
  }

  /** Everything is bound. */
  started(): void {
    this.#look();
    this.#giveSign();
  }

  /** `nowUsec` is the monotonic time of the system: the manager compares it with that of its own request. */
  reloading(nowUsec: bigint): void {
    if (!this.#isReady || this.#isStopping) return;
    this.#isReloading = true;
    this.#tell('RELOADING=1', `MONOTONIC_USEC=${nowUsec}`);
  }

  /** Whether or not there was something to take over. */
  reloaded(): void {
    if (this.#isReloading && !this.#isStopping) this.#tell('READY=1');
    this.#isReloading = false;
  }

  stopping(): void {
    this.#isStopping = true;
    this.#lookTimer?.cancel();
    this.#tell('STOPPING=1', 'STATUS=draining');
  }

  /** Nothing more is told. Resolves when what was is out. */
  async stopped(): Promise<void> {
    this.#watchdogTimer?.cancel();
    await this.#last;
  }

  #look(): void {
    const { watched, clock } = this.#options;
    const failing = watched.notReady();
    const status = statusLine(watched.identity(), failing);
    const becomesReady = !this.#isReady && failing.length === 0;
    if (becomesReady || status !== this.#status) this.#tell(...(becomesReady ? ['READY=1'] : []), `STATUS=${status}`);
    this.#isReady ||= becomesReady;
    this.#status = status;
    this.#lookTimer = clock.after(LOOK_EVERY_MS, () => this.#look());
  }

  #giveSign(): void {
    const { watchdogMs, watched, clock } = this.#options;
    if (watchdogMs === undefined) return;
    // While it drains, listeners are closed on purpose.
    if (this.#isStopping || !watched.notReady().some((check) => VITAL.has(check))) this.#tell('WATCHDOG=1');
    // Half of the time, as the manager asks for.
    this.#watchdogTimer = clock.after(watchdogMs / 2, () => this.#giveSign());
  }

  #tell(...assignments: readonly string[]): void {
    const { tell, events } = this.#options;
    this.#last = tell(...assignments).then((told) => (told.ok ? events.told() : events.notTold(told.error)));
  }
}
