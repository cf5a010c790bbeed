import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../../test/support/fake-clock.ts';
import {
  DATA,
  END_HEADERS,
  END_STREAM,
  frame,
  GOAWAY,
  HEADERS,
  hpack,
  PING,
  PREFACE,
  RST_STREAM,
  settings,
  uint32,
  WINDOW_UPDATE,
} from '../../../test/support/http/http2-frames.ts';
import { RandomClient, RandomSide } from '../../../test/support/http/random-http2-side.ts';
import { forwarderOptions, verdict } from '../../../test/support/memory-forwarder.ts';
import { createRandom } from '../../../test/support/random.ts';
import { requireSpiffeId } from '../../spiffe/spiffe-id.ts';
import type { RequestRecord } from '../../telemetry/log/records.ts';
import { connectFailure } from '../outcome.ts';
import { forwardSpliced } from './splice.ts';

/** `HTTP_RANDOM_RUNS` and `HTTP_RANDOM_SEED` make it longer, or another one. */
const RUNS = Number(process.env['HTTP_RANDOM_RUNS'] ?? 1000);
const SEED = Number(process.env['HTTP_RANDOM_SEED'] ?? 1);
const PEER = requireSpiffeId('spiffe://example.org/web');
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

const seen = { forwarded: 0, answered: 0, denied: 0, moved: 0, switched: 0 };

/** One connection to which anything happens in any order; then it is dropped, and must have left nothing behind. */
async function run(seed: number): Promise<void> {
  const random = createRandom(seed);
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;
  const chance = (share: number): boolean => random() < share;
  const clock = new FakeClock();
  const steps: string[] = [];
  const records: RequestRecord[] = [];
  const attempts: (() => void)[] = [];
  const applications: RandomSide[] = [];
  let isAllowed = chance(0.95);
  let done = 0;
  let files = 0;
  /** Only what peers do that mean well. */
  const isGood = chance(0.6);
  const client = new RandomClient(random, { isGood, connects: true });
  const options = forwarderOptions(() => !isAllowed);
  const { session } = options;
  if (chance(0.05)) session.denied = 'not_allowed';

  forwardSpliced({
    ...options,
    downstream: client.connection,
    clock,
    limits: { ...options.limits, minBodyBytesPerSecond: 240 },
    maxConcurrentStreams: 5,
    upgrades: chance(0.5) ? [] : undefined,
    idleTimeoutMs: chance(0.5) ? undefined : 15_000,
    greetingTimeoutMs: 5000,
    judge: () => verdict(PEER, isAllowed),
    files: {
      take(count) {
        if (chance(0.1)) return false;
        files += count;
        return true;
      },
      give: (count) => (files -= count),
      held: 0,
    },
    open(tell) {
      const fail = (): void => tell({ ok: false, failure: connectFailure('the application', 'ECONNREFUSED', 'refused') });
      if (chance(0.05)) {
        fail();
        return { abort: () => assert.fail('given up after it was told') };
      }
      let isOver = false;
      attempts.push(() => {
        if (isOver) return;
        isOver = true;
        if (chance(0.05)) {
          fail();
          return;
        }
        const application = new RandomSide(random, true);
        applications.push(application);
        const initial = chance(0.7) ? [] : [[4, pick([0, 10, 100_000])] as const];
        const connects = chance(0.7) ? [[8, 1] as const] : [];
        application.queue(settings(...initial, ...connects, ...(chance(0.8) ? [] : [[3, pick([0, 1, 2])] as const])));
        tell({ ok: true, connection: application.connection });
      });
      return {
        abort() {
          assert.ok(!isOver, 'given up after it was told');
          isOver = true;
        },
      };
    },
    faulted: () => undefined,
    requestFinished: (record) => records.push(record),
    broken: () => undefined,
    done: () => done++,
  });

  const applicationStep = (side: RandomSide): string => {
    side.watch();
    const choice = random();
    const own = answering.get(side) ?? new Map<number, 'asked' | 'begun' | 'over'>();
    answering.set(side, own);
    for (const stream of side.referee.begun) if (!own.has(stream)) own.set(stream, 'asked');
    const live = [...own].filter(([stream, state]) => state !== 'over' && side.referee.streams.get(stream)?.isOver !== true);
    if (choice < 0.7 && live.length > 0) {
      const [stream, state] = pick(live);
      if (state === 'asked') {
        const ends = chance(0.2);
        own.set(stream, ends ? 'over' : 'begun');
        if (chance(0.1)) side.queue(frame(HEADERS, END_HEADERS, stream, hpack([[':status', '103']])));
        side.queue(frame(HEADERS, END_HEADERS | (ends ? END_STREAM : 0), stream, hpack([[':status', '200']])));
        return `application answers ${stream}${ends ? ' and ends' : ''}`;
      }
      const ends = chance(0.5);
      if (ends) own.set(stream, 'over');
      if (ends && chance(0.3)) side.queue(frame(HEADERS, END_HEADERS | END_STREAM, stream, hpack([['grpc-status', '0']])));
      else side.queue(frame(DATA, ends ? END_STREAM : 0, stream, Buffer.alloc(Math.floor(random() * 2000), 'r')));
      return `application goes on with ${stream}${ends ? ' and ends' : ''}`;
    }
    if (choice < 0.75 && live.length > 0) {
      const [stream] = pick(live);
      own.set(stream, 'over');
      side.queue(frame(RST_STREAM, 0, stream, uint32(pick([0, 8, 7]))));
      return `application resets ${stream}`;
    }
    if (choice < 0.87) {
      const stream = pick([0, ...own.keys()]);
      if (stream !== 0 && own.get(stream) === 'over') return 'nothing';
      side.queue(frame(WINDOW_UPDATE, 0, stream, uint32(pick([1, 1000, 100_000]))));
      return `application window on ${stream}`;
    }
    if (choice < 0.92) {
      side.queue(settings([4, pick([0, 100, 65_535])]), frame(PING, 0, 0, Buffer.alloc(8)));
      return 'application settings';
    }
    if (choice < 0.95) {
      side.queue(frame(GOAWAY, 0, 0, uint32(pick([0, ...own.keys(), 2 ** 31 - 1]), 0)));
      return 'application goes away';
    }
    if (isGood) return 'nothing';
    const stream = pick([...own.keys(), 99]);
    side.queue(
      pick([frame(HEADERS, END_HEADERS, stream, hpack([['a', 'b']])), frame(DATA, 0, stream, Buffer.alloc(5)), frame(5, 0, 1), PREFACE]),
    );
    return 'application odd';
  };
  const answering = new Map<RandomSide, Map<number, 'asked' | 'begun' | 'over'>>();

  const step = (): string => {
    if (attempts.length > 0 && chance(0.3)) {
      attempts.shift()?.();
      return 'connects';
    }
    const choice = random();
    if (choice < 0.35) return client.step();
    if (choice < 0.5) {
      client.say();
      return 'client says';
    }
    const side = chance(0.8) ? applications.at(-1) : pick(applications);
    if (choice < 0.7) return side === undefined ? 'nothing' : applicationStep(side);
    if (choice < 0.84) {
      side?.say();
      return 'application says';
    }
    if (choice < 0.94) return 'nothing';
    if (choice < 0.943) {
      side?.leave();
    } else if (choice < 0.95) {
      client.leave();
    } else if (choice < 0.953) session.dismiss('policy', 'not any more');
    else if (choice < 0.956) session.wind();
    else if (choice < 0.96) session.drain({ reason: 'policy', detail: 'drains', endsAtMs: Infinity, mayAsk: true });
    else if (choice < 0.963) session.drop();
    else if (choice < 0.97) {
      if (session.hasDenied()) session.endDenied('policy', 'not any more');
    } else if (choice < 0.973) isAllowed = !isAllowed;
    else clock.advance(pick([100, 3000, 6000, 11_000]));
    return `event ${choice.toFixed(3)}`;
  };

  const story = (): string =>
    `seed ${seed}\n${steps.join('\n')}\n${JSON.stringify(records.map(({ target, result, detail }) => [target, result, detail]))}`;
  try {
    for (let left = 10 + Math.floor(random() * 200); left > 0; left--) {
      steps.push(step());
      if (chance(0.7)) await settle();
      for (const side of [client, ...applications]) side.watch();
    }
    for (const attempt of attempts) attempt();
    await settle();
    if (done === 0) session.drop();
    for (let turn = 0; turn < 5; turn++) await settle();
    clock.advance(20_000);
    for (let turn = 0; turn < 3; turn++) await settle();
    clock.advance(20_000);
    await settle();

    assert.equal(done, 1, 'it is over once');
    assert.equal(clock.armed, 0, 'no timer is left');
    assert.equal(files, 0, 'no file is left');
    for (const { connection, isGone } of applications)
      assert.ok(connection.hasEnded || connection.isAborted || isGone, 'no connection is left');
    const targets = records.map(({ target }) => target).filter((target) => target !== '');
    assert.equal(new Set(targets).size, targets.length, 'no request is told twice');
    const sent = applications.flatMap(({ referee }) => referee.begun.map((stream) => `/${stream}`));
    assert.equal(new Set(sent).size, sent.length, 'no request is sent twice');
    assert.deepEqual(new Set(sent).difference(new Set(targets)), new Set(), 'each request that was sent is told');
  } catch (cause) {
    throw new Error(`${String(cause)}\n${story()}`, { cause });
  }
  for (const { result } of records) {
    if (result === 'forwarded') seen.forwarded++;
    else if (result === 'denied') seen.denied++;
  }
  for (const { target, status } of records) if (status === 200 && target !== '') seen.answered++;
  for (const { method, status, result } of records) if (method === 'CONNECT' && status === 200 && result === 'forwarded') seen.switched++;
  seen.moved += Math.max(applications.length - 1, 0);
}

test(`whatever happens to a connection over HTTP/2 in whatever order, it ends once and leaves nothing behind (${RUNS} runs from seed ${SEED})`, async () => {
  for (let seed = SEED; seed < SEED + RUNS; seed++) await run(seed);
  assert.ok(seen.forwarded > RUNS / 10 && seen.denied > 0 && seen.moved > 0 && seen.switched > RUNS / 200, JSON.stringify(seen));
});
