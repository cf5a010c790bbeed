import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bundleOf, bundlesOf, requireCertificate } from '../../test/support/pki/bundles.ts';
import {
  createKeyPair,
  createTestAuthority,
  dnsName,
  uriName,
  type CertificateOptions,
  type TestAuthority,
} from '../../test/support/pki/pki.ts';
import type { Certificate } from './x509/certificate.ts';
import { findPath } from './path.ts';
import { verifyPeer } from './verify.ts';

const NOW = Date.now();
const DAY = 86_400_000;
const ID = 'spiffe://example.org/workload';
const root = createTestAuthority();
const bundles = bundlesOf({ 'example.org': [root] });

function problemOf(chain: readonly Uint8Array[], against = bundles): string {
  const answer = verifyPeer(chain, against, NOW);
  return answer.ok ? 'ok' : answer.error.problem;
}

/** What a certificate that issues others can get wrong, each as the only thing wrong. */
const BROKEN: readonly { rule: string; options: CertificateOptions; problem: string; detail: RegExp }[] = [
  { rule: 'is expired', options: { notBefore: NOW - DAY, notAfter: NOW - 1000 }, problem: 'expired', detail: /expired at/ },
  { rule: 'is not yet valid', options: { notBefore: NOW + 60_000 }, problem: 'not_yet_valid', detail: /not valid before/ },
  { rule: 'has no CA flag', options: { isCa: false }, problem: 'untrusted_chain', detail: /is no CA/ },
  { rule: 'has no basic constraints', options: { isCa: null }, problem: 'untrusted_chain', detail: /is no CA/ },
  { rule: 'has no keyCertSign', options: { keyUsage: ['crlSign'] }, problem: 'untrusted_chain', detail: /keyCertSign/ },
  { rule: 'has no key usage', options: { keyUsage: null }, problem: 'untrusted_chain', detail: /keyCertSign/ },
  { rule: 'has too short a path length', options: { pathLength: 0 }, problem: 'untrusted_chain', detail: /allows 0 intermediates/ },
  {
    rule: 'constrains names to another trust domain',
    options: { nameConstraints: { permitted: [uriName('other.example')] } },
    problem: 'untrusted_chain',
    detail: /does not permit/,
  },
  {
    rule: 'excludes the trust domain',
    options: { nameConstraints: { excluded: [uriName('example.org')] } },
    problem: 'untrusted_chain',
    detail: /excludes/,
  },
  {
    rule: 'has an unknown critical extension',
    options: { extensions: [{ oid: '1.3.6.1.4.1.99999.1', critical: true, value: Buffer.from('0500', 'hex') }] },
    problem: 'untrusted_chain',
    detail: /99999/,
  },
  { rule: 'is signed with SHA-1', options: { signature: 'ecdsa-sha1' }, problem: 'untrusted_chain', detail: /1\.2\.840\.10045\.4\.1/ },
  { rule: 'has a signature that does not hold', options: { badSignature: true }, problem: 'untrusted_chain', detail: /no path from/ },
  { rule: 'may issue for servers alone', options: { eku: ['serverAuth'] }, problem: 'untrusted_chain', detail: /extended key usage/ },
  {
    rule: 'has a SPIFFE ID with a path',
    options: { id: 'spiffe://example.org/ca' },
    problem: 'untrusted_chain',
    detail: /example\.org\/ca/,
  },
  {
    rule: 'has a SPIFFE ID of another trust domain with a path',
    options: { id: 'spiffe://other.example/ca' },
    problem: 'untrusted_chain',
    detail: /other\.example\/ca/,
  },
  {
    rule: 'has a SPIFFE ID that is none',
    options: { id: 'spiffe://Other.example' },
    problem: 'untrusted_chain',
    detail: /Other\.example.*, which is not that of a trust domain/,
  },
  {
    rule: 'has a good SPIFFE ID and a malformed one',
    options: { uriSans: ['spiffe://example.org', 'SPIFFE://example.org'] },
    problem: 'untrusted_chain',
    detail: /SPIFFE:/,
  },
  {
    rule: 'constrains names by something malformed',
    options: { nameConstraints: { excluded: [dnsName('*.other.example')] } },
    problem: 'untrusted_chain',
    detail: /malformed/,
  },
  {
    rule: 'has a critical subject key identifier',
    options: { subjectKeyId: null, extensions: [{ oid: '2.5.29.14', critical: true, value: Buffer.from('04020102', 'hex') }] },
    problem: 'untrusted_chain',
    detail: /critical extension 2\.5\.29\.14/,
  },
  {
    rule: 'has critical policies that are none',
    options: { extensions: [{ oid: '2.5.29.32', critical: true, value: Buffer.from('junk') }] },
    problem: 'untrusted_chain',
    detail: /2\.5\.29\.32/,
  },
];

for (const { rule, options, problem, detail } of BROKEN) {
  test(`a cross-signed intermediate one side of which ${rule}: the good side is found, the broken one alone is refused`, () => {
    const intermediate = root.intermediate();
    const broken = root.crossSign(intermediate, options);
    // One more below, so that a path length of zero is one too few.
    const below = intermediate.intermediate({ subject: 'Below' });
    const leaf = below.issue();

    for (const chain of [
      [leaf.der, below.der, intermediate.der, broken.der],
      [leaf.der, below.der, broken.der, intermediate.der],
      [leaf.der, broken.der, intermediate.der, below.der],
    ])
      assert.equal(problemOf(chain), 'ok');
    const answer = verifyPeer([leaf.der, below.der, broken.der], bundles, NOW);
    assert.ok(!answer.ok);
    assert.equal(answer.error.problem, problem);
    assert.match(answer.error.detail, detail);
  });

  // What the authority says of itself was given to us by the agent: its own signature and a missing key usage do not matter.
  const isFreeForAnchors = 'signature' in options || 'badSignature' in options || options.keyUsage === null;
  test(`an authority that ${rule} ${isFreeForAnchors ? 'is still one' : 'vouches for nobody'}`, () => {
    const authority = createTestAuthority(options);
    const leaf = authority.intermediate().issue();

    assert.equal(problemOf(leaf.chain, bundlesOf({ 'example.org': [authority] })), isFreeForAnchors ? 'ok' : problem);
  });
}

test('authorities and intermediates with the SPIFFE ID of another trust domain issue for this one (X509-SVID 3.2)', () => {
  const id = 'spiffe://upstream.example';
  const authority = createTestAuthority({ id });
  const below = authority.intermediate({ id }).intermediate({ subject: 'Below' });

  for (const issuer of [authority, authority.intermediate(), authority.intermediate({ id }), below])
    assert.equal(problemOf(issuer.issue().chain, bundlesOf({ 'example.org': [authority] })), 'ok');
  assert.equal(problemOf(root.intermediate({ id }).issue().chain), 'ok');
});

test('what an issuer is called does not make it an authority of another trust domain', () => {
  const ours = root.intermediate({ id: 'spiffe://other.example' });
  const other = createTestAuthority({ trustDomain: 'other.example' });
  const both = bundlesOf({ 'example.org': [root], 'other.example': [other] });

  assert.equal(problemOf(ours.issue({ id: 'spiffe://other.example/workload' }).chain, both), 'untrusted_chain');
  assert.equal(problemOf(ours.issue({ id: ID }).chain, both), 'ok');
});

test('a cross-signed intermediate whose other issuer has an RSA key of 1024 bits: only the good side counts', () => {
  const intermediate = root.intermediate();
  const weak = root.intermediate({ key: 'rsa1024', subject: 'Weak' });
  const viaWeak = weak.crossSign(intermediate);
  const leaf = intermediate.issue();

  assert.equal(problemOf([leaf.der, viaWeak.der, weak.der, intermediate.der]), 'ok');
  assert.equal(problemOf([leaf.der, viaWeak.der, weak.der]), 'untrusted_chain');
});

test('of two paths, the one that ends in the root of another trust domain does not count', () => {
  const other = createTestAuthority({ trustDomain: 'other.example' });
  const both = bundlesOf({ 'example.org': [root], 'other.example': [other] });
  const intermediate = root.intermediate({ notBefore: NOW - DAY, notAfter: NOW - 1000, uriSans: [] });
  const viaOther = other.crossSign(intermediate, { uriSans: [] });
  const leaf = intermediate.issue({ id: ID });
  const foreign = intermediate.issue({ id: 'spiffe://other.example/workload' });

  assert.equal(problemOf([leaf.der, viaOther.der, intermediate.der], both), 'expired');
  assert.equal(problemOf([leaf.der, intermediate.der, viaOther.der], both), 'expired');
  assert.equal(problemOf([leaf.der, viaOther.der], both), 'untrusted_chain');
  assert.equal(problemOf([foreign.der, intermediate.der, viaOther.der], both), 'ok');
});

test('twin intermediates of one name and key identifier are both tried', () => {
  const keyId = Buffer.from('a1a2a3a4', 'hex');
  const one = root.intermediate({ subject: 'Twin', subjectKeyId: keyId });
  const two = root.intermediate({ subject: 'Twin', subjectKeyId: keyId });

  for (const issuer of [one, two]) {
    const leaf = issuer.issue();
    assert.equal(problemOf([leaf.der, one.der, two.der]), 'ok');
    assert.equal(problemOf([leaf.der, two.der, one.der]), 'ok');
  }
  assert.equal(problemOf([one.issue().der, two.der]), 'untrusted_chain');
});

test('twin authorities of one name and key identifier are both tried', () => {
  const keyId = Buffer.from('a1a2a3a4', 'hex');
  const roots = [createTestAuthority({ subjectKeyId: keyId }), createTestAuthority({ subjectKeyId: keyId })];

  for (const authority of roots) assert.equal(problemOf(authority.issue().chain, bundlesOf({ 'example.org': roots })), 'ok');
});

test('key identifiers are hints: wrong or missing ones do not keep a path from being found', () => {
  const intermediate = root.intermediate({ authorityKeyId: Buffer.from('ffff', 'hex') });

  assert.equal(problemOf([intermediate.issue({ authorityKeyId: null }).der, intermediate.der]), 'ok');
  assert.equal(
    problemOf([intermediate.issue({ authorityKeyId: Buffer.from('00', 'hex'), subjectKeyId: null }).der, intermediate.der]),
    'ok',
  );
});

test('issuer names link a path byte for byte', () => {
  const renamed = root.issue({ issuerName: createTestAuthority({ subject: 'Somebody' }).name });

  assert.equal(problemOf(renamed.chain), 'untrusted_chain');
});

test('an anchor need not be self-signed, and what is above it does not matter', () => {
  const anchor = root.intermediate();
  const leaf = anchor.intermediate({ subject: 'Below' }).issue();
  const against = bundlesOf({ 'example.org': [anchor] });

  const answer = verifyPeer([...leaf.chain, root.der], against, NOW);

  assert.ok(answer.ok);
  assert.equal(answer.value.authority.sha256, requireCertificate(anchor.der).sha256);
});

test('the root may be sent along, and certificates that have nothing to do with the path', () => {
  const leaf = root.intermediate().issue();

  assert.equal(problemOf([...leaf.chain, root.der, createTestAuthority({ trustDomain: 'other.example' }).der]), 'ok');
});

test('a path length that is just enough is enough', () => {
  const authority = createTestAuthority({ pathLength: 1 });
  const against = bundlesOf({ 'example.org': [authority] });

  assert.equal(problemOf(authority.intermediate({ pathLength: 0 }).issue().chain, against), 'ok');
  assert.equal(problemOf(authority.intermediate().intermediate({ subject: 'Below' }).issue().chain, against), 'untrusted_chain');
});

test('a leaf that signs another leaf is no issuer', () => {
  const leaf = root.issue();
  const impostor = createTestAuthority({ key: leaf.keys, subject: leaf.name }).issue({ id: 'spiffe://example.org/admin' });

  assert.equal(problemOf([impostor.der, leaf.der]), 'untrusted_chain');
});

test('intermediates that sign one another in a ring end the walk', () => {
  const members = Array.from({ length: 6 }, (_, index) => createTestAuthority({ subject: `Ring ${index}` }));
  const ring = members.map((member, index) => pick(members, index + 1).crossSign(member));
  const leaf = pick(members, 0).issue();
  const exit = root.crossSign(pick(members, 4));

  assert.equal(problemOf([leaf.der, ...ring.map(({ der }) => der)]), 'untrusted_chain');
  assert.equal(problemOf([leaf.der, ...ring.map(({ der }) => der), exit.der]), 'ok');
});

test('a tangle of one name costs a bounded number of checks', () => {
  // Every certificate has the same name as issuer and subject, so that each may have been signed by any other.
  const tangle = Array.from({ length: 7 }, () => createTestAuthority({ subject: 'Tangle' }));
  const crowd = Array.from({ length: 40 }, () => createTestAuthority({ subject: 'Tangle' }));
  const leaf = pick(tangle, 0).issue();
  const rounds = tangle.map((_, index) => pick(tangle, index + 1).crossSign(pick(tangle, index)));

  const answer = verifyPeer([leaf.der, ...rounds.map(({ der }) => der)], bundlesOf({ 'example.org': crowd }), NOW);

  assert.ok(!answer.ok);
  assert.equal(answer.error.problem, 'untrusted_chain');
  assert.match(answer.error.detail, /too many checks/);
});

test('certificates that all sign one another cost a bounded number of steps', () => {
  // No honest keys do this, but keys can be made up under which a given signature holds.
  const tangle = Array.from({ length: 8 }, () => requireCertificate(createTestAuthority({ subject: 'Tangle' }).der));
  let checks = 0;
  const [leaf, ...pool] = tangle.map((certificate) => ({
    ...certificate,
    isSignedBy() {
      checks += 1;
      return true;
    },
  }));
  assert.ok(leaf);

  const found = findPath(leaf, pool, bundleOf('example.org', [root]), NOW);

  assert.ok(!found.ok);
  assert.match(found.error.detail, /too many checks/);
  assert.ok(checks <= 64);
});

test('name constraints that fail on two hundred paths cost no more than a bounded number of comparisons', () => {
  // All of it is as it may be: keys in several certificates each, and authorities of one key, all with many constraints.
  const [key, upper, middle, lower] = [createKeyPair(), createKeyPair(), createKeyPair(), createKeyPair()];
  const copies = <T>(count: number, make: () => T): T[] => Array.from({ length: count }, make);
  let compared = 0;
  const base = {
    type: 'uri',
    get value() {
      compared += 1;
      return 'elsewhere.test';
    },
  } as const;
  const authorities = copies(17, () => createTestAuthority({ key })).map(({ der }) => {
    const certificate = requireCertificate(der);
    const nameConstraints = { critical: true, permitted: copies(5000, () => base), excluded: [] };
    return { ...certificate, extensions: { ...certificate.extensions, nameConstraints } };
  });
  const issuer = createTestAuthority({ key });
  const uppers = copies(3, () => issuer.intermediate({ subject: 'Upper', key: upper }));
  const middles = copies(2, () => pick(uppers, 0).intermediate({ subject: 'Middle', key: middle }));
  const lowers = copies(2, () => pick(middles, 0).intermediate({ subject: 'Lower', key: lower }));
  const pool = [...uppers, ...middles, ...lowers].map(({ der }) => requireCertificate(der));
  const leaf = requireCertificate(pick(lowers, 0).issue().der);

  const found = findPath(leaf, pool, { ...bundleOf('example.org', [root]), authorities }, NOW);

  assert.ok(!found.ok);
  assert.match(found.error.detail, /does not permit/);
  assert.ok(compared < 100_000, `${compared} comparisons`);
});

test('no signature is checked with a key that is not accepted: its owner may have made that slow', () => {
  const weak = root.intermediate({ key: 'rsa1024', subject: 'Weak' });
  const checkedWith: string[] = [];
  const leaf = {
    ...requireCertificate(weak.issue().der),
    isSignedBy(issuer: Certificate) {
      checkedWith.push(issuer.subject);
      return false;
    },
  };

  const found = findPath(leaf, [requireCertificate(weak.der)], bundleOf('example.org', [root]), NOW);

  assert.ok(!found.ok);
  assert.match(found.error.detail, /1024 bits/);
  assert.deepEqual(checkedWith, []);
});

test('a crowd of authorities of one name is no hindrance to one that names its key', () => {
  const crowd = Array.from({ length: 100 }, () => createTestAuthority());

  assert.equal(problemOf(pick(crowd, 99).intermediate().issue().chain, bundlesOf({ 'example.org': crowd })), 'ok');
});

test('when one path is expired and another is none, expiry is what is reported', () => {
  const intermediate = root.intermediate({ notBefore: NOW - DAY, notAfter: NOW - 1000 });
  const stranger = createTestAuthority({ subject: 'Stranger' }).crossSign(intermediate);
  const leaf = intermediate.issue();

  assert.equal(problemOf([leaf.der, stranger.der, intermediate.der]), 'expired');
  assert.equal(problemOf([leaf.der, intermediate.der, stranger.der]), 'expired');
});

test('an expired certificate of a stranger is untrusted, not expired', () => {
  assert.equal(problemOf(createTestAuthority().issue({ notBefore: NOW - DAY, notAfter: NOW - 1000 }).chain), 'untrusted_chain');
});

test('one key under two names and certificates is still found', () => {
  const key = createKeyPair();
  const old = root.intermediate({ key, subject: 'Old' });
  const renewed: TestAuthority = root.intermediate({ key, subject: 'New' });

  assert.equal(problemOf([renewed.issue({ dnsSans: ['a.example'], otherSans: [dnsName('b.example')] }).der, old.der, renewed.der]), 'ok');
});

function pick<T>(from: readonly T[], index: number): T {
  const found = from[index % from.length];
  assert.ok(found !== undefined);
  return found;
}
