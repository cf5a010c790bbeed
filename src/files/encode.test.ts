import assert from 'node:assert/strict';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import { setOf } from '../../test/support/files/files.ts';
import { createTestAuthority } from '../../test/support/pki/pki.ts';
import { heldSnapshot, svidOf } from '../../test/support/pki/snapshots.ts';
import type { FileSetConfig } from '../config/file-sets.ts';
import type { IdentitySnapshot } from '../identity/snapshot.ts';
import { materialOf, plainFiles, type SetMaterial } from './encode.ts';

const NOW_MS = Date.now();
const ours = createTestAuthority();
const theirs = createTestAuthority({ trustDomain: 'partner.example' });
const svid = svidOf(ours, 'spiffe://example.org/web');
const snapshot = heldSnapshot([svid], [ours, theirs]);

function set(more: object = {}): FileSetConfig {
  return setOf({ directory: '/run/set', ...more });
}

function materialFor(config: FileSetConfig, of: IdentitySnapshot = snapshot, nowMs = NOW_MS): SetMaterial {
  const material = materialOf(of, config, nowMs);
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
  assert.ok(material.bundleMap.includes(long));
});

test('without the SVID that a set is to have there is nothing to write, and it is said why', () => {
  for (const [of, detail] of [
    [undefined, /no identity has come yet/],
    [{ kind: 'none', generation: 1, receivedAtMs: 0, reason: 'denied', bundles: new Map() }, /gives no identity: denied/],
    [snapshot, /no SVID with the hint "db"/],
  ] as const) {
    const material = materialOf(of, set({ identity: { hint: 'db' } }), NOW_MS);
    assert.equal(material.ok ? undefined : material.error.reason, 'no_svid');
    assert.match(material.ok ? '' : material.error.detail, detail);
  }
});
