import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bundlesOf } from '../../test/support/pki/bundles.ts';
import { createTestAuthority, keyIdOf, type TestCertificate } from '../../test/support/pki/pki.ts';
import { heldSnapshot, svidOf } from '../../test/support/pki/snapshots.ts';
import type { HeldIdentity } from '../identity/snapshot.ts';
import type { PeerEvidence, SecureConnection } from '../transport/connection.ts';
import { createPeerJudge } from './peer.ts';

const ID = 'spiffe://example.org/peer';
const authority = createTestAuthority();
const us = svidOf(authority, 'spiffe://example.org/us');
const snapshot = heldSnapshot([us], [authority]);

interface Told extends Partial<PeerEvidence> {
  /** There is no room for the chain of it. */
  readonly full?: boolean;
  /** What is trusted by now. */
  readonly against?: HeldIdentity;
}

/** What a judge says of a peer, and whether it asked for the chain. */
function judging() {
  const judge = createPeerJudge();
  return (peer: TestCertificate, told: Told = {}): { reason: string; asked: boolean } => {
    let asked = false;
    const evidence: PeerEvidence = {
      libraryProblem: undefined,
      leafDer: peer.der,
      counted: undefined,
      sentBytes: 2000,
      chainDer() {
        asked = true;
        return told.full === true ? undefined : peer.chain;
      },
      ...told,
    };
    // All that a judge looks at.
    const connection = { readPeerEvidence: () => evidence } as SecureConnection;
    const judged = judge.authenticate(connection, 'client', told.against ?? snapshot, Date.now());
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
  for (const leafDer of ['too_large', 'unreadable'] as const)
    assert.deepEqual(judging()(forger.issue(), { leafDer }), { reason: 'bad_certificate', asked: false });
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
  assert.deepEqual(judged(peer, { sentBytes: 90_000, counted: { certificates: 8, bytes: 32_768 } }), { reason: ID, asked: false });
  assert.deepEqual(judged(peer, { counted: { certificates: 9, bytes: 2000 } }), { reason: ID, asked: true });
  // OpenSSL keeps all of it while the connection lives, which takes many times as much.
  assert.deepEqual(judged(peer, { counted: { certificates: 8, bytes: 32_769 } }), { reason: ID, asked: true });
  assert.deepEqual(judged(peer, { sentBytes: 20_000, full: true }), { reason: 'chain_not_read', asked: true });
});

test('without room for its chain a peer is judged by what others of its issuer sent, whatever OpenSSL says, and a stranger is refused', () => {
  const judged = judging();
  const intermediate = authority.intermediate();
  const libraryProblem = 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY';
  const reasonOf = (peer: TestCertificate, told: Told = {}): string => judged(peer, { full: true, ...told }).reason;
  assert.equal(reasonOf(intermediate.issue({ id: ID })), 'chain_not_read');
  judged(intermediate.issue({ id: ID }));
  assert.equal(reasonOf(intermediate.issue({ id: ID })), ID);
  assert.equal(reasonOf(authority.issue({ id: ID })), ID);
  // Of whom OpenSSL said otherwise, it is asked about that path.
  assert.equal(reasonOf(intermediate.issue({ id: ID }), { libraryProblem }), ID);
  assert.equal(reasonOf(intermediate.issue({ id: ID }), { libraryProblem: 'INVALID_PURPOSE' }), 'untrusted_chain');
  const lying = authority.crossSign(intermediate, { authorityKeyId: Buffer.alloc(20, 7) });
  assert.equal(judged(lying.issue({ id: ID })).reason, ID);
  assert.equal(reasonOf(intermediate.issue({ id: ID }), { libraryProblem }), 'chain_not_read');
  judged(intermediate.issue({ id: ID }), { libraryProblem });
  assert.equal(reasonOf(intermediate.issue({ id: ID }), { libraryProblem }), ID);
  assert.equal(reasonOf(authority.intermediate().issue({ id: ID })), 'chain_not_read');
  // Whoever names that issuer, and is not its own, is not let in by it.
  const forged = createTestAuthority().issue({ id: ID, issuerName: intermediate.name, authorityKeyId: null });
  for (const told of [{}, { libraryProblem }]) assert.equal(reasonOf(forged, told), 'chain_not_read');
});

test('without room, a leaf that says enough is refused for that, whatever OpenSSL says of its chain', () => {
  const judged = judging();
  const reasonOf = (peer: TestCertificate): string => judged(peer, { full: true }).reason;
  assert.equal(reasonOf(authority.issue({ id: ID, notBefore: 0, notAfter: 1000 })), 'expired');
  assert.equal(reasonOf(authority.issue({ id: 'spiffe://elsewhere.test/peer' })), 'unknown_trust_domain');
  assert.equal(reasonOf(authority.issue({ uriSans: [] })), 'not_an_svid');
});

test('without room, what others of an issuer sent still counts when the trust has changed, for what it then proves', () => {
  const judged = judging();
  const intermediate = authority.intermediate();
  judged(intermediate.issue({ id: ID }));
  const newPeer = intermediate.issue({ id: ID });
  const second = createTestAuthority({ subject: 'Second root' });
  const more = heldSnapshot([us], [authority], 2);
  assert.equal(judged(newPeer, { full: true, against: more }).reason, ID);
  const other = heldSnapshot([us], [second], 3);
  assert.equal(judged(newPeer, { full: true, against: other }).reason, 'chain_not_read');
});

test('without room, nothing that somebody with an SVID sent before keeps another peer of a known issuer out', () => {
  const intermediate = authority.intermediate();
  const partner = createTestAuthority({ trustDomain: 'partner.test' });
  const partnerId = 'spiffe://partner.test/peer';
  const against = { ...snapshot, bundles: bundlesOf({ 'example.org': [authority], 'partner.test': [partner] }) };
  const insider = intermediate.issue({ id: ID });
  const padding = (bytes: number): Buffer => createTestAuthority({ extensions: [{ oid: '1.2.3.4', value: Buffer.alloc(bytes) }] }).der;
  const room = 32_768 - insider.der.length - intermediate.der.length;
  // An ECDSA signature is a few bytes longer or shorter each time.
  let bytes = 20_000 + room - padding(20_000).length;
  let filler = padding(bytes);
  while (filler.length > room) filler = padding(--bytes);
  const padded = [...insider.chain, filler];
  // Of the same name and key identifier, as anybody may choose them.
  const twin = partner.intermediate({ subject: intermediate.name, subjectKeyId: keyIdOf(intermediate.keys.publicKey) });
  const copied = twin.issue({ id: partnerId, authorityKeyId: keyIdOf(intermediate.keys.publicKey) });
  const kinds: Readonly<Record<string, readonly TestCertificate[]>> = {
    'as much as may be sent': [{ ...insider, chain: padded }],
    'an issuer of the same name elsewhere': [copied],
    'many issuers elsewhere': Array.from({ length: 100 }, () => partner.intermediate().issue({ id: partnerId })),
  };
  for (const [what, peers] of Object.entries(kinds)) {
    const judged = judging();
    assert.equal(judged(intermediate.issue({ id: ID }), { against }).reason, ID);
    for (const peer of peers) assert.equal(judged(peer, { against }).reason.slice(0, 9), 'spiffe://', what);
    // Its leaf is larger than the one of which there was just room enough.
    const honest = intermediate.issue({ id: ID, dnsSans: ['peer.example.org'] });
    assert.equal(judged(honest, { against, full: true }).reason, ID, what);
  }
});
