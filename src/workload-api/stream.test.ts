import assert from 'node:assert/strict';
import { test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { eventually } from '../../test/support/eventually.ts';
import { createBackoff } from '../lib/backoff.ts';
import { WorkloadApiError, type StreamEndCode } from './errors.ts';
import { StreamKeeper } from './stream.ts';

/** The waits of so long while each attempt ends at once with what `endOf` its number says. */
async function waitsOf(forMs: number, endOf: (attempt: number) => StreamEndCode): Promise<number[]> {
  const clock = new FakeClock();
  const stop = new AbortController();
  const waits: number[] = [];
  const keeper = new StreamKeeper(
    {
      subscription: {
        // oxlint-disable-next-line require-yield -- ends before it says anything
        async *open() {
          throw new WorkloadApiError('as the test has it', { endCode: endOf(waits.length + 1) });
        },
        isSocketChanged: () => Promise.resolve(false),
      },
      connected: () => {},
      receive: () => 'rejected',
      ended: (_error, retryInMs) => waits.push(retryInMs),
    },
    clock,
    createBackoff({ initialMs: 100, maxMs: 30_000, random: () => 1 }),
  );
  const running = keeper.run(stop.signal);
  for (let count = 1; clock.monotonic() < forMs; count = waits.length + 1) {
    await eventually(() => assert.ok(waits.length >= count));
    clock.advance(waits.at(-1) ?? 0);
  }
  stop.abort();
  await running;
  return waits;
}

test('what a starting agent looks like is tried again within 5 s, everything else within 30 s', async () => {
  const own: readonly StreamEndCode[] = ['TRANSPORT'];
  const codes = [...(Object.keys(status).filter((name) => !/^\d+$/.test(name)) as StreamEndCode[]), ...own];

  const waits = new Map(await Promise.all(codes.map(async (code) => [code, Math.max(...(await waitsOf(240_000, () => code)))] as const)));

  assert.ok(waits.size > 15);
  for (const [code, wait] of waits) {
    const soon = code === 'PERMISSION_DENIED' || code === 'UNAVAILABLE' || code === 'TRANSPORT';
    assert.equal(wait, soon ? 5000 : 30_000, code);
  }
});

test('another socket in the place of one that failed for long is a new beginning', async () => {
  const waits = await waitsOf(600_000, (attempt) => (attempt === 75 ? 'SOCKET_REPLACED' : 'UNAVAILABLE'));

  assert.deepEqual(waits.slice(72, 77), [30_000, 30_000, 0, 100, 200]);
});
