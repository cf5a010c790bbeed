import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { policyOf } from '../../test/support/policies.ts';
import { createTestAuthority } from '../../test/support/pki.ts';
import { heldSnapshot, svidOf } from '../../test/support/snapshots.ts';
import type { LiveRules } from '../config/live-rules.ts';
import { systemClock, type Clock } from '../lib/clock.ts';
import { verifyPeer } from '../spiffe/verify.ts';
import { EMPTY_DENY_LIST } from '../policy/deny-list.ts';
import { Connections } from './connections.ts';
import { Turns } from './turns.ts';
import { Session } from '../forward/session.ts';

function connectionsOf(clock: Clock, more: Partial<LiveRules> = {}): Connections {
  return new Connections({
    clock,
    turns: new Turns(clock),
    rules: () => ({
      protocol: 'tcp',
      idleTimeoutMs: undefined,
      maxLifetimeMs: undefined,
      drainTimeoutMs: 30_000,
      onPolicyChange: 'close',
      onAuthorityRemoved: 'close',
      onPeerExpiry: 'keep',
      onOwnExpiry: 'keep',
      ...more,
    }),
    denyList: () => EMPTY_DENY_LIST,
  });
}

test('those that may stay do not keep an update from those behind them, who may not', async () => {
  const authority = createTestAuthority();
  const us = svidOf(authority, 'spiffe://example.org/us');
  const snapshot = heldSnapshot([us], [authority]);
  const allow = policyOf('spiffe://example.org/kept');
  const connections = connectionsOf(new FakeClock());
  const dropped: string[] = [];
  // Those that may stay come first, more of them than are judged in a turn.
  for (const name of [...Array.from({ length: 150 }, () => 'kept'), 'gone']) {
    const session = new Session(name, 0);
    const chainDer = [authority.issue({ id: `spiffe://example.org/${name}` }).der];
    const authenticated = verifyPeer(chainDer, snapshot.bundles, Date.now());
    assert.ok(authenticated.ok);
    session.ownId = us.id;
    session.proven = { authenticated: { ...authenticated.value, issuers: [] }, chainDer, objection: undefined, clearedBy: EMPTY_DENY_LIST };
    session.drop = () => {
      dropped.push(name);
      session.end();
      connections.delete(session);
    };
    connections.add(session);
  }
  // A newer update overtakes each after a turn or two.
  for (let round = 0; round < 6; round++) {
    connections.judgeAgain(snapshot, allow);
    await nextTurn();
  }
  assert.deepEqual(dropped, ['gone']);
  await nextTurn();
});

test('others get a turn after each peer whose chain takes long to judge again', async () => {
  const authority = createTestAuthority();
  const us = svidOf(authority, 'spiffe://example.org/us');
  const snapshot = heldSnapshot([us], [authority]);
  const allow = policyOf('spiffe://example.org/slow');
  const clock = new FakeClock();
  const connections = connectionsOf(clock);
  let judged = 0;
  for (let made = 0; made < 5; made++) {
    const session = new Session('slow', 0);
    const chainDer = [authority.issue({ id: 'spiffe://example.org/slow' }).der];
    const authenticated = verifyPeer(chainDer, snapshot.bundles, Date.now());
    assert.ok(authenticated.ok);
    session.ownId = us.id;
    session.proven = {
      authenticated: { ...authenticated.value, issuers: [] },
      objection: undefined,
      clearedBy: EMPTY_DENY_LIST,
      get chainDer() {
        judged++;
        clock.advance(50);
        return chainDer;
      },
    };
    connections.add(session);
  }

  connections.judgeAgain(snapshot, allow);

  for (let turn = 1; turn <= 5; turn++) {
    assert.equal(judged, turn);
    await nextTurn();
  }
});

test('who is here to be told that it is not allowed is dropped with its authority, and not for the list', async () => {
  const authority = createTestAuthority();
  const us = svidOf(authority, 'spiffe://example.org/us');
  const snapshot = heldSnapshot([us], [authority]);
  const nobody = policyOf();
  const connections = connectionsOf(new FakeClock());
  const chainDer = [authority.issue({ id: 'spiffe://example.org/stranger' }).der];
  const authenticated = verifyPeer(chainDer, snapshot.bundles, Date.now());
  assert.ok(authenticated.ok);
  const session = new Session('stranger', 0);
  let drops = 0;
  session.ownId = us.id;
  session.proven = { authenticated: { ...authenticated.value, issuers: [] }, chainDer, objection: undefined, clearedBy: EMPTY_DENY_LIST };
  session.denied = 'not_allowed';
  session.isToldOnly = true;
  session.drop = () => {
    drops++;
    session.end();
    connections.delete(session);
  };
  connections.add(session);

  connections.judgeAgain(snapshot, nobody);
  assert.equal(drops, 0);
  const other = createTestAuthority();
  connections.judgeAgain(heldSnapshot([us], [other], snapshot.generation + 1), nobody);

  assert.equal(drops, 1);
  assert.equal(session.record(systemClock).closeReason, 'authority_removed');
  await nextTurn();
});

test('who was allowed is dropped for the list, though a request of it was denied before the sweep came to it', async () => {
  const authority = createTestAuthority();
  const us = svidOf(authority, 'spiffe://example.org/us');
  const snapshot = heldSnapshot([us], [authority]);
  const nobody = policyOf();
  const connections = connectionsOf(new FakeClock());
  const chainDer = [authority.issue({ id: 'spiffe://example.org/gone' }).der];
  const authenticated = verifyPeer(chainDer, snapshot.bundles, Date.now());
  assert.ok(authenticated.ok);
  const session = new Session('gone', 0);
  session.ownId = us.id;
  session.proven = { authenticated: { ...authenticated.value, issuers: [] }, chainDer, objection: undefined, clearedBy: EMPTY_DENY_LIST };
  session.denied = 'not_allowed';
  session.drop = () => {
    session.end();
    connections.delete(session);
  };
  connections.add(session);

  connections.judgeAgain(snapshot, nobody);

  assert.ok(session.ended);
  assert.equal(session.record(systemClock).closeReason, 'policy');
  await nextTurn();
});

test('those that are due in one sweep are ended in turns, however many they are', async () => {
  const clock = new FakeClock();
  const connections = connectionsOf(clock, { onPeerExpiry: 'close' });
  let ended = 0;
  for (let made = 0; made < 100; made++) {
    const session = new Session('due', 0);
    session.peerExpiresAtMs = clock.now() + 500;
    session.drop = () => {
      ended++;
      session.end();
      connections.delete(session);
    };
    connections.add(session);
  }

  clock.advance(1000);

  assert.equal(ended, 32);
  await nextTurn();
  assert.equal(ended, 64);
  for (let turn = 0; turn < 3; turn++) await nextTurn();
  assert.equal(connections.size, 0);
});
