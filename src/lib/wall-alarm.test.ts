import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { WallAlarm } from './wall-alarm.ts';

/** An alarm that is set anew at each look, for `periodMs` later, and how often it looked. */
function start(periodMs: number) {
  const clock = new FakeClock();
  let looks = 0;
  const set = (): void => alarm.set(clock.now(), clock.now() + periodMs);
  const alarm = new WallAlarm(clock, () => {
    looks += 1;
    set();
  });
  set();
  return { clock, alarm, looks: () => looks };
}

test('an alarm looks at its time, to the millisecond, however far it is', () => {
  const { clock, looks } = start(7_200_500);

  clock.advance(7_200_499);
  assert.equal(looks(), 0);
  clock.advance(1);
  assert.equal(looks(), 1);
  clock.advance(7_200_500);
  assert.equal(looks(), 2);
});

test('an alarm sees within a second that the clock was set, beyond its time or back behind where it was set', () => {
  const { clock, looks } = start(3_600_000);

  clock.advance(10_000);
  for (const [count, jumpMs] of [3_600_000, -5_000, 3_600_000].entries()) {
    clock.jump(jumpMs);
    clock.advance(1000);
    assert.equal(looks(), count + 1, String(jumpMs));
  }
  clock.advance(10_000);
  clock.jump(-5000);
  clock.advance(1000);
  assert.equal(looks(), 3, 'a clock that is set back to what has been is no other time');
});

test('an alarm that is asked looks at once if it is time, and not otherwise', () => {
  const { clock, alarm, looks } = start(1500);
  for (const [jumpMs, count] of [
    [1499, 0],
    [1, 1],
    [0, 1],
    [-1, 2],
    [1499, 2],
  ] as const) {
    clock.jump(jumpMs);
    alarm.check();
    assert.equal(looks(), count, String(jumpMs));
  }
  alarm.stop();
  clock.jump(1500);
  alarm.check();
  assert.deepEqual([looks(), clock.armed], [2, 0]);
});

test('an alarm that is stopped leaves no timer', () => {
  const { clock, alarm, looks } = start(1500);
  assert.equal(clock.armed, 1);

  alarm.stop();
  assert.equal(clock.armed, 0);
  clock.advance(5000);
  assert.equal(looks(), 0);
});
