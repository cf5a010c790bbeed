import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { FirstAnswer } from './first-answer.ts';

const never = new AbortController().signal;
const atOnce = (): Promise<void> => Promise.resolve();

test('an answer ends the wait, and so does the first failure, which counts also right after an answer', async () => {
  const patience = { clock: new FakeClock(), timeoutMs: 1000, stopped: never };
  const good = new FirstAnswer();
  good.came();
  assert.deepEqual(await good.wait(patience, atOnce), { ok: true, value: undefined });

  const bad = new FirstAnswer();
  bad.failed('refused');
  bad.failed('refused again');
  assert.deepEqual(await bad.wait(patience, atOnce), { ok: false, error: 'refused' });

  const takenBack = new FirstAnswer();
  takenBack.came();
  const ended = (): Promise<void> => Promise.resolve(takenBack.failed('refused'));
  assert.deepEqual(await takenBack.wait(patience, ended), { ok: false, error: 'refused' });
});

test('nothing is waited for beyond the time, or when nobody wants it any more', async () => {
  const clock = new FakeClock();
  const late = new FirstAnswer();
  const waited = late.wait({ clock, timeoutMs: 1000, stopped: never }, atOnce);
  assert.equal(late.over.aborted, false);
  clock.advance(1000);
  assert.deepEqual(await waited, { ok: true, value: undefined });
  assert.equal(late.over.aborted, true);

  const left = new FirstAnswer().wait({ clock, timeoutMs: 1000, stopped: AbortSignal.abort() }, atOnce);
  assert.deepEqual(await left, { ok: false, error: 'stopped' });
  assert.equal(clock.armed, 0);
});
