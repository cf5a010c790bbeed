import assert from 'node:assert/strict';
import { createPublicKey, type JsonWebKeyInput, verify } from 'node:crypto';
import { test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { hasStatus, workloadApiClient } from '../../support/workload-api-client.ts';
import { startDevDomain } from '../../support/dev-domain.ts';

const WEB = 'spiffe://example.org/web';
const API = 'spiffe://example.org/api';

type Jwk = JsonWebKeyInput['key'] & { readonly kid: string };

test('FetchJWTSVID gives a token for each identity, or for the one asked for, that the JWT bundle verifies', async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: [{ id: WEB, hint: 'outside' }, API] } });
  const client = workloadApiClient(t, spiffe.endpoint('web'));

  const all = await client.call('fetchJWTSVID', { audience: ['a', 'b'] });
  const one = await client.call('fetchJWTSVID', { audience: ['a'], spiffeId: API });
  const { bundles } = await client.stream('fetchJWTBundles').next();

  assert.deepEqual(
    all.svids.map(({ spiffeId, hint }) => [spiffeId, hint]),
    [
      [WEB, 'outside'],
      [API, ''],
    ],
  );
  assert.deepEqual(
    one.svids.map(({ spiffeId }) => spiffeId),
    [API],
  );
  const { keys } = JSON.parse(Buffer.from(bundles['spiffe://example.org'] ?? []).toString()) as { keys: readonly Jwk[] };
  const [header = '', claims = '', signature = ''] = (all.svids[0]?.svid ?? '').split('.');
  const { kid, alg } = JSON.parse(Buffer.from(header, 'base64url').toString()) as { kid: string; alg: string };
  const jwk = keys.find((key) => key.kid === kid);
  assert.ok(jwk !== undefined);
  assert.equal(alg, 'ES256');
  const key = createPublicKey({ key: jwk, format: 'jwk' });
  assert.ok(verify('sha256', Buffer.from(`${header}.${claims}`), { key, dsaEncoding: 'ieee-p1363' }, Buffer.from(signature, 'base64url')));
  const { sub, aud } = JSON.parse(Buffer.from(claims, 'base64url').toString()) as { sub: string; aud: string[] };
  assert.deepEqual({ sub, aud }, { sub: WEB, aud: ['a', 'b'] });
});

test('FetchJWTSVID refuses no audience, a bad SPIFFE ID, and an identity that the workload does not hold', async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: [WEB] } });
  const client = workloadApiClient(t, spiffe.endpoint('web'));

  await assert.rejects(client.call('fetchJWTSVID', {}), hasStatus(status.INVALID_ARGUMENT));
  await assert.rejects(client.call('fetchJWTSVID', { audience: ['a'], spiffeId: 'web' }), hasStatus(status.INVALID_ARGUMENT));
  await assert.rejects(client.call('fetchJWTSVID', { audience: ['a'], spiffeId: API }), hasStatus(status.PERMISSION_DENIED));
});

test('ValidateJWTSVID gives ID and claims of a good token, also of a federated trust domain, and refuses others', async (t) => {
  const spiffe = await startDevDomain(
    t,
    { name: 'example.org', federatesWith: ['partner.org'], workloads: { web: [WEB] } },
    { name: 'partner.org', workloads: { db: ['spiffe://partner.org/db'] } },
  );
  const ours = workloadApiClient(t, spiffe.endpoint('web'));
  const theirs = workloadApiClient(t, spiffe.endpoint('db'));
  const ourToken = (await ours.call('fetchJWTSVID', { audience: ['db'] })).svids[0]?.svid ?? '';
  const theirToken = (await theirs.call('fetchJWTSVID', { audience: ['web'] })).svids[0]?.svid ?? '';

  const valid = await ours.call('validateJWTSVID', { audience: 'web', svid: theirToken });

  assert.equal(valid.spiffeId, 'spiffe://partner.org/db');
  assert.equal(valid.claims?.['sub'], 'spiffe://partner.org/db');
  assert.deepEqual(valid.claims?.['aud'], ['web']);
  const refused = hasStatus(status.INVALID_ARGUMENT);
  await assert.rejects(theirs.call('validateJWTSVID', { audience: 'db', svid: ourToken }), refused, 'federation is one way');
  await assert.rejects(ours.call('validateJWTSVID', { audience: 'other', svid: theirToken }), refused);
  await assert.rejects(ours.call('validateJWTSVID', { audience: '', svid: theirToken }), refused);
  await assert.rejects(ours.call('validateJWTSVID', { audience: 'web', svid: '' }), refused);
});

test('tokens signed before a rotation of the root stay valid until it is retired', async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: [WEB] } });
  const client = workloadApiClient(t, spiffe.endpoint('web'));
  const bundles = client.stream('fetchJWTBundles');
  await bundles.next();
  const { svids } = await client.call('fetchJWTSVID', { audience: ['a'] });
  const svid = svids[0]?.svid ?? '';

  await spiffe.rotateRoot('example.org');
  const both = await bundles.next();
  assert.equal((await client.call('validateJWTSVID', { audience: 'a', svid })).spiffeId, WEB);
  await spiffe.retireRoots('example.org');
  const one = await bundles.next();

  await assert.rejects(client.call('validateJWTSVID', { audience: 'a', svid }), hasStatus(status.INVALID_ARGUMENT));
  assert.equal(countKeys(both.bundles['spiffe://example.org']), 2);
  assert.equal(countKeys(one.bundles['spiffe://example.org']), 1);
});

function countKeys(jwks: Uint8Array | undefined): number {
  const { keys } = JSON.parse(Buffer.from(jwks ?? []).toString()) as { keys: unknown[] };
  return keys.length;
}
