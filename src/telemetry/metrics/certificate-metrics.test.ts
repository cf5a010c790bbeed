import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createKeyPair, createTestAuthority } from '../../../test/support/pki/pki.ts';
import { bundleOf, heldSnapshot, svidOf } from '../../../test/support/pki/snapshots.ts';
import type { HeldIdentity } from '../../identity/snapshot.ts';
import type { TrustBundle } from '../../spiffe/trust-bundle.ts';
import { buildX509Svid } from '../../spiffe/x509-svid.ts';
import { MOST_CERTIFICATE_SERIES, MOST_DOMAIN_SERIES, registerCertificateMetrics } from './certificate-metrics.ts';

type Sample = readonly [labels: Readonly<Record<string, string>>, value: number];

/** What is told of a snapshot, by the name of the metric. */
function setUp() {
  const collects = new Map<string, (add: (labels: Record<string, string>, value: number) => void) => void>();
  const set = registerCertificateMetrics((name, _help, _labels, collect) => void collects.set(name, collect));
  const samples = (name: string): readonly Sample[] => {
    const all: Sample[] = [];
    collects.get(name)?.((labels, value) => all.push([labels, value]));
    return all;
  };
  return { set, samples };
}

const AUTHORITY = 'x509_authority_expiration_timestamp_seconds';
const DAY_MS = 86_400_000;

function withBundles(snapshot: HeldIdentity, ...bundles: readonly TrustBundle[]): HeldIdentity {
  return { ...snapshot, bundles: new Map(bundles.map((bundle) => [bundle.trustDomain, bundle])) };
}

/** A bundle with that authority's certificate many times over, each with a key identifier of its own. */
function crowdOf(bundle: TrustBundle, count: number): TrustBundle {
  const [first] = bundle.authorities;
  assert.ok(first);
  const authorities = Array.from({ length: count }, (_, n) => ({ ...first, subjectKeyId: n.toString(16), notAfterMs: n * 1000 }));
  return { ...bundle, authorities: [...authorities, ...bundle.authorities] };
}

test('intermediates between an SVID and its authority are told, by key and issuer', () => {
  const { set, samples } = setUp();
  const authority = createTestAuthority();
  const intermediate = authority.intermediate();
  const { chainDer, keyDer } = intermediate.issue({ id: 'spiffe://example.org/web' });
  const built = buildX509Svid({ spiffeId: 'spiffe://example.org/web', chainDer, keyDer, hint: '' }, bundleOf(authority), Date.now());
  assert.ok(built.ok);
  const svid = built.value;

  set(heldSnapshot([svid], [authority]));

  const [link] = svid.intermediates;
  assert.ok(link);
  assert.deepEqual(samples('x509_intermediate_expiration_timestamp_seconds'), [
    [{ subject_key_id: link.subjectKeyId, issuer_key_id: link.authorityKeyId }, link.notAfterMs / 1000],
  ]);
});

test('of an authority and its renewal by the same key the renewal is told', () => {
  const { set, samples } = setUp();
  const key = createKeyPair();
  const [old, renewed] = [3, 9].map((days) => createTestAuthority({ key, subject: 'Root', notAfter: Date.now() + days * DAY_MS }));
  assert.ok(old && renewed);
  const bundle = bundleOf(old);

  for (const authorities of [
    [...bundle.authorities, ...bundleOf(renewed).authorities],
    [...bundleOf(renewed).authorities, ...bundle.authorities],
  ]) {
    set(withBundles(heldSnapshot([svidOf(old, 'spiffe://example.org/web')]), { ...bundle, authorities }));

    assert.deepEqual(
      samples(AUTHORITY).map(([, value]) => value),
      [bundleOf(renewed).authorities[0]?.notAfterMs].map((ms = 0) => ms / 1000),
    );
  }
});

test('of two authorities that only look alike the one that expires first is told', () => {
  const { set, samples } = setUp();
  const [soon, late] = [3, 9].map((days) =>
    createTestAuthority({ subject: 'Root', subjectKeyId: null, notAfter: Date.now() + days * DAY_MS }),
  );
  assert.ok(soon && late);
  const bundle = bundleOf(soon);

  for (const authorities of [
    [...bundle.authorities, ...bundleOf(late).authorities],
    [...bundleOf(late).authorities, ...bundle.authorities],
  ]) {
    set(withBundles(heldSnapshot([svidOf(soon, 'spiffe://example.org/web')]), { ...bundle, authorities }));

    assert.deepEqual(samples(AUTHORITY), [
      [{ trust_domain: 'example.org', subject_key_id: '' }, (bundle.authorities[0]?.notAfterMs ?? 0) / 1000],
    ]);
  }
});

test('a partner with thousands of authorities takes a bounded number of series, and none of ours', () => {
  const { set, samples } = setUp();
  const ours = createTestAuthority();
  const partners = Array.from({ length: 12 }, (_, n) => crowdOf(bundleOf(createTestAuthority({ trustDomain: `p${n}.example` })), 500));
  const own = bundleOf(ours);
  // It proves nothing to show ours.
  const imitators = partners.map((bundle) => ({ ...bundle, authorities: [...bundle.authorities, ...own.authorities] }));

  set(withBundles(heldSnapshot([svidOf(ours, 'spiffe://example.org/web')]), ...imitators, own));

  const shown = samples(AUTHORITY);
  assert.equal(shown.length, MOST_CERTIFICATE_SERIES);
  assert.equal(shown.filter(([labels]) => labels['trust_domain'] === 'example.org').length, 1);
  assert.equal(shown.filter(([labels]) => labels['trust_domain'] === 'p0.example').length, MOST_DOMAIN_SERIES);
  // Those that expire first.
  assert.ok(shown.every(([{ trust_domain: domain }, value]) => domain === 'example.org' || value < MOST_DOMAIN_SERIES));
  assert.deepEqual(samples('x509_omitted_series'), [
    [{ kind: 'svid' }, 0],
    [{ kind: 'intermediate' }, 0],
    [{ kind: 'authority' }, 12 * 502 + 1 - MOST_CERTIFICATE_SERIES],
  ]);
});

test('a key identifier of thousands of bytes is cut', () => {
  const { set, samples } = setUp();
  const authority = createTestAuthority({ subjectKeyId: Buffer.alloc(5000, 0xab) });

  set(heldSnapshot([svidOf(authority, 'spiffe://example.org/web')], [authority]));

  for (const [labels] of [...samples(AUTHORITY), ...samples('x509_svid_expiration_timestamp_seconds')])
    assert.equal((labels['subject_key_id'] ?? labels['issuer_key_id'])?.length, 128);
});
