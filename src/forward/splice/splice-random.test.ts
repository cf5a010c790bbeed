import assert from 'node:assert/strict';
import { test } from 'node:test';
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
import { pickFrom, RandomSide } from '../../../test/support/http/random-http2-side.ts';
import { fateOf, RandomSplice, RUNS, SEED } from '../../../test/support/http/random-splice.ts';

const seen = { forwarded: 0, answered: 0, denied: 0, moved: 0, switched: 0 };

/** One connection to which anything happens in any order; then it is dropped, and must have left nothing behind. */
async function run(seed: number): Promise<void> {
  const fate = fateOf(seed);
  const { random, chance } = fate;
  const pick = <T>(list: readonly T[]): T => pickFrom(random, list);
  const applications: RandomSide[] = [];
  const splice = new RandomSplice(fate, {
    fewFiles: 0.1,
    opened() {
      const application = new RandomSide(random, true);
      applications.push(application);
      const initial = chance(0.7) ? [] : [[4, pick([0, 10, 100_000])] as const];
      const connects = chance(0.7) ? [[8, 1] as const] : [];
      application.queue(settings(...initial, ...connects, ...(chance(0.8) ? [] : [[3, pick([0, 1, 2])] as const])));
      return application.connection;
    },
  });
  const { client, session, clock, records, isGood } = splice;

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

  const step = (choice: number): string => {
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
    } else if (choice < 0.973) splice.isAllowed = !splice.isAllowed;
    else clock.advance(pick([100, 3000, 6000, 11_000]));
    return `event ${choice.toFixed(3)}`;
  };

  const check = (): void => {
    for (const { connection, isGone } of applications)
      assert.ok(connection.hasEnded || connection.isAborted || isGone, 'no connection is left');
    const sent = applications.flatMap(({ referee }) => referee.begun.map((stream) => `/${stream}`));
    assert.equal(new Set(sent).size, sent.length, 'no request is sent twice');
    assert.deepEqual(new Set(sent).difference(new Set(splice.targets)), new Set(), 'each request that was sent is told');
  };

  const watch = (): void => {
    for (const side of [client, ...applications]) side.watch();
  };
  await splice.run(random, { step, watch, check });
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
