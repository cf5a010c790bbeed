import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { createTestAuthority } from '../../test/support/pki/pki.ts';
import { heldSnapshot, svidOf } from '../../test/support/pki/snapshots.ts';
import type { IdentitySnapshot } from '../identity/snapshot.ts';
import { err, ok } from '../lib/result.ts';
import { Manager } from './manager.ts';
import { watchdogMs } from './notify.ts';

const WEB = 'spiffe://example.org/web';
const authority = createTestAuthority();

function startManager(options: { readonly watchdogMs?: number; readonly hearsNothing?: boolean } = {}) {
  const clock = new FakeClock();
  const told: string[] = [];
  const state: { identity: IdentitySnapshot | undefined; failing: readonly string[]; failures: number } = {
    identity: undefined,
    failing: ['identity'],
    failures: 0,
  };
  const manager = new Manager({
    tell(...assignments) {
      told.push(assignments.join(' '));
      return Promise.resolve(options.hearsNothing === true ? err('nobody there') : ok(undefined));
    },
    clock,
    events: { told: () => undefined, notTold: () => void (state.failures += 1) },
    watched: { identity: () => state.identity, notReady: () => state.failing },
    watchdogMs: options.watchdogMs,
  });
  manager.started();
  /** What was told since it was asked last. */
  const heard = (): readonly string[] => told.splice(0);
  return { manager, clock, state, heard };
}

test('systemd is told that we are ready when nothing is missing, once, and each change of the status', () => {
  const { clock, state, heard } = startManager();
  assert.deepEqual(heard(), ['STATUS=no identity; not ready: identity']);
  clock.advance(60_000);
  assert.deepEqual(heard(), []);

  const notAfter = Math.floor(Date.now() / 1000) * 1000 + 600_000;
  state.identity = heldSnapshot([svidOf(authority, WEB, { notAfter })]);
  state.failing = [];
  clock.advance(200);
  const status = `STATUS=${WEB} until ${new Date(notAfter).toISOString()}`;
  assert.deepEqual(heard(), [`READY=1 ${status}`]);

  state.failing = ['identity_valid'];
  clock.advance(200);
  state.failing = [];
  clock.advance(200);
  assert.deepEqual(heard(), [`${status}; not ready: identity_valid`, status]);
});

test('a reload is told with its time, and its end, but not before we are ready, nor a change that nobody asked for', () => {
  const { manager, clock, state, heard } = startManager();
  manager.reloading(1n);
  manager.reloaded();
  heard();
  state.failing = [];
  clock.advance(200);
  heard();

  manager.reloaded();
  assert.deepEqual(heard(), []);
  manager.reloading(123_456n);
  manager.reloaded();
  assert.deepEqual(heard(), ['RELOADING=1 MONOTONIC_USEC=123456', 'READY=1']);
});

test('a sign of life is given in half of the time, as long as listeners are bound, and while we drain', async () => {
  const { manager, clock, state, heard } = startManager({ watchdogMs: 1000 });
  const signs = (): number => heard().filter((each) => each === 'WATCHDOG=1').length;
  clock.advance(2000);
  assert.equal(signs(), 5, 'without an identity nothing is wrong with us');

  state.failing = ['listeners'];
  clock.advance(5000);
  assert.equal(signs(), 0);

  manager.stopping();
  clock.advance(1000);
  assert.deepEqual(heard(), ['STOPPING=1 STATUS=draining', 'WATCHDOG=1', 'WATCHDOG=1']);
  await manager.stopped();
  assert.equal(clock.armed, 0);
});

test('a manager that cannot be told is counted, and we go on', async () => {
  const { manager, state } = startManager({ hearsNothing: true });
  manager.stopping();
  await manager.stopped();
  assert.ok(state.failures > 0);
});

test('signs of life are for the process that is named, or whoever is asked', () => {
  assert.equal(watchdogMs({ WATCHDOG_USEC: '30000000', WATCHDOG_PID: '7' }, 7), 30_000);
  assert.equal(watchdogMs({ WATCHDOG_USEC: '30000000' }, 7), 30_000);
  assert.equal(watchdogMs({ WATCHDOG_USEC: '30000000', WATCHDOG_PID: '8' }, 7), undefined);
  for (const wrong of ['0', '-1', 'soon', '']) assert.equal(watchdogMs({ WATCHDOG_USEC: wrong }, 7), undefined, wrong);
  assert.equal(watchdogMs({}, 7), undefined);
});
