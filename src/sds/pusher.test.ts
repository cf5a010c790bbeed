import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../lib/clock.ts';
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
    while (seen.told < count) {
      const sum = seen.looked + seen.told;
      // The end of one row and the beginning of the next may share a turn.
      assert.ok(sum - before <= 2 * mostAtOnce + 1, `${sum - before} in one turn`);
      before = sum;
      turns += 1;
      await nextTurn();
    }
    await done.promise;

    assert.ok(turns > count / mostAtOnce, `${turns} turns`);
    pusher.stop();
  });
}
