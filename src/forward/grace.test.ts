import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { Grace } from './grace.ts';

function graceful(): { readonly clock: FakeClock; readonly grace: Grace; readonly aborts: number[] } {
  const clock = new FakeClock();
  const aborts: number[] = [];
  const grace = new Grace(clock, { abort: () => void aborts.push(clock.monotonic()) });
  return { clock, grace, aborts };
}

test('a connection that ends is broken off once, when the time is up that was the first to end', () => {
  const { clock, grace, aborts } = graceful();
  const began = clock.monotonic();
  grace.limit(5000);
  clock.advance(1000);
  grace.limit(1000);
  grace.limit(9000);
  clock.advance(999);
  assert.deepEqual(aborts, []);
  clock.advance(20_000);
  assert.deepEqual(aborts, [began + 2000]);
});

test('one that has closed is not broken off, whatever is said of it then', () => {
  const { clock, grace, aborts } = graceful();
  grace.limit(5000);
  grace.over();
  grace.limit(10);
  clock.advance(20_000);
  assert.deepEqual(aborts, []);
});
