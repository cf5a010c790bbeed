import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bundlesOf, requireCertificate } from '../../test/support/pki/bundles.ts';
import { element, integer, oid, sequence, utf8 } from '../../test/support/pki/der-writer.ts';
import { createTestAuthority, dnsName, ipName, type CertificateOptions, type TestCertificate } from '../../test/support/pki/pki.ts';
import { verifyPeer } from './verify.ts';

const ID = 'spiffe://example.org/workload';
const NOW = Date.now();
const DAY = 86_400_000;
const root = createTestAuthority();
const bundles = bundlesOf({ 'example.org': [root] });

function problemOf(chain: readonly Uint8Array[], against = bundles, nowMs = NOW): string {
  const answer = verifyPeer(chain, against, nowMs);
  return answer.ok ? 'ok' : answer.error.problem;
}

function accept(name: string, options: CertificateOptions): void {
  test(name, () => {
    const leaf = root.issue(options);

    const answer = verifyPeer(leaf.chain, bundles, NOW);

    assert.ok(answer.ok, answer.ok ? '' : answer.error.detail);
    assert.equal(answer.value.id, options.id ?? ID);
  });
}

function reject(name: string, options: CertificateOptions, problem: string, detail: RegExp): void {
  test(name, () => {
    const answer = verifyPeer(root.issue(options).chain, bundles, NOW);

    assert.ok(!answer.ok);
    assert.equal(answer.error.problem, problem);
    assert.match(answer.error.detail, detail);
  });
}

accept('XV-1: a plain SVID is accepted', {});
accept('XV-3: further DNS names are free (X509-SVID 2)', { dnsSans: ['a.example', 'b.example'] });
accept('XV-4: an empty subject with a critical URI name is accepted', { subject: '' });
accept('a leaf without extended key usage is accepted (X509-SVID 4.4)', { eku: null });
accept('keyEncipherment and keyAgreement are free (X509-SVID 4.3)', { keyUsage: ['digitalSignature', 'keyEncipherment', 'keyAgreement'] });
accept('a leaf without basic constraints is accepted', { isCa: null });
accept('an IPv4 look-alike name beside the SPIFFE ID does not matter', { otherSans: [dnsName('127.0.0.1')] });

test('XV-2: an SVID through an intermediate is accepted, and the path names all three', () => {
  const intermediate = root.intermediate();
  const leaf = intermediate.issue();

  const answer = verifyPeer(leaf.chain, bundles, NOW);

  assert.ok(answer.ok);
  assert.deepEqual(
    answer.value.path.map(({ sha256 }) => sha256),
    [leaf, intermediate, root].map(({ der }) => requireCertificate(der).sha256),
  );
  assert.equal(answer.value.authority.sha256, requireCertificate(root.der).sha256);
  assert.equal(answer.value.chain.length, 2);
});

test('XV-5: another CA of the same trust domain name and subject is not trusted', () => {
  const forger = createTestAuthority();

  assert.equal(problemOf(forger.issue().chain), 'untrusted_chain');
  assert.equal(problemOf([...forger.issue().chain, forger.der]), 'untrusted_chain');
});

test('a forger with the name and key identifier of the authority is not trusted', () => {
  const keyId = Buffer.from('0102030405', 'hex');
  const real = createTestAuthority({ subjectKeyId: keyId });
  const forger = createTestAuthority({ subjectKeyId: keyId });

  assert.equal(problemOf(forger.issue().chain, bundlesOf({ 'example.org': [real] })), 'untrusted_chain');
  assert.equal(problemOf(real.issue().chain, bundlesOf({ 'example.org': [real] })), 'ok');
});

reject('XV-6: an expired SVID is refused', { notBefore: NOW - DAY, notAfter: NOW - 1000 }, 'expired', /expired at /);
reject('XV-7: an SVID that is not yet valid is refused', { notBefore: NOW + 60_000 }, 'not_yet_valid', /is not valid before /);
reject('XV-8: a leaf with the CA flag is refused (X509-SVID 4.1)', { isCa: true }, 'not_an_svid', /is a CA/);
reject(
  'XV-9: a leaf with keyCertSign is refused (X509-SVID 4.3)',
  { keyUsage: ['digitalSignature', 'keyCertSign'] },
  'not_an_svid',
  /has keyCertSign/,
);
reject(
  'XV-10: a leaf with cRLSign is refused (X509-SVID 4.3)',
  { keyUsage: ['digitalSignature', 'crlSign'] },
  'not_an_svid',
  /has cRLSign/,
);
reject('XV-11: two URI names are refused (X509-SVID 2)', { uriSans: [ID, 'spiffe://example.org/b'] }, 'not_an_svid', /2 URI names/);
reject('XV-11: a SPIFFE ID beside another URI is refused', { uriSans: [ID, 'https://example.org/'] }, 'not_an_svid', /2 URI names/);
reject(
  'XV-12: no URI name is refused, whatever the common name says',
  { uriSans: [], dnsSans: ['example.org'], subject: ID },
  'not_an_svid',
  /no URI name/,
);
reject('XV-12: no alternative names at all are refused', { uriSans: [] }, 'not_an_svid', /no URI name/);
reject('XV-13: a URI name that is no SPIFFE ID is refused', { uriSans: ['https://example.org/workload'] }, 'not_an_svid', /wrong_scheme/);
reject('XV-14: a SPIFFE ID without a path is refused (X509-SVID 3.1)', { id: 'spiffe://example.org' }, 'not_an_svid', /has a path/);
reject('no key usage is refused (X509-SVID 4.3)', { keyUsage: null }, 'not_an_svid', /no key usage/);
reject('key usage that is not critical is refused (X509-SVID 4.3)', { keyUsageCritical: false }, 'not_an_svid', /not critical/);
reject(
  'key usage without digitalSignature is refused (X509-SVID 4.3)',
  { keyUsage: ['keyAgreement'] },
  'not_an_svid',
  /lacks digitalSignature/,
);
reject('key usage without any bit is refused', { keyUsage: [] }, 'not_an_svid', /lacks digitalSignature/);
reject('extended key usage for servers alone is refused (X509-SVID 4.4)', { eku: ['serverAuth'] }, 'not_an_svid', /clientAuth/);
reject('extended key usage for clients alone is refused (X509-SVID 4.4)', { eku: ['clientAuth'] }, 'not_an_svid', /serverAuth/);
reject('extended key usage for anything does not name both roles', { eku: ['any'] }, 'not_an_svid', /serverAuth/);
reject(
  'an empty subject without a critical alternative name is refused (X509-SVID 3.1)',
  { subject: '', sanCritical: false },
  'not_an_svid',
  /not critical/,
);
reject('a signature that does not hold is refused', { badSignature: true }, 'untrusted_chain', /no path from/);
reject('a signature with SHA-1 is refused', { signature: 'ecdsa-sha1' }, 'untrusted_chain', /1\.2\.840\.10045\.4\.1/);
reject('an RSA key of 1024 bits is refused', { key: 'rsa1024' }, 'untrusted_chain', /1024 bits/);
reject('a key on the curve secp256k1 is refused', { key: 'secp256k1' }, 'untrusted_chain', /secp256k1/);
reject(
  'a critical extension that is not understood is refused',
  { extensions: [{ oid: '1.3.6.1.4.1.99999.1', critical: true, value: Buffer.from('0500', 'hex') }] },
  'untrusted_chain',
  /1\.3\.6\.1\.4\.1\.99999\.1/,
);
accept('an extension that is not critical need not be understood', {
  extensions: [{ oid: '1.3.6.1.4.1.99999.1', value: Buffer.from('0500', 'hex') }],
});

const policies = (critical: boolean, ...content: readonly Uint8Array[]) => ({
  extensions: [{ oid: '2.5.29.32', critical, value: sequence(...content) }],
});
const qualified = (kind: string, ...content: readonly Uint8Array[]) => sequence(oid('1.2.3.4'), sequence(sequence(oid(kind), ...content)));
const CPS = '1.3.6.1.5.5.7.2.1';
const NOTICE = '1.3.6.1.5.5.7.2.2';
const uri = element(0x16, Buffer.from('https://example.org'));
const wholeNotice = sequence(sequence(utf8('us'), sequence(integer(1))), utf8('text'));
accept('critical policies are free, whatever they are', { ...policies(true, sequence(oid('1.2.3.4')), sequence(oid('2.5.29.32.0'))) });
accept('critical policies with the qualifiers of RFC 5280 4.2.1.4', policies(true, qualified(CPS, uri), sequence(oid('1.2.3.5'))));
accept('critical policies with a user notice', policies(true, qualified(NOTICE, wholeNotice)));
accept('critical policies with an empty user notice', policies(true, qualified(NOTICE, sequence())));
accept('policies that are not critical are not read', policies(false, Buffer.from('junk')));
for (const [what, ...content] of [
  ['none'],
  ['junk', Buffer.from('junk')],
  ['junk after a policy', sequence(oid('1.2.3.4')), Buffer.from('0500', 'hex')],
  ['junk within a policy', sequence(oid('1.2.3.4'), element(0x05))],
  ['no qualifiers where there may be some', sequence(oid('1.2.3.4'), sequence())],
  ['junk after qualifiers', sequence(oid('1.2.3.4'), sequence(sequence(oid(CPS), uri)), element(0x05))],
  ['junk after a qualifier', qualified(CPS, uri, uri)],
  ['a pointer that is none', qualified(CPS, integer(1))],
  ['a notice that is none', qualified(NOTICE, sequence(integer(1)))],
  ['junk after a notice', qualified(NOTICE, sequence(utf8('text'), utf8('text')))],
  ['an unknown qualifier', qualified('1.2.3.5', uri)],
  ['one policy twice', sequence(oid('1.2.3.4')), sequence(oid('1.2.3.4'))],
] as const)
  reject(
    `critical policies with ${what} are refused`,
    policies(true, ...content),
    'untrusted_chain',
    /2\.5\.29\.32, which is not understood/,
  );

for (const bytes of [0, 1, 3, 5, 8, 15, 17, 32])
  reject(
    `an address of ${bytes} bytes as a name is refused`,
    { otherSans: [ipName(Array.from({ length: bytes }, () => 1))] },
    'bad_certificate',
    new RegExp(`an address of ${bytes} bytes`),
  );
accept('addresses of 4 and 16 bytes are free', { otherSans: [ipName([10, 0, 0, 1]), ipName(Array.from({ length: 16 }, () => 1))] });
reject(
  'a leaf that constrains names is refused (RFC 5280 4.2.1.10)',
  { nameConstraints: { permitted: [dnsName('example.org')], critical: false } },
  'not_an_svid',
  /has name constraints/,
);
reject(
  'constraints on no names are refused',
  { extensions: [{ oid: '2.5.29.30', critical: true, value: sequence() }] },
  'bad_certificate',
  /empty list of name constraints/,
);

for (const [id, uri] of [
  ['ID-1/x509-query', `${ID}?a=b`],
  ['ID-1/x509-percent-encoded', 'spiffe://example.org/work%6Coad'],
  ['ID-1/x509-trailing-slash', `${ID}/`],
  ['ID-1/x509-port', 'spiffe://example.org:443/workload'],
  ['ID-1/x509-fragment', `${ID}#`],
  ['ID-1/x509-upper-case', 'SPIFFE://example.org/workload'],
  ['ID-1/x509-zero-byte', `${ID}\0`],
] as const)
  reject(`${id}: ${JSON.stringify(uri)} as the URI name is refused`, { uriSans: [uri] }, 'not_an_svid', /is not a SPIFFE ID/);

accept('ID-2/max-length: a SPIFFE ID of 2048 bytes is accepted', { id: `spiffe://example.org/${'a'.repeat(2048 - 21)}` });

test('a URI name that reads like two when rendered is one, and no SPIFFE ID', () => {
  const leaf = root.issue({ uriSans: ['spiffe://example.org/a, URI:spiffe://example.org/b'] });

  assert.equal(problemOf(leaf.chain), 'not_an_svid');
});

test('XV-15: an ID of a trust domain without a bundle is refused though the chain verifies elsewhere', () => {
  const answer = verifyPeer(root.issue({ id: 'spiffe://unknown.example/workload' }).chain, bundles, NOW);

  assert.ok(!answer.ok);
  assert.equal(answer.error.problem, 'unknown_trust_domain');
  assert.equal(answer.error.claimedId, 'spiffe://unknown.example/workload');
});

test('XF-1: a peer of a federated trust domain is accepted', () => {
  const partner = createTestAuthority({ trustDomain: 'partner.example' });
  const both = bundlesOf({ 'example.org': [root], 'partner.example': [partner] });

  assert.equal(problemOf(partner.issue().chain, both), 'ok');
  assert.equal(problemOf(root.issue().chain, both), 'ok');
});

test('XF-2: an authority of one trust domain cannot vouch for an ID of another, in both directions', () => {
  const partner = createTestAuthority({ trustDomain: 'partner.example' });
  const both = bundlesOf({ 'example.org': [root], 'partner.example': [partner] });

  assert.equal(problemOf(partner.issue({ id: ID }).chain, both), 'untrusted_chain');
  assert.equal(problemOf(root.issue({ id: 'spiffe://partner.example/workload' }).chain, both), 'untrusted_chain');
  assert.equal(problemOf([...partner.issue({ id: ID }).chain, root.der], both), 'untrusted_chain');
});

test('XF-3: a federated trust domain that was dropped is unknown', () => {
  const partner = createTestAuthority({ trustDomain: 'partner.example' });

  assert.equal(problemOf(partner.issue().chain), 'unknown_trust_domain');
});

test('XS-4, XS-5: all authorities of a bundle are trusted, and one that was dropped no longer', () => {
  const second = createTestAuthority();
  const leaf = second.issue();

  assert.equal(problemOf(leaf.chain, bundlesOf({ 'example.org': [root, second] })), 'ok');
  assert.equal(problemOf(leaf.chain, bundlesOf({ 'example.org': [root] })), 'untrusted_chain');
});

test('an empty bundle trusts nobody', () => {
  assert.equal(problemOf(root.issue().chain, bundlesOf({ 'example.org': [] })), 'untrusted_chain');
});

test('an empty chain is no certificate', () => {
  assert.equal(problemOf([]), 'no_certificate');
});

test('an authority cannot speak as a workload, even with its own certificate in the bundle', () => {
  const odd = createTestAuthority({ id: ID, keyUsage: ['digitalSignature'], isCa: false });

  assert.equal(problemOf([root.der]), 'not_an_svid');
  assert.equal(problemOf([odd.der], bundlesOf({ 'example.org': [odd] })), 'untrusted_chain');
});

for (const key of ['p256', 'p384', 'p521', 'rsa2048', 'rsa3072', 'ed25519'] as const)
  test(`SVIDs and authorities with ${key} keys are accepted`, () => {
    const authority = createTestAuthority({ key });
    const leaf = authority.intermediate({ key }).issue({ key });

    assert.equal(problemOf(leaf.chain, bundlesOf({ 'example.org': [authority] })), 'ok');
  });

test('RSASSA-PSS signatures are accepted', () => {
  const authority = createTestAuthority({ key: 'rsa2048' });
  const against = bundlesOf({ 'example.org': [authority] });

  assert.equal(problemOf(authority.issue({ signature: 'rsa-pss-sha256' }).chain, against), 'ok');
  assert.equal(problemOf(authority.issue({ signature: 'rsa-pss-sha256', badSignature: true }).chain, against), 'untrusted_chain');
});

test('signatures whose algorithm has parameters that it must not have are refused', () => {
  for (const [key, signature, isGood] of [
    ['ed25519', 'ed25519-null', false],
    ['p256', 'ecdsa-sha256-null', false],
    ['rsa2048', 'rsa-sha256-bare', true],
  ] as const) {
    const authority = createTestAuthority({ key });
    const against = bundlesOf({ 'example.org': [authority] });

    assert.equal(problemOf(authority.issue().chain, against), 'ok');
    assert.equal(problemOf(authority.issue({ signature }).chain, against), isGood ? 'ok' : 'untrusted_chain', signature);
    assert.equal(problemOf(authority.intermediate({ signature }).issue().chain, against), isGood ? 'ok' : 'untrusted_chain', signature);
  }
});

test('signatures with MD5 and SHA-1 by an RSA authority are refused', () => {
  const authority = createTestAuthority({ key: 'rsa2048' });
  const against = bundlesOf({ 'example.org': [authority] });

  for (const signature of ['rsa-md5', 'rsa-sha1'] as const)
    assert.equal(problemOf(authority.issue({ signature }).chain, against), 'untrusted_chain');
});

test('both ends of validity are inside of it (RFC 5280 4.1.2.5)', () => {
  const [from, until] = [Math.floor(NOW / 1000) * 1000, Math.floor(NOW / 1000) * 1000 + 5000];
  const leaf = root.issue({ notBefore: from, notAfter: until });

  assert.deepEqual(
    [from - 1, from, until, until + 1, Number.NaN].map((nowMs) => problemOf(leaf.chain, bundles, nowMs)),
    ['not_yet_valid', 'ok', 'ok', 'expired', 'expired'],
  );
});

test('the answer holds until the earliest end of validity in the path', () => {
  const end = Math.floor(NOW / 1000) * 1000 + 30_000;
  const intermediate = root.intermediate({ notAfter: end });

  const answer = verifyPeer(intermediate.issue().chain, bundles, NOW);

  assert.ok(answer.ok);
  assert.equal(answer.value.validUntilMs, end);
});

test('eight certificates are read, nine are refused unread', () => {
  const strangers = Array.from({ length: 8 }, () => createTestAuthority().der);
  const leaf = root.issue();

  assert.equal(problemOf([...leaf.chain, ...strangers.slice(0, 7)]), 'ok');
  assert.equal(problemOf([...leaf.chain, ...strangers]), 'bad_certificate');
});

test('a chain of eight with seven intermediates is verified', () => {
  let issuer = root;
  for (let depth = 0; depth < 7; depth += 1) issuer = issuer.intermediate({ subject: `Intermediate ${depth}` });
  const leaf = issuer.issue();

  assert.equal(leaf.chain.length, 8);
  assert.equal(problemOf(leaf.chain), 'ok');
  assert.equal(problemOf([leaf.der, ...leaf.chain.slice(1).toReversed()]), 'ok');
});

test('garbage among the certificates refuses the chain, with the ID that the leaf claims', () => {
  const answer = verifyPeer([root.issue().der, Buffer.from('garbage')], bundles, NOW);

  assert.ok(!answer.ok);
  assert.equal(answer.error.problem, 'bad_certificate');
  assert.equal(answer.error.claimedId, ID);
});

test('whatever bytes a peer sends, the answer is a refusal and nothing is thrown', () => {
  const leaf: TestCertificate = root.intermediate().issue();
  const random = createRandom(7);

  for (let length = 0; length < leaf.der.length; length += 1) assert.notEqual(problemOf([leaf.der.subarray(0, length)]), 'ok');
  for (let round = 0; round < 8000; round += 1) {
    const chain = leaf.chain.map((der) => Buffer.from(der));
    const hit = chain[round % chain.length] ?? Buffer.alloc(0);
    const at = random(hit.length);
    hit[at] = (hit[at] ?? 0) ^ (1 << random(8));
    assert.notEqual(problemOf(chain), 'ok', `byte ${at} of certificate ${round % chain.length}`);
  }
  for (let round = 0; round < 1000; round += 1) {
    const noise = Buffer.from(Array.from({ length: random(200) }, () => random(256)));
    assert.equal(problemOf([Buffer.concat([Buffer.from('3082', 'hex'), noise])]), 'bad_certificate');
  }
});

/** A small generator, so that every run tries the same bytes. */
function createRandom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}
