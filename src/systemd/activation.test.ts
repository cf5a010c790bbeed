import assert from 'node:assert/strict';
import { test } from 'node:test';
import { activationProblem, passedSockets } from './activation.ts';

const passed = (env: Readonly<Record<string, string>>): unknown => {
  const found = passedSockets(env, 7);
  return found.ok ? Object.fromEntries(found.value) : found.error;
};

test('sockets are passed to the process that is named, by their names, from the third descriptor on', () => {
  assert.deepEqual(passed({ LISTEN_PID: '7', LISTEN_FDS: '2', LISTEN_FDNAMES: 'api:database' }), { api: 3, database: 4 });
  assert.deepEqual(passed({ LISTEN_PID: '8', LISTEN_FDS: '2', LISTEN_FDNAMES: 'api:database' }), {});
  assert.deepEqual(passed({ LISTEN_PID: '7', LISTEN_FDS: '0' }), {});
  assert.deepEqual(passed({ LISTEN_FDS: '1', LISTEN_FDNAMES: 'api' }), {});
  assert.deepEqual(passed({}), {});
});

test('what is said of sockets and does not fit is refused, with what it is', () => {
  assert.match(String(passed({ LISTEN_PID: '7', LISTEN_FDS: '-1' })), /LISTEN_FDS is "-1"/);
  assert.match(String(passed({ LISTEN_PID: '7', LISTEN_FDS: '9999' })), /LISTEN_FDS is "9999"/);
  assert.match(String(passed({ LISTEN_PID: '7', LISTEN_FDS: '1' })), /LISTEN_FDNAMES is missing/);
  assert.match(String(passed({ LISTEN_PID: '7', LISTEN_FDS: '2', LISTEN_FDNAMES: 'api' })), /names 1 sockets, and LISTEN_FDS says 2/);
  assert.match(String(passed({ LISTEN_PID: '7', LISTEN_FDS: '2', LISTEN_FDNAMES: 'api:api' })), /has "api" twice/);
});

test('a socket without a listener of its name is a problem, which names both', () => {
  const sockets = new Map([['scute.socket', 3]]);
  assert.equal(activationProblem(new Map(), []), undefined);
  assert.equal(activationProblem(sockets, ['scute.socket', 'other']), undefined);
  assert.match(activationProblem(sockets, ['api', 'database']) ?? '', /named "scute\.socket" .*; there is api, database$/);
  assert.match(activationProblem(sockets, []) ?? '', /there is none$/);
});
