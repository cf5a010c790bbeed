import assert from 'node:assert/strict';
import { test } from 'node:test';
import { heldSnapshot, svidOf } from '../../test/support/pki/snapshots.ts';
import { policyOf } from '../../test/support/policy/policies.ts';
import { createTestAuthority } from '../../test/support/pki/pki.ts';
import { createIdentityStore } from '../identity/store.ts';
import { systemClock } from '../lib/clock.ts';
import type { Events } from '../telemetry/events/events.ts';
import { emptyCounters } from '../telemetry/log/records.ts';
import { createPeerJudge } from '../tls/peer.ts';
import type { HandshakeOutcome, SecureConnection } from '../transport/connection.ts';
import { Admission } from './admission.ts';
import { Gate } from './gate.ts';
import { Session } from '../forward/session.ts';
import { WaitingRoom } from './waiting-room.ts';

test('a TLS library whose verdict cannot be read refuses the peer, and nothing is thrown at whoever called back', () => {
  const authority = createTestAuthority();
  const svid = svidOf(authority, 'spiffe://example.org/us');
  const { view, publisher } = createIdentityStore();
  publisher.publish(heldSnapshot([svid], [authority]));
  const counters = { ...emptyCounters(), handshaking: 1 };
  const limits = { maxConnections: 1, maxHandshakes: 1, maxWaiting: 1, handshakeTimeoutMs: 1000 };
  const never = (): never => assert.fail('not this way');
  const room = new WaitingRoom(0);
  const gate = new Gate({
    clock: systemClock,
    counters,
    clientSpeaksFirst: true,
    room,
    limits: () => limits,
    begin: never,
    refuse: never,
    left: never,
  });
  const policy = policyOf('spiffe://example.org/**');
  const finished: Session[] = [];
  const events: Pick<Events, 'handshakeFinished' | 'authorised'> = {
    handshakeFinished: (_listener, reason) => assert.equal(reason, 'bad_certificate'),
    authorised: never,
  };
  const admission = new Admission({
    ref: { name: 'in', direction: 'inbound' },
    identity: view,
    judge: createPeerJudge(),
    peers: { judged: never, joined: never, left: never },
    events: events as Events,
    clock: systemClock,
    gate,
    policy: () => policy,
    room,
    placeTimeoutMs: never,
    refused: never,
    finish: (session) => void finished.push(session),
    admitted: never,
  });
  const session = new Session('127.0.0.1:1', 0);
  session.ownId = svid.id;
  let done: ((outcome: HandshakeOutcome) => void) | undefined;
  let aborted = 0;
  const connection: SecureConnection = {
    remoteAddress: '127.0.0.1:1',
    tlsVersion: 'TLSv1.3',
    alpn: undefined,
    serverName: undefined,
    readPeerEvidence() {
      throw new Error('no verdict');
    },
    wait: never,
    dropPeerEvidence: never,
    start: never,
    handOver: never,
    write: never,
    endWrite: never,
    pause: never,
    resume: never,
    abort: () => void (aborted += 1),
  };
  admission.handshake({
    session,
    role: 'client',
    timeoutMs: 1000,
    begin(callback) {
      done = callback;
      return { abort: never };
    },
    dropRest: () => undefined,
    admitted: never,
  });
  done?.({ ok: true, connection });
  assert.deepEqual([aborted, finished, session.denied], [1, [session], 'bad_certificate']);
  const record = session.record(systemClock);
  assert.deepEqual(
    [record.verdict, record.closeReason, record.detail],
    ['deny', 'internal_error', 'the peer could not be judged: no verdict'],
  );
});
