import assert from 'node:assert/strict';
import { test } from 'node:test';
import { APPLICATION_ENDS, BAD_ENDS, type ApplicationStatus } from '../../telemetry/log/application-records.ts';
import { applicationCheck, describeApplication } from './application.ts';

const BEGAN = Date.parse('2026-11-30T09:00:00Z');
const of = (more: object): ApplicationStatus => ({ program: './application', sinceMs: BEGAN, ...more }) as ApplicationStatus;

test('an application that waits for half a minute is a warning, and says since when', () => {
  const waiting = of({ state: 'waiting' });
  const detail = './application waits to be started since 2026-11-30T09:00:00.000Z';
  assert.deepEqual(applicationCheck(waiting, BEGAN + 29_999), { ok: true, detail });
  assert.deepEqual(applicationCheck(waiting, BEGAN + 30_000), { ok: false, detail });
  assert.equal(applicationCheck(of({ state: 'running', pid: 7 }), BEGAN + 1e9).ok, true);
  assert.deepEqual(applicationCheck(undefined, BEGAN), { ok: true });
});

test('an application that ended by itself with an exit code, or was not run, is a warning that says so', () => {
  const check = (end: string, more: object = {}): string => {
    const { ok, detail = '' } = applicationCheck(of({ state: 'ended', end, ...more }), BEGAN);
    return `${ok ? 'good' : 'bad'}: ${detail}`;
  };
  assert.equal(check('exit_code', { exitCode: 7 }), 'bad: ./application ended by itself: exit code 7');
  assert.equal(check('signal', { exitCode: 137 }), 'bad: ./application was ended by a signal that Scute did not send: exit code 137');
  assert.equal(check('not_started', { detail: 'ENOENT' }), 'bad: ./application could not be started: ENOENT');
  assert.equal(
    check('not_ready', { detail: 'identity' }),
    'bad: ./application was not started: what it needs did not come in time: identity',
  );
  assert.equal(check('asked', { exitCode: 143 }), 'good: ./application ended: exit code 143');
  assert.equal(check('ok', { exitCode: 0 }), 'good: ./application ended: exit code 0');
  for (const end of APPLICATION_ENDS) assert.equal(check(end).startsWith('bad'), BAD_ENDS.has(end), end);
});

test('what the API says of an application has each fact, or null for it', () => {
  assert.equal(describeApplication(undefined), null);
  const since = '2026-11-30T09:00:00.000Z';
  const program = './application';
  assert.deepEqual(describeApplication(of({ state: 'running', pid: 7 })), {
    program,
    state: 'running',
    since,
    pid: 7,
    result: null,
    exitCode: null,
  });
  assert.deepEqual(describeApplication(of({ state: 'ended', end: 'signal', exitCode: 137 })), {
    program,
    state: 'ended',
    since,
    pid: null,
    result: 'signal',
    exitCode: 137,
  });
});
