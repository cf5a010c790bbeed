import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compileAllowList, type AllowList } from '../../src/policy/rules.ts';
import { createTestAuthority } from '../support/pki.ts';
import { startSds } from '../support/sds.ts';
import { heldSnapshot, svidOf } from '../support/snapshots.ts';
import { NO_MATCHERS, startInboundEnvoy, visit } from './envoy-stage.ts';
import { needs } from './parts.ts';

const API = 'spiffe://example.org/api';
const own = createTestAuthority({ trustDomain: 'example.org' });

function listOf(...entries: readonly string[]): AllowList {
  const list = compileAllowList(entries);
  assert.ok(list.ok);
  return list.value;
}

/** As long as matchers may be, in each of the ways that they can grow. */
const LONGEST = [
  'spiffe://example.org/region/*/cluster/*/namespace/*/serviceaccount/*',
  `spiffe://example.org/${'abcdefghij/'.repeat(100)}*/*/*/*/*/*/${'x'.repeat(5)}`,
  'spiffe://example.org/*/*/*/*/*/ab/**',
  `spiffe://example.org/*/${'a.b/'.repeat(15)}${'x'.repeat(5)}/*`,
  `spiffe://example.org/${'a/'.repeat(100)}**`,
];

test('every allow list that is sent is one that Envoy takes, up to the longest', needs('envoy'), async (t) => {
  const sds = await startSds(t, { allow: () => new Map([['ROOTCA', listOf(...LONGEST)]]) });
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
  const sds = await startSds(t, { allow: () => new Map([['ALL', listOf(web)]]) });
  sds.publish(heldSnapshot([svidOf(own, API)], [own, partner]));
  const replace = { ...NO_MATCHERS, '                      - { san_type: URI, matcher: { prefix: "spiffe://partner.example/" } }\n': '' };
  const { envoy, port } = await startInboundEnvoy(t, { socket: sds.path }, 'federation.yaml', { replace });

  assert.equal((await visit(port, own.issue({ id: web }))).reply, 'HELLO');
  for (const uriSans of [[batch, web], [web, batch], [web], [batch]])
    assert.equal((await visit(port, partner.issue({ uriSans }))).reply, '', uriSans.join());
  assert.equal(await envoy.stat(/update_rejected/), 0);
});
