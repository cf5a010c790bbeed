/** Which of several paths through what a peer sent is found, and which must not be, on real sockets, in both roles. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bundleMap, ownSvid, present, presentWith, ROLES, startBothRoles } from '../../support/both-roles.ts';
import {
  createTestAuthority,
  dnsName,
  emailName,
  ipName,
  uriName,
  type CertificateOptions,
  type NameConstraintLists,
  type TestAuthority,
} from '../../support/pki/pki.ts';

const ID = 'spiffe://example.org/peer';
const MINUTE = 60_000;
const now = Date.now();
const root = createTestAuthority();
const partner = createTestAuthority({ trustDomain: 'partner.test' });
const own = ownSvid(root, 'spiffe://example.org/own');

test('twin intermediates of one name and key identifier', async (t) => {
  const keyId = Buffer.from('c3'.repeat(20), 'hex');
  const right = root.intermediate({ subject: 'Twin', subjectKeyId: keyId });
  const wrong = root.intermediate({ subject: 'Twin', subjectKeyId: keyId });
  const between = await startBothRoles(t, [own.entry]);
  for (const role of ROLES) {
    await t.test(`as ${role}: with the wrong one alone, or none, the peer is refused`, async () => {
      await between.admits(role, right.issue({ id: ID }), ID);

      await between.refuses(role, presentWith(right.issue({ id: ID }), wrong.der), 'untrusted_chain');
      await between.refuses(role, presentWith(right.issue({ id: ID })), 'untrusted_chain');
    });
    await t.test(`as ${role}: with both the peer is accepted, whichever comes first`, async () => {
      for (const others of [
        [right.der, wrong.der],
        // OpenSSL takes the first, and never tries a second one.
        [wrong.der, right.der],
        [wrong.der, right.der, root.der],
      ]) {
        const { line } = await between.meet(role, presentWith(right.issue({ id: ID }), ...others));
        assert.equal(line['reason'], 'finished', String(line['detail']));
        assert.equal(line['peer_id'], ID);
      }
    });
  }
});

/** What the other side of a cross-signed intermediate can get wrong, each as the only thing wrong. */
const BROKEN: readonly [string, CertificateOptions, string][] = [
  ['is expired', { notBefore: now - 10 * MINUTE, notAfter: now - MINUTE }, 'expired'],
  ['is not yet valid', { notBefore: now + 5 * MINUTE }, 'not_yet_valid'],
  ['has no CA flag', { isCa: false }, 'untrusted_chain'],
  ['has no basic constraints', { isCa: null }, 'untrusted_chain'],
  ['has no keyCertSign', { keyUsage: ['crlSign'] }, 'untrusted_chain'],
  ['has no key usage', { keyUsage: null }, 'untrusted_chain'],
  ['has too short a path length', { pathLength: 0 }, 'untrusted_chain'],
  ['permits another trust domain only', { nameConstraints: { permitted: [uriName('other.test')] } }, 'untrusted_chain'],
  ['excludes the trust domain', { nameConstraints: { excluded: [uriName('example.org')] } }, 'untrusted_chain'],
  [
    'has an unknown critical extension',
    { extensions: [{ oid: '1.3.6.1.4.1.99999.1', critical: true, value: Buffer.from('0500', 'hex') }] },
    'untrusted_chain',
  ],
  ['is signed with SHA-1', { signature: 'ecdsa-sha1' }, 'untrusted_chain'],
  ['has a signature that does not hold', { badSignature: true }, 'untrusted_chain'],
  ['may issue for servers alone', { eku: ['serverAuth'] }, 'untrusted_chain'],
  ['has a SPIFFE ID with a path', { id: 'spiffe://example.org/ca' }, 'untrusted_chain'],
  ['has a SPIFFE ID of another trust domain with a path', { id: 'spiffe://partner.test/ca' }, 'untrusted_chain'],
  ['has a malformed SPIFFE ID', { id: 'spiffe://partner.test/' }, 'untrusted_chain'],
];

/**
 * The intermediate is certified by the federated authority, without a fault, and by ours with one: OpenSSL, which knows
 * one pool of authorities, is content with the former, and only our own walk can tell that it leads to the wrong domain.
 */
test('a cross-signed intermediate, sound under a federated authority and broken under ours, vouches for nobody of ours', async (t) => {
  const between = await startBothRoles(t, [own.entry], { federated: bundleMap(partner), alsoAllowed: ['partner.test'] });
  const sound = partner.intermediate({ subject: 'Shared', uriSans: [] });
  const keyId = Buffer.from('d4'.repeat(20), 'hex');
  const below = sound.intermediate({ subject: 'Below', subjectKeyId: keyId, id: 'spiffe://example.org' });
  const wrong = root.intermediate({ subject: 'Below', subjectKeyId: keyId });
  const good = root.crossSign(sound, { id: 'spiffe://example.org' });
  for (const role of ROLES) {
    await t.test(`as ${role}: with both sides sound, ours is found, and without ours the peer is refused`, async () => {
      for (const [index, others] of [
        [below, sound, good],
        [below, good, sound],
        [good, below, sound],
      ].entries()) {
        const { line } = await between.meet(role, presentWith(below.issue({ id: ID }), ...others.map(({ der }) => der)));
        assert.equal(line['reason'], 'finished', `order ${index}: ${String(line['detail'])}`);
      }
      await between.refuses(role, presentWith(below.issue({ id: ID }), below.der, sound.der), 'untrusted_chain');
    });
    for (const [what, options, reason] of BROKEN) {
      await t.test(`as ${role}: our side ${what}`, async () => {
        const broken = root.crossSign(sound, { id: 'spiffe://example.org', ...options });
        const sent = (...others: readonly TestAuthority[]) => presentWith(below.issue({ id: ID }), ...others.map(({ der }) => der));
        const { line: first } = await between.refuses(role, sent(below, sound, broken), reason);
        // Found by our own walk: the library, which meets the sound one first, had no objection that could hide a mistake in it.
        assert.doesNotMatch(String(first['detail']), /OpenSSL does not trust/);
        await between.refuses(role, sent(below, broken, sound), reason);
        await between.refuses(role, presentWith(below.issue({ id: ID }), below.der, broken.der), reason);
        // Nor does it help to lead OpenSSL astray: a signature that does not hold is then all that it minds.
        const astray = presentWith(below.issue({ id: ID }), wrong.der, below.der, broken.der);
        const { line } = await between.refuses(role, astray, reason);
        assert.doesNotMatch(String(line['detail']), /OpenSSL does not trust/);
      });
    }
  }
});

test('authorities and intermediates may have the SPIFFE ID of another trust domain, and speak for that of their bundle alone', async (t) => {
  const id = 'spiffe://upstream.test';
  const authority = createTestAuthority({ id });
  const ours = authority.intermediate({ id });
  const upstream = createTestAuthority({ trustDomain: 'upstream.test' });
  const self = ownSvid(authority, 'spiffe://example.org/own');
  const between = await startBothRoles(t, [self.entry], { federated: bundleMap(upstream), alsoAllowed: ['upstream.test'] });
  for (const role of ROLES) {
    await t.test(`as ${role}`, async () => {
      for (const issuer of [authority, ours, ours.intermediate({ subject: 'Below' })])
        await between.admits(role, issuer.issue({ id: ID }), ID);
      for (const issuer of [authority, ours]) await between.refuses(role, issuer.issue({ id: `${id}/peer` }), 'untrusted_chain');
      await between.admits(role, upstream.issue({ id: `${id}/peer` }), `${id}/peer`);
    });
  }
});

/** Name constraints of an intermediate, and the leaf that breaks them where OpenSSL has no objection. */
const LOOSE: readonly [string, NameConstraintLists, CertificateOptions][] = [
  ['a wildcard that may stand for what is excluded', { excluded: [dnsName('bar.example.com')] }, { dnsSans: ['*.example.com'] }],
  ['a malformed constraint', { excluded: [dnsName('*.example.com')] }, { dnsSans: ['foo.example.com'] }],
  ['a mask that is none', { excluded: [ipName([10, 0, 0, 0, 255, 0, 255, 0])] }, { otherSans: [ipName([10, 1, 1, 1])] }],
  ['a malformed mailbox', { permitted: [emailName('example.com')] }, { otherSans: [emailName('invalid@address@example.com')] }],
];

test('name constraints that OpenSSL reads more loosely than RFC 5280 are kept', async (t) => {
  const between = await startBothRoles(t, [own.entry]);
  for (const [what, nameConstraints, options] of LOOSE) {
    const constrained = root.intermediate({ nameConstraints });
    for (const role of ROLES) {
      const { line } = await between.refuses(role, constrained.issue({ id: ID, ...options }), 'untrusted_chain');
      assert.doesNotMatch(String(line['detail']), /OpenSSL does not trust/, what);
      await between.admits(role, root.intermediate().issue({ id: ID, ...options }), ID);
    }
  }
});

test('the order in which a peer sends its intermediates does not matter', async (t) => {
  const upper = root.intermediate({ subject: 'Upper' });
  const middle = upper.intermediate({ subject: 'Middle' });
  const lower = middle.intermediate({ subject: 'Lower' });
  const between = await startBothRoles(t, [own.entry]);
  for (const role of ROLES) {
    for (const order of permutations([upper, middle, lower])) {
      await t.test(
        `as ${role}: ${order.map(({ name }) => /Upper|Middle|Lower/.exec(name.toString('latin1'))?.[0]).join(', ')}`,
        async () => {
          const { line } = await between.meet(role, presentWith(lower.issue({ id: ID }), ...order.map(({ der }) => der)));
          assert.equal(line['reason'], 'finished', String(line['detail']));
          assert.equal(line['peer_id'], ID);
        },
      );
    }
    await t.test(`as ${role}: with one of them missing the peer is refused`, async () => {
      for (const missing of [upper, middle, lower]) {
        const sent = [lower, middle, upper].filter((each) => each !== missing).map(({ der }) => der);
        await between.refuses(role, presentWith(lower.issue({ id: ID }), ...sent), 'untrusted_chain');
      }
    });
  }
});

test('eight certificates are read, and a peer that sends nine is refused', async (t) => {
  const between = await startBothRoles(t, [own.entry]);
  for (const role of ROLES) {
    await t.test(`as ${role}`, async () => {
      const eight = deep(7).issue({ id: ID });
      assert.equal(eight.chain.length, 8);
      await between.admits(role, eight, ID);
      const { line: padded } = await between.meet(role, presentWith(root.issue({ id: ID }), ...needless(7)));
      assert.equal(padded['reason'], 'finished', String(padded['detail']));

      await between.refuses(role, deep(8).issue({ id: ID }), 'bad_certificate');
      const { line } = await between.refuses(role, presentWith(root.issue({ id: ID }), ...needless(8)), 'bad_certificate');
      assert.match(String(line['detail']), /sent 9 certificates/);
    });
  }
});

test('a peer is authenticated by its own chain, not by what another peer sent before', async (t) => {
  const intermediate = root.intermediate();
  const between = await startBothRoles(t, [own.entry]);
  for (const role of ROLES) {
    const leaf = intermediate.issue({ id: ID });
    await between.admits(role, leaf, ID);
    await between.refuses(role, presentWith(leaf), 'untrusted_chain');
    await between.refuses(role, presentWith(intermediate.issue({ id: ID })), 'untrusted_chain');
    const { line } = await between.meet(role, present(leaf));
    assert.equal(line['reason'], 'finished');
  }
});

function permutations<T>(items: readonly T[]): T[][] {
  if (items.length < 2) return [[...items]];
  return items.flatMap((first, index) => permutations(items.toSpliced(index, 1)).map((rest) => [first, ...rest]));
}

/** An authority that many intermediates below the root. */
function deep(intermediates: number): TestAuthority {
  let from: TestAuthority = root;
  for (let level = 1; level <= intermediates; level += 1) from = from.intermediate({ subject: `Level ${level}` });
  return from;
}

/** Intermediates that have nothing to do with the peer. */
function needless(count: number): Buffer[] {
  return Array.from({ length: count }, (_, index) => partner.intermediate({ subject: `Idle ${index}` }).der);
}
