/** What stands around a spliced connection to which anything happens in any order; then it is dropped, and must have left nothing behind. */
import assert from 'node:assert/strict';
import { connectFailure } from '../../../src/forward/outcome.ts';
import type { Session } from '../../../src/forward/session.ts';
import { forwardSpliced } from '../../../src/forward/splice/splice.ts';
import type { RequestRecord } from '../../../src/telemetry/log/records.ts';
import { FakeClock } from '../fake-clock.ts';
import type { MemoryConnection } from '../memory-connection.ts';
import { forwarderOptions, PEER, verdict } from '../memory-forwarder.ts';
import { createRandom } from '../random.ts';
import { RandomClient, type Chances } from './random-http2-side.ts';

/** `HTTP_RANDOM_RUNS` and `HTTP_RANDOM_SEED` make it longer, or another one. */
export const RUNS = Number(process.env['HTTP_RANDOM_RUNS'] ?? 1000);
export const SEED = Number(process.env['HTTP_RANDOM_SEED'] ?? 1);

const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

type SpliceOptions = Parameters<typeof forwardSpliced>[0];

export interface RandomSpliceOptions {
  /** Of the client's requests, besides those of WebSockets. */
  readonly methods?: readonly string[];
  /** How often no file may be opened. */
  readonly fewFiles: number;
  /** A connection to the application was opened. */
  readonly opened: () => MemoryConnection;
  /** What else the forwarder is given. */
  readonly more?: (limits: SpliceOptions['limits']) => Partial<SpliceOptions>;
}

/** A seed, and what follows from it. */
export interface Fate {
  readonly seed: number;
  readonly random: Chances;
  readonly chance: (share: number) => boolean;
}

export function fateOf(seed: number): Fate {
  const random = createRandom(seed);
  return { seed, random, chance: (share) => random() < share };
}

/** A spliced connection between a client that does anything and applications that the test plays. */
export class RandomSplice {
  readonly clock = new FakeClock();
  readonly records: RequestRecord[] = [];
  readonly client: RandomClient;
  readonly session: Session;
  /** Only what peers do that mean well. */
  readonly isGood: boolean;
  isAllowed: boolean;
  readonly #seed: number;
  readonly #chance: (share: number) => boolean;
  readonly #steps: string[] = [];
  /** Connections that are being opened. */
  readonly #attempts: (() => void)[] = [];
  readonly #opened: () => MemoryConnection;
  #done = 0;
  #files = 0;

  constructor({ seed, random, chance }: Fate, options: RandomSpliceOptions) {
    this.#seed = seed;
    this.#chance = chance;
    this.#opened = options.opened;
    this.isAllowed = chance(0.95);
    this.isGood = chance(0.6);
    this.client = new RandomClient(random, { isGood: this.isGood, methods: options.methods ?? ['GET'], connects: true });
    const shared = forwarderOptions(() => !this.isAllowed);
    this.session = shared.session;
    if (chance(0.05)) this.session.denied = 'not_allowed';
    const limits = { ...shared.limits, minBodyBytesPerSecond: 240 };
    forwardSpliced({
      ...shared,
      downstream: this.client.connection,
      clock: this.clock,
      limits,
      ...options.more?.(limits),
      maxConcurrentStreams: 5,
      upgrades: chance(0.5) ? [] : undefined,
      idleTimeoutMs: chance(0.5) ? undefined : 15_000,
      greetingTimeoutMs: 5000,
      judge: () => verdict(PEER, this.isAllowed),
      files: {
        take: (count) => {
          if (chance(options.fewFiles)) return false;
          this.#files += count;
          return true;
        },
        give: (count) => (this.#files -= count),
        held: 0,
      },
      open: (tell) => this.#open(tell),
      faulted: () => undefined,
      requestFinished: (record) => this.records.push(record),
      broken: () => undefined,
      done: () => this.#done++,
    });
  }

  #open(tell: Parameters<SpliceOptions['open']>[0]): ReturnType<SpliceOptions['open']> {
    const fail = (): void => tell({ ok: false, failure: connectFailure('the application', 'ECONNREFUSED', 'refused') });
    if (this.#chance(0.05)) {
      fail();
      return { abort: () => assert.fail('given up after it was told') };
    }
    let isOver = false;
    this.#attempts.push(() => {
      if (isOver) return;
      isOver = true;
      if (this.#chance(0.05)) fail();
      else tell({ ok: true, connection: this.#opened() });
    });
    return {
      abort() {
        assert.ok(!isOver, 'given up after it was told');
        isOver = true;
      },
    };
  }

  /** The targets of the requests that it told of. */
  get targets(): string[] {
    return this.records.map(({ target }) => target).filter((target) => target !== '');
  }

  /**
   * Some steps in any order: `step` is one of the test, by a choice from 0.5 to 1, and says what it was; `watch` comes after each. Then it
   * is dropped, if it is not over, and `check` has what is special to the test.
   */
  async run(
    random: Chances,
    { step, watch, check }: { readonly step: (choice: number) => string; readonly watch: () => void; readonly check: () => void },
  ): Promise<void> {
    try {
      for (let left = 10 + Math.floor(random() * 200); left > 0; left--) {
        if (this.#attempts.length > 0 && this.#chance(0.3)) {
          this.#attempts.shift()?.();
          this.#steps.push('connects');
        } else {
          const choice = random();
          this.#steps.push(this.#common(choice) ?? step(choice));
        }
        if (this.#chance(0.7)) await settle();
        watch();
      }
      await this.#end();
      assert.equal(this.#done, 1, 'it is over once');
      assert.equal(this.clock.armed, 0, 'no timer is left');
      assert.equal(this.#files, 0, 'no file is left');
      const { targets } = this;
      assert.equal(new Set(targets).size, targets.length, 'no request is told twice');
      check();
    } catch (cause) {
      throw new Error(`${String(cause)}\n${this.#story()}`, { cause });
    }
  }

  /** What the client does by some choices; others are the test's. */
  #common(choice: number): string | undefined {
    if (choice < 0.35) return this.client.step();
    if (choice >= 0.5) return undefined;
    this.client.say();
    return 'client says';
  }

  async #end(): Promise<void> {
    for (const attempt of this.#attempts) attempt();
    await settle();
    if (this.#done === 0) this.session.drop();
    for (let turn = 0; turn < 5; turn++) await settle();
    this.clock.advance(20_000);
    for (let turn = 0; turn < 3; turn++) await settle();
    this.clock.advance(20_000);
    await settle();
  }

  #story(): string {
    const told = this.records.map(({ target, result, detail, retries }) => [target, result, detail, retries]);
    return `seed ${this.#seed}\n${this.#steps.join('\n')}\n${JSON.stringify(told)}`;
  }
}
