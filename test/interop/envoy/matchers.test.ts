import assert from 'node:assert/strict';
import { test } from 'node:test';
import { policyFrom, policyOf } from '../../support/policy/policies.ts';
import type { IdentitySnapshot } from '../../../src/identity/snapshot.ts';
import { buildTrustBundle } from '../../../src/spiffe/trust-bundle.ts';
import { eventually } from '../../support/eventually.ts';
import { createTestAuthority, type TestAuthority } from '../../support/pki/pki.ts';
import { startSds } from '../../support/sds.ts';
import { bundleOf, heldSnapshot, svidOf } from '../../support/pki/snapshots.ts';
import { NO_MATCHERS, startInboundEnvoy, startListeners, visit } from './stage.ts';
import { needs } from '../parts.ts';

const API = 'spiffe://example.org/api';
const WEB = 'spiffe://example.org/web';
const BATCH = 'spiffe://partner.example/batch';
const HOUR_MS = 3_600_000;
const own = createTestAuthority({ trustDomain: 'example.org' });

/** As long as matchers may be, in each of the ways that they can grow. */
const LONGEST = [
  'spiffe://example.org/region/*/cluster/*/namespace/*/serviceaccount/*',
  `spiffe://example.org/${'abcdefghij/'.repeat(100)}*/*/*/*/*/*/${'x'.repeat(5)}`,
  'spiffe://example.org/*/*/*/*/*/ab/**',
  `spiffe://example.org/*/${'a.b/'.repeat(15)}${'x'.repeat(5)}/*`,
  `spiffe://example.org/${'a/'.repeat(100)}**`,
];

test('every allow list that is sent is one that Envoy takes, up to the longest', needs('envoy'), async (t) => {
  const sds = await startSds(t, { policies: () => new Map([['ROOTCA', policyOf(...LONGEST)]]) });
  sds.publish(heldSnapshot([svidOf(own, API)], [own]));
  const { envoy, port } = await startInboundEnvoy(t, { socket: sds.path }, 'inbound.yaml', { replace: NO_MATCHERS });

  for (const entry of LONGEST) {
    const id = entry.replaceAll('**', 'x/.y').replaceAll('*', '...');
    assert.equal((await visit(port, own.issue({ id }))).reply, 'HELLO', id);
  }
  for (const path of ['other', 'region/a/cluster/b/namespace/c/serviceaccount/d/e', 'region/a/cluster/b/namespace/c/serviceaccount'])
    assert.equal((await visit(port, own.issue({ id: `spiffe://example.org/${path}` }))).reply, '', path);
  assert.equal(await envoy.stat(/update_rejected/), 0);
});

test('ALL with an allow list: a federated authority cannot issue an ID of ours beside one of its own', needs('envoy'), async (t) => {
  const partner = createTestAuthority({ trustDomain: 'partner.example' });
  const [web, batch] = ['spiffe://example.org/web', 'spiffe://partner.example/batch'];
  const sds = await startSds(t, { policies: () => new Map([['ALL', policyOf(web)]]) });
  sds.publish(heldSnapshot([svidOf(own, API)], [own, partner]));
  const replace = { ...NO_MATCHERS, '                      - { san_type: URI, matcher: { prefix: "spiffe://partner.example/" } }\n': '' };
  const { envoy, port } = await startInboundEnvoy(t, { socket: sds.path }, 'federation.yaml', { replace });

  assert.equal((await visit(port, own.issue({ id: web }))).reply, 'HELLO');
  for (const uriSans of [[batch, web], [web, batch], [web], [batch]])
    assert.equal((await visit(port, partner.issue({ uriSans }))).reply, '', uriSans.join());
  assert.equal(await envoy.stat(/update_rejected/), 0);
});

test(
  'a peer with SPIFFE IDs of two trust domains: Envoy takes the first for the trust domain, and any for its matchers',
  needs('envoy'),
  async (t) => {
    const allow = new Map([['ROOTCA', policyOf(WEB)]]);
    const sds = await startSds(t, { policies: () => allow });
    const partner = createTestAuthority({ trustDomain: 'partner.example' });
    sds.publish(heldSnapshot([svidOf(own, API)], [own, partner]));
    const certificate = 'default';
    const { ports } = await startListeners(t, sds, [
      { certificate, trust: 'ALL', peers: [WEB] },
      { certificate, trust: 'ROOTCA' },
      { certificate, trust: 'spiffe://example.org', peers: [WEB] },
    ]);
    const repliesTo = async (authority: TestAuthority, ...uriSans: readonly string[]): Promise<readonly string[]> =>
      Promise.all(ports.map(async (port) => (await visit(port, authority.issue({ uriSans }))).reply));

    // A list of Envoy's own beside ALL does not keep trust domains apart: this is a federated authority that issues an ID of ours.
    assert.deepEqual(await repliesTo(partner, BATCH, WEB), ['HELLO', '', '']);
    assert.deepEqual(await repliesTo(partner, WEB, BATCH), ['', '', '']);
    // Our own authority may issue our IDs, so that there is nothing to win here; Scute itself refuses more than one.
    assert.deepEqual(await repliesTo(own, WEB, BATCH), ['HELLO', 'HELLO', 'HELLO']);
    assert.deepEqual(await repliesTo(own, BATCH, WEB), ['', '', '']);
  },
);

test('a rule of a time: Envoy admits from its second on, and nobody any more from its end on', needs('envoy'), async (t) => {
  let allow = policyFrom({ allow: [{ peer: WEB, notAfterMs: Date.now() }] });
  const sds = await startSds(t, { policies: () => new Map([['ROOTCA', allow]]) });
  sds.publish(heldSnapshot([svidOf(own, API)], [own]));
  const { envoy, port } = await startInboundEnvoy(t, { socket: sds.path }, 'inbound.yaml', { replace: NO_MATCHERS });
  const web = own.issue({ id: WEB });
  const anybody = [web, own.issue({ id: 'spiffe://example.org/other' }), own.issue({ uriSans: [''] }), own.issue({ uriSans: [] })];
  for (const svid of anybody) assert.equal((await visit(port, svid)).reply, '', 'the rule is over');

  const beginMs = Date.now() + 3000;
  const endMs = beginMs + 3000;
  allow = policyFrom({ allow: [{ peer: WEB, notBeforeMs: beginMs, notAfterMs: endMs }] });
  sds.server.policyChanged();
  const wrong: string[] = [];
  const until = (wanted: string): Promise<void> =>
    eventually(async () => {
      const startMs = Date.now();
      const { reply } = await visit(port, web);
      const doneMs = Date.now();
      // What the clock said all the time of a visit can be said of it for certain.
      const [isBefore, isWithin] = [doneMs < beginMs, startMs > beginMs && doneMs < endMs];
      if ((isBefore && reply !== '') || (isWithin && wanted === '' && reply === '')) wrong.push(`${reply} at ${doneMs - beginMs} ms`);
      assert.equal(reply, wanted);
    });

  await until('HELLO');
  await until('');
  assert.deepEqual(wrong, []);
  assert.ok(Date.now() >= endMs);
  for (const svid of anybody) assert.equal((await visit(port, svid)).reply, '', 'the rule is over again');
  assert.equal(await envoy.stat(/update_rejected/), 0);
});

test('an entry that nobody holds shuts out of a running Envoy who was on the list before', needs('envoy'), async (t) => {
  let allow = policyOf(WEB);
  const sds = await startSds(t, { policies: () => new Map([['ROOTCA', allow]]) });
  sds.publish(heldSnapshot([svidOf(own, API)], [own]));
  const { port } = await startInboundEnvoy(t, { socket: sds.path }, 'inbound.yaml', { replace: NO_MATCHERS });
  const web = own.issue({ id: WEB });
  assert.equal((await visit(port, web)).reply, 'HELLO');

  allow = policyOf('spiffe://example.org/nobody');
  sds.server.policyChanged();

  await eventually(async () => assert.equal((await visit(port, web)).reply, ''));
});

for (const disableSpiffeCertValidation of [false, true]) {
  const form = disableSpiffeCertValidation ? 'plain authorities' : 'the SPIFFE validator';

  test(`a revocation list past its time shuts all peers out of Envoy, and the log says so, with ${form}`, needs('envoy'), async (t) => {
    const nowMs = Date.now();
    const withList = (nextUpdate: number): IdentitySnapshot => {
      const bundle = buildTrustBundle(bundleOf(own).trustDomain, own.der, [own.crl({ thisUpdate: nowMs - 2 * HOUR_MS, nextUpdate })]);
      assert.ok(bundle.ok);
      return { ...heldSnapshot([svidOf(own, API)], [own]), bundles: new Map([[bundle.value.trustDomain, bundle.value]]) };
    };
    const sds = await startSds(t, { sds: { crls: true, disableSpiffeCertValidation } });
    sds.publish(withList(nowMs + HOUR_MS));
    const { envoy, port } = await startInboundEnvoy(t, { socket: sds.path }, 'inbound.yaml');
    const web = own.issue({ id: WEB });
    const reply = async (): Promise<string> => (await visit(port, web)).reply;

    assert.equal(await reply(), 'HELLO');
    sds.publish(withList(nowMs - HOUR_MS));
    await eventually(async () => assert.equal(await reply(), ''));
    assert.match(JSON.stringify(sds.log()), /past its nextUpdate, so Envoy refuses all peers below it/);
    sds.publish(withList(nowMs + HOUR_MS));
    await eventually(async () => assert.equal(await reply(), 'HELLO'));
    assert.equal(await envoy.stat(/update_rejected/), 0);
  });

  test(`lists of two authorities of one name refuse the peers of neither, with ${form}`, needs('envoy'), async (t) => {
    const one = createTestAuthority({ trustDomain: 'example.org', subject: 'SPIFFE' });
    const other = createTestAuthority({ trustDomain: 'example.org', subject: 'SPIFFE' });
    for (const options of [{}, { authorityKeyId: null }]) {
      const lists = [one.crl(options), other.crl(options)];
      const bundle = buildTrustBundle(bundleOf(own).trustDomain, Buffer.concat([one.der, other.der]), lists);
      assert.ok(bundle.ok);
      const sds = await startSds(t, { sds: { crls: true, disableSpiffeCertValidation } });
      sds.publish({ ...heldSnapshot([svidOf(one, API)], []), bundles: new Map([[bundle.value.trustDomain, bundle.value]]) });
      const { port } = await startInboundEnvoy(t, { socket: sds.path }, 'inbound.yaml');

      const authorities: readonly TestAuthority[] = [one, other];
      for (const authority of authorities) assert.equal((await visit(port, authority.issue({ id: WEB }))).reply, 'HELLO');
    }
  });

  test(
    `an authority that is not self-signed ${disableSpiffeCertValidation ? 'is enough for' : 'admits nobody through'} Envoy, with ${form}`,
    needs('envoy'),
    async (t) => {
      const anchor = own.intermediate();
      const sds = await startSds(t, { sds: { disableSpiffeCertValidation } });
      sds.publish(heldSnapshot([svidOf(anchor, API)], [anchor]));
      const { port } = await startInboundEnvoy(t, { socket: sds.path }, 'inbound.yaml');

      const { reply } = await visit(port, anchor.issue({ id: WEB }));
      assert.equal(reply, disableSpiffeCertValidation ? 'HELLO' : '');
    },
  );
}
