import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bundlesOf } from '../../test/support/pki/bundles.ts';
import { createTestAuthority, uriName, type TestCertificate } from '../../test/support/pki/pki.ts';
import { heldSnapshot, svidOf } from '../../test/support/pki/snapshots.ts';
import { poolOf } from './authority-pool.ts';

const own = createTestAuthority();
const partner = createTestAuthority({ trustDomain: 'partner.test' });
const us = svidOf(own, 'spiffe://example.org/us');
const constraint = { nameConstraints: { permitted: [uriName('partner.test')] } };

/** Whether OpenSSL is told of it, as an authority of the partner, or of ours. */
function isInPool(authority: TestCertificate, of: 'partner.test' | 'example.org' = 'partner.test'): boolean {
  const bundles = bundlesOf({ 'example.org': [own], 'partner.test': [partner], [of]: [authority] });
  return poolOf({ ...heldSnapshot([us]), bundles }).some((each) => Buffer.compare(each.der(), authority.der) === 0);
}

test('a federated authority is in the pool of OpenSSL, with limits as well if it proves that its key is its own', () => {
  assert.ok(isInPool(partner));
  assert.ok(isInPool(createTestAuthority({ trustDomain: 'partner.test', pathLength: 0 })));
  assert.ok(isInPool(createTestAuthority({ trustDomain: 'partner.test', eku: ['serverAuth'], keyUsage: null })));
  // Not self-signed, and without limits.
  assert.ok(isInPool(partner.intermediate()));
  assert.ok(isInPool(partner.intermediate({ keyUsage: null, eku: ['clientAuth', 'serverAuth'] })));
});

test('a federated authority whose limits OpenSSL would lay on peers of other trust domains is not', () => {
  assert.ok(!isInPool(createTestAuthority({ trustDomain: 'partner.test', ...constraint })));
  assert.ok(!isInPool(createTestAuthority({ trustDomain: 'partner.test', pathLength: 0, badSignature: true })));
  assert.ok(!isInPool(partner.intermediate({ pathLength: 0 })));
  assert.ok(!isInPool(partner.intermediate({ eku: ['serverAuth'] })));
  assert.ok(!isInPool(partner.intermediate({ isCa: null })));
});

test('our own authorities are in the pool, whatever their limits are', () => {
  const limited = [createTestAuthority(constraint), own.intermediate({ pathLength: 0 }), own.intermediate({ eku: ['serverAuth'] })];
  for (const authority of limited) assert.ok(isInPool(authority, 'example.org'));
});

test('a trust domain whose names would fill a handshake is left out, and no other with it, wherever it stands', () => {
  const long = Array.from({ length: 20 }, (_, index) =>
    createTestAuthority({ trustDomain: 'long.test', subject: `${index}`.padEnd(1000, 'x') }),
  );
  for (const domains of [
    { 'long.test': long, 'partner.test': [partner], 'example.org': [own] },
    { 'example.org': [own], 'partner.test': [partner], 'long.test': long },
  ]) {
    const pool = poolOf({ ...heldSnapshot([us]), bundles: bundlesOf(domains) });
    assert.deepEqual(
      pool.map((authority) => Buffer.from(authority.der())),
      [own.der, partner.der],
    );
  }
});
