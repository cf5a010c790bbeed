import type { Clock } from '../lib/clock.ts';
import type { SdsRound } from '../telemetry/log/sds-records.ts';
import type { Catalogue } from './secrets.ts';
import type { XdsStream } from './stream.ts';

export interface PusherDeps {
  readonly clock: Clock;
  readonly streams: () => Iterable<XdsStream>;
  readonly catalogue: () => Catalogue | undefined;
  /** A round in which something was sent. */
  readonly pushed: (round: SdsRound) => void;
}

/** Names that are looked at before others get their turn: the same thread moves the traffic of the proxy. */
const NAMES_PER_TURN = 2048;
/** What there is to do for a stream besides, in names. */
const NAMES_A_STREAM = 31;
/** Snapshots that come closer than this to each other become one round. */
const REST_MS = 100;
/** How long certificates wait for bundles to go out first, whoever does not read them. */
const HEAD_START_MS = 50;

/** Rounds in a row that a newer catalogue may cut short. */
const MAX_OVERTAKEN = 3;

/** Bundles first, over all streams: whoever is shown a certificate by a new authority has been told of that before. */
type Stage = 'bundles' | 'both' | 'certificates';

/** Tells all streams of a new catalogue, in rounds: one at a time, and the newest catalogue in each. */
export class Pusher {
  readonly #deps: PusherDeps;
  #isRunning = false;
  #isStopped = false;
  /** Since when streams have not been told; undefined if they have. */
  #changedAtMs: number | undefined;
  #restUntilMs = -Infinity;
  /** From a new catalogue until the bundles of it have gone out. */
  #holdsCertificates = false;
  readonly #waiting = new Set<() => void>();
  /** Rounds in a row that stopped short of certificates for a newer catalogue. */
  #overtaken = 0;

  constructor(deps: PusherDeps) {
    this.#deps = deps;
  }

  /** Whoever would send a certificate for another reason than a round has to wait: bundles of the same catalogue go out first. */
  get holdsCertificates(): boolean {
    return this.#holdsCertificates;
  }

  /** Resolves when certificates are held back no longer; that is a moment. */
  released(): Promise<void> {
    return this.#holdsCertificates ? new Promise((resolve) => this.#waiting.add(resolve)) : Promise.resolve();
  }

  /** The catalogue is another one. */
  changed(): void {
    if (this.#isStopped) return;
    this.#changedAtMs ??= this.#deps.clock.monotonic();
    this.#holdsCertificates = true;
    if (this.#isRunning) return;
    this.#isRunning = true;
    // A mistake in here ends the process, as any of ours does.
    void this.#run();
  }

  stop(): void {
    this.#isStopped = true;
    this.#release();
  }

  #release(): void {
    this.#holdsCertificates = false;
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }

  async #run(): Promise<void> {
    const { clock } = this.#deps;
    try {
      while (this.#changedAtMs !== undefined && !this.#isStopped) {
        const waitMs = this.#restUntilMs - clock.monotonic();
        if (waitMs > 0) await new Promise<void>((resolve) => clock.after(waitMs, resolve));
        const sinceMs = this.#changedAtMs;
        this.#changedAtMs = undefined;
        this.#restUntilMs = clock.monotonic() + REST_MS;
        await this.#round(sinceMs);
      }
    } finally {
      this.#isRunning = false;
    }
  }

  async #round(sinceMs: number): Promise<void> {
    const round = { streams: 0, secrets: 0, bytes: 0 };
    const count = (sent: { readonly secrets: number; readonly bytes: number }): void => {
      round.streams += 1;
      round.secrets += sent.secrets;
      round.bytes += sent.bytes;
    };
    const writes: Promise<void>[] = [];
    const tell = async (stage: Stage, streams: readonly XdsStream[]): Promise<void> => {
      const ofStage: Promise<void>[] = [];
      const turns = new Turns();
      for (const stream of streams) {
        if (turns.isOver(stream)) await nextTurn();
        if (this.#isStopped || (stage !== 'bundles' && this.#isOvertaken())) break;
        const sent = stream.update();
        if (sent !== undefined) ofStage.push(sent.then(count));
      }
      writes.push(...ofStage);
      if (ofStage.length > 0 && stage !== 'certificates') await this.#atMost(HEAD_START_MS, Promise.all(ofStage));
    };

    await tell('bundles', (await this.#plan()).bundles);
    if (!this.#isOvertaken()) {
      this.#release();
      // Once more: who came meanwhile, and would have been sent a certificate, waits for it.
      const { both, certificates } = await this.#plan();
      await tell('both', both);
      await tell('certificates', certificates);
    }
    if (this.#isOvertaken()) {
      this.#overtaken += 1;
      // Some have waited since then.
      this.#changedAtMs = sinceMs;
    } else this.#overtaken = 0;
    if (writes.length === 0 || this.#isStopped) return;
    // A client that does not read is not waited for: this measures those that do.
    await this.#atMost(REST_MS, Promise.all(writes));
    const { clock, catalogue } = this.#deps;
    this.#deps.pushed({ generation: catalogue()?.generation ?? 0, ...round, durationMs: clock.monotonic() - sinceMs });
  }

  /** There is a newer catalogue, whose bundles go before its certificates; but not for ever, where there is always a newer one. */
  #isOvertaken(): boolean {
    return this.#changedAtMs !== undefined && this.#overtaken < MAX_OVERTAKEN;
  }

  async #plan(): Promise<Record<Stage, XdsStream[]>> {
    const stages = { bundles: [] as XdsStream[], both: [] as XdsStream[], certificates: [] as XdsStream[] };
    const turns = new Turns();
    // Of those that come meanwhile, each sees to itself: to follow them might never end.
    const open = [...this.#deps.streams()];
    for (const stream of open) {
      if (turns.isOver(stream)) await nextTurn();
      if (this.#isStopped) break;
      const due = stream.due();
      if (due !== 'none') stages[due].push(stream);
    }
    return stages;
  }

  #atMost(limitMs: number, work: Promise<unknown>): Promise<void> {
    return new Promise((resolve) => {
      const timer = this.#deps.clock.after(limitMs, resolve);
      void work.finally(() => timer.cancel()).then(() => resolve());
    });
  }
}

/** Shares a long row of streams out over turns of the event loop. */
class Turns {
  #names = 0;

  isOver({ state }: XdsStream): boolean {
    this.#names += NAMES_A_STREAM + state.names.size;
    if (this.#names <= NAMES_PER_TURN) return false;
    this.#names = 0;
    return true;
  }
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
