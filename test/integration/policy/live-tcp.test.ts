/** What becomes of open connections of `protocol: tcp` when what let them in changes: each key, each value, both directions. */
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { test, type TestContext } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { startDenyFile } from '../../support/policy/deny-file.ts';
import { ask } from '../../support/http/http.ts';
import { CHANGES, DIRECTIONS, DRAIN_MS, startLive, type Direction, type LiveStage } from '../../support/policy/live-changes.ts';
import { closed, ping, startEcho } from '../../support/tcp.ts';

async function start(t: TestContext, direction: Direction, listener: object, change?: (typeof CHANGES)[number], file: object = {}) {
  const application = await startEcho(t);
  const stage = await startLive(t, {
    direction,
    change,
    listener,
    application: application.address,
    server: (socket) => socket.pipe(socket),
    file,
  });
  const socket = await stage.connect();
  await ping(socket);
  return { stage, socket };
}

async function endOf({ sidecar }: LiveStage) {
  const { close_reason: reason, detail } = await sidecar.connection();
  return { reason, detail: String(detail) };
}

for (const direction of DIRECTIONS) {
  for (const change of CHANGES) {
    const { key, reason, keep, happens } = change;

    test(`${direction}, ${key}: close resets an open connection at once`, async (t) => {
      const { stage, socket } = await start(t, direction, { [key]: 'close' }, change);
      const ended = closed(socket);

      await happens(stage);

      assert.equal(await ended, 'ECONNRESET');
      assert.equal((await endOf(stage)).reason, reason);
      assert.equal(await stage.sidecar.metric('scute_connections_drained_total', { reason }), 1);
    });

    test(`${direction}, ${key}: drain resets an open connection when drainTimeout is over, and not before`, async (t) => {
      const { stage, socket } = await start(t, direction, { [key]: 'drain' }, change);

      await happens(stage);
      stage.clock.advance(DRAIN_MS - 5000);
      await ping(socket);
      const ended = closed(socket);
      stage.clock.advance(6000);

      assert.equal(await ended, 'ECONNRESET');
      const end = await endOf(stage);
      assert.equal(end.reason, reason);
      assert.match(end.detail, /; still open when drainTimeout was over$/);
      assert.equal(await stage.sidecar.metric('scute_connections_drained_total', { reason }), 1);
    });

    test(`${direction}, ${key}: ${keep} lets an open connection go on`, async (t) => {
      const { stage, socket } = await start(t, direction, { [key]: keep }, change);

      await happens(stage);
      stage.clock.advance(3 * DRAIN_MS);
      await nextTurn();

      await ping(socket);
      assert.equal(await stage.sidecar.metric('scute_tcp_open_connections'), 1);
    });
  }

  for (const value of ['drain', 'unsafeKeep']) {
    const listener = { onPolicyChange: value, onAuthorityRemoved: value, onPeerExpiry: 'keep', onOwnExpiry: 'keep' };
    const removal = CHANGES[1];

    test(`${direction}: what is revoked is closed at once, whatever the keys say: ${value}`, async (t) => {
      const { stage, socket } = await start(t, direction, listener);
      const ended = closed(socket);

      await stage.spiffe.revoke('example.org', stage.serial);

      assert.equal(await ended, 'ECONNRESET');
      assert.equal((await endOf(stage)).reason, 'revoked');
    });

    test(`${direction}: so is what the deny list names when its authority is gone already, and its connection left: ${value}`, async (t) => {
      const list = await startDenyFile(t);
      const { stage, socket } = await start(t, direction, listener, undefined, list.file);
      await removal?.happens(stage);
      await ping(socket);
      const ended = closed(socket);

      await list.become({ certificates: [new X509Certificate(stage.peer.cert).fingerprint256] });

      assert.equal(await ended, 'ECONNRESET');
      assert.equal((await endOf(stage)).reason, 'revoked');
    });

    test(`${direction}: a withdrawn identity closes at once, whatever the keys say: ${value}`, async (t) => {
      const { stage, socket } = await start(t, direction, listener);
      const ended = closed(socket);

      await stage.spiffe.withdraw(direction === 'inbound' ? 'api' : 'web');

      assert.equal(await ended, 'ECONNRESET');
      assert.equal((await endOf(stage)).reason, 'identity_withdrawn');
    });
  }

  test(`${direction}: who lost its authority and is kept is still judged by the policy`, async (t) => {
    const { stage, socket } = await start(t, direction, { onAuthorityRemoved: 'unsafeKeep' });
    await CHANGES[1]?.happens(stage);
    await ping(socket);
    const ended = closed(socket);

    await CHANGES[0]?.happens(stage);

    assert.equal(await ended, 'ECONNRESET');
    assert.equal((await endOf(stage)).reason, 'policy');
  });

  test(`${direction}: a connection that drains goes on draining, though a later policy admits its peer again`, async (t) => {
    const { stage, socket } = await start(t, direction, { onPolicyChange: 'drain' });
    const ended = closed(socket);

    await CHANGES[0]?.happens(stage);
    await stage.reload({});
    stage.clock.advance(DRAIN_MS + 1000);

    assert.equal(await ended, 'ECONNRESET');
    assert.equal((await endOf(stage)).reason, 'policy');
  });

  test(`${direction}: a reload of the keys applies to open connections that had been kept`, async (t) => {
    const [policy, , peer] = CHANGES;
    assert.ok(policy !== undefined && peer !== undefined);
    const kept = { onPolicyChange: 'unsafeKeep', onPeerExpiry: 'keep' };
    for (const [change, more] of [
      [policy, { allow: ['spiffe://example.org/other'], onPolicyChange: 'close' }],
      [peer, { onPeerExpiry: 'close' }],
    ] as const) {
      const { stage, socket } = await start(t, direction, kept, change);
      await change.happens(stage);
      await ping(socket);
      const ended = closed(socket);

      await stage.reload(more);
      stage.clock.advance(1000);

      assert.equal(await ended, 'ECONNRESET');
      assert.equal((await endOf(stage)).reason, change.reason);
    }
  });

  test(`${direction}: draining goes from the first reason, and is not lengthened by another`, async (t) => {
    const { stage, socket } = await start(t, direction, { onPolicyChange: 'drain', onAuthorityRemoved: 'drain' });
    await CHANGES[0]?.happens(stage);
    stage.clock.advance(DRAIN_MS - 5000);
    await CHANGES[1]?.happens(stage);
    const ended = closed(socket);

    stage.clock.advance(6000);

    assert.equal(await ended, 'ECONNRESET');
    assert.equal((await endOf(stage)).reason, 'policy');
  });

  test(`${direction}: with a drainTimeout of 0s, to drain is to close`, async (t) => {
    const { stage, socket } = await start(t, direction, { onPolicyChange: 'drain' }, undefined, { drainTimeout: '0s' });
    const ended = closed(socket);

    await CHANGES[0]?.happens(stage);

    assert.equal(await ended, 'ECONNRESET');
    assert.equal((await endOf(stage)).reason, 'policy');
  });
}

test('unsafeKeep is told at the start and at each reload, in readiness and as a gauge', async (t) => {
  const { stage } = await start(t, 'inbound', { onPolicyChange: 'unsafeKeep', onAuthorityRemoved: 'unsafeKeep' });
  const { sidecar } = stage;
  const told = () => sidecar.log().filter(({ message }) => message === 'open connections are kept whose peers would not be let in now');
  const verbose = async (): Promise<string | undefined> => {
    const metrics = sidecar.app.addresses().get('metrics');
    assert.ok(metrics !== undefined);
    const { status, body } = await ask(metrics, '/readyz?verbose');
    assert.equal(status, 200);
    return body.split('\n').find((line) => line.includes('live_connections'));
  };

  assert.deepEqual(told()[0]?.['settings'], ['onPolicyChange', 'onAuthorityRemoved']);
  assert.equal(told()[0]?.['level'], 'warn');
  assert.equal(await verbose(), '[!]live_connections warning: in: onPolicyChange and onAuthorityRemoved: unsafeKeep');
  assert.equal(await sidecar.metric('scute_unsafe_keeps', { listener: 'in' }), 2);

  await stage.reload({ onPolicyChange: 'drain' });
  assert.equal(told().length, 2);
  assert.equal(await sidecar.metric('scute_unsafe_keeps'), 1);
  await stage.reload({ onPolicyChange: 'close', onAuthorityRemoved: 'close' });
  assert.equal(told().length, 2);
  assert.equal(await verbose(), '[+]live_connections ok');
  assert.equal(await sidecar.metric('scute_unsafe_keeps'), 0);
});

test('left out, the keys close for policy and authority, and keep what expired', async (t) => {
  for (const change of CHANGES) {
    const { stage, socket } = await start(t, 'inbound', {}, change);
    const ended = closed(socket);
    await change.happens(stage);
    stage.clock.advance(3 * DRAIN_MS);
    if (change.shutsOut) assert.equal(await ended, 'ECONNRESET');
    else assert.equal(await stage.sidecar.metric('scute_tcp_open_connections'), 1);
  }
});
