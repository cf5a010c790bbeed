import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { catalogueOf } from '../../test/support/secrets.ts';
import { systemClock } from '../lib/clock.ts';
import type { SdsRound } from '../telemetry/log/sds-records.ts';
import { Pusher } from './pusher.ts';
import { NEW_STREAM } from './stream-state.ts';
import type { XdsStream } from './stream.ts';

const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Streams that are each subscribed to so many names, and what was done for them. */
function manyStreams(count: number, namesEach: number) {
  const seen = { looked: 0, told: 0 };
  const names = new Set(Array.from({ length: namesEach }, (_, index) => `name-${index}`));
  const streams = Array.from({ length: count }, (_, id): XdsStream => {
    let isTold = false;
    return {
      ref: { id, connection: 1, protocol: 'sotw', aggregated: false, node: '', userAgent: '' },
      state: { ...NEW_STREAM, names },
      openedAtMs: 0,
      form: 'spiffe',
      due() {
        seen.looked += 1;
        return isTold ? 'none' : 'certificates';
      },
      update() {
        seen.told += 1;
        isTold = true;
        return Promise.resolve({ secrets: 1, bytes: 1 });
      },
      end: () => undefined,
    };
  });
  return { streams, seen };
}

for (const [count, namesEach, mostAtOnce] of [
  [100, 1000, 2],
  [1000, 1, 64],
] as const) {
  test(`${count} streams of ${namesEach} names are looked at and told in turns, between which others get theirs`, async () => {
    const { streams, seen } = manyStreams(count, namesEach);
    const done = Promise.withResolvers<void>();
    const pusher = new Pusher({ clock: systemClock, streams: () => streams, catalogue: () => undefined, pushed: () => done.resolve() });

    pusher.changed();
    let [turns, before] = [0, 0];
    for (let isOver = false; !isOver; turns += 1) {
      isOver = seen.told === count;
      const sum = seen.looked + seen.told;
      // The end of one row and the beginning of the next may share a turn.
      assert.ok(sum - before <= 2 * mostAtOnce + 1, `${sum - before} in one turn`);
      before = sum;
      await nextTurn();
    }
    await done.promise;

    const rows = 3;
    assert.ok(turns > (rows * count) / mostAtOnce - rows && turns < (rows * count) / mostAtOnce + 10, `${turns} turns`);
    pusher.stop();
  });
}

type Kind = 'bundles' | 'both' | 'certificates';

/** A stream of which the test says what it is due and when its client has read. */
class TestStream implements XdsStream {
  readonly ref = { id: 1, connection: 1, protocol: 'sotw', aggregated: false, node: '', userAgent: '' } as const;
  state = NEW_STREAM;
  readonly openedAtMs = 0;
  readonly form = 'spiffe';
  readonly name: string;
  readonly #told: string[];
  kind: Kind | 'none' = 'none';
  whenTold: () => void = () => undefined;
  #write: PromiseWithResolvers<void> | undefined;

  constructor(name: string, told: string[]) {
    this.name = name;
    this.#told = told;
  }

  due(): Kind | 'none' {
    return this.kind;
  }

  update() {
    if (this.kind === 'none') return undefined;
    this.kind = 'none';
    this.#told.push(this.name);
    this.whenTold();
    this.#write = Promise.withResolvers();
    return this.#write.promise.then(() => ({ secrets: 2, bytes: 10 }));
  }

  read(): void {
    this.#write?.resolve();
  }

  end(): void {}
}

/** Streams of which nobody is told anything yet, and a clock that the test moves. */
function stage(kinds: Readonly<Record<string, Kind>>) {
  const clock = new FakeClock();
  const told: string[] = [];
  const rounds: SdsRound[] = [];
  const streams = Object.keys(kinds).map((name) => new TestStream(name, told));
  let generation = 0;
  const pusher = new Pusher({
    clock,
    streams: () => streams,
    catalogue: () => catalogueOf({}, generation),
    pushed: (round) => rounds.push(round),
  });
  /** Until all that follows without time has happened. */
  const settle = async (): Promise<void> => {
    for (let turn = 0; turn < 20; turn += 1) await nextTurn();
  };
  return {
    clock,
    told,
    rounds,
    pusher,
    settle,
    stream: (name: string) => streams.find((stream) => stream.name === name) ?? new TestStream('nobody', told),
    async add(name: string, kind: Kind) {
      const stream = new TestStream(name, told);
      stream.kind = kind;
      streams.push(stream);
      await settle();
    },
    /** Another catalogue, in which these streams are due what they are due. */
    async change(...names: readonly string[]) {
      generation += 1;
      for (const stream of streams) {
        const kind = kinds[stream.name];
        if (kind !== undefined && (names.length === 0 || names.includes(stream.name))) stream.kind = kind;
      }
      pusher.changed();
      await settle();
    },
    async read(...names: readonly string[]) {
      for (const stream of streams) if (names.length === 0 || names.includes(stream.name)) stream.read();
      await settle();
    },
    async pass(ms: number) {
      clock.advance(ms);
      await settle();
    },
  };
}

test('the latency of a push is from the snapshot to the last write, and its figures are of all streams', async () => {
  const on = stage({ one: 'certificates', two: 'certificates' });

  await on.change();
  await on.pass(7);
  await on.read('two');
  assert.deepEqual(on.rounds, [], 'one has not read');
  await on.pass(5);
  await on.read('one');

  assert.deepEqual(on.rounds, [{ generation: 1, streams: 2, secrets: 4, bytes: 20, durationMs: 12 }]);
  assert.equal(on.clock.armed, 0);
});

test('the latency of a push counts what its snapshot waited for the rest after the one before', async () => {
  const on = stage({ one: 'certificates', two: 'certificates' });
  await on.change();
  await on.read();
  await on.pass(30);

  await on.change();
  await on.pass(20);
  await on.change();
  assert.deepEqual(on.told, ['one', 'two'], 'not yet: they come closer than a tenth of a second');
  await on.pass(50);
  await on.pass(3);
  await on.read();

  assert.deepEqual(on.told, ['one', 'two', 'one', 'two'], 'two snapshots are one round');
  assert.deepEqual(on.rounds[1], { generation: 3, streams: 2, secrets: 4, bytes: 20, durationMs: 73 });
});

test('a client that does not read is not waited for: the latency of a push is of those that do, a tenth of a second at most', async () => {
  const on = stage({ reads: 'certificates', sleeps: 'certificates' });

  await on.change();
  await on.read('reads');
  await on.pass(99);
  assert.deepEqual(on.rounds, []);
  await on.pass(1);

  assert.deepEqual(on.rounds, [{ generation: 1, streams: 1, secrets: 2, bytes: 10, durationMs: 100 }]);
  await on.change('reads');
  await on.read('reads');
  assert.equal(on.rounds.length, 2);
});

test('a round in which nobody is due anything is none', async () => {
  const on = stage({});

  await on.change();

  assert.deepEqual(on.rounds, []);
  assert.equal(on.pusher.holdsCertificates, false);
});

test('bundles go out first, then what has both, then certificates, each when the one before is read', async () => {
  const on = stage({ certificates: 'certificates', both: 'both', bundles: 'bundles' });
  assert.equal(on.pusher.holdsCertificates, false);

  await on.change();
  assert.deepEqual(on.told, ['bundles']);
  assert.equal(on.pusher.holdsCertificates, true);
  await on.read('bundles');
  assert.deepEqual(on.told, ['bundles', 'both']);
  assert.equal(on.pusher.holdsCertificates, false, 'bundles are out');
  await on.read('both');
  assert.deepEqual(on.told, ['bundles', 'both', 'certificates']);
  await on.read('certificates');

  assert.equal(on.rounds.length, 1);
});

test('whoever does not read a bundle holds certificates up for a twentieth of a second, and no longer', async () => {
  const on = stage({ certificates: 'certificates', both: 'both', bundles: 'bundles' });

  await on.change();
  await on.pass(49);
  assert.deepEqual(on.told, ['bundles']);
  await on.pass(1);
  assert.deepEqual(on.told, ['bundles', 'both']);
  await on.pass(50);
  assert.deepEqual(on.told, ['bundles', 'both', 'certificates']);
});

test('whoever comes while bundles go out, and waits for a certificate, gets it in the same round', async () => {
  const on = stage({ bundles: 'bundles' });
  await on.change();
  const released = on.pusher.released().then(() => on.told.push('released'));

  await on.add('late', 'certificates');
  assert.deepEqual(on.told, ['bundles']);
  await on.read('bundles');

  assert.deepEqual(on.told, ['bundles', 'released', 'late']);
  await released;
  await on.pusher.released();
});

test('a newer catalogue goes before the certificates of an older one, three times in a row at most, and its latency is from the first', async () => {
  const on = stage({ certificates: 'certificates', bundles: 'bundles' });
  await on.change();
  for (let newer = 0; newer < 3; newer += 1) {
    await on.change();
    await on.read('bundles');
    assert.ok(!on.told.includes('certificates'), `${newer}`);
    assert.equal(on.pusher.holdsCertificates, true);
    await on.pass(100);
  }
  assert.deepEqual(on.told, ['bundles', 'bundles', 'bundles', 'bundles']);

  await on.change();
  await on.read('bundles');
  assert.deepEqual(on.told.slice(4), ['certificates'], 'though there is a newer one again');
  await on.read('certificates');
  assert.deepEqual(
    on.rounds.map(({ durationMs }) => durationMs),
    [0, 100, 200, 300],
  );

  // That was once; from then on it is three times again.
  await on.pass(100);
  await on.read('bundles');
  await on.change();
  on.told.length = 0;
  for (let newer = 0; newer < 3; newer += 1) {
    await on.pass(100);
    await on.change();
    await on.read('bundles');
  }
  assert.deepEqual(on.told, ['bundles', 'bundles', 'bundles']);
});

test('a stop tells nobody anything more, and lets go who waits', async () => {
  const on = stage({ certificates: 'certificates', bundles: 'bundles' });
  await on.change();
  const released = on.pusher.released();

  on.pusher.stop();
  await released;
  await on.read();
  await on.change();
  await on.pass(1000);

  assert.deepEqual(on.told, ['bundles']);
  assert.deepEqual(on.rounds, []);
  assert.equal(on.pusher.holdsCertificates, false);
});

test('a stop ends the rest after a round as well', async () => {
  const on = stage({ certificates: 'certificates' });
  await on.change();
  await on.read();
  await on.change();

  on.pusher.stop();
  await on.pass(1000);

  assert.deepEqual(on.told, ['certificates']);
});

/** So many streams, of which the last is of another kind, and each with so many names that two are a turn's work. */
function longRow(kind: Kind, last: Kind = kind) {
  const on = stage(Object.fromEntries(Array.from({ length: 40 }, (_, index) => [`${index}`, index === 39 ? last : kind])));
  const names = new Set(Array.from({ length: 1000 }, (_, index) => `${index}`));
  for (let index = 0; index < 40; index += 1) on.stream(`${index}`).state = { ...NEW_STREAM, names };
  /** Until so many have been told. */
  const until = async (count: number): Promise<void> => {
    while (on.told.length < count) await nextTurn();
  };
  /** All that follows without time, of a row this long. */
  const settle = async (): Promise<void> => {
    for (let round = 0; round < 10; round += 1) await on.settle();
  };
  return { ...on, until, settle };
}

test('a stop in the middle of a row is the end of it', async () => {
  const on = longRow('certificates');
  void on.change();
  await on.until(4);

  on.pusher.stop();
  await on.settle();

  assert.ok(on.told.length <= 6, `${on.told.length} told`);
  assert.deepEqual(on.rounds, []);
});

test('a newer catalogue in the middle of a row of certificates is the end of it; one in the middle of a row of bundles is not', async () => {
  for (const [kind, isCut] of [
    ['bundles', false],
    ['both', true],
    ['certificates', true],
  ] as const) {
    const on = longRow(kind);
    void on.change();
    await on.until(4);

    on.pusher.changed();
    await on.settle();
    assert.equal(on.told.length < 40, isCut, `${on.told.length} ${kind} told`);
    await on.read();
    await on.pass(100);
    await on.settle();
    assert.equal(on.told.length, 40, kind);
    assert.equal(new Set(on.told).size, 40);
    on.pusher.stop();
  }
});

test('whoever was told in another way in the meantime is passed over', async () => {
  const on = stage({ one: 'bundles', two: 'bundles', three: 'certificates', four: 'certificates' });
  on.stream('one').whenTold = () => (on.stream('two').kind = 'none');
  on.stream('three').whenTold = () => (on.stream('four').kind = 'none');

  await on.change();
  await on.read('one');
  await on.read('three');

  assert.deepEqual(on.told, ['one', 'three']);
  assert.equal(on.rounds[0]?.streams, 2);
});
