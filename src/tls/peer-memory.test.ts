import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createTestAuthority, type TestCertificate } from '../../test/support/pki.ts';
import { heldSnapshot, svidOf } from '../../test/support/snapshots.ts';
import type { PeerEvidence, SecureConnection } from '../transport/connection.ts';
import { createPeerJudge } from './peer.ts';

const ID = 'spiffe://example.org/peer';
const authority = createTestAuthority();
const snapshot = heldSnapshot([svidOf(authority, 'spiffe://example.org/us')], [authority]);

interface Told extends Partial<PeerEvidence> {
  /** There is no room for the chain of it. */
  readonly full?: boolean;
}

/** What a judge says of a peer, and whether it asked for the chain. */
function judging() {
  const judge = createPeerJudge();
  return (peer: TestCertificate, told: Told = {}): { reason: string; asked: boolean } => {
    let asked = false;
    const evidence: PeerEvidence = {
      libraryProblem: undefined,
      leafDer: peer.der,
      certificates: undefined,
      sentBytes: 2000,
      chainDer() {
        asked = true;
        return told.full === true ? undefined : peer.chain;
      },
      ...told,
    };
    // All that a judge looks at.
    const connection = { readPeerEvidence: () => evidence } as SecureConnection;
    const judged = judge.authenticate(connection, 'client', snapshot, Date.now());
    return { reason: judged.ok ? judged.value.authenticated.id : judged.error.problem, asked };
  };
}

test('the chain of a stranger is not asked for when its leaf alone says enough', () => {
  const forger = createTestAuthority();
  const kinds: readonly (readonly [string, TestCertificate])[] = [
    ['expired', forger.issue({ id: ID, notBefore: 0, notAfter: 1000 })],
    ['not_yet_valid', forger.issue({ id: ID, notBefore: Date.now() + 60_000 })],
    ['unknown_trust_domain', forger.issue({ id: 'spiffe://elsewhere.test/peer' })],
    ['not_an_svid', forger.issue({ uriSans: [] })],
    ['not_an_svid', forger.issue({ id: ID, isCa: true })],
    ['bad_certificate', { ...forger.issue(), der: Buffer.from('3000', 'hex') }],
    ['bad_certificate', forger.issue({ id: ID, extensions: [{ oid: '1.2.3.4', value: Buffer.alloc(33_000) }] })],
  ];
  for (const [reason, peer] of kinds)
    assert.deepEqual(judging()(peer, { libraryProblem: 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY' }), { reason, asked: false });
  assert.deepEqual(judging()(forger.issue(), { leafDer: 'too_large' }), { reason: 'bad_certificate', asked: false });
  assert.deepEqual(judging()(forger.issue(), { leafDer: undefined }), { reason: 'no_certificate', asked: false });
});

test('the chain of a stranger is asked for only where OpenSSL may have picked the wrong issuer', () => {
  const peer = createTestAuthority().issue({ id: ID });
  for (const libraryProblem of ['INVALID_PURPOSE', 'CERT_UNTRUSTED', 'PATH_LENGTH_EXCEEDED', 'UNSPECIFIED (CA md too weak)'])
    assert.deepEqual(judging()(peer, { libraryProblem }), { reason: 'untrusted_chain', asked: false });
  for (const libraryProblem of ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'SELF_SIGNED_CERT_IN_CHAIN', 'CERT_SIGNATURE_FAILURE'])
    assert.deepEqual(judging()(peer, { libraryProblem }), { reason: 'untrusted_chain', asked: true });
});

test('the chain of a peer that was proven is asked for once, unless so much was sent that there may be too much in it', () => {
  const judged = judging();
  const peer = authority.intermediate().issue({ id: ID });
  assert.deepEqual(judged(peer), { reason: ID, asked: true });
  assert.deepEqual(judged(peer), { reason: ID, asked: false });
  assert.deepEqual(judged(peer, { sentBytes: 20_000 }), { reason: ID, asked: true });
  assert.deepEqual(judged(peer, { sentBytes: 90_000, certificates: 8 }), { reason: ID, asked: false });
  assert.deepEqual(judged(peer, { certificates: 9 }), { reason: ID, asked: true });
  assert.deepEqual(judged(peer, { sentBytes: 20_000, full: true }), { reason: 'chain_not_read', asked: true });
});

test('without room for its chain a stranger is refused, and whoever OpenSSL trusts is judged by what others of its issuer sent', () => {
  const judged = judging();
  const intermediate = authority.intermediate();
  const libraryProblem = 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY';
  const reasonOf = (peer: TestCertificate, told: Told = {}): string => judged(peer, { full: true, ...told }).reason;
  assert.equal(reasonOf(intermediate.issue({ id: ID })), 'chain_not_read');
  judged(intermediate.issue({ id: ID }));
  assert.equal(reasonOf(intermediate.issue({ id: ID })), ID);
  assert.equal(reasonOf(authority.issue({ id: ID })), ID);
  assert.equal(reasonOf(intermediate.issue({ id: ID }), { libraryProblem }), 'chain_not_read');
  assert.equal(reasonOf(authority.intermediate().issue({ id: ID })), 'chain_not_read');
  // Whoever names that issuer, and is not its own, is not let in by it.
  const forged = createTestAuthority().issue({ id: ID, issuerName: intermediate.name, authorityKeyId: null });
  assert.equal(reasonOf(forged), 'chain_not_read');
});
