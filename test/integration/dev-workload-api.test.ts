import assert from 'node:assert/strict';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { startDevDomain } from '../support/dev-domain.ts';
import { workloadApiClient } from '../support/workload-api-client.ts';

const WEB = 'spiffe://example.org/web';
const API = 'spiffe://example.org/api';

function hasStatus(code: status): (thrown: unknown) => boolean {
  return (thrown) => typeof thrown === 'object' && thrown !== null && 'code' in thrown && thrown.code === code;
}

test('FetchX509SVID gives the current SVIDs at once, in the order of the configuration, with hints', async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: [{ id: WEB, hint: 'external' }, API] } });

  const { svids, crl } = await workloadApiClient(t, spiffe.endpoint('web')).stream('fetchX509SVID').next();

  assert.deepEqual(
    svids.map(({ spiffeId, hint }) => [spiffeId, hint]),
    [
      [WEB, 'external'],
      [API, ''],
    ],
  );
  assert.deepEqual(crl, []);
  for (const svid of svids) {
    const leaf = new X509Certificate(svid.x509Svid);
    assert.equal(leaf.subjectAltName, `URI:${svid.spiffeId}`);
    assert.equal(leaf.checkPrivateKey(createPrivateKey({ key: Buffer.from(svid.x509SvidKey), format: 'der', type: 'pkcs8' })), true);
    assert.equal(leaf.verify(new X509Certificate(svid.bundle).publicKey), true);
  }
});

for (const [what, headers] of [
  ['missing', []],
  ['wrong', ['false']],
  ['upper case', ['True']],
  ['given twice', ['true', 'true']],
] as const) {
  test(`every call is refused with InvalidArgument if the security header is ${what}`, async (t) => {
    const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: [WEB] } });
    const client = workloadApiClient(t, spiffe.endpoint('web'), headers);

    await assert.rejects(client.stream('fetchX509SVID').next(), hasStatus(status.INVALID_ARGUMENT));
    await assert.rejects(client.stream('fetchX509Bundles').next(), hasStatus(status.INVALID_ARGUMENT));
    await assert.rejects(client.stream('fetchJWTBundles').next(), hasStatus(status.INVALID_ARGUMENT));
    await assert.rejects(client.call('fetchJWTSVID', { audience: ['a'] }), hasStatus(status.INVALID_ARGUMENT));
    await assert.rejects(client.call('validateJWTSVID', { audience: 'a', svid: 'x' }), hasStatus(status.INVALID_ARGUMENT));
  });
}
