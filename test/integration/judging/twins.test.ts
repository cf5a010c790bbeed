/**
 * Authorities of other trust domains that look like the issuers of a peer, by accident or on purpose, and chains in which
 * OpenSSL takes a wrong turn: the peer of the right authority is let in all the same, in both roles, and nobody else is.
 */
import assert from 'node:assert/strict';
import { createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import { poolOf } from '../../../src/tls/authority-pool.ts';
import { createPeerJudge, type PeerRole } from '../../../src/tls/peer.ts';
import { ownSvid, present, presentWith, ROLES, startBothRoles, type BothRoles } from '../../support/both-roles.ts';
import { bundlesOf } from '../../support/pki/bundles.ts';
import { octetString, sequence } from '../../support/pki/der-writer.ts';
import { eventually } from '../../support/eventually.ts';
import { startArena, type Flight } from '../../support/pki/evidence.ts';
import {
  createTestAuthority,
  uriName,
  type CertificateOptions,
  type KeyPair,
  type TestAuthority,
  type TestCertificate,
} from '../../support/pki/pki.ts';
import { startSidecar } from '../../support/sidecar.ts';
import { heldSnapshot, svidOf } from '../../support/pki/snapshots.ts';
import { closed, dial, ping, startEcho } from '../../support/tcp.ts';
import { tlsClient, tlsServer } from '../../support/tls-peer.ts';
import { FakeWorkloadApi, type BundleMap } from '../../support/workload-api.ts';

const ID = 'spiffe://example.org/peer';
const OTHER_ID = 'spiffe://other.test/peer';
const PARTNER_ID = 'spiffe://partner.test/peer';
const HOUR = 3_600_000;
const now = Date.now();
const PAST = { notBefore: now - 2 * HOUR, notAfter: now - HOUR };
const FUTURE = { notBefore: now + HOUR, notAfter: now + 2 * HOUR };
const KEY_ID = Buffer.from('a1'.repeat(20), 'hex');
const PEER_ROLES: readonly PeerRole[] = ['client', 'server'];

/** Authorities as the map of federated bundles has them, in this order. */
function federated(...bundles: readonly (readonly [string, ...TestCertificate[]])[]): BundleMap {
  return Object.fromEntries(bundles.map(([domain, ...of]) => [`spiffe://${domain}`, Buffer.concat(of.map(({ der }) => der))]));
}

/** The same key, written so that its curve has no name. */
function unnamedCurve(): { readonly named: KeyPair; readonly unnamed: KeyPair } {
  const unnamed = generateKeyPairSync('ec', { namedCurve: 'prime256v1', paramEncoding: 'explicit' });
  const privateKey = createPrivateKey({ key: unnamed.privateKey.export({ format: 'jwk' }), format: 'jwk' });
  return { named: { privateKey, publicKey: createPublicKey(privateKey) }, unnamed };
}

const curve = unnamedCurve();
const ROOT_KEY_ID = Buffer.from('b2'.repeat(20), 'hex');
const root = createTestAuthority({ subjectKeyId: ROOT_KEY_ID });
const us = svidOf(root, 'spiffe://example.org/us');
const own = ownSvid(root, 'spiffe://example.org/own');
/** What our peers are issued by, and what a partner imitates. */
const imitated = root.intermediate({ subject: 'Imitated', subjectKeyId: KEY_ID, key: curve.named });
const below = imitated.intermediate({ subject: 'Below' });
const peers = [imitated.issue({ id: ID }), below.issue({ id: ID }), root.issue({ id: ID })];

const partner = createTestAuthority({ trustDomain: 'partner.test', subject: 'Partner' });
const alike = { subject: imitated.name, subjectKeyId: KEY_ID };
const UNKNOWN = { oid: '1.3.6.1.4.1.99999.1', critical: true, value: Buffer.from('0500', 'hex') };
const CRITICAL_KEY_ID = { extensions: [{ oid: '2.5.29.14', critical: true, value: octetString(KEY_ID) }] };
const constraint = { nameConstraints: { permitted: [uriName('partner.test')] } };

/** What a partner can publish: it has our certificates, as everybody has, but not our keys. */
const RESTRICTIONS: readonly [string, CertificateOptions][] = [
  ['without restrictions', {}],
  ['for its own names alone', constraint],
  ['for nothing that is TLS', { eku: ['1.3.6.1.5.5.7.3.3'] }],
  ['for servers alone', { eku: ['serverAuth'] }],
  ['with path length 0', { pathLength: 0 }],
  ['that is no CA', { isCa: false }],
  ['that is no CA, and may sign', { isCa: null }],
  ['that may not sign', { keyUsage: ['crlSign'] }],
  ['with a critical extension that nobody knows', { extensions: [UNKNOWN] }],
  ['with a critical subject key identifier', { ...CRITICAL_KEY_ID, subjectKeyId: null }],
  [
    'with a critical authority key identifier',
    { extensions: [{ oid: '2.5.29.35', critical: true, value: sequence() }], authorityKeyId: null },
  ],
  ['that is expired', PAST],
  ['that is not yet valid', FUTURE],
];

const TWINS: readonly (readonly [string, TestCertificate])[] = [
  ...RESTRICTIONS.flatMap(([what, options]) => [
    [`a root of its own, ${what}`, createTestAuthority({ trustDomain: 'partner.test', ...alike, ...options })] as const,
    [`an intermediate of its own, ${what}`, partner.intermediate({ ...alike, ...options })] as const,
    [`a certificate for our key, ${what}`, partner.crossSign(imitated, { ...alike, ...options })] as const,
  ]),
  ['a certificate for our key, its curve without a name', partner.intermediate({ ...alike, key: curve.unnamed })],
  ...[{}, constraint, { eku: ['serverAuth'] }, { pathLength: 0 }, PAST].flatMap((options, index) => {
    const alikeRoot = { subject: root.name, subjectKeyId: ROOT_KEY_ID, ...options };
    return [
      [`a root in the likeness of ours, ${index}`, createTestAuthority({ trustDomain: 'partner.test', ...alikeRoot })] as const,
      [`a certificate for the key of our root, ${index}`, partner.crossSign(root, alikeRoot)] as const,
    ];
  }),
  ['our own root', root],
  ['our own intermediate', imitated],
  ['the certificate of our peer', peers[0] ?? imitated],
];

test('whatever authority a partner publishes in the likeness of our issuers, our peers are let in', async (t) => {
  const arena = await startArena(t);
  for (const [what, twin] of TWINS) {
    await t.test(what, async () => {
      const bundles = bundlesOf({ 'example.org': [root], 'partner.test': [twin, partner] });
      const snapshot = { ...heldSnapshot([us]), bundles };
      const pool = poolOf(snapshot).map((authority) => ({ pem: authority.pem() }));
      const meet = (role: PeerRole, leaf: TestCertificate, sent = leaf.chain, order = pool): Promise<string | undefined> =>
        arena.meet({ pool: order, leaf, sent }, role, (connection) => {
          const answer = createPeerJudge().authenticate(connection, role, snapshot, Date.now());
          return answer.ok ? answer.value.authenticated.id : answer.error.problem;
        });
      for (const role of PEER_ROLES) {
        for (const peer of peers) assert.equal(await meet(role, peer), ID);
        for (const peer of peers) assert.equal(await meet(role, peer, peer.chain, pool.toReversed()), ID);
        // Its own peers are none the worse.
        assert.equal(await meet(role, partner.issue({ id: PARTNER_ID })), PARTNER_ID);
        // Neither name, nor key, nor both make it an authority over us.
        assert.equal(await meet(role, partner.issue({ id: ID })), 'untrusted_chain');
        const orphan = imitated.issue({ id: ID });
        assert.equal(await meet(role, orphan, [orphan.der]), 'untrusted_chain');
        if (twin !== imitated) assert.equal(await meet(role, orphan, [orphan.der, twin.der]), 'untrusted_chain');
      }
    });
  }
});

test('a whole sidecar lets in our peers beside a partner that imitates their issuers', async (t) => {
  const between = await startBothRoles(t, [own.entry], { alsoAllowed: ['partner.test'] });
  const constrainedRoot = { trustDomain: 'partner.test', subject: root.name, subjectKeyId: ROOT_KEY_ID, ...constraint };
  for (const twin of [
    createTestAuthority({ trustDomain: 'partner.test', ...alike }),
    createTestAuthority({ trustDomain: 'partner.test', ...alike, ...constraint }),
    createTestAuthority(constrainedRoot),
    partner.crossSign(imitated, { ...alike, pathLength: 0 }),
    partner.crossSign(imitated, { ...alike, ...PAST }),
  ]) {
    assert.equal(await between.tell([own.entry], federated(['partner.test', twin, partner])), 'ok');
    for (const role of ROLES) {
      for (const peer of peers) await between.admits(role, peer, ID);
      await between.admits(role, partner.issue({ id: PARTNER_ID }), PARTNER_ID);
      await between.refuses(role, partner.issue({ id: ID }), 'untrusted_chain');
      await between.refuses(role, presentWith(imitated.issue({ id: ID }), twin.der), 'untrusted_chain');
    }
  }
});

test('what a partner says of whom its own authority may issue for still counts', async (t) => {
  const limits = { trustDomain: 'partner.test', subject: 'Limited' };
  const anchored = (options: CertificateOptions): TestAuthority => partner.intermediate({ subject: 'Limited', ...options });
  const between = await startBothRoles(t, [own.entry], { alsoAllowed: ['partner.test'] });
  const sound = [
    createTestAuthority({ ...limits, ...constraint }),
    createTestAuthority({ ...limits, pathLength: 0 }),
    anchored(constraint),
    anchored({ pathLength: 0 }),
  ];
  const elsewhere = { nameConstraints: { permitted: [uriName('other.test')] } };
  const unsound = [
    createTestAuthority({ ...limits, ...elsewhere }),
    anchored(elsewhere),
    anchored({ eku: ['serverAuth'] }),
    anchored({ isCa: false }),
    anchored({ keyUsage: ['crlSign'] }),
    anchored({ extensions: [UNKNOWN] }),
    anchored(PAST),
  ];
  for (const authority of [...sound, ...unsound]) {
    assert.equal(await between.tell([own.entry], federated(['partner.test', authority])), 'ok');
    for (const role of ROLES) {
      const leaf = authority.issue({ id: PARTNER_ID });
      if (sound.includes(authority)) await between.admits(role, { ...leaf, chainPem: leaf.pem }, PARTNER_ID);
      else await between.refuses(role, presentWith(leaf), authority === unsound.at(-1) ? 'expired' : 'untrusted_chain');
    }
  }
  for (const authority of [sound[1], sound[3]]) {
    assert.ok(authority);
    await between.tell([own.entry], federated(['partner.test', authority]));
    const deeper = authority.intermediate({ subject: 'Deeper' });
    for (const role of ROLES) {
      const { line } = await between.refuses(role, presentWith(deeper.issue({ id: PARTNER_ID }), deeper.der), 'untrusted_chain');
      assert.match(String(line['detail']), /allows 0 intermediates|PATH_LENGTH_EXCEEDED/);
    }
  }
});

test('of two partners, and of a partner and us, neither shuts out the other with an authority in its likeness', async (t) => {
  const victim = createTestAuthority({ trustDomain: 'partner.test', ...alike });
  const victimBelow = victim.intermediate({ subject: 'Theirs', subjectKeyId: KEY_ID });
  const rootTwin = createTestAuthority({ trustDomain: 'other.test', ...alike });
  const belowTwin = createTestAuthority({ trustDomain: 'other.test', subject: victimBelow.name, subjectKeyId: KEY_ID });
  const alsoAllowed = ['partner.test', 'other.test'];
  const meetAll = async (between: BothRoles): Promise<void> => {
    for (const role of ROLES) {
      for (const peer of [victim.issue({ id: PARTNER_ID }), victimBelow.issue({ id: PARTNER_ID })])
        await between.admits(role, peer, PARTNER_ID);
      for (const peer of [rootTwin.issue({ id: PARTNER_ID }), belowTwin.issue({ id: PARTNER_ID })])
        await between.refuses(role, peer, 'untrusted_chain');
    }
  };
  const theirs = ['partner.test', victim] as const;
  const others = ['other.test', rootTwin, belowTwin] as const;
  for (const bundles of [
    [theirs, others],
    [others, theirs],
  ]) {
    const between = await startBothRoles(t, [own.entry], { federated: federated(...bundles), alsoAllowed });
    await meetAll(between);
    for (const role of ROLES) {
      await between.admits(role, rootTwin.issue({ id: OTHER_ID }), OTHER_ID);
      await between.refuses(role, victim.issue({ id: OTHER_ID }), 'untrusted_chain');
    }
  }
  // Our own bundle stands before theirs.
  const ourTwins = [victim, victimBelow].map(({ name }) => createTestAuthority({ subject: name, subjectKeyId: KEY_ID }));
  const entry = { ...own.entry, bundle: Buffer.concat([root, ...ourTwins].map(({ der }) => der)) };
  const between = await startBothRoles(t, [entry], { federated: federated(theirs), alsoAllowed });
  await meetAll(between);
  for (const role of ROLES) for (const twin of ourTwins) await between.admits(role, twin.issue({ id: ID }), ID);
});

/** What honest peers send, and OpenSSL takes a wrong turn in; `openssl` is what it says. */
interface WrongTurn extends Flight {
  readonly what: string;
  readonly trusted: readonly TestCertificate[];
  readonly openssl: string;
}

function wrongTurns(): readonly WrongTurn[] {
  const turns: WrongTurn[] = [];
  const add = (
    what: string,
    openssl: string,
    leaf: TestCertificate,
    {
      trusted = [root],
      foreign = [],
      sent = leaf.chain,
    }: Partial<Record<'trusted' | 'foreign', TestCertificate[]>> & { sent?: readonly Uint8Array[] },
  ): void => void turns.push({ what, openssl, leaf, sent, trusted, pool: [...foreign, ...trusted] });

  const ours = createTestAuthority({ subject: 'Imitated root', subjectKeyId: KEY_ID });
  const twin = createTestAuthority({ subject: 'Imitated root', subjectKeyId: KEY_ID, trustDomain: 'partner.test' });
  const failure = 'CERT_SIGNATURE_FAILURE';
  add('a twin of our root, before it in the pool', failure, ours.issue({ id: ID }), { trusted: [ours], foreign: [twin] });
  add('the same, below an intermediate', failure, ours.intermediate().issue({ id: ID }), { trusted: [ours], foreign: [twin] });

  const unnamed = { subject: 'Nameless key', subjectKeyId: null };
  const [one, two] = [createTestAuthority(unnamed), createTestAuthority(unnamed)];
  const terse = two.issue({ id: ID, authorityKeyId: null });
  add('two authorities of one name, and a leaf that names no key', failure, terse, { trusted: [one, two] });

  const named = createTestAuthority({ subject: 'Same' });
  const noIds = { id: ID, subjectKeyId: null, authorityKeyId: null };
  const selfSigned = 'DEPTH_ZERO_SELF_SIGNED_CERT';
  add('a leaf that has the name of its issuer', selfSigned, named.issue({ ...noIds, subject: 'Same' }), { trusted: [named] });
  const nameless = createTestAuthority({ subject: '' });
  add('a leaf without a name, of an issuer without one', selfSigned, nameless.issue({ ...noIds, subject: '' }), { trusted: [nameless] });

  const otherRoot = createTestAuthority({ subject: 'Other root' });
  const cross = root.crossSign(otherRoot);
  const leaf = otherRoot.issue({ id: ID });
  const sent = [leaf.der, otherRoot.der, cross.der];
  add('a cross-signed chain with its own root before the cross-certificate', 'SELF_SIGNED_CERT_IN_CHAIN', leaf, { sent });
  const under = otherRoot.intermediate({ subject: 'Under it' });
  const deep = under.issue({ id: ID });
  add('the same, one deeper', 'SELF_SIGNED_CERT_IN_CHAIN', deep, { sent: [deep.der, under.der, otherRoot.der, cross.der] });

  for (const [when, dates, code] of [
    ['expired', PAST, 'CERT_HAS_EXPIRED'],
    ['future', FUTURE, 'CERT_NOT_YET_VALID'],
  ] as const) {
    const past = createTestAuthority({ subject: 'Other root', key: otherRoot.keys, ...dates });
    add(`a valid cross-certificate beside an ${when} root of that key`, code, deep, {
      sent: [deep.der, under.der, cross.der],
      trusted: [root, past],
    });
    const crossTwin = root.crossSign(otherRoot, dates);
    add(`a valid cross-certificate beside its ${when} twin`, code, deep, {
      sent: [deep.der, under.der, cross.der],
      trusted: [root, crossTwin],
    });
  }

  const lost = createTestAuthority().crossSign(under);
  add('a certificate of the intermediate by an unknown root first', 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY', deep, {
    sent: [deep.der, createTestAuthority({ subject: 'Nobody' }).crossSign(under).der, lost.der, under.der, cross.der],
  });
  const wrong = root.intermediate({ subject: imitated.name, subjectKeyId: KEY_ID });
  add('a wrong twin of the intermediate first', failure, peers[0] ?? imitated, {
    sent: [peers[0]?.der ?? root.der, wrong.der, imitated.der],
  });
  return turns;
}

test('where OpenSSL takes a wrong turn, the peer is let in, and with another authority of that name it is not', async (t) => {
  const arena = await startArena(t);
  for (const { what, trusted, openssl, ...flight } of wrongTurns()) {
    await t.test(`${what} (${openssl})`, async () => {
      for (const role of PEER_ROLES) {
        const judge = createPeerJudge();
        const said = await arena.meet(flight, role, (connection) => {
          assert.equal(connection.readPeerEvidence().libraryProblem, openssl);
          const snapshot = { ...heldSnapshot([us], [root]), bundles: bundlesOf({ 'example.org': trusted }) };
          const answer = judge.authenticate(connection, role, snapshot, Date.now());
          const foreign = { ...snapshot, bundles: bundlesOf({ 'partner.test': trusted, 'example.org': [partner] }), generation: 2 };
          assert.ok(!judge.authenticate(connection, role, foreign, Date.now()).ok);
          return answer.ok ? answer.value.authenticated.id : answer.error.detail;
        });
        assert.equal(said, ID);
      }
    });
  }
});

test('what OpenSSL alone minds keeps a peer out, although our own walk finds a path', async (t) => {
  const between = await startBothRoles(t, [own.entry]);
  // The old certificate type of Netscape: for mail alone. No rule of X.509-SVIDs knows it.
  const mail = root.issue({ id: ID, extensions: [{ oid: '2.16.840.1.113730.1.1', value: Buffer.from('03020520', 'hex') }] });
  for (const role of ROLES) {
    const { line } = await between.refuses(role, mail, 'untrusted_chain');
    assert.match(String(line['detail']), /^OpenSSL does not trust the chain: INVALID_PURPOSE \(claims/);
  }
});

test('dates are judged by the clock that the walk has, also where OpenSSL has another', async (t) => {
  const arena = await startArena(t);
  const old = createTestAuthority({ ...PAST, notAfter: now + HOUR });
  const snapshot = heldSnapshot([us], [old]);
  for (const role of PEER_ROLES) {
    for (const [leaf, code, then] of [
      [old.issue({ id: ID, ...PAST }), 'CERT_HAS_EXPIRED', PAST.notAfter - 1000],
      [old.issue({ id: ID, notBefore: now + HOUR / 2 }), 'CERT_NOT_YET_VALID', now + (HOUR * 3) / 4],
    ] as const) {
      const said = await arena.meet({ pool: [old], leaf, sent: leaf.chain }, role, (connection) => {
        assert.equal(connection.readPeerEvidence().libraryProblem, code);
        const ask = (nowMs: number): string => {
          const answer = createPeerJudge().authenticate(connection, role, snapshot, nowMs);
          return answer.ok ? 'let in' : answer.error.problem;
        };
        return [ask(then), ask(Date.now())];
      });
      assert.deepEqual(said, ['let in', code === 'CERT_HAS_EXPIRED' ? 'expired' : 'not_yet_valid']);
    }
  }
});

test('live connections stay when a partner imitates the issuer of their peer, and go with the real one', async (t) => {
  const api = await FakeWorkloadApi.start();
  t.after(() => api[Symbol.asyncDispose]());
  api.setX509([own.entry]);
  const [peer] = peers;
  assert.ok(peer);
  const application = await startEcho(t);
  const server = await tlsServer(t, present(peer), (socket) => socket.pipe(socket));
  const sidecar = await startSidecar(t, {
    workloadApi: { endpoint: api.endpoint },
    inbound: [{ name: 'in', listen: '127.0.0.1:0', to: application.address, allow: [ID] }],
    outbound: [{ name: 'out', listen: '127.0.0.1:0', to: server.address, expect: [ID] }],
  });
  let updates = 1;
  const tell = async (...what: Parameters<typeof api.setX509>): Promise<void> => {
    api.setX509(...what);
    updates += 1;
    await eventually(async () => assert.equal(await sidecar.metric('scute_x509_svid_updates_total', { result: 'ok' }), updates));
  };
  const open = async (): Promise<Socket[]> => {
    const pair = [tlsClient(t, sidecar.address('in'), present(peer)), await dial(t, sidecar.address('out'))];
    await Promise.all(pair.map(ping));
    return pair;
  };
  const twin = createTestAuthority({ trustDomain: 'partner.test', ...alike });
  const constrained = createTestAuthority({ trustDomain: 'partner.test', ...alike, ...constraint });

  const connections = await open();
  for (const bundle of [[twin], [constrained, partner], [partner.crossSign(imitated, { ...alike, eku: ['serverAuth'] })], []]) {
    await tell([own.entry], federated(['partner.test', ...bundle]));
    await Promise.all(connections.map(ping));
    connections.push(...(await open()));
  }
  await tell([own.entry], federated(['partner.test', twin]));
  connections.push(...(await open()));
  const ends = connections.map(closed);

  // The imitation vouches for nobody once the original is gone.
  const heir = createTestAuthority();
  await tell([ownSvid(heir, own.entry.spiffeId ?? '').entry], federated(['partner.test', twin, imitated]));

  for (const end of await Promise.all(ends)) assert.equal(end, 'ECONNRESET');
  const reasons = sidecar.log().flatMap((line) => line['close_reason'] ?? []);
  assert.deepEqual(new Set(reasons), new Set(['authority_removed']));
  assert.equal(reasons.length, connections.length);
});
