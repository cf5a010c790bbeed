import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { denyListOf } from '../../test/support/policy/deny-file.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { policyOf } from '../../test/support/policy/policies.ts';
import { createTestAuthority, type TestAuthority } from '../../test/support/pki/pki.ts';
import { heldSnapshot, svidOf } from '../../test/support/pki/snapshots.ts';
import type { LiveRules } from '../config/policy/live-rules.ts';
import type { HeldIdentity } from '../identity/snapshot.ts';
import { systemClock, type Clock } from '../lib/clock.ts';
import { verifyPeer } from '../spiffe/verify.ts';
import { EMPTY_DENY_LIST, type DenyList } from '../policy/deny-list.ts';
import { Connections, type ConnectionRules } from './connections.ts';
import { Turns } from './turns.ts';
import { Session } from '../forward/session.ts';

function connectionsOf(clock: Clock, more: Partial<ConnectionRules> = {}, denyList: () => DenyList = () => EMPTY_DENY_LIST): Connections {
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
    denyList,
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

/** A connection of an admitted peer; counts how often its chain is verified. */
function provenSession(connections: Connections, snapshot: HeldIdentity, authority: TestAuthority, name: string) {
  const chainDer = [authority.issue({ id: `spiffe://example.org/${name}` }).der];
  const authenticated = verifyPeer(chainDer, snapshot.bundles, Date.now());
  assert.ok(authenticated.ok);
  const session = new Session(name, 0);
  let verified = 0;
  session.ownId = snapshot.svids[0].id;
  session.proven = {
    authenticated: { ...authenticated.value, issuers: [] },
    objection: undefined,
    clearedBy: EMPTY_DENY_LIST,
    get chainDer() {
      verified++;
      return chainDer;
    },
  };
  session.drop = () => {
    session.end();
    connections.delete(session);
  };
  connections.add(session);
  return { session, verified: () => verified };
}

test('a certificate is verified again when the snapshot changes, and not when the policy alone does', async () => {
  const authority = createTestAuthority();
  const snapshot = heldSnapshot([svidOf(authority, 'spiffe://example.org/us')], [authority]);
  const allow = policyOf('spiffe://example.org/web');
  const connections = connectionsOf(new FakeClock());
  const { session, verified } = provenSession(connections, snapshot, authority, 'web');

  connections.judgeAgain(snapshot, allow);
  const once = verified();
  connections.judgeAgain(snapshot, allow);
  assert.ok(once > 0);
  assert.equal(verified(), once);
  connections.judgeAgain(heldSnapshot(snapshot.svids, [authority], snapshot.generation + 1), allow);
  assert.equal(verified(), 2 * once);

  connections.judgeAgain(snapshot, policyOf());
  assert.equal(session.record(systemClock).closeReason, 'policy');
  await nextTurn();
});

for (const [what, reason] of [
  ['the deny list names its SPIFFE ID', 'revoked'],
  ['what we presented is ours no more', 'identity_withdrawn'],
] as const) {
  test(`who waits for its turn is not heard any more when ${what}`, async () => {
    const authority = createTestAuthority();
    const snapshot = heldSnapshot([svidOf(authority, 'spiffe://example.org/us')], [authority]);
    let denyList = EMPTY_DENY_LIST;
    const connections = connectionsOf(new FakeClock(), {}, () => denyList);
    const sessions = Array.from({ length: 100 }, () => provenSession(connections, snapshot, authority, 'web'));
    const others = heldSnapshot([svidOf(authority, 'spiffe://example.org/others')], [authority], snapshot.generation + 1);
    const newer = reason === 'revoked' ? heldSnapshot(snapshot.svids, [authority], snapshot.generation + 1) : others;
    if (reason === 'revoked') denyList = denyListOf({ ids: ['spiffe://example.org/web'] });
    const last = sessions.at(-1);
    assert.ok(last);

    connections.judgeAgain(newer, policyOf('spiffe://example.org/web'));

    assert.equal(connections.lets(last.session), false);
    assert.equal(last.session.record(systemClock).closeReason, reason);
    assert.equal(last.verified(), 0);
    await nextTurn();
  });
}

test('who waits for a new snapshot to be asked about it is not heard any more once the policy is another', async () => {
  const authority = createTestAuthority();
  const snapshot = heldSnapshot([svidOf(authority, 'spiffe://example.org/us')], [authority]);
  const connections = connectionsOf(new FakeClock());
  const sessions = Array.from({ length: 100 }, () => provenSession(connections, snapshot, authority, 'web'));
  const newer = heldSnapshot(snapshot.svids, [authority], snapshot.generation + 1);
  const last = sessions.at(-1);
  assert.ok(last);

  connections.judgeAgain(newer, policyOf('spiffe://example.org/web'));
  assert.ok(connections.lets(last.session));
  connections.judgeAgain(newer, policyOf());

  assert.equal(connections.lets(last.session), false);
  assert.equal(last.session.record(systemClock).closeReason, 'policy');
  // Certificates wait for their turn.
  assert.equal(last.verified(), 0);
  for (let turn = 0; turn < 4; turn++) await nextTurn();
});

test('who was kept without an authority is closed when that is kept no longer, though nothing else has changed', async () => {
  const authority = createTestAuthority();
  const us = svidOf(authority, 'spiffe://example.org/us');
  const snapshot = heldSnapshot([us], [authority]);
  const allow = policyOf('spiffe://example.org/web');
  const rules: { -readonly [K in keyof LiveRules]?: LiveRules[K] } = { onAuthorityRemoved: 'unsafeKeep' };
  const connections = connectionsOf(new FakeClock(), rules);
  const { session } = provenSession(connections, snapshot, authority, 'web');
  const without = heldSnapshot([us], [createTestAuthority()], snapshot.generation + 1);

  connections.judgeAgain(without, allow);
  assert.ok(!session.ended);
  rules.onAuthorityRemoved = 'close';
  connections.judgeAgain(without, allow);

  assert.equal(session.record(systemClock).closeReason, 'authority_removed');
  await nextTurn();
});

test('those that are due wait for their turn once, however many sweeps find them', async () => {
  const clock = new FakeClock();
  const connections = connectionsOf(clock, { onPeerExpiry: 'close' });
  for (let made = 0; made < 100; made++) {
    const session = new Session('due', 0);
    session.peerExpiresAtMs = clock.now() + 500;
    session.drop = () => {
      session.end();
      connections.delete(session);
    };
    connections.add(session);
  }

  clock.advance(5000);

  // 32 each: in this one, and in three more.
  for (let turn = 0; turn < 3; turn++) await nextTurn();
  assert.equal(connections.size, 0);
});

test('who is idle no more when its turn to be ended comes goes on', async () => {
  const clock = new FakeClock();
  const connections = connectionsOf(clock, { idleTimeoutMs: 10_000 });
  const sessions = Array.from({ length: 100 }, () => {
    const session = new Session('idle', 0);
    session.drop = () => {
      session.end();
      connections.delete(session);
    };
    connections.add(session);
    return session;
  });
  while (connections.size === sessions.length) clock.advance(1000);

  const last = sessions.at(-1);
  assert.ok(last?.ended === false);
  last.lastActiveTick = connections.tick;
  for (let turn = 0; turn < 4; turn++) await nextTurn();

  assert.deepEqual([...connections.sessions], [last]);
});

test('who is about to drain is not counted by a second request to drain it', async () => {
  const authority = createTestAuthority();
  const snapshot = heldSnapshot([svidOf(authority, 'spiffe://example.org/us')], [authority]);
  const connections = connectionsOf(new FakeClock());
  for (let made = 0; made < 100; made++) provenSession(connections, snapshot, authority, 'web');
  const drained = (): number => connections.drainPeers(() => true, 'asked');

  assert.deepEqual([drained(), drained()], [100, 0]);
  for (let turn = 0; turn < 4; turn++) await nextTurn();
  assert.equal(drained(), 0);
  assert.ok([...connections.sessions].every(({ draining }) => draining?.reason === 'drain_requested'));
});

test('those that are left at the deadline are dropped in turns, and counted', async () => {
  const connections = connectionsOf(new FakeClock());
  let dropped = 0;
  for (let made = 0; made < 100; made++) {
    const session = new Session('left', 0);
    session.drop = () => {
      dropped++;
      session.end();
      connections.delete(session);
    };
    connections.add(session);
  }

  const over = connections.drain(AbortSignal.abort());

  assert.equal(dropped, 32);
  await nextTurn();
  assert.equal(dropped, 64);
  assert.equal(await over, 100);
});
