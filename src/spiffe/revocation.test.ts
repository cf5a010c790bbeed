import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bundleOf, bundlesOf, requireCertificate, requireTrustDomain } from '../../test/support/pki/bundles.ts';
import { createRandom } from '../../test/support/random.ts';
import {
  COMMON_NAME,
  createKeyPair,
  createTestAuthority,
  distinguishedName,
  ORGANISATION,
  type CertificateOptions,
  type CrlOptions,
  type TestAuthority,
  type TestCertificate,
} from '../../test/support/pki/pki.ts';
import { parseCrl, type Crl } from './x509/crl.ts';
import { revocationOf, sortLists } from './revocation.ts';
import { buildTrustBundle, withIntermediates } from './trust-bundle.ts';
import { verifyPeer } from './verify.ts';

const NOW = Date.now();
const root = createTestAuthority();

function problemOf(chain: readonly Uint8Array[], crls: readonly Uint8Array[], authorities: readonly TestAuthority[] = [root]): string {
  const answer = verifyPeer(chain, bundlesOf({ 'example.org': authorities }, crls), NOW);
  return answer.ok ? 'ok' : answer.error.problem;
}

test('a revoked peer is refused with its serial number, and others of the same issuer are not', () => {
  const [good, bad] = [root.issue(), root.issue()];
  const bundles = bundlesOf({ 'example.org': [root] }, [root.crl({ revoked: [bad.serial] })]);

  const answer = verifyPeer(bad.chain, bundles, NOW);

  assert.ok(!answer.ok);
  assert.equal(answer.error.problem, 'revoked');
  assert.ok(answer.error.detail.includes(bad.serial));
  assert.equal(verifyPeer(good.chain, bundles, NOW).ok, true);
});

test('a revoked intermediate refuses all that it issued', () => {
  const intermediate = root.intermediate();

  assert.equal(problemOf(intermediate.issue().chain, [root.crl({ revoked: [intermediate.serial] })]), 'revoked');
});

test('a list by an intermediate is applied to what it issued, once a peer sends it', () => {
  const intermediate = root.intermediate();
  const [good, bad] = [intermediate.issue(), intermediate.issue()];
  const crl = intermediate.crl({ revoked: [bad.serial] });

  assert.equal(problemOf(bad.chain, [crl]), 'revoked');
  assert.equal(problemOf(good.chain, [crl]), 'ok');
});

test('a list by an intermediate that does not verify refuses what that intermediate issued', () => {
  const intermediate = root.intermediate();

  assert.equal(problemOf(intermediate.issue().chain, [intermediate.crl({ badSignature: true })]), 'revoked');
  assert.equal(problemOf(root.issue().chain, [intermediate.crl({ badSignature: true })]), 'ok');
});

test('a list by another intermediate of the same name, which names another key, says nothing', () => {
  const [mine, other] = [root.intermediate(), root.intermediate()];

  assert.equal(problemOf(mine.issue().chain, [other.crl()]), 'ok');
});

test('an authority revokes with its new key what it issued with its old one', () => {
  const [old, renewed] = [createTestAuthority(), createTestAuthority()];
  const leaf = old.issue();

  assert.equal(problemOf(leaf.chain, [renewed.crl({ revoked: [leaf.serial] })], [old, renewed]), 'revoked');
});

test('the list of one trust domain says nothing of another', () => {
  const partner = createTestAuthority({ trustDomain: 'partner.example' });
  const leaf = partner.issue();
  const both = bundlesOf({ 'example.org': [root], 'partner.example': [partner] }, [root.crl({ revoked: [leaf.serial] })]);

  assert.equal(verifyPeer(leaf.chain, both, NOW).ok, true);
});

test('a list past its nextUpdate goes on revoking what it lists', () => {
  const [good, bad] = [root.issue(), root.issue()];
  const crl = root.crl({ revoked: [bad.serial], thisUpdate: NOW - 10_000, nextUpdate: NOW - 5000 });

  assert.equal(problemOf(bad.chain, [crl]), 'revoked');
  assert.equal(problemOf(good.chain, [crl]), 'ok');
});

test('a list past its nextUpdate does not shorten how long an answer holds', () => {
  const crl = root.crl({ nextUpdate: NOW - 5000 });

  // Before the root's own end.
  const { chain } = root.issue({ notAfter: NOW + 60_000 });

  const answer = verifyPeer(chain, bundlesOf({ 'example.org': [root] }, [crl]), NOW);

  assert.ok(answer.ok);
  assert.equal(answer.value.validUntilMs, answer.value.leaf.notAfterMs);
});

test('an answer holds no longer than the nextUpdate of the lists consulted', () => {
  const nextUpdate = Math.floor(NOW / 1000) * 1000 + 60_000;

  const answer = verifyPeer(root.issue().chain, bundlesOf({ 'example.org': [root] }, [root.crl({ nextUpdate })]), NOW);

  assert.ok(answer.ok);
  assert.equal(answer.value.validUntilMs, nextUpdate);
});

test('lists of a bundle are kept apart from those that match no authority of it', () => {
  const bundle = bundleOf('example.org', [root], [root.crl(), createTestAuthority({ subject: 'Other' }).crl()]);

  assert.equal(bundle.crls.length, 1);
  assert.equal(bundle.unmatchedCrls.length, 1);
});

/** Certificates of one intermediate that differ in all that is not bound to its key. */
const OTHER_KEY_ID = Buffer.from('d4'.repeat(20), 'hex');
function certificatesOf(
  intermediate: TestAuthority,
  other = createTestAuthority({ subject: 'Other root' }),
): [string, TestAuthority, TestAuthority][] {
  return [
    ['the one that the list names', intermediate, root],
    ['another with another key identifier', root.crossSign(intermediate, { subjectKeyId: OTHER_KEY_ID }), root],
    ['another without a key identifier', root.crossSign(intermediate, { subjectKeyId: null }), root],
    ['another that may not sign lists', root.crossSign(intermediate, { subjectKeyId: OTHER_KEY_ID, keyUsage: ['keyCertSign'] }), root],
    ['another by another authority', other.crossSign(intermediate, { subjectKeyId: OTHER_KEY_ID }), other],
  ];
}

test('whichever certificate of its intermediate a revoked peer shows, it is revoked, and others are not', () => {
  const intermediate = root.intermediate();
  const [good, bad] = [intermediate.issue({ authorityKeyId: null }), intermediate.issue({ authorityKeyId: null })];

  for (const authorityKeyId of [undefined, null, Buffer.from('00', 'hex')]) {
    const crl = intermediate.crl({ revoked: [bad.serial], ...(authorityKeyId !== undefined && { authorityKeyId }) });
    for (const [which, { der }, authority] of certificatesOf(intermediate)) {
      assert.equal(problemOf([bad.der, der], [crl], [root, authority]), 'revoked', which);
      assert.equal(problemOf([good.der, der], [crl], [root, authority]), 'ok', which);
    }
  }
});

test('a list that does not verify refuses all below its intermediate, whichever certificate of that they show', () => {
  const intermediate = root.intermediate();
  const leaf = intermediate.issue({ authorityKeyId: null });

  for (const crl of [intermediate.crl({ badSignature: true }), intermediate.crl({ signature: 'ecdsa-sha1' })])
    for (const [which, { der }, authority] of certificatesOf(intermediate))
      assert.equal(problemOf([leaf.der, der], [crl], [root, authority]), 'revoked', which);
});

test('a list is of the one whose name it has, however that is spelt', () => {
  const named = (organisation: string, commonName: string): Buffer =>
    distinguishedName([ORGANISATION, organisation], [COMMON_NAME, commonName]);
  const intermediate = root.intermediate({ subject: named('Scute test', 'Intermediate') });
  const spelt = root.crossSign(intermediate, { subject: named('SCUTE  Test', 'intermediate') });
  const renamed = root.crossSign(intermediate, { subject: named('Scute test', 'Renamed') });
  const leaf = intermediate.issue();

  assert.equal(problemOf(leaf.chain, [spelt.crl({ revoked: [leaf.serial] })]), 'revoked');
  assert.equal(problemOf(leaf.chain, [renamed.crl({ revoked: [leaf.serial] })]), 'ok');
  const authority = createTestAuthority({ subject: named('Scute test', 'Root') });
  const respelt = createTestAuthority({ subject: named('SCUTE test', 'root'), key: authority.keys });
  const below = authority.issue();
  assert.equal(problemOf(below.chain, [respelt.crl({ revoked: [below.serial] })], [authority]), 'revoked');
});

test('an authority that was issued anew under its key goes on revoking, whatever key identifiers say', () => {
  const authority = createTestAuthority();
  const anew = createTestAuthority({ key: authority.keys, subjectKeyId: OTHER_KEY_ID });
  const leaf = authority.issue();

  for (const crl of [authority.crl({ revoked: [leaf.serial] }), anew.crl({ revoked: [leaf.serial] })])
    for (const bundle of [[authority], [anew], [anew, authority]]) assert.equal(problemOf(leaf.chain, [crl], bundle), 'revoked');
});

test('an authority with a new key revokes what the old one issued, which a peer shows as issued by the new one', () => {
  const [old, renewed] = [createTestAuthority(), createTestAuthority()];
  const leaf = old.issue({ authorityKeyId: null });

  for (const subjectKeyId of [undefined, OTHER_KEY_ID]) {
    const oldWithNew = renewed.crossSign(old, subjectKeyId && { subjectKeyId });
    for (const by of [renewed, old])
      assert.equal(problemOf([leaf.der, oldWithNew.der], [by.crl({ revoked: [leaf.serial] })], [renewed]), 'revoked');
    assert.equal(problemOf([leaf.der, oldWithNew.der], [old.crl(), renewed.crl()], [renewed]), 'ok');
  }
});

test('an intermediate with a new key that certifies its old one revokes what the old one issued', () => {
  const [old, renewed] = [root.intermediate(), root.intermediate()];
  const oldWithNew = renewed.crossSign(old);
  const leaf = old.issue();

  assert.equal(problemOf([leaf.der, oldWithNew.der, renewed.der], [renewed.crl({ revoked: [leaf.serial] })]), 'revoked');
  assert.equal(problemOf([leaf.der, oldWithNew.der, renewed.der], [renewed.crl()]), 'ok');
});

test('an intermediate whose new key is known revokes what the old one issued, whatever a peer shows, and not what an authority of its name did', () => {
  const [old, renewed] = [root.intermediate({ subject: root.name }), root.intermediate({ subject: root.name })];
  const [leaf, spared, sibling] = [old.issue(), old.issue(), root.issue()];
  const lists = [renewed.crl({ revoked: [leaf.serial, sibling.serial, old.serial] })];
  const judge = (known: readonly TestAuthority[], { chain }: TestCertificate): string => {
    const bundle = withIntermediates(
      bundleOf('example.org', [root], lists),
      known.map(({ der }) => requireCertificate(der)),
    );
    const answer = verifyPeer(chain, new Map([[bundle.trustDomain, bundle]]), NOW);
    return answer.ok ? 'ok' : answer.error.problem;
  };

  assert.equal(judge([renewed], leaf), 'revoked');
  assert.equal(judge([old, renewed], leaf), 'revoked');
  for (const each of [spared, sibling]) assert.equal(judge([renewed], each), 'ok');
  for (const known of [[], [old], [root.intermediate({ subject: root.name })]]) assert.equal(judge(known, leaf), 'ok');
});

test('an intermediate with the name of its authority revokes what it issued, and not what the authority did', () => {
  const namesake = root.intermediate({ subject: root.name });
  const [leaf, sibling] = [namesake.issue(), root.issue()];
  const crl = namesake.crl({ revoked: [leaf.serial, sibling.serial, namesake.serial] });

  assert.equal(problemOf(leaf.chain, [crl]), 'revoked');
  assert.equal(problemOf(sibling.chain, [crl]), 'ok');
  assert.equal(problemOf(namesake.issue().chain, [crl]), 'ok');
});

test('a list by a partner with the name of our authority or intermediate says nothing of ours', () => {
  const intermediate = root.intermediate();
  const [leaf, below] = [root.issue(), intermediate.issue()];
  const partner = createTestAuthority({ trustDomain: 'partner.example', subject: root.name });
  const namesake = partner.intermediate({ subject: intermediate.name });
  const lists = [partner, namesake].map((issuer) => issuer.crl({ revoked: [leaf.serial, below.serial, intermediate.serial] }));

  for (const { chain } of [leaf, below]) assert.equal(problemOf(chain, lists), 'ok');
});

test('a list that may be of an authority by what its key is, and does not verify, refuses the bundle', () => {
  const authority = createTestAuthority({ subjectKeyId: OTHER_KEY_ID });
  const usual = createTestAuthority({ key: authority.keys });
  const build = (crl: Uint8Array): string => {
    const built = buildTrustBundle(requireTrustDomain('example.org'), authority.der, [crl]);
    return built.ok ? 'ok' : built.error.message;
  };

  assert.match(
    build(usual.crl({ badSignature: true })),
    /^revocation list 1 of "CN=Root example\.org.*" has no good signature of that authority$/,
  );
  assert.equal(build(usual.crl()), 'ok');
  assert.equal(build(createTestAuthority().crl({ badSignature: true })), 'ok');
});

/** A list of this name that is never signed by whoever is asked about, and counts how often that is. */
function countedList(name: TestAuthority): { readonly crl: Crl; readonly asked: () => number } {
  const parsed = parseCrl(name.crl());
  assert.ok(parsed.ok);
  let checks = 0;
  const isSignedBy = (): boolean => {
    checks += 1;
    return false;
  };
  return { crl: { ...parsed.value, isSignedBy }, asked: () => checks };
}

test('many lists and many authorities of one name cost a bounded number of checks, and leave the authorities in doubt', () => {
  const key = createKeyPair();
  const crowd = Array.from({ length: 100 }, () => requireCertificate(createTestAuthority({ key }).der));
  const { crl, asked } = countedList(createTestAuthority());

  const few = sortLists(
    crowd,
    Array.from({ length: 10 }, () => crl),
    1024,
  );
  assert.deepEqual(few.doubts, []);
  const before = asked();
  const many = sortLists(
    crowd,
    Array.from({ length: 1000 }, () => crl),
    1024,
  );

  assert.deepEqual(
    many.doubts.map(({ authorities }) => authorities),
    [crowd],
  );
  assert.match(many.doubts[0]?.message ?? '', /^revocation list 11 of .* would take more than 1024 signature checks/);
  assert.equal(asked() - before, 1024);
});

test('a list that names its authority is checked with that first, however many others have the name', () => {
  const key = createKeyPair();
  const crowd = [...Array.from({ length: 99 }, () => createTestAuthority({ key })), root].map(({ der }) => requireCertificate(der));
  const lists = Array.from({ length: 500 }, () => root.crl()).map((der) => {
    const parsed = parseCrl(der);
    assert.ok(parsed.ok);
    return parsed.value;
  });

  const { sorted, doubts } = sortLists(crowd, lists, 1024);

  assert.deepEqual(doubts, []);
  assert.equal(sorted.crls.length, 500);
});

test('many lists of one intermediate cost a bounded number of checks for a path, and refuse who is below it', () => {
  const intermediate = root.intermediate();
  const path = [...intermediate.issue().chain, root.der].map(requireCertificate);
  const { crl, asked } = countedList(root.intermediate());
  const judge = (count: number) =>
    revocationOf(path, { crls: [], unmatchedCrls: Array.from({ length: count }, () => crl), intermediates: [] }, NOW);

  assert.equal(judge(256).revoked, false);
  const before = asked();
  const answer = judge(10_000);

  assert.ok(answer.revoked);
  assert.match(answer.detail, /^there are more revocation lists of "CN=Intermediate.*" than can be checked$/);
  assert.ok(asked() - before <= 256);
});

test('a list remembers whom it was asked about, and not without end', () => {
  const parsed = parseCrl(root.crl());
  assert.ok(parsed.ok);
  const [signer, other] = [requireCertificate(root.der), requireCertificate(createTestAuthority().der)];
  let checks = 0;
  const observed = {
    ...signer,
    get publicKey() {
      checks += 1;
      return signer.publicKey;
    },
  };
  const ask = (): number => {
    assert.equal(parsed.value.isSignedBy(observed), true);
    return checks;
  };

  const once = ask();
  assert.equal(ask(), once);
  for (let index = 0; index < 2000; index += 1) assert.equal(parsed.value.isSignedBy({ ...other, sha256: String(index) }), false);

  assert.equal(ask(), 2 * once);
});

test('however a revoked peer mixes what was ever issued to those above it, it stays out, and its neighbour is judged as without lists', () => {
  const next = createRandom(11);
  const random = (below: number): number => Math.floor(next() * below);
  const pick = <T>(from: readonly T[]): T => from[random(from.length)] as T;
  const keyIds = [undefined, null, Buffer.from('01', 'hex'), OTHER_KEY_ID];
  // A list of another key of the name may be of whom has no identifier, so there is none where there are such.
  let isTwinListed = false;
  const identifiers = (): CertificateOptions => ({
    ...defined('subjectKeyId', pick(isTwinListed ? keyIds.filter((keyId) => keyId !== null) : keyIds)),
    ...defined('authorityKeyId', pick(keyIds)),
    keyUsage: pick([['keyCertSign'], ['keyCertSign', 'crlSign']] as const),
  });
  const seen = { refused: 0, spared: 0 };
  for (let round = 0; round < 60; round += 1) {
    isTwinListed = round % 2 === 0;
    const authorities = [createTestAuthority(), createTestAuthority({ subject: pick(['Root example.org', 'Second']) })];
    const upper = pick(authorities).intermediate({ subject: pick(['Upper', 'Root example.org']), ...identifiers() });
    const lower = upper.intermediate({ subject: 'Lower', ...identifiers() });
    const twin = pick(authorities).intermediate({ subject: lower.name });
    const issuers = [...authorities, upper];
    const issued = [upper, lower, twin, ...[upper, lower].flatMap((each) => issuers.map((by) => by.crossSign(each, identifiers())))];
    const leafOptions = defined('authorityKeyId', pick(keyIds));
    const [revoked, spared] = [lower.issue(leafOptions), lower.issue(leafOptions)];
    const listOptions: CrlOptions = { revoked: [revoked.serial], ...defined('authorityKeyId', pick(keyIds)) };
    const lists = [lower.crl(listOptions), ...(isTwinListed ? [twin.crl()] : []), ...authorities.map((authority) => authority.crl())];
    for (let attempt = 0; attempt < 8; attempt += 1) {
      const shown = Array.from({ length: 1 + random(5) }, () => pick(issued).der);

      const [verdict, neighbour, unlisted] = [
        problemOf([revoked.der, ...shown], lists, authorities),
        problemOf([spared.der, ...shown], lists, authorities),
        problemOf([spared.der, ...shown], [], authorities),
      ];

      assert.notEqual(verdict, 'ok', `round ${round}`);
      assert.equal(neighbour, unlisted, `round ${round}`);
      if (unlisted === 'ok') {
        assert.equal(verdict, 'revoked', `round ${round}`);
        seen.spared += 1;
      } else seen.refused += 1;
    }
  }
  // So that the above says something.
  assert.ok(seen.spared > 100 && seen.refused > 50, JSON.stringify(seen));
});

function defined<K extends string, V>(key: K, value: V | undefined): { readonly [key in K]?: V } {
  return (value === undefined ? {} : { [key]: value }) as { readonly [key in K]?: V };
}
