// Two judges of one chain: whom the peer judge lets in, OpenSSL must trust as well, in a handshake that really happens.
import assert from 'node:assert/strict';
import { hash } from 'node:crypto';
import { test } from 'node:test';
import { verifyPeer } from '../../../src/spiffe/verify.ts';
import { poolOf } from '../../../src/tls/authority-pool.ts';
import { mayBeWrongChoice } from '../../../src/tls/path-recheck.ts';
import { authenticateAgain, createPeerJudge, type PeerRole } from '../../../src/tls/peer.ts';
import { bundlesOf, requireCertificate } from '../../support/pki/bundles.ts';
import { startArena } from '../../support/pki/evidence.ts';
import {
  createTestAuthority,
  directoryName,
  distinguishedName,
  dnsName,
  emailName,
  ipName,
  ORGANISATION,
  uriName,
  type CertificateOptions,
  type TestAuthority,
  type TestCertificate,
} from '../../support/pki/pki.ts';
import { heldSnapshot, svidOf } from '../../support/pki/snapshots.ts';

const CHAINS = 500;
const HOUR_MS = 3_600_000;
const UNKNOWN = { oid: '1.3.6.1.4.1.55555.1', critical: true, value: Buffer.from([0x05, 0x00]) };

const EXPIRED = { notBefore: Date.now() - 2 * HOUR_MS, notAfter: Date.now() - HOUR_MS };

type Mutation = readonly [string, CertificateOptions];

/** What may be wrong with any certificate. */
const ANYWHERE: readonly Mutation[] = [
  ['bad signature', { badSignature: true }],
  ['expired', EXPIRED],
  ['not yet valid', { notBefore: Date.now() + HOUR_MS, notAfter: Date.now() + 2 * HOUR_MS }],
  ['unknown critical extension', { extensions: [UNKNOWN] }],
  ['unknown extension', { extensions: [{ ...UNKNOWN, critical: false }] }],
  ['no key identifier', { subjectKeyId: null }],
  ['no authority key identifier', { authorityKeyId: null }],
  ['foreign authority key identifier', { authorityKeyId: Buffer.alloc(20, 7) }],
  ['foreign key identifier', { subjectKeyId: Buffer.alloc(20, 8) }],
  ['serverAuth only', { eku: ['serverAuth'] }],
  ['any usage only', { eku: ['any'] }],
  ['no extended key usage', { eku: null }],
  ['no key usage', { keyUsage: null }],
  ['key usage not critical', { keyUsageCritical: false }],
  ['P-384', { key: 'p384' }],
  ['P-521', { key: 'p521' }],
  ['secp256k1', { key: 'secp256k1' }],
  ['Ed25519', { key: 'ed25519' }],
  ['RSA 2048', { key: 'rsa2048' }],
  ['RSA 1024', { key: 'rsa1024' }],
  ['another issuer named', { issuerName: Buffer.from('3000', 'hex') }],
  ['empty subject', { subject: '' }],
];

/** What may be wrong with an intermediate alone. */
const AT_ISSUERS: readonly Mutation[] = [
  ['no CA', { isCa: false }],
  ['no basic constraints', { isCa: null }],
  ['no keyCertSign', { keyUsage: ['digitalSignature'] }],
  ['path length 0', { pathLength: 0 }],
  ['path length 1', { pathLength: 1 }],
  ['permits its domain', { nameConstraints: { permitted: [uriName('example.org')] } }],
  ['permits another domain', { nameConstraints: { permitted: [uriName('partner.test')] } }],
  ['excludes its domain', { nameConstraints: { excluded: [uriName('example.org')] } }],
  ['excludes below its domain', { nameConstraints: { excluded: [uriName('.example.org')] } }],
  ['permits a DNS name', { nameConstraints: { permitted: [dnsName('example.org')] } }],
  ['excludes a DNS name', { nameConstraints: { excluded: [dnsName('www.example.org')], critical: false } }],
  ['excludes what a wildcard may mean', { nameConstraints: { excluded: [dnsName('bar.example.org')] } }],
  ['permits a network', { nameConstraints: { permitted: [ipName([10, 0, 0, 0, 255, 0, 0, 0])] } }],
  ['a mask with holes', { nameConstraints: { excluded: [ipName([10, 0, 0, 0, 255, 0, 255, 0])] } }],
  ['permits mailboxes', { nameConstraints: { permitted: [emailName('example.org')] } }],
  ['permits an organisation', { nameConstraints: { permitted: [directoryName(distinguishedName([ORGANISATION, 'SCUTE test']))] } }],
  ['a malformed constraint', { nameConstraints: { permitted: [dnsName('.example.org')] } }],
  ['critical policies', { extensions: [{ oid: '2.5.29.32', critical: true, value: Buffer.from('3006300406022a03', 'hex') }] }],
  ['critical policies of junk', { extensions: [{ oid: '2.5.29.32', critical: true, value: Buffer.from('junk') }] }],
  ['the ID of another domain', { id: 'spiffe://partner.test' }],
  ['an ID with a path', { id: 'spiffe://partner.test/ca' }],
  ['no ID', { uriSans: [] }],
];

/** What may be wrong with a leaf alone. */
const AT_LEAVES: readonly Mutation[] = [
  ['no ID', { uriSans: [] }],
  ['two IDs', { uriSans: ['spiffe://example.org/a', 'spiffe://example.org/b'] }],
  ['the ID of another domain', { id: 'spiffe://partner.test/workload' }],
  ['a DNS name', { dnsSans: ['www.example.org'] }],
  ['a wildcard', { dnsSans: ['*.example.org'] }],
  ['a malformed DNS name', { dnsSans: ['.example.org'] }],
  ['an address', { otherSans: [ipName([10, 1, 1, 1])] }],
  ['a malformed address', { otherSans: [ipName([10, 1, 1])] }],
  ['a mailbox', { otherSans: [emailName('a@example.org')] }],
  ['a malformed mailbox', { otherSans: [emailName('a@b@example.org')] }],
  ['name constraints', { nameConstraints: { permitted: [uriName('example.org')] } }],
  ['keyCertSign', { keyUsage: ['digitalSignature', 'keyCertSign'] }],
  ['CA', { isCa: true }],
];

interface Sample {
  /** For the message of a failure. */
  readonly story: string;
  readonly leaf: TestCertificate;
  readonly sent: readonly Buffer[];
  readonly anchors: readonly TestCertificate[];
  readonly foreign: readonly TestCertificate[];
}

test('whom the judge lets in OpenSSL trusts, at once or on the very path that our own walk finds', async (t) => {
  let drawn = 0;
  // The same again in every run.
  const random = (): number => Number.parseInt(hash('sha256', `chain ${(drawn += 1)}`).slice(0, 12), 16) / 2 ** 48;
  const arena = await startArena(t);
  const us = svidOf(createTestAuthority(), 'spiffe://example.org/us');
  const seen = { both: 0, onSecondLook: 0, notOnSecondLook: 0, final: 0, neither: 0, oursStricter: 0 };
  for (let index = 0; index < CHAINS; index++) {
    const sample = makeSample(random);
    const { leaf, sent } = sample;
    const story = `chain ${index}, ${sample.story}`;
    const role: PeerRole = index % 3 === 0 ? 'server' : 'client';
    const bundles = bundlesOf({ 'example.org': sample.anchors, 'partner.test': sample.foreign });
    const snapshot = { ...heldSnapshot([us]), bundles };
    const pool = poolOf(snapshot).map((authority) => ({ pem: authority.pem() }));
    const nowMs = Date.now();
    const met = await arena.meet({ pool, leaf, sent }, role, (connection) => ({
      evidence: connection.readPeerEvidence(),
      answer: createPeerJudge().authenticate(connection, role, snapshot, nowMs),
    }));
    if (met === undefined) continue;
    const { answer } = met;
    const { libraryProblem, chainDer } = met.evidence;
    assert.deepEqual(
      chainDer()?.map((der) => Buffer.from(der).toString('hex')),
      sent.map((der) => der.toString('hex')),
      `${story}: what was sent is what is judged`,
    );
    const walked = verifyPeer(sent, bundles, nowMs);
    // Our own walk decides: on no verdict of OpenSSL does anybody get in past it.
    if (answer.ok) assert.ok(walked.ok, story);
    // The same walk as that of the answer, which keeps no path.
    const judged = answer.ok ? authenticateAgain(answer.value, snapshot, nowMs) : walked;
    if (answer.ok) assert.ok(judged.ok, story);
    const path = judged.ok ? judged.value.path : undefined;
    const [authority] = path?.slice(-1) ?? [];
    // OpenSSL over the path alone, whole, with the one authority that it ends in: it has no choice there.
    const exact = { pool: [{ pem: authority?.pem() ?? '' }], leaf, sent: path?.slice(0, -1).map((certificate) => certificate.der()) ?? [] };
    const ofPath =
      path === undefined
        ? 'no path'
        : await arena.meet(exact, role, (connection) => connection.readPeerEvidence().libraryProblem ?? 'trusted');
    if (libraryProblem === undefined) {
      assert.equal(answer.ok, walked.ok, story);
      seen[answer.ok ? 'both' : 'oursStricter'] += 1;
    } else if (!walked.ok) {
      seen.neither += 1;
    } else if (!mayBeWrongChoice(libraryProblem)) {
      assert.ok(!answer.ok, `${story}: ${libraryProblem}`);
      seen.final += 1;
    } else {
      // Neither more nor less than OpenSSL would trust, had it found the path.
      assert.equal(answer.ok, ofPath === 'trusted', `${story}: ${libraryProblem}, of the path ${ofPath}`);
      seen[answer.ok ? 'onSecondLook' : 'notOnSecondLook'] += 1;
    }
  }
  // So that the above says something.
  t.diagnostic(JSON.stringify(seen));
  for (const [what, least] of Object.entries({ both: 50, onSecondLook: 20, notOnSecondLook: 3, neither: 50, oursStricter: 30 }))
    assert.ok(seen[what as keyof typeof seen] >= least, `${what}: ${JSON.stringify(seen)}`);
});

function makeSample(random: () => number): Sample {
  const pick = <T>(from: readonly T[]): T => {
    const chosen = from[Math.floor(random() * from.length)];
    assert.ok(chosen !== undefined);
    return chosen;
  };
  const chance = (probability: number): boolean => random() < probability;
  const told: string[] = [];
  const mutated = (place: string, own: readonly Mutation[]): CertificateOptions => {
    if (!chance(0.28)) return {};
    const [what, options] = pick([...ANYWHERE, ...own]);
    told.push(`${place}: ${what}`);
    return options;
  };

  const root = createTestAuthority();
  const foreignRoot = createTestAuthority({ trustDomain: 'partner.test' });
  const others: Buffer[] = [];
  const foreign: TestCertificate[] = [foreignRoot];
  let authority: TestAuthority = root;
  const anchors: TestCertificate[] = [root];
  const depth = Math.floor(random() * 4);
  for (let level = 1; level <= depth; level++) {
    const options = mutated(`intermediate ${level}`, AT_ISSUERS);
    const under: TestAuthority = authority.intermediate({ subject: `Intermediate ${level}`, ...options });
    if (chance(0.1)) {
      told.push(`a twin of ${level}`);
      others.push(createTestAuthority().intermediate({ subject: under.name, key: under.keys }).der);
    }
    if (chance(0.1)) {
      told.push(`a wrong twin of ${level}`);
      others.unshift(authority.intermediate({ subject: under.name, subjectKeyId: keyIdIn(under) }).der);
    }
    if (chance(0.05)) {
      told.push(`an expired twin of ${level}`);
      others.unshift(authority.crossSign(under, EXPIRED).der);
    }
    if (chance(0.15)) {
      told.push(`the partner in the likeness of ${level}`);
      const alike = { subject: under.name, subjectKeyId: keyIdIn(under), ...(chance(0.5) ? { key: under.keys } : {}) };
      foreign.unshift(foreignRoot.intermediate({ ...alike, ...mutated('the likeness', AT_ISSUERS) }));
    }
    if (chance(0.1)) {
      told.push(`${level} signed by the partner too`);
      others.push(foreignRoot.crossSign(under, { id: 'spiffe://example.org' }).der);
    }
    if (chance(0.1)) {
      told.push(`${level} is an anchor`);
      anchors[chance(0.5) ? 0 : anchors.length] = under;
    }
    authority = under;
  }
  if (chance(0.08)) {
    told.push('by the partner');
    authority = foreignRoot;
  }
  const leaf = authority.issue({ id: 'spiffe://example.org/workload', ...mutated('leaf', AT_LEAVES) });
  let rest = [...leaf.chain.slice(1), ...others];
  if (rest.length > 0 && chance(0.08)) {
    told.push('one left out');
    const left = Math.floor(random() * rest.length);
    rest = rest.filter((_, position) => position !== left);
  }
  if (chance(0.15)) {
    told.push('root sent too');
    rest.push(root.der);
  }
  if (chance(0.25)) {
    told.push('out of order');
    rest = rest
      .map((der) => ({ der, at: random() }))
      .toSorted((one, other) => one.at - other.at)
      .map(({ der }) => der);
  }
  return { story: told.join(', ') || 'nothing wrong', leaf, sent: [leaf.der, ...rest], anchors, foreign };
}

/** What a certificate says its key is called. */
function keyIdIn({ der }: TestCertificate): Buffer | null {
  const { subjectKeyId } = requireCertificate(der);
  return subjectKeyId === undefined ? null : Buffer.from(subjectKeyId, 'hex');
}
