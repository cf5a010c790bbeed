import assert from 'node:assert/strict';
import { hash, X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import { bundlesOf } from '../../test/support/pki/bundles.ts';
import { denyListOf } from '../../test/support/policy/deny-file.ts';
import { createTestAuthority, keyIdOf, type TestAuthority, type TestCertificate } from '../../test/support/pki/pki.ts';
import { bundleOf, heldSnapshot, svidOf } from '../../test/support/pki/snapshots.ts';
import type { HeldIdentity } from '../identity/snapshot.ts';
import type { PeerEvidence, SecureConnection } from '../transport/connection.ts';
import { authenticateAgain, createPeerJudge, revocationBesides, type PeerJudge } from './peer.ts';

const ID = 'spiffe://example.org/peer';
const root = createTestAuthority();
const us = svidOf(root, 'spiffe://example.org/us');
const snapshot = heldSnapshot([us], [root]);

/** What OpenSSL may say that a wrong choice among issuers explains; all else is final. */
const WRONG_CHOICE = [
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'CERT_SIGNATURE_FAILURE',
  'CERT_HAS_EXPIRED',
  'CERT_NOT_YET_VALID',
];

/** The other codes that Node has names for, and things that it may say one day. */
const FINAL = [
  'UNABLE_TO_GET_CRL',
  'UNABLE_TO_DECRYPT_CERT_SIGNATURE',
  'UNABLE_TO_DECRYPT_CRL_SIGNATURE',
  'UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY',
  'CRL_SIGNATURE_FAILURE',
  'CRL_NOT_YET_VALID',
  'CRL_HAS_EXPIRED',
  'ERROR_IN_CERT_NOT_BEFORE_FIELD',
  'ERROR_IN_CERT_NOT_AFTER_FIELD',
  'ERROR_IN_CRL_LAST_UPDATE_FIELD',
  'ERROR_IN_CRL_NEXT_UPDATE_FIELD',
  'OUT_OF_MEM',
  'CERT_CHAIN_TOO_LONG',
  'CERT_REVOKED',
  'INVALID_CA',
  'PATH_LENGTH_EXCEEDED',
  'INVALID_PURPOSE',
  'CERT_UNTRUSTED',
  'CERT_REJECTED',
  'HOSTNAME_MISMATCH',
  'UNSPECIFIED',
  'OK',
  '',
  'cert_has_expired',
  'constructor',
];

/** A handshake that left this behind, whatever would have. */
function evidence(libraryProblem: string | undefined, chain: readonly Uint8Array[]): SecureConnection {
  const never = (): never => assert.fail('not for the judge');
  const read: PeerEvidence = { libraryProblem, leafDer: chain[0], counted: undefined, sentBytes: 2000, chainDer: () => [...chain] };
  return {
    remoteAddress: '127.0.0.1:1',
    tlsVersion: 'TLSv1.3',
    alpn: undefined,
    serverName: undefined,
    readPeerEvidence: () => read,
    dropPeerEvidence: never,
    wait: never,
    start: never,
    handOver: never,
    write: never,
    endWrite: never,
    pause: never,
    resume: never,
    abort: never,
  };
}

type Answer = ReturnType<PeerJudge['authenticate']>;

function ask(judge: PeerJudge, code: string | undefined, chain: readonly Uint8Array[], against: HeldIdentity = snapshot): Answer {
  return judge.authenticate(evidence(code, chain), 'client', against, Date.now());
}

function refusalOf(answer: Answer): readonly [string, string] {
  assert.ok(!answer.ok, 'the peer was let in');
  return [answer.error.problem, answer.error.detail];
}

const genuine = root.intermediate().issue({ id: ID });
const forger = createTestAuthority({ subject: root.name });
const forged = forger.intermediate().issue({ id: ID });

for (const code of WRONG_CHOICE) {
  test(`with ${code} of OpenSSL a peer whose path holds step by step is let in, and no other`, () => {
    const judge = createPeerJudge();
    const answer = ask(judge, code, genuine.chain);
    assert.ok(answer.ok);
    assert.equal(answer.value.authenticated.id, ID);
    for (const chain of [
      forged.chain,
      [...forged.chain, root.der],
      [forged.der, ...genuine.chain],
      [forged.der],
      genuine.chain.slice(0, 1),
    ])
      assert.equal(refusalOf(ask(judge, code, chain))[0], 'untrusted_chain');
    const expired = root.issue({ id: ID, notBefore: Date.now() - 9_000_000, notAfter: Date.now() - 5000 });
    assert.equal(refusalOf(ask(judge, code, expired.chain))[0], 'expired');
    assert.equal(refusalOf(ask(judge, code, root.issue({ id: ID, notBefore: Date.now() + 90_000 }).chain))[0], 'not_yet_valid');
  });
}

for (const code of FINAL) {
  test(`${JSON.stringify(code)} of OpenSSL is final, although our own walk finds a path`, () => {
    const judge = createPeerJudge();
    assert.ok(ask(judge, undefined, genuine.chain).ok);
    for (let time = 0; time < 2; time += 1) {
      assert.deepEqual(refusalOf(ask(judge, code, genuine.chain)), ['untrusted_chain', `OpenSSL does not trust the chain: ${code}`]);
      // Where the leaf says what is wrong, that is what is told.
      assert.equal(refusalOf(ask(judge, code, [root.issue({ id: ID, notBefore: Date.now() + 90_000 }).der]))[0], 'not_yet_valid');
      assert.equal(refusalOf(ask(judge, code, forged.chain))[0], 'untrusted_chain');
    }
  });
}

test('OpenSSL must agree with every step of the path: key identifiers, which our own walk does not believe, keep a peer out', () => {
  const lying = root.issue({ id: ID, authorityKeyId: Buffer.alloc(20, 7) });
  assert.ok(ask(createPeerJudge(), undefined, lying.chain).ok);
  for (const code of WRONG_CHOICE) {
    const [problem, detail] = refusalOf(ask(createPeerJudge(), code, lying.chain));
    assert.equal(problem, 'untrusted_chain');
    assert.match(detail, new RegExp(`${code}, nor the path that was found: by names, key identifiers`));
  }
});

/** An intermediate with two certificates of `root`: one with a foreign key identifier of its issuer, and a sound one. */
function cross(): { readonly leaf: TestCertificate; readonly lying: TestAuthority; readonly sound: TestAuthority } {
  const sound = root.intermediate({ subject: 'Shared' });
  return { leaf: sound.issue({ id: ID }), lying: root.crossSign(sound, { authorityKeyId: Buffer.alloc(20, 7) }), sound };
}

test('where OpenSSL does not agree with the first path that holds, the walk goes on to the next', () => {
  const { leaf, lying, sound } = cross();
  for (const others of [
    [lying, sound],
    [sound, lying],
  ]) {
    const answer = ask(createPeerJudge(), 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY', [leaf.der, ...others.map(({ der }) => der)]);
    assert.ok(answer.ok);
    const again = authenticateAgain(answer.value, snapshot, Date.now());
    assert.ok(again.ok);
    assert.equal(again.value.path[1]?.serial, sound.serial);
  }
  refusalOf(ask(createPeerJudge(), 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY', [leaf.der, lying.der]));
});

test('a second look is taken once for the same certificates, and anew for others', () => {
  const judge = createPeerJudge();
  const once = ask(judge, 'CERT_SIGNATURE_FAILURE', genuine.chain);
  const again = ask(judge, 'SELF_SIGNED_CERT_IN_CHAIN', genuine.chain);
  assert.ok(once.ok && again.ok);
  assert.equal(again.value, once.value);

  // What others sent with this leaf does not help who sends less: no answer depends on who came before.
  refusalOf(ask(judge, 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY', [genuine.der]));
  refusalOf(ask(judge, 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY', [genuine.der, forger.der]));
  // Nor does a path to which OpenSSL was not asked to agree.
  const { leaf, lying } = cross();
  assert.ok(ask(judge, undefined, [leaf.der, lying.der]).ok);
  refusalOf(ask(judge, 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY', [leaf.der, lying.der]));
  // A new generation knows nobody.
  const elsewhere = heldSnapshot([us], [createTestAuthority()], 2);
  refusalOf(ask(judge, 'CERT_SIGNATURE_FAILURE', genuine.chain, elsewhere));
  assert.ok(ask(judge, 'CERT_SIGNATURE_FAILURE', genuine.chain, heldSnapshot([us], [root], 3)).ok);
});

test('a second look that was remembered is over with the first certificate on its path, and is not one for the other role', () => {
  const judge = createPeerJudge();
  const notAfter = Math.floor(Date.now() / 1000) * 1000 + 60_000;
  const leaf = root.issue({ id: ID, notAfter });
  const askAt = (nowMs: number, role: 'client' | 'server' = 'client'): Answer =>
    judge.authenticate(evidence('CERT_HAS_EXPIRED', leaf.chain), role, snapshot, nowMs);
  assert.ok(askAt(notAfter - 1).ok);
  // The walk has the last second of validity as valid, OpenSSL does not, and both must hold.
  assert.equal(refusalOf(askAt(notAfter))[0], 'expired');
  const [client, server] = [askAt(notAfter - 1), askAt(notAfter - 1, 'server')];
  assert.ok(client.ok && server.ok);
  assert.notEqual(client.value, server.value);
});

test('peers are remembered up to a number of bytes, the youngest of them, whatever their issuers put into certificates', () => {
  for (const [names, areKept] of [
    [1, true],
    [1700, false],
  ] as const) {
    const judge = createPeerJudge();
    const dnsSans = Array.from({ length: names }, () => 'padding.example');
    const chains = Array.from({ length: 600 }, () => root.issue({ id: ID, dnsSans }).chain);
    const first = chains.map((chain) => ask(judge, undefined, chain));
    // What is remembered is the same thing again. From the youngest on: who is forgotten would make another forgotten.
    const again = chains.toReversed().map((chain, index) => {
      const [one, other] = [first.at(-1 - index), ask(judge, undefined, chain)];
      assert.ok(one?.ok && other.ok);
      return one.value === other.value;
    });
    assert.equal(again[0], true);
    assert.equal(again.at(-1), areKept);
    for (const answer of first) assert.ok(answer.ok && !('extensions' in answer.value.authenticated.leaf), 'nor is all that was read kept');
  }
});

test('a live peer that needed the second look needs it again at a new snapshot, and one that did not does not', () => {
  const { leaf, lying, sound } = cross();
  const chain = [leaf.der, sound.der, lying.der];
  const second = createTestAuthority({ subject: 'Second root' });
  const bySecond = second.crossSign(sound, { authorityKeyId: Buffer.alloc(20, 9), id: 'spiffe://example.org' });
  const chainOfBoth = [...chain, bySecond.der];
  const [trusted, mistaken] = [undefined, 'CERT_SIGNATURE_FAILURE'].map((code) => ask(createPeerJudge(), code, chainOfBoth));
  assert.ok(trusted?.ok && mistaken?.ok);

  const same = heldSnapshot([us], [root], 2);
  for (const peer of [trusted.value, mistaken.value]) assert.ok(authenticateAgain(peer, same, Date.now()).ok);

  // From now on the only path has a step with which OpenSSL does not agree.
  const changed = heldSnapshot([us], [second], 3);
  assert.ok(authenticateAgain(trusted.value, changed, Date.now()).ok);
  const refused = authenticateAgain(mistaken.value, changed, Date.now());
  assert.ok(!refused.ok && /nor the path that was found/.test(refused.error.detail));

  // That it merely expired since is no reason, with or without the second look.
  const later = new X509Certificate(leaf.der).validToDate.getTime() + 1000;
  for (const peer of [trusted.value, mistaken.value]) assert.ok(authenticateAgain(peer, same, later).ok);
  const nobody = heldSnapshot([us], [createTestAuthority()], 4);
  for (const peer of [trusted.value, mistaken.value]) assert.ok(!authenticateAgain(peer, nobody, Date.now()).ok);
});

test('what expired since a live peer was proven does not count, and nothing else that would keep it out is hidden by that', () => {
  const hour = 3_600_000;
  const nowMs = Date.now();
  const provenAtMs = nowMs - 2 * hour;
  const held = createTestAuthority({ subject: 'Held', notBefore: nowMs - 4 * hour });
  const stale = createTestAuthority({ subject: 'Held', key: held.keys, notBefore: nowMs - 9 * hour, notAfter: nowMs - 8 * hour });
  const anew = createTestAuthority({ subject: 'Held', key: held.keys, notBefore: nowMs - hour / 2 });
  const other = createTestAuthority({ subject: 'Other', notBefore: nowMs - 9 * hour });
  const issuer = held.intermediate({ notBefore: provenAtMs });
  const over = other.crossSign(issuer, { notBefore: nowMs - 9 * hour, notAfter: nowMs - 8 * hour });
  for (const notAfter of [nowMs - hour, nowMs + hour]) {
    const leaf = issuer.issue({ id: ID, notBefore: provenAtMs, notAfter });
    const chain = [...leaf.chain, over.der];
    const held1 = heldSnapshot([us], [held], 1);
    for (const code of [undefined, 'CERT_HAS_EXPIRED']) {
      const proven = createPeerJudge().authenticate(evidence(code, chain), 'client', held1, provenAtMs);
      assert.ok(proven.ok);
      const again = (trusted: readonly TestCertificate[], crls: readonly Uint8Array[] = []): string => {
        const bundles = bundlesOf({ 'example.org': trusted }, crls);
        const answer = authenticateAgain(proven.value, { ...heldSnapshot([us], [], 2), bundles }, nowMs);
        return answer.ok ? 'stays' : answer.error.problem;
      };
      const revoked = issuer.crl({ revoked: [leaf.serial] });

      for (const trusted of [[held], [anew], [stale, anew], [other, held]]) {
        assert.equal(again(trusted), 'stays');
        assert.equal(again(trusted, [revoked]), 'revoked');
      }
      // Its authority is gone. What had expired before the peer was proven, sent by it or trusted still, is no other.
      for (const trusted of [[stale], [other]]) assert.equal(again(trusted), 'expired');
    }
  }
});

test('a peer whose authority, or trust domain, is gone is still revoked by a list of that authority and by the deny list', () => {
  const old = createTestAuthority();
  const intermediate = old.intermediate();
  const leaf = intermediate.issue({ id: ID });
  const judged = createPeerJudge().authenticate(evidence(undefined, leaf.chain), 'client', heldSnapshot([us], [old]), Date.now());
  assert.ok(judged.ok);
  const foreign = createTestAuthority({ trustDomain: 'partner.test' });
  const keyId = (of: TestCertificate): string => keyIdOf(of.keys.publicKey).toString('hex');
  const lists = [
    [old.crl({ revoked: [intermediate.serial] }), {}],
    [intermediate.crl({ revoked: [leaf.serial] }), {}],
    [undefined, { ids: [ID] }],
    [undefined, { certificates: [hash('sha256', leaf.der)] }],
    [undefined, { serials: [`${intermediate.serial}@${keyId(old)}`] }],
    [undefined, { serials: [`${leaf.serial}@${keyId(intermediate)}`] }],
  ] as const;

  for (const authority of [root, foreign]) {
    const withLists = (...crls: readonly Uint8Array[]): HeldIdentity => {
      const bundle = bundleOf(authority, crls);
      return { ...snapshot, generation: 2, bundles: new Map([[bundle.trustDomain, bundle]]) };
    };
    for (const [crl, entries] of lists) {
      const later = withLists(...(crl === undefined ? [] : [crl]));
      assert.equal(authenticateAgain(judged.value, later, Date.now()).ok, false);
      const refused = revocationBesides(judged.value, later, Date.now(), denyListOf(entries));
      assert.equal(refused?.problem, 'revoked', JSON.stringify(entries));
    }
    const harmless = withLists(old.crl({ revoked: ['77'] }), foreign.crl({ revoked: [leaf.serial, intermediate.serial] }));
    assert.equal(revocationBesides(judged.value, harmless, Date.now(), denyListOf({ ids: [`${ID}s`] })), undefined);
  }
});
