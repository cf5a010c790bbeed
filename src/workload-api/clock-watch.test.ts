import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { ClockWatch } from './clock-watch.ts';

test('time that merely passes is no jump', () => {
  const clock = new FakeClock();
  const watch = new ClockWatch(clock);

  clock.advance(86_400_000);

  assert.equal(watch.jumpedByMs(), 0);
});

test('a wall clock set forward or back is reported once, by how much', () => {
  const clock = new FakeClock();
  const watch = new ClockWatch(clock);

  for (const jumpMs of [3_600_000, -60_000, 5000]) {
    clock.jump(jumpMs);
    assert.equal(watch.jumpedByMs(), jumpMs);
    assert.equal(watch.jumpedByMs(), 0);
  }
});

test('small corrections are reported once they add up', () => {
  const clock = new FakeClock();
  const watch = new ClockWatch(clock);

  clock.jump(3000);
  assert.equal(watch.jumpedByMs(), 0);
  clock.jump(3000);
  assert.equal(watch.jumpedByMs(), 6000);
});
