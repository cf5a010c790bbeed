import assert from 'node:assert/strict';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import { setOf } from '../../test/support/files/files.ts';
import { jwk, jwks, testKey } from '../../test/support/tokens/tokens.ts';
import { createTestAuthority } from '../../test/support/pki/pki.ts';
import { heldSnapshot, svidOf } from '../../test/support/pki/snapshots.ts';
import type { FileSetConfig } from '../config/file-sets.ts';
import type { IdentitySnapshot } from '../identity/snapshot.ts';
import { parseJwtBundle } from '../spiffe/jwt-bundle.ts';
import type { TrustDomain } from '../spiffe/trust-domain.ts';
import type { CredentialProblem } from '../telemetry/log/credential-records.ts';
import { materialOf, plainFiles, type HeldJwt, type SetMaterial } from './encode.ts';

const NOW_MS = Date.now();
const ours = createTestAuthority();
const theirs = createTestAuthority({ trustDomain: 'partner.example' });
const svid = svidOf(ours, 'spiffe://example.org/web');
const snapshot = heldSnapshot([svid], [ours, theirs]);

function set(more: object = {}): FileSetConfig {
  return setOf({ directory: '/run/set', ...more });
}

function materialFor(config: FileSetConfig, of: IdentitySnapshot = snapshot, nowMs = NOW_MS): SetMaterial {
  const material = materialOf(of, config, [], nowMs);
  assert.ok(material.ok, material.ok ? '' : material.error.detail);
  return material.value;
}

function filesFor(config: FileSetConfig, of: IdentitySnapshot = snapshot): ReadonlyMap<string, string> {
  const files = plainFiles(materialFor(config, of), config);
  assert.ok(files.ok);
  return new Map(files.value.map(({ name, bytes }) => [name, Buffer.from(bytes).toString('latin1')]));
}

function serialsIn(pem: string | undefined): string[] {
  return [...(pem ?? '').matchAll(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g)].map(([one]) =>
    new X509Certificate(one).fingerprint256.replaceAll(':', '').toLowerCase(),
  );
}

test('a set has the SVID, its key, the bundle of our trust domain, one of each other, and all of them as a bundle map; certificate last', () => {
  const files = filesFor(set());

  assert.deepEqual(
    [...files.keys()],
    ['svid_bundle.pem', 'svid_bundle.partner.example.pem', 'svid_bundles.json', 'svid_key.pem', 'svid.pem'],
  );
  assert.deepEqual(serialsIn(files.get('svid_bundle.pem')), [svid.authority.sha256]);
  assert.deepEqual(serialsIn(files.get('svid_bundle.partner.example.pem')), [
    snapshot.bundles.get('partner.example' as never)?.authorities[0]?.sha256,
  ]);
  assert.deepEqual(
    serialsIn(files.get('svid.pem')),
    svid.chain.map(({ sha256 }) => sha256),
  );
  assert.ok(createPrivateKey(files.get('svid_key.pem') ?? '').equals(svid.key));
  const map = JSON.parse(files.get('svid_bundles.json') ?? '') as {
    readonly trust_domains: Record<string, { readonly keys: readonly { readonly use: string }[] }>;
  };
  assert.deepEqual(Object.keys(map.trust_domains), ['example.org', 'partner.example']);
  assert.equal(map.trust_domains['partner.example']?.keys[0]?.use, 'x509-svid');
});

test('bundles of several trust domains are in one file only where that is asked for', () => {
  const files = filesFor(set({ mergedBundle: true }));

  assert.equal(serialsIn(files.get('svid_bundle.pem')).length, 2);
  assert.equal(files.has('svid_bundle.partner.example.pem'), false);
});

test('key and chain may be in one file, in this order, and then there is no file of the key alone', () => {
  const files = filesFor(set({ combined: true }));

  assert.match(files.get('svid.pem') ?? '', /^-----BEGIN PRIVATE KEY-----[^]*-----END PRIVATE KEY-----\n-----BEGIN CERTIFICATE-----/);
  assert.equal(files.has('svid_key.pem'), false);
});

test('intermediates follow the SVID, or go into the bundle of our trust domain where that is asked for', () => {
  const intermediate = ours.intermediate();
  const below = svidOf(intermediate, 'spiffe://example.org/web');
  const held = heldSnapshot([below], [ours]);

  assert.equal(serialsIn(filesFor(set(), held).get('svid.pem')).length, 2);
  const files = filesFor(set({ addIntermediatesToBundle: true }), held);
  assert.equal(serialsIn(files.get('svid.pem')).length, 1);
  assert.deepEqual(serialsIn(files.get('svid_bundle.pem')), [below.chain[1]?.sha256, svid.authority.sha256]);
});

test('in DER a file has the bytes of its certificates one after the other', () => {
  const files = filesFor(set({ format: 'der' }));

  assert.equal(files.get('svid.der'), Buffer.concat(svid.chain.map((each) => each.der())).toString('latin1'));
  assert.ok(
    createPrivateKey({ key: Buffer.from(files.get('svid_key.der') ?? '', 'latin1'), format: 'der', type: 'pkcs8' }).equals(svid.key),
  );
});

test('a key is written as it is asked for, or not at all', () => {
  assert.match(filesFor(set({ keyFormat: 'sec1' })).get('svid_key.pem') ?? '', /^-----BEGIN EC PRIVATE KEY-----/);
  const config = set({ keyFormat: 'pkcs1' });

  const refused = plainFiles(materialFor(config), config);

  assert.deepEqual(refused.ok ? undefined : refused.error.reason, 'key_format');
});

test('expired authorities are left out where that is asked for, from the moment after their last', () => {
  const notAfter = NOW_MS + 60_000;
  const ending = createTestAuthority({ trustDomain: 'partner.example', notAfter });
  const held = heldSnapshot([svid], [ours, ending]);
  const config = set({ omitExpired: true });
  const lastMs = materialFor(config, held).changesAtMs - 1;

  const before = materialFor(config, held, lastMs);
  const after = materialFor(config, held, lastMs + 1);

  assert.equal(before.bundles[1]?.authorities.length, 1);
  assert.deepEqual(after.bundles[1]?.authorities, []);
  assert.notEqual(before.fingerprint, after.fingerprint);
  assert.equal(materialFor(set(), held).changesAtMs, Infinity);
});

test('a trust domain whose name is too long for a file keeps no other from being written, and is told', () => {
  const long = `${'a'.repeat(63)}.`.repeat(3) + 'b'.repeat(60);
  const held = heldSnapshot([svid], [ours, createTestAuthority({ trustDomain: long })]);

  const material = materialFor(set(), held);

  assert.deepEqual(
    material.bundles.map(({ name }) => name),
    ['svid_bundle.pem'],
  );
  assert.match(material.notes[0] ?? '', /too long a name/);
  assert.ok(Buffer.from(material.texts[0]?.bytes ?? '').includes(long));
});

test('without the SVID that a set is to have there is nothing to write, and it is said why', () => {
  for (const [of, detail] of [
    [undefined, /no identity has come yet/],
    [{ kind: 'none', generation: 1, receivedAtMs: 0, reason: 'denied', bundles: new Map() }, /gives no identity: denied/],
    [snapshot, /no SVID with the hint "db"/],
  ] as const) {
    const material = materialOf(of, set({ identity: { hint: 'db' } }), [], NOW_MS);
    assert.equal(material.ok ? undefined : material.error.reason, 'no_svid');
    assert.match(material.ok ? '' : material.error.detail, detail);
  }
});

const TOKEN = { value: 'header.claims.signature', expiresAtMs: NOW_MS + 60_000 };
const JWT_SET = { jwtSvids: [{ fileName: 'aws.token', audience: ['sts.amazonaws.com', 'other'] }], jwtBundleFileName: 'jwt_bundle.json' };
const [key, partnerKey] = [testKey('one'), testKey('two')];
const jwtBundles = new Map(
  (
    [
      ['example.org', key],
      ['partner.example', partnerKey],
    ] as const
  ).map(([domain, of]) => {
    const bundle = parseJwtBundle(domain as TrustDomain, Buffer.from(jwks(jwk(of))));
    assert.ok(bundle.ok);
    return [domain as TrustDomain, bundle.value] as const;
  }),
);
const withJwt: IdentitySnapshot = { ...snapshot, jwtBundles };

function heldJwt(token: typeof TOKEN | undefined, problem?: CredentialProblem): HeldJwt {
  return { current: () => token, problem };
}

test('JWT-SVIDs and JWT bundles are of the same set: a token and nothing else in its file, a JWKS for each trust domain, all in the bundle map', () => {
  const config = set(JWT_SET);
  const material = materialOf(withJwt, config, [heldJwt(TOKEN)], NOW_MS);
  assert.ok(material.ok, material.ok ? '' : material.error.detail);
  const written = plainFiles(material.value, config);
  assert.ok(written.ok);
  const text = (name: string): string => Buffer.from(written.value.find((file) => file.name === name)?.bytes ?? '').toString();

  assert.deepEqual(
    written.value.map(({ name, isSecret }) => [name, isSecret]),
    [
      ['svid_bundle.pem', false],
      ['svid_bundle.partner.example.pem', false],
      ['svid_bundles.json', false],
      ['jwt_bundle.json', false],
      ['jwt_bundle.partner.example.json', false],
      ['aws.token', true],
      ['svid_key.pem', true],
      ['svid.pem', false],
    ],
  );
  assert.equal(text('aws.token'), TOKEN.value);
  assert.deepEqual(parseJwtBundle('example.org' as TrustDomain, Buffer.from(text('jwt_bundle.json'))), {
    ok: true,
    value: jwtBundles.get('example.org' as TrustDomain),
  });
  const map = JSON.parse(text('svid_bundles.json')) as {
    readonly trust_domains: Record<string, { readonly keys: readonly { readonly use: string; readonly kid?: string }[] }>;
  };
  assert.deepEqual(
    map.trust_domains['partner.example']?.keys.map(({ use, kid }) => [use, kid]),
    [
      ['x509-svid', undefined],
      ['jwt-svid', partnerKey.kid],
    ],
  );
  // The token expires before the SVID.
  assert.deepEqual(material.value.expires, { name: 'aws.token', atMs: TOKEN.expiresAtMs });
});

test('another token makes another set, the same one the same', () => {
  const fingerprint = (token: typeof TOKEN): string => {
    const made = materialOf(withJwt, set(JWT_SET), [heldJwt(token)], NOW_MS);
    assert.ok(made.ok);
    return made.value.fingerprint;
  };
  assert.equal(fingerprint({ ...TOKEN }), fingerprint(TOKEN));
  assert.notEqual(fingerprint({ ...TOKEN, value: 'header.claims.another' }), fingerprint(TOKEN));
});

test('a set may be of JWT files alone: no SVID, no key, no X.509 bundles, and a bundle map only where it is named', () => {
  const names = (more: object): readonly string[] => {
    const config = set({ x509: false, ...JWT_SET, ...more });
    const material = materialOf(withJwt, config, [heldJwt(TOKEN)], NOW_MS);
    assert.ok(material.ok);
    const files = plainFiles(material.value, config);
    assert.ok(files.ok);
    return files.value.map(({ name }) => name);
  };
  assert.deepEqual(names({}), ['jwt_bundle.json', 'jwt_bundle.partner.example.json', 'aws.token']);
  assert.deepEqual(names({ bundleMapFileName: 'map.json', jwtBundleFileName: undefined }), ['map.json', 'aws.token']);
});

test('without a valid token, or without our JWT bundle, there is nothing to write, and it is said why', () => {
  const problem = { reason: 'not_entitled', detail: 'the agent gives none' } as const;
  for (const [of, token, reason, detail, isEarly] of [
    [
      withJwt,
      heldJwt(undefined, problem),
      'no_token',
      /for sts\.amazonaws\.com other \(aws\.token\): not_entitled: the agent gives none/,
      false,
    ],
    [withJwt, heldJwt(undefined), 'no_token', /the one that was held has expired/, false],
    [withJwt, heldJwt(undefined, { reason: 'identity_not_ready', detail: 'x' }), 'no_token', /identity_not_ready/, true],
    [snapshot, heldJwt(TOKEN), 'no_jwt_bundle', /no JWT bundles have come/, true],
    [{ ...snapshot, jwtBundles: new Map() }, heldJwt(TOKEN), 'no_jwt_bundle', /gives no JWT bundle of example\.org/, undefined],
  ] as const) {
    const material = materialOf(of, set(JWT_SET), [token], NOW_MS);
    assert.ok(!material.ok);
    assert.equal(material.error.reason, reason);
    assert.match(material.error.detail, detail);
    assert.equal(material.error.isEarly, isEarly);
  }
});
