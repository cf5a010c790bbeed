import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createTestAuthority } from '../../test/support/pki.ts';
import { buildTrustBundle } from './trust-bundle.ts';
import { parseTrustDomain } from './trust-domain.ts';
import { verifyPeer } from './verify.ts';

test('a chain with an intermediate is verified to the authority of its own trust domain (XV-1, XV-2)', () => {
  const root = createTestAuthority();
  const leaf = root.intermediate().issue();
  const td = parseTrustDomain('example.org');
  assert.ok(td.ok);
  const bundle = buildTrustBundle(td.value, root.der);
  assert.ok(bundle.ok);
  const answer = verifyPeer(leaf.chain, new Map([[td.value, bundle.value]]), Date.now());
  assert.ok(answer.ok, JSON.stringify(answer));
  assert.equal(answer.value.path.length, 3);
});
