import assert from 'node:assert/strict';
import { inspect } from 'node:util';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import { denyListOf } from '../../test/support/policy/deny-file.ts';
import { policyFrom, policyOf } from '../../test/support/policy/policies.ts';
import { explicit, implicit, sequence } from '../../test/support/pki/der-writer.ts';
import { createTestAuthority, directoryName, uriName, type CrlOptions, type TestAuthority } from '../../test/support/pki/pki.ts';
import { PLAIN_OPTIONS, readSecret, type ReadSecret } from '../../test/support/secrets.ts';
import { bundleOf, heldSnapshot, svidOf } from '../../test/support/pki/snapshots.ts';
import type { HeldIdentity, IdentitySnapshot, SvidChoice } from '../identity/snapshot.ts';
import { buildTrustBundle, type TrustBundle } from '../spiffe/trust-bundle.ts';
import { buildCatalogue, type Catalogue, type CatalogueOptions } from './secrets.ts';
import type { ValidationForm } from './validation-form.ts';

const HOUR_MS = 3_600_000;
const own = createTestAuthority({ trustDomain: 'example.org' });
const partner = createTestAuthority({ trustDomain: 'partner.example' });
const web = svidOf(own, 'spiffe://example.org/web');
const api = svidOf(own, 'spiffe://example.org/api', { hint: 'internal' });
const snapshot = heldSnapshot([web, api], [own, partner]);
const WEB_TOO = 'spiffe://example.org/web-too';

function catalogue(options: Partial<CatalogueOptions> = {}, of: IdentitySnapshot = snapshot, nowMs = Date.now()): Catalogue {
  return buildCatalogue(of, { ...PLAIN_OPTIONS, ...options }, nowMs);
}

function read(from: Catalogue, name: string, form: ValidationForm = 'spiffe'): ReadSecret {
  const looked = from.lookup(name, form);
  if (!looked.found) throw new Error(`${name}: ${looked.reason}: ${looked.detail}`);
  assert.equal(looked.secret.name, name);
  return readSecret(looked.secret.encode());
}

function reason(from: Catalogue, name: string, form: ValidationForm = 'spiffe'): string {
  const looked = from.lookup(name, form);
  return looked.found ? 'found' : looked.reason;
}

function withBundles(...bundles: readonly TrustBundle[]): IdentitySnapshot {
  return { ...snapshot, bundles: new Map(bundles.map((bundle) => [bundle.trustDomain, bundle])) };
}

function emptied(authority: TestAuthority): TrustBundle {
  return { ...bundleOf(authority), authorities: [] };
}

test('an identity is its chain in PEM, leaf first and without the root, and its key in PKCS #8', () => {
  const intermediate = own.intermediate();
  const svid = svidOf(own, 'spiffe://example.org/web');
  const chained = { ...svid, ...chainOf(intermediate) };
  const { certificate } = read(catalogue({}, heldSnapshot([chained], [own])), 'spiffe://example.org/web');

  assert.match(
    certificate?.chain ?? '',
    /^-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+-----END CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+-----END CERTIFICATE-----\n$/,
  );
  assert.match(certificate?.key ?? '', /^-----BEGIN PRIVATE KEY-----\n/);
  assert.ok(new X509Certificate(certificate?.chain ?? '').checkPrivateKey(createPrivateKey(certificate?.key ?? '')));
});

/** An SVID below an intermediate. */
function chainOf(intermediate: TestAuthority, root = own) {
  const { chain, key } = svidOf(Object.assign(intermediate, { der: root.der }), `spiffe://${root.trustDomain}/web`);
  return { chain, key };
}

test('every name has its secret, under the name that was asked for', () => {
  const from = catalogue();

  for (const name of ['default', 'spiffe://example.org/web', 'spiffe://example.org/api', 'hint:internal'])
    assert.ok(read(from, name).certificate);
  for (const name of ['ROOTCA', 'ALL', 'spiffe://example.org', 'spiffe://partner.example']) assert.ok(read(from, name).spiffe, name);
  assert.deepEqual(Object.keys(read(from, 'ROOTCA').spiffe ?? {}), ['example.org']);
  assert.deepEqual(Object.keys(read(from, 'ALL').spiffe ?? {}), ['example.org', 'partner.example']);
  assert.equal(read(from, 'hint:internal').certificate?.chain, read(from, 'spiffe://example.org/api').certificate?.chain);
  assert.equal(read(from, 'default').certificate?.chain, read(from, 'spiffe://example.org/web').certificate?.chain);
});

test('everything is our trust domain, the others in order, then our identities, each once', () => {
  const zulu = createTestAuthority({ trustDomain: 'zulu.example' });
  const twice = heldSnapshot([web, api, svidOf(own, 'spiffe://example.org/web')], [zulu, partner, own]);

  assert.deepEqual(catalogue({}, twice).names(), [
    'spiffe://example.org',
    'spiffe://partner.example',
    'spiffe://zulu.example',
    'spiffe://example.org/web',
    'spiffe://example.org/api',
  ]);
});

test('ALL is in the order of the names of the trust domains, whatever order the agent has', () => {
  const [alpha, zulu] = ['alpha.example', 'zulu.example'].map((trustDomain) => createTestAuthority({ trustDomain }));
  assert.ok(alpha !== undefined && zulu !== undefined);

  for (const authorities of [
    [zulu, own, alpha],
    [own, alpha, zulu],
  ])
    assert.deepEqual(Object.keys(read(catalogue({}, heldSnapshot([web], authorities)), 'ALL').spiffe ?? {}), [
      'alpha.example',
      'example.org',
      'zulu.example',
    ]);
});

test('F.5.13: of two SVIDs with one hint the first counts', () => {
  const twice = heldSnapshot([web, api, svidOf(own, WEB_TOO, { hint: 'internal' })], [own]);

  assert.equal(
    read(catalogue({}, twice), 'hint:internal').certificate?.chain,
    read(catalogue({}, twice), 'spiffe://example.org/api').certificate?.chain,
  );
});

test('F.5.13: of two SVIDs with one SPIFFE ID the first counts', () => {
  const second = svidOf(own, 'spiffe://example.org/web');

  assert.equal(
    new X509Certificate(read(catalogue({}, heldSnapshot([web, second], [own])), 'spiffe://example.org/web').certificate?.chain ?? '')
      .serialNumber,
    web.chain[0]?.x509.serialNumber,
  );
});

test('the default identity can be another one, and is never replaced by one', () => {
  assert.equal(
    read(catalogue({ identity: { by: 'hint', hint: 'internal' } }), 'default').certificate?.chain,
    read(catalogue(), 'spiffe://example.org/api').certificate?.chain,
  );
  assert.equal(reason(catalogue({ identity: { by: 'hint', hint: 'other' } }), 'default'), 'not_held');
});

test('the default bundle is that of the default identity, or none: never that of another identity', () => {
  const elsewhere = svidOf(partner, 'spiffe://partner.example/batch', { hint: 'there' });
  const [both, rest] = [heldSnapshot([web, elsewhere], [own, partner]), heldSnapshot([web], [own, partner])];
  const ofRoot = (identity: SvidChoice, of: IdentitySnapshot): string | undefined => {
    const looked = catalogue({ identity }, of).lookup('ROOTCA', 'root_ca');
    return looked.found ? readSecret(looked.secret.encode()).trustedCa : looked.reason;
  };

  for (const identity of [{ by: 'id', id: elsewhere.id } as const, { by: 'hint', hint: 'there' } as const]) {
    assert.equal(ofRoot(identity, both), partner.pem);
    assert.equal(ofRoot(identity, rest), identity.by === 'id' ? partner.pem : 'not_held');
  }
  for (const identity of [{ by: 'id', id: elsewhere.id } as const, { by: 'hint', hint: 'there' } as const])
    assert.equal(ofRoot(identity, heldSnapshot([web], [own])), 'not_held', 'though there is but one');
  assert.equal(ofRoot({ by: 'default' }, rest), own.pem);
});

test('names that are nothing, or that only look like something', () => {
  const from = catalogue();

  for (const name of [
    '',
    'file-root:/etc/ca.pem',
    'file-cert:a~b',
    'kubernetes://x',
    'Default',
    'rootca',
    'hint:',
    '__proto__',
    'SPIFFE://example.org',
    'spiffe://example.org/',
  ])
    assert.equal(reason(from, name), 'unknown_name', name);
  for (const name of ['spiffe://example.org/other', 'spiffe://other.example', 'spiffe://other.example/web', 'hint:other'])
    assert.equal(reason(from, name), 'not_held', name);
});

test('names that nothing is called cost no memory', () => {
  const from = catalogue();
  const before = process.memoryUsage().heapUsed;

  for (let index = 0; index < 200_000; index += 1) from.lookup(`unknown-${index}-${'x'.repeat(100)}`, 'spiffe');

  assert.ok(process.memoryUsage().heapUsed - before < 60_000_000);
});

test('the aliases can be renamed; where two are called the same, the bundle is meant', () => {
  const renamed = catalogue({ defaultSvidName: 'svid', defaultBundleName: 'null', defaultAllBundlesName: 'ROOTCA' });
  assert.deepEqual(Object.keys(read(renamed, 'ROOTCA').spiffe ?? {}), ['example.org', 'partner.example']);
  assert.ok(read(renamed, 'svid').certificate);
  for (const name of ['default', 'ALL']) assert.equal(reason(renamed, name), 'unknown_name');

  const same = catalogue({ defaultBundleName: 'X', defaultAllBundlesName: 'X' });
  assert.deepEqual(Object.keys(read(same, 'X').spiffe ?? {}), ['example.org']);
});

test('plain authorities are those of one trust domain, and never of all', () => {
  const from = catalogue();

  assert.equal(read(from, 'ROOTCA', 'root_ca').trustedCa, own.pem);
  assert.equal(read(from, 'spiffe://partner.example', 'root_ca').trustedCa, partner.pem);
  assert.equal(read(from, 'ROOTCA', 'root_ca').spiffe, undefined);
  assert.equal(reason(from, 'ALL', 'root_ca'), 'pooled_bundles');
  assert.deepEqual(read(from, 'default', 'root_ca'), read(from, 'default', 'spiffe'));
});

test('F.5.9: a trust domain without authorities is left out of ALL, and is missing by itself', () => {
  const from = catalogue({}, withBundles(bundleOf(own), emptied(partner)));
  assert.deepEqual(Object.keys(read(from, 'ALL').spiffe ?? {}), ['example.org']);
  assert.equal(reason(from, 'spiffe://partner.example'), 'empty_bundle');

  const none = catalogue({}, withBundles(emptied(own), emptied(partner)));
  const detail = (name: string): string => JSON.stringify(none.lookup(name, 'spiffe'));
  assert.match(detail('ROOTCA'), /"the bundle of example\.org has no authorities/);
  assert.match(detail('ALL'), /"the bundle has no authorities/);
  for (const name of ['ALL', 'ROOTCA', 'spiffe://example.org']) {
    for (const form of ['spiffe', 'root_ca'] as const)
      if (name !== 'ALL' || form === 'spiffe') assert.equal(reason(none, name, form), 'empty_bundle');
  }
});

test('F.5.9: a federated trust domain that is removed leaves ALL, which has another version then', () => {
  const [before, after] = [catalogue(), catalogue({}, withBundles(bundleOf(own)))];

  assert.deepEqual(Object.keys(read(after, 'ALL').spiffe ?? {}), ['example.org']);
  assert.equal(reason(after, 'spiffe://partner.example'), 'not_held');
  const versions = [before, after].map((from) => from.lookup('ALL', 'spiffe')).map((looked) => (looked.found ? looked.secret.version : ''));
  assert.notEqual(versions[0], versions[1]);
});

test('an SVID that is not valid now is not served, and the catalogue says when that changes', () => {
  const nowMs = Date.now();
  const dated = heldSnapshot([svidOf(own, 'spiffe://example.org/web', { notBefore: nowMs - HOUR_MS, notAfter: nowMs + HOUR_MS })], [own]);
  const end = Math.floor((nowMs + HOUR_MS) / 1000) * 1000;

  assert.equal(reason(catalogue({}, dated, nowMs), 'default'), 'found');
  assert.equal(catalogue({}, dated, nowMs).changesAtMs, end + 1);
  assert.equal(reason(catalogue({}, dated, end), 'default'), 'found');
  assert.equal(reason(catalogue({}, dated, end + 1), 'default'), 'not_valid');
  assert.equal(catalogue({}, dated, end + 1).changesAtMs, undefined);
  const begin = Math.floor((nowMs - HOUR_MS) / 1000) * 1000;
  const early = catalogue({}, dated, begin - 1);
  assert.deepEqual([reason(early, 'default'), early.changesAtMs], ['not_valid', begin]);
  assert.equal(reason(catalogue({}, dated, begin), 'default'), 'found');
  assert.equal(catalogue({}, { ...dated, generation: 7 }).generation, 7);
  assert.equal(reason(catalogue({}, dated, end + 1), 'ROOTCA'), 'found');
});

test('R23: an SVID that Envoy would refuse is withheld under each of its names, and others are not', () => {
  const mustStaple = { oid: '1.3.6.1.5.5.7.1.24', value: Buffer.from('3003020105', 'hex') };
  const stapled = svidOf(own, 'spiffe://example.org/stapled', { extensions: [mustStaple], hint: 'stapled' });
  const from = catalogue({}, heldSnapshot([stapled, web], [own]));

  for (const name of ['default', 'spiffe://example.org/stapled', 'hint:stapled']) assert.equal(reason(from, name), 'unusable', name);
  assert.ok(from.lookup(web.id, 'spiffe').found);
});

test('without an identity no identity is served; bundles are, and the only one is ours', () => {
  const none = { kind: 'none', generation: 2, receivedAtMs: 0, reason: 'no identity issued' } as const;
  const empty = catalogue({}, { ...none, bundles: new Map() });
  for (const name of ['default', 'ROOTCA', 'spiffe://example.org/web']) assert.equal(reason(empty, name), 'not_held');
  assert.equal(reason(empty, 'ALL'), 'empty_bundle');
  assert.deepEqual(empty.names(), []);

  const one = catalogue({}, { ...none, bundles: withBundles(bundleOf(own)).bundles });
  assert.ok(read(one, 'ROOTCA').spiffe);
  const two = catalogue({}, { ...none, bundles: snapshot.bundles });
  assert.deepEqual(
    two.lookup('ROOTCA', 'spiffe'),
    { found: false, reason: 'not_held', detail: 'we hold no trust domain of our own' },
    'which of them is ours cannot be known',
  );
  assert.deepEqual(two.names(), ['spiffe://example.org', 'spiffe://partner.example']);
});

test('the same content has the same version and bytes, whatever order the agent sent it in, and whichever process asks', () => {
  const second = createTestAuthority({ trustDomain: 'example.org' });
  const domain = bundleOf(own).trustDomain;
  const both = (...authorities: readonly TestAuthority[]): TrustBundle => {
    const bundle = buildTrustBundle(domain, Buffer.concat(authorities.map(({ der }) => der)));
    if (!bundle.ok) throw new Error(bundle.error.message);
    return bundle.value;
  };
  const [one, other] = [both(own, second), both(second, own)].map((bundle) =>
    catalogue({}, { ...withBundles(bundle, bundleOf(partner)), generation: Math.random() }).lookup('ALL', 'spiffe'),
  );

  assert.ok(one?.found && other?.found);
  assert.equal(one.secret.version, other.secret.version);
  assert.deepEqual(one.secret.encode(), other.secret.encode());
  assert.equal(one.secret.encode(), one.secret.encode(), 'encoded once');
});

test('different content has different versions', () => {
  const versions = new Set<string>();
  const add = (from: Catalogue, name: string, form: ValidationForm = 'spiffe'): void => {
    const looked = from.lookup(name, form);
    if (looked.found) versions.add(looked.secret.version);
    else versions.add(looked.reason);
  };
  for (const name of ['default', 'spiffe://example.org/web', 'ROOTCA', 'ALL', 'spiffe://example.org']) add(catalogue(), name);
  add(catalogue(), 'ROOTCA', 'root_ca');
  add(catalogue({ policies: new Map([['ROOTCA', policyOf('spiffe://example.org/web')]]) }), 'ROOTCA');
  add(catalogue({ policies: new Map([['ROOTCA', policyOf('spiffe://example.org/api')]]) }), 'ROOTCA');
  add(catalogue({}, heldSnapshot([svidOf(own, 'spiffe://example.org/web')], [own])), 'default');

  assert.equal(versions.size, 9);
});

/** The version of ALL where these authorities are those of example.org, and these of partner.example, with these lists. */
function versionOfAll(ours: readonly TestAuthority[], theirs: readonly TestAuthority[], crls: readonly Buffer[] = []): string {
  const build = (authority: TestAuthority, authorities: readonly TestAuthority[], lists: readonly Buffer[]): TrustBundle => {
    const bundle = buildTrustBundle(bundleOf(authority).trustDomain, Buffer.concat(authorities.map(({ der }) => der)), lists);
    if (!bundle.ok) throw new Error(bundle.error.message);
    return bundle.value;
  };
  const of = withBundles(build(own, ours, crls), ...(theirs.length === 0 ? [] : [build(partner, theirs, [])]));
  const looked = catalogue({ crls: true }, of).lookup('ALL', 'spiffe');
  return looked.found ? looked.secret.version : looked.reason;
}

test('a version is another one where an authority is of another trust domain, or a revocation list is another', () => {
  const [a, b] = [createTestAuthority(), createTestAuthority()];

  const versions = [
    versionOfAll([a, b], []),
    versionOfAll([a], [b]),
    versionOfAll([b], [a]),
    versionOfAll([a], [b], [a.crl()]),
    versionOfAll([a], [b], [a.crl({ revoked: ['01'] })]),
  ];
  assert.equal(new Set(versions).size, versions.length);
});

test('a version is the same whatever order the agent has authorities and their revocation lists in', () => {
  const [a, b] = [createTestAuthority({ subject: 'a' }), createTestAuthority({ subject: 'b' })];
  const [ofA, ofB] = [a.crl(), b.crl()];

  const version = versionOfAll([a, b], [], [ofA, ofB]);
  assert.equal(versionOfAll([a, b], [], [ofB, ofA]), version);
  assert.equal(versionOfAll([b, a], [], [ofA, ofB]), version);
});

test('an authority whose key is not relied on is not sent, and a trust domain of such alone has no bundle', () => {
  const weak = createTestAuthority({ trustDomain: 'example.org', key: 'rsa1024' });
  const of = (...authorities: readonly TestAuthority[]): Catalogue => {
    const bundle = buildTrustBundle(bundleOf(own).trustDomain, Buffer.concat(authorities.map(({ der }) => der)));
    if (!bundle.ok) throw new Error(bundle.error.message);
    return catalogue({}, withBundles(bundle.value));
  };

  assert.equal(read(of(weak, own), 'ROOTCA', 'root_ca').trustedCa, own.pem);
  assert.equal(reason(of(weak), 'ROOTCA'), 'empty_bundle');
});

test('an allow list goes into the context of its name alone, as matchers of URIs', () => {
  const policies = new Map([['ALL', policyOf('spiffe://partner.example/web', 'spiffe://partner.example/ns/*/sa/x.y')]]);
  const from = catalogue({ policies });

  const { matchers = [] } = read(from, 'ALL');
  assert.equal(matchers[0], 'exact spiffe://partner.example/web');
  assert.match(matchers[1] ?? '', /^regex \^spiffe:\/\/partner\\\.example\/ns\/.+\/sa\/x\\\.y\$$/);
  assert.equal(read(from, 'ROOTCA').matchers, undefined);
});

test('ALL with an allow list vouches for the trust domain of the list alone, since another authority could issue its IDs', () => {
  const withList = (...entries: readonly string[]): Catalogue => catalogue({ policies: new Map([['ALL', policyOf(...entries)]]) });

  for (const domain of ['example.org', 'partner.example'])
    assert.deepEqual(Object.keys(read(withList(`spiffe://${domain}/web`), 'ALL').spiffe ?? {}), [domain]);
  assert.equal(reason(withList('spiffe://example.org/web', 'spiffe://partner.example/web'), 'ALL'), 'inexpressible');
  assert.equal(reason(withList('spiffe://example.org/web', 'spiffe://not-held.example/web'), 'ALL'), 'inexpressible');
  assert.equal(reason(withList('spiffe://not-held.example/web'), 'ALL'), 'not_held');
  assert.equal(reason(withList(), 'ALL'), 'empty_allow_list');
});

test('a context of one trust domain has the entries of that trust domain alone: its authority could issue the IDs of others', () => {
  const policies = new Map([['ROOTCA', policyOf('spiffe://example.org/web', 'spiffe://partner.example/web')]]);

  for (const form of ['spiffe', 'root_ca'] as const)
    assert.deepEqual(read(catalogue({ policies }), 'ROOTCA', form).matchers, ['exact spiffe://example.org/web']);
});

test('an empty list withholds the secret, since to Envoy it is everybody', () => {
  for (const list of [policyOf(), policyOf('spiffe://partner.example/web')]) {
    for (const form of ['spiffe', 'root_ca'] as const)
      assert.equal(reason(catalogue({ policies: new Map([['ROOTCA', list]]) }), 'ROOTCA', form), 'empty_allow_list');
  }
});

test('a list that matchers cannot express withholds the secret, though other entries could be said', () => {
  const list = policyFrom({ allow: ['spiffe://example.org/web'], deny: ['spiffe://example.org/api'] });

  assert.equal(reason(catalogue({ policies: new Map([['ROOTCA', list]]) }), 'ROOTCA'), 'inexpressible');
});

test('revocation lists are sent behind the option alone, and only where every authority has one', () => {
  const domain = bundleOf(own).trustDomain;
  const build = (authorities: readonly TestAuthority[], crls: readonly Buffer[]): TrustBundle => {
    const bundle = buildTrustBundle(domain, Buffer.concat(authorities.map(({ der }) => der)), crls);
    if (!bundle.ok) throw new Error(bundle.error.message);
    return bundle.value;
  };
  const second = createTestAuthority({ trustDomain: 'example.org' });
  const whole = withBundles(build([own], [own.crl()]));
  const partly = withBundles(build([own, second], [own.crl()]));

  assert.equal(read(catalogue({}, whole), 'ROOTCA', 'root_ca').crl, undefined);
  assert.match(read(catalogue({ crls: true }, whole), 'ROOTCA', 'root_ca').crl ?? '', /^-----BEGIN X509 CRL-----\n/);
  assert.match(
    read(catalogue({ crls: true }, whole), 'ROOTCA').spiffe?.['example.org'] ?? '',
    /^-----BEGIN CERTIFICATE[\s\S]*-----BEGIN X509 CRL-----\n/,
  );
  assert.equal(read(catalogue({ crls: true }, partly), 'ROOTCA', 'root_ca').crl, undefined);
  assert.match(catalogue({ crls: true }, partly).notes[0] ?? '', /^example\.org: .* has no revocation list that Envoy could use/);
  assert.deepEqual(catalogue({ crls: true }, whole).notes, []);
  assert.deepEqual([catalogue({}, partly).notes, catalogue({}, partly).changesAtMs], [[], catalogue().changesAtMs]);
});

function withCrls(authorities: readonly TestAuthority[], crls: readonly Buffer[]): IdentitySnapshot {
  const bundle = buildTrustBundle(bundleOf(own).trustDomain, Buffer.concat(authorities.map(({ der }) => der)), crls);
  if (!bundle.ok) throw new Error(bundle.error.message);
  return withBundles(bundle.value);
}

test('a revocation list outside its time is sent, lest the revoked be admitted, and it is said that Envoy refuses all peers', () => {
  const nowMs = Math.floor(Date.now() / 1000) * 1000;
  const [fromMs, toMs] = [nowMs - 2 * HOUR_MS, nowMs + 1000];
  const of = withCrls([own], [own.crl({ thisUpdate: fromMs, nextUpdate: toMs })]);
  const at = (timeMs: number): Catalogue => catalogue({ crls: true }, of, timeMs);

  assert.deepEqual([at(nowMs).notes, at(nowMs).changesAtMs], [[], toMs]);
  assert.match(
    at(toMs).notes[0] ?? '',
    /^example\.org: the revocation list of .* is past its nextUpdate, so Envoy refuses all peers below it$/,
  );
  assert.match(at(fromMs - 1).notes[0] ?? '', /is not valid yet, so Envoy refuses all peers/);
  for (const timeMs of [nowMs, toMs, fromMs - 1]) assert.match(read(at(timeMs), 'ROOTCA', 'root_ca').crl ?? '', /BEGIN X509 CRL/);

  const renewed = withCrls([own], [own.crl({ thisUpdate: fromMs, nextUpdate: toMs }), own.crl({ nextUpdate: nowMs + HOUR_MS })]);
  assert.deepEqual(catalogue({ crls: true }, renewed, toMs).notes, []);
});

test('revocation lists of two keys of one name are sent only if they say whose they are: Envoy would take one for the other', () => {
  const [one, other] = [0, 1].map(() => createTestAuthority({ trustDomain: 'example.org', subject: 'SPIFFE' }));
  assert.ok(one !== undefined && other !== undefined);
  const sent = (...crls: readonly Buffer[]): Catalogue => catalogue({ crls: true }, withCrls([one, other], crls));

  const told = sent(one.crl(), other.crl());
  assert.equal(read(told, 'ROOTCA', 'root_ca').crl?.match(/BEGIN/g)?.length, 2);
  const untold = sent(one.crl({ authorityKeyId: null }), other.crl({ authorityKeyId: null }));
  assert.equal(read(untold, 'ROOTCA', 'root_ca').crl, undefined);
  assert.match(untold.notes[0] ?? '', /has no revocation list that Envoy could use/);
});

test('R22: a revocation list that would make Envoy refuse the secret, or every peer, is not sent, and that is said', () => {
  const HALF = { oid: '2.5.29.28', value: Buffer.from([0x30, 3, 2, 1]) };
  const unknown = { oid: '1.2.3.4', critical: true, value: Buffer.from([5, 0]) };
  const noSigner = createTestAuthority({ trustDomain: 'example.org', keyUsage: ['keyCertSign'] });
  const anySigner = createTestAuthority({ trustDomain: 'example.org', keyUsage: null });
  const weak = createTestAuthority({ trustDomain: 'example.org', subject: 'weak', key: 'rsa1024' });
  const sent = (authorities: readonly TestAuthority[], ...crls: readonly Buffer[]): Catalogue =>
    catalogue({ crls: true }, withCrls(authorities, crls));
  const ofCertificate = (name: Uint8Array, serial: string): CrlOptions => ({
    authorityKeyId: null,
    extensions: [
      {
        oid: '2.5.29.35',
        value: sequence(explicit(1, uriName('spiffe://x'), directoryName(name)), implicit(2, Buffer.from(serial, 'hex'))),
      },
    ],
  });

  for (const withheld of [
    sent([own], own.crl({ extensions: [HALF] })),
    sent([own], own.crl({ revoked: [{ serial: '05', extensions: [unknown] }] })),
    sent([own], own.crl({ version: null })),
    sent([own], own.crl({ authorityKeyId: Buffer.from('another key') })),
    sent([own], own.crl(ofCertificate(own.name, '05'))),
    sent([own], own.crl(ofCertificate(createTestAuthority({ subject: 'other' }).name, own.serial))),
    sent([noSigner], noSigner.crl()),
  ]) {
    assert.equal(read(withheld, 'ROOTCA', 'root_ca').crl, undefined);
    assert.match(withheld.notes[0] ?? '', /has no revocation list that Envoy could use/);
  }
  for (const given of [sent([anySigner], anySigner.crl()), sent([own], own.crl({ authorityKeyId: null })), sent([own, weak], own.crl())]) {
    assert.match(read(given, 'ROOTCA', 'root_ca').crl ?? '', /BEGIN X509 CRL/);
    assert.deepEqual(given.notes, []);
  }
});

test('an intermediate of ours needs a revocation list as well, which is then sent', () => {
  const intermediate = own.intermediate();
  const chained = { ...web, ...chainOf(intermediate) };
  const build = (crls: readonly Buffer[]): HeldIdentity => {
    const bundle = buildTrustBundle(bundleOf(own).trustDomain, own.der, crls);
    if (!bundle.ok) throw new Error(bundle.error.message);
    return { ...heldSnapshot([chained], [own]), bundles: new Map([[bundle.value.trustDomain, bundle.value]]) };
  };
  const count = (of: IdentitySnapshot): number =>
    (read(catalogue({ crls: true }, of), 'ROOTCA', 'root_ca').crl ?? '').split('BEGIN').length - 1;

  assert.equal(count(build([own.crl()])), 0);
  assert.equal(count(build([own.crl(), intermediate.crl()])), 2);
  const elsewhere = { ...svidOf(partner, 'spiffe://partner.example/web'), ...chainOf(partner.intermediate(), partner) };
  assert.equal(count({ ...build([own.crl()]), svids: [web, elsewhere] }), 1, 'one of another trust domain does not matter');
});

test('neither JSON nor an inspection of a catalogue or a secret shows a key', () => {
  const from = catalogue();
  const looked = from.lookup('default', 'spiffe');
  assert.ok(looked.found);
  looked.secret.encode();

  for (const text of [
    JSON.stringify(from),
    JSON.stringify(looked),
    inspect(from, { depth: 20, showHidden: true }),
    inspect(looked, { depth: 20, showHidden: true }),
  ]) {
    assert.doesNotMatch(text, /PRIVATE|BEGIN/);
    assert.doesNotMatch(text, /Buffer|Uint8Array/);
  }
});

test('what is served is made once; names of what we do not have are not kept, since clients invent them without end', () => {
  const from = catalogue();
  for (const name of ['default', 'ROOTCA', 'hint:internal']) assert.equal(from.lookup(name, 'spiffe'), from.lookup(name, 'spiffe'));
  // To say no may cost as much, and each stream asks.
  const withheld = catalogue({ policies: new Map([['ALL', policyOf('spiffe://not-held.example/web')]]) });
  assert.equal(reason(withheld, 'ALL'), 'not_held');
  assert.equal(withheld.lookup('ALL', 'spiffe'), withheld.lookup('ALL', 'spiffe'));

  for (const name of [`hint:${'x'.repeat(200_000)}`, 'spiffe://example.org/nobody', 'spiffe://nowhere.example', 'file-root:/x'])
    assert.notEqual(from.lookup(name, 'spiffe'), from.lookup(name, 'spiffe'));
});

test('an authority on the deny list is not sent, and a trust domain of such alone has no bundle', () => {
  const other = createTestAuthority({ trustDomain: 'example.org' });
  const both = buildTrustBundle(bundleOf(own).trustDomain, Buffer.concat([own.der, other.der]));
  assert.ok(both.ok);
  const [first] = bundleOf(own).authorities;
  assert.ok(first !== undefined);
  const serial = `${first.serial}@${first.subjectKeyId}`;

  for (const entries of [{ certificates: [first.sha256] }, { serials: [serial] }]) {
    const denyList = denyListOf(entries);
    const from = catalogue({ denyList }, withBundles(both.value, bundleOf(partner)));
    assert.equal(read(from, 'ROOTCA', 'root_ca').trustedCa, other.pem);
    assert.deepEqual(read(from, 'ALL').spiffe, { 'example.org': other.pem, 'partner.example': partner.pem });
    assert.equal(reason(catalogue({ denyList }), 'ROOTCA'), 'empty_bundle');
    // What is ours is presented all the same.
    assert.ok(from.lookup('default', 'spiffe').found);
  }
});

test('a peer on the deny list is left out of matchers, where it has an entry of its own, and so is a pattern of such peers alone; where nobody is left, they are of nobody', () => {
  const list = policyOf('spiffe://example.org/web', 'spiffe://example.org/old/api', 'spiffe://example.org/ns/*');
  const withDenied = (...ids: readonly string[]) =>
    read(catalogue({ policies: new Map([['ROOTCA', list]]), denyList: denyListOf({ ids }) }), 'ROOTCA').matchers;
  const [, , pattern] = withDenied('spiffe://other.example/web') ?? [];
  assert.ok(pattern?.startsWith('regex '));

  assert.deepEqual(withDenied('spiffe://example.org/web'), ['exact spiffe://example.org/old/api', pattern]);
  assert.deepEqual(withDenied('spiffe://example.org/old/*', 'spiffe://example.org/ns/x'), ['exact spiffe://example.org/web', pattern]);
  assert.deepEqual(withDenied('spiffe://example.org/ns/**'), ['exact spiffe://example.org/old/api', 'exact spiffe://example.org/web']);
  const only = catalogue({
    policies: new Map([['ROOTCA', policyOf('spiffe://example.org/web', 'spiffe://example.org/**')]]),
    denyList: denyListOf({ ids: ['spiffe://example.org/**'] }),
  });
  assert.deepEqual(read(only, 'ROOTCA').matchers, ['regex [^\\s\\S]']);
});
