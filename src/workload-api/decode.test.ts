import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create, toBinary } from '@bufbuild/protobuf';
import { X509BundlesResponseSchema, X509SVIDResponseSchema } from '../gen/workload_pb.ts';
import type { HeldIdentity } from '../identity/snapshot.ts';
import type { Result } from '../lib/result.ts';
import type { TrustBundle } from '../spiffe/trust-bundle.ts';
import { requireCertificate } from '../../test/support/pki/bundles.ts';
import { createTestAuthority, type CertificateOptions } from '../../test/support/pki/pki.ts';
import { svidEntry, type BundleMap, type SvidEntry } from '../../test/support/workload-api.ts';
import { decodeX509Bundles, decodeX509Svids, type Bundles, type UpdateProblem } from './decode.ts';

const authority = createTestAuthority();
const stranger = createTestAuthority();
const partner = createTestAuthority({ trustDomain: 'partner.test' });
const ID = 'spiffe://example.org/workload';

function encode(svids: readonly SvidEntry[], federatedBundles: BundleMap = {}, crl: readonly Uint8Array[] = []): Uint8Array {
  return toBinary(X509SVIDResponseSchema, create(X509SVIDResponseSchema, { svids: [...svids], federatedBundles, crl: [...crl] }));
}

function build(bytes: Uint8Array): Result<Pick<HeldIdentity, 'svids' | 'bundles'>, UpdateProblem> {
  const decoded = decodeX509Svids(bytes);
  return decoded.ok ? decoded.value.build(Date.now()) : decoded;
}

function buildBundles(bundles: BundleMap): Result<Bundles, UpdateProblem> {
  const decoded = decodeX509Bundles(toBinary(X509BundlesResponseSchema, create(X509BundlesResponseSchema, { bundles })));
  return decoded.ok ? decoded.value.build(Date.now()) : decoded;
}

function issued(options: CertificateOptions = {}, changes: Partial<SvidEntry> = {}): SvidEntry {
  return svidEntry(authority, authority.issue({ id: ID, ...options }), options.id ?? ID, changes);
}

function accepted(result: Result<Pick<HeldIdentity, 'svids' | 'bundles'>, UpdateProblem>): Pick<HeldIdentity, 'svids' | 'bundles'> {
  if (!result.ok) assert.fail(`${result.error.code}: ${result.error.message}`);
  return result.value;
}

function refusedAs(result: Result<unknown, UpdateProblem>): string {
  assert.ok(!result.ok, 'was accepted');
  return result.error.code;
}

const bundleFor = (bundles: Bundles, name: string): TrustBundle | undefined =>
  [...bundles.values()].find((bundle) => bundle.trustDomain === name);

test('a good message gives the SVIDs in their order, the first being the default', () => {
  const { svids } = accepted(build(encode([issued({ id: 'spiffe://example.org/b' }), issued({ id: 'spiffe://example.org/a' })])));

  assert.deepEqual(
    svids.map((svid) => svid.id),
    ['spiffe://example.org/b', 'spiffe://example.org/a'],
  );
});

test('hints are kept', () => {
  const { svids } = accepted(build(encode([issued({}, { hint: 'internal' })])));

  assert.equal(svids[0].hint, 'internal');
});

test('an SVID brings the bundle of its own trust domain, the map those of others', () => {
  const { bundles } = accepted(build(encode([issued()], { 'spiffe://partner.test': partner.der })));

  assert.deepEqual([...bundles.keys()].toSorted(), ['example.org', 'partner.test']);
});

test('keys of the map may be bare trust domain names', () => {
  const { bundles } = accepted(build(encode([issued()], { 'partner.test': partner.der })));

  assert.equal(bundleFor(bundles, 'partner.test')?.authorities.length, 1);
});

test('a federated bundle without authorities is held, and trusts nobody', () => {
  const { bundles } = accepted(build(encode([issued()], { 'spiffe://partner.test': new Uint8Array() })));

  assert.deepEqual(bundleFor(bundles, 'partner.test')?.authorities, []);
});

for (const key of ['', 'spiffe://', 'spiffe://Partner.test', 'spiffe://partner.test/path', 'https://partner.test', 'partner.test:443']) {
  test(`a map key ${JSON.stringify(key)} refuses the message`, () => {
    assert.equal(refusedAs(build(encode([issued()], { [key]: partner.der }))), 'bad_trust_domain');
  });
}

test('a federated entry of our own trust domain gives way to the bundle that came with the SVID', () => {
  const { bundles } = accepted(build(encode([issued()], { 'spiffe://example.org': stranger.der })));

  const held = bundleFor(bundles, 'example.org')?.authorities.map((each) => Buffer.from(each.der()).toString('hex'));
  assert.deepEqual(held, [authority.der.toString('hex')]);
});

test('two SVIDs of one trust domain may repeat its bundle in another order', () => {
  const both = Buffer.concat([authority.der, stranger.der]);
  const turned = Buffer.concat([stranger.der, authority.der]);

  accepted(build(encode([issued({}, { bundle: both }), issued({}, { bundle: turned })])));
});

test('two SVIDs of one trust domain with different bundles refuse the message', () => {
  const both = Buffer.concat([authority.der, stranger.der]);

  assert.equal(refusedAs(build(encode([issued(), issued({}, { bundle: both })]))), 'conflicting_bundles');
});

test('two keys of one trust domain with different bundles refuse the message', () => {
  assert.equal(
    refusedAs(build(encode([issued()], { 'partner.test': partner.der, 'spiffe://partner.test': stranger.der }))),
    'conflicting_bundles',
  );
});

test('of several SVIDs with one hint the first counts, and the bundle of the later is still taken', () => {
  const foreign = svidEntry(partner, partner.issue(), 'spiffe://partner.test/workload', { hint: 'same' });

  const { svids, bundles } = accepted(build(encode([issued({}, { hint: 'same' }), foreign])));

  assert.deepEqual(
    svids.map((svid) => svid.id),
    [ID],
  );
  assert.equal(bundles.size, 2);
});

test('SVIDs without a hint are not duplicates of one another', () => {
  assert.equal(accepted(build(encode([issued(), issued()]))).svids.length, 2);
});

test('a hint of 1024 bytes is accepted, a longer one refuses the message', () => {
  accepted(build(encode([issued({}, { hint: 'é'.repeat(512) })])));
  assert.equal(refusedAs(build(encode([issued({}, { hint: `${'é'.repeat(512)}x` })]))), 'bad_hint');
});

test('a message without SVIDs is refused', () => {
  assert.equal(refusedAs(build(encode([]))), 'missing_field');
  assert.equal(refusedAs(build(new Uint8Array())), 'missing_field');
});

for (const [field, changes] of Object.entries({
  spiffe_id: { spiffeId: '' },
  x509_svid: { x509Svid: new Uint8Array() },
  x509_svid_key: { x509SvidKey: new Uint8Array() },
  bundle: { bundle: new Uint8Array() },
} satisfies Record<string, Partial<SvidEntry>>)) {
  test(`an SVID without ${field} refuses the message, though another is good`, () => {
    assert.equal(refusedAs(build(encode([issued(), issued({}, changes)]))), 'missing_field');
  });
}

test('a spiffe_id that is none, or is not the one of the certificate, refuses the message', () => {
  assert.equal(refusedAs(build(encode([issued({}, { spiffeId: 'https://example.org/workload' })]))), 'bad_spiffe_id');
  assert.equal(refusedAs(build(encode([issued({}, { spiffeId: 'spiffe://example.org/other' })]))), 'wrong_spiffe_id');
});

test('a certificate chain that is not DER, or has bytes after its end, refuses the message', () => {
  const good = issued();

  assert.equal(refusedAs(build(encode([{ ...good, x509Svid: Buffer.from('certificate') }]))), 'bad_certificate');
  assert.equal(
    refusedAs(build(encode([{ ...good, x509Svid: Buffer.concat([good.x509Svid ?? Buffer.alloc(0), Buffer.from([0])]) }]))),
    'bad_certificate',
  );
});

test('a bundle that is not DER refuses the message, federated or not', () => {
  assert.equal(refusedAs(build(encode([issued({}, { bundle: Buffer.from('root') })]))), 'bad_authority');
  assert.equal(refusedAs(build(encode([issued()], { 'spiffe://partner.test': Buffer.from('root') }))), 'bad_authority');
});

test('an authority that cannot be read is left out of a partner’s bundle, and refuses the message in ours', () => {
  // A SEQUENCE, so that the row of certificates is sound, but no certificate.
  const unreadable = Buffer.from([0x30, 0x03, 0x02, 0x01, 0x01]);
  const { bundles } = accepted(build(encode([issued()], { 'spiffe://partner.test': Buffer.concat([unreadable, partner.der]) })));
  const held = bundleFor(bundles, 'partner.test');

  assert.deepEqual(
    held?.authorities.map((each) => Buffer.from(each.der()).toString('hex')),
    [Buffer.from(partner.der).toString('hex')],
  );
  assert.match(held?.notes.join('\n') ?? '', /partner\.test, authority 1: .*; it is not trusted/);
  assert.equal(refusedAs(build(encode([issued({}, { bundle: Buffer.concat([unreadable, authority.der]) })]))), 'bad_authority');
});

test('an SVID that its own bundle does not vouch for refuses the message', () => {
  assert.equal(refusedAs(build(encode([issued({}, { bundle: stranger.der })]))), 'untrusted_chain');
});

test('an expired SVID refuses the message, and so does one that is not valid yet', () => {
  const nowMs = Date.now();

  assert.equal(refusedAs(build(encode([issued({ notAfter: nowMs - 10_000 })]))), 'expired');
  assert.equal(refusedAs(build(encode([issued({ notBefore: nowMs + 100_000 })]))), 'not_yet_valid');
});

test('a private key that is another one, or none, refuses the message without showing it', () => {
  const other = authority.issue();
  const notAKey = Buffer.from('c2VjcmV0-secret');

  assert.equal(refusedAs(build(encode([issued({}, { x509SvidKey: other.keyDer })]))), 'key_mismatch');
  const refused = build(encode([issued({}, { x509SvidKey: notAKey })]));
  assert.equal(refusedAs(refused), 'bad_private_key');
  assert.ok(!JSON.stringify(refused).includes(notAKey.toString()));
});

test('revocation lists belong to the trust domain whose authority signed them', () => {
  const crl = partner.crl({ revoked: ['42'] });

  const { bundles } = accepted(build(encode([issued()], { 'spiffe://partner.test': partner.der }, [crl])));

  assert.equal(bundleFor(bundles, 'partner.test')?.crls.length, 1);
  assert.equal(bundleFor(bundles, 'example.org')?.crls.length, 0);
});

test('a revocation list is read once, however many bundles it is matched with: a hundred times would stop everything for seconds', () => {
  const list = createTestAuthority({ subject: 'Elsewhere' }).crl({ revoked: ['0a'] });
  const { bundles } = accepted(build(encode([issued()], { 'spiffe://partner.test': partner.der }, [list])));
  const [ours, theirs] = ['example.org', 'partner.test'].map((name) => bundleFor(bundles, name)?.unmatchedCrls[0]);
  assert.ok(ours !== undefined && ours === theirs);
});

test('a revocation list that is not one refuses the message: it may be the one that revokes somebody', () => {
  assert.equal(refusedAs(build(encode([issued()], {}, [Buffer.from('crl')]))), 'bad_crl');
});

test('a list of ours whose name and key a partner’s authority imitates costs that authority its trust, and not us our update', () => {
  const list = authority.crl({ revoked: ['42'] });
  const named = requireCertificate(authority.der).subjectKeyId ?? '';
  const imitation = createTestAuthority({ trustDomain: 'partner.test', subject: authority.name, subjectKeyId: Buffer.from(named, 'hex') });
  const federated = { 'spiffe://partner.test': Buffer.concat([imitation.der, partner.der]) };

  const { bundles } = accepted(build(encode([issued()], federated, [list])));

  assert.deepEqual(
    bundleFor(bundles, 'partner.test')?.authorities.map(({ serial }) => serial),
    [partner.serial],
  );
  assert.equal(bundleFor(bundles, 'example.org')?.crls.length, 1);
  assert.equal(refusedAs(build(encode([issued()], federated, [authority.crl({ badSignature: true })]))), 'bad_crl');
});

test('the intermediates of our own SVIDs are known in their trust domain, once each, and what the agent sent besides is not', () => {
  const intermediate = authority.intermediate();
  const entry = (more: readonly Uint8Array[]): SvidEntry => {
    const leaf = intermediate.issue({ id: ID });
    return svidEntry(authority, leaf, ID, { x509Svid: Buffer.concat([...leaf.chain, ...more]) });
  };

  const { bundles } = accepted(build(encode([entry([stranger.der]), entry([])], { 'spiffe://partner.test': partner.der })));

  assert.deepEqual(
    bundleFor(bundles, 'example.org')?.intermediates.map(({ serial }) => serial),
    [intermediate.serial],
  );
  assert.deepEqual(bundleFor(bundles, 'partner.test')?.intermediates, []);
});

test('an own SVID that is revoked refuses the message', () => {
  const leaf = authority.issue({ id: ID });

  assert.equal(refusedAs(build(encode([svidEntry(authority, leaf, ID)], {}, [authority.crl({ revoked: [leaf.serial] })]))), 'revoked');
});

test('bytes that are no protobuf are refused, whatever they are', () => {
  for (const bytes of [
    [0x0a, 0xff],
    [0xff, 0xff, 0xff],
    [0x0a, 0x03, 0x0a, 0x05, 0x61],
    Array.from({ length: 300 }, (_, index) => (index * 37) & 255),
  ]) {
    assert.equal(refusedAs(build(Uint8Array.from(bytes))), 'undecodable');
  }
});

test('a good message cut or changed anywhere is refused or means something, and never throws', () => {
  const good = encode([issued({}, { hint: 'internal' })], { 'spiffe://partner.test': partner.der }, [authority.crl()]);

  for (let at = 0; at < good.length; at += 7) {
    build(good.subarray(0, at));
    const changed = Uint8Array.from(good);
    changed[at] = (changed[at] ?? 0) ^ 0x55;
    build(changed);
  }
});

test('what comes out cannot be changed', () => {
  const { svids, bundles } = accepted(build(encode([issued()])));

  assert.ok(Object.isFrozen(svids));
  assert.throws(() => (bundles as Map<unknown, unknown>).clear(), TypeError);
});

test('the fingerprint is the same whatever the order of the map, and another when the content is', () => {
  const entry = issued();
  const print = (federated: BundleMap): string => {
    const decoded = decodeX509Svids(encode([entry], federated));
    assert.ok(decoded.ok);
    return decoded.value.fingerprint;
  };

  assert.equal(print({ 'a.test': partner.der, 'b.test': stranger.der }), print({ 'b.test': stranger.der, 'a.test': partner.der }));
  assert.notEqual(print({ 'a.test': partner.der }), print({ 'b.test': partner.der }));
});

test('a FetchX509Bundles message gives its bundles, and a bad one refuses the whole', () => {
  const good = buildBundles({ 'spiffe://example.org': authority.der, 'partner.test': partner.der });

  assert.ok(good.ok);
  assert.deepEqual([...good.value.keys()].toSorted(), ['example.org', 'partner.test']);
  assert.equal(refusedAs(buildBundles({ 'spiffe://example.org': authority.der, 'partner.test': Buffer.from('x') })), 'bad_authority');
  assert.equal(refusedAs(decodeX509Bundles(Buffer.from([0xff]))), 'undecodable');
});
