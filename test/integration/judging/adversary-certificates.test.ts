// What a hostile peer, or a careless agent, can do with certificates alone.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { ownSvid, startBothRoles } from '../../support/both-roles.ts';
import { element, oid, sequence, set, utf8 } from '../../support/pki/der-writer.ts';
import { eventually } from '../../support/eventually.ts';
import { createTestAuthority } from '../../support/pki/pki.ts';
import { startSidecar } from '../../support/sidecar.ts';
import { startEcho } from '../../support/tcp.ts';
import { outcome, tlsClient } from '../../support/tls-peer.ts';
import { FakeWorkloadApi, svidEntry } from '../../support/workload-api.ts';

const US = 'spiffe://example.org/us';

test('authorities that issued each other, and none of them self-signed, are authorities like others', async (t) => {
  const ours = createTestAuthority();
  const a = createTestAuthority({ trustDomain: 'partner.test', subject: 'A' });
  const b = createTestAuthority({ trustDomain: 'partner.test', subject: 'B' });
  const [aByB, bByA] = [b.crossSign(a, { id: 'spiffe://partner.test' }), a.crossSign(b, { id: 'spiffe://partner.test' })];
  const stage = await startBothRoles(t, [ownSvid(ours, US).entry], {
    federated: { 'spiffe://partner.test': Buffer.concat([aByB.der, bByA.der]) },
    alsoAllowed: ['partner.test'],
  });
  const id = 'spiffe://partner.test/peer';
  for (const role of ['server', 'client'] as const) await stage.admits(role, a.issue({ id }), id);
});

test('a weak key in a certificate that the agent sent without need refuses connections; it ends nothing, and heals', async (t) => {
  const authority = createTestAuthority();
  const weak = createTestAuthority({ key: 'rsa2048' }).intermediate({ key: 'rsa1024' });
  const api = await FakeWorkloadApi.start();
  t.after(() => api[Symbol.asyncDispose]());
  const leaf = authority.issue({ id: US });
  api.setX509([svidEntry(authority, leaf, US, { x509Svid: Buffer.concat([leaf.der, weak.der]) })]);
  const application = await startEcho(t);
  const sidecar = await startSidecar(
    t,
    {
      workloadApi: { endpoint: api.endpoint },
      inbound: [{ name: 'in', listen: '127.0.0.1:0', to: application.address, allow: ['spiffe://example.org/peer'] }],
    },
    { unready: true },
  );
  const peer = authority.issue({ id: 'spiffe://example.org/peer' });
  const presented = { cert: peer.chainPem, key: peer.keyPem };
  await eventually(async () => assert.equal(await sidecar.metric('scute_identity_generation'), 1));
  assert.deepEqual(sidecar.app.notReady(), ['identity_valid']);
  assert.equal((await outcome(tlsClient(t, sidecar.address('in'), presented))).text, '');
  assert.equal(await sidecar.metric('scute_accept_refused_total', { reason: 'identity_not_ready' }), 1);

  api.setX509([svidEntry(authority, leaf, US)]);
  await sidecar.ready();
  const client = tlsClient(t, sidecar.address('in'), presented);
  client.write('!');
  const [echoed] = (await once(client, 'data')) as [Buffer];
  assert.equal(echoed.toString(), '!');
});

test('certificates as long as TLS lets them be are not read, and leave a short line', async (t) => {
  const authority = createTestAuthority();
  const stranger = createTestAuthority();
  const stage = await startBothRoles(t, [ownSvid(authority, US).entry]);
  const commonName = (text: string): Buffer => sequence(set(sequence(oid('2.5.4.3'), utf8(text))));
  const long = {
    'issuer of 20 KB': stranger.issue({ issuerName: commonName('\u0001'.repeat(20_000)) }),
    'serial number of 20 KB': stranger.issue({ serial: '41'.repeat(20_000) }),
    'key identifier of 20 KB': stranger.issue({ authorityKeyId: Buffer.alloc(20_000, 0x41) }),
    'critical extension with an identifier of 20 KB': stranger.issue({
      extensions: [{ oid: `1.2${'.1'.repeat(20_000)}`, critical: true, value: Buffer.alloc(0) }],
    }),
    '90 KB': stranger.issue({ extensions: [{ oid: '1.2.3.4', value: Buffer.alloc(90_000) }] }),
  };
  for (const [what, certificate] of Object.entries(long)) {
    for (const role of ['server', 'client'] as const) {
      const reason = what === '90 KB' ? 'bad_certificate' : 'untrusted_chain';
      const { line } = await stage.refuses(role, certificate, reason);
      const length = JSON.stringify(line).length;
      assert.ok(length < 10_000, `${what}: a line of ${length} characters`);
    }
  }
});

test('a key usage of 200,000 bits is no key usage', async (t) => {
  const authority = createTestAuthority();
  const stage = await startBothRoles(t, [ownSvid(authority, US).entry]);
  const bits = element(0x03, Buffer.from([0]), Buffer.alloc(25_000, 0xff));
  const certificate = createTestAuthority().issue({ keyUsage: null, extensions: [{ oid: '2.5.29.15', critical: true, value: bits }] });
  for (const role of ['server', 'client'] as const) {
    const { line } = await stage.refuses(role, certificate, 'bad_certificate');
    assert.match(String(line['detail']), /a bit string of 25000 bytes/);
  }
});
