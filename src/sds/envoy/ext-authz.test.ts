import assert from 'node:assert/strict';
import { test } from 'node:test';
import { listOf, policyFrom } from '../../../test/support/policy/policies.ts';
import { formatIssues } from '../../config/issue.ts';
import type { Config } from '../../config/config.ts';
import { parseConfig } from '../../config/load.ts';
import { buildEnvoyConfig } from './config.ts';
import { askedBundle } from './ext-authz.ts';

const WEB = 'spiffe://example.org/web';
const RULES = [{ peer: WEB, methods: ['GET'] }];
const IN = { name: 'api', listen: '127.0.0.1:1', to: '127.0.0.1:2', protocol: 'http', allow: RULES };

async function load(inbound: object, sds: object): Promise<Config> {
  const config = {
    workloadApi: { endpoint: 'unix:///a' },
    inbound: [{ ...IN, ...inbound }],
    sds: { listen: 'unix:///run/sds.sock', ...sds },
  };
  const loaded = await parseConfig(JSON.stringify(config), { file: 'f', flags: {}, env: {} });
  if (!loaded.ok) throw new Error(formatIssues(loaded.error));
  return loaded.value;
}

async function build(inbound: object, sds: object = { authorization: {} }): Promise<string> {
  const built = buildEnvoyConfig(await load(inbound, sds));
  return built.ok ? JSON.stringify(built.value) : built.error.message;
}

test('for a policy that matchers cannot say, Envoy asks Scute about each request, and fails closed', async () => {
  for (const policy of [
    {},
    { allow: [WEB], deny: [{ peer: WEB, paths: ['/admin'] }] },
    { allow: [{ peer: WEB, notAfter: '2027-01-01T00:00:00Z' }] },
    { allow: [WEB, 'spiffe://partner.example/**'] },
    { allow: [WEB], policyMode: 'audit' },
    { allow: [{ peer: WEB, mode: 'audit' }] },
  ]) {
    const text = await build(policy);

    assert.match(text, /"http_filters":\[\{"name":"envoy\.filters\.http\.ext_authz",.*\{"name":"envoy\.filters\.http\.router"/);
    assert.match(text, /"include_peer_certificate":true,"encode_raw_headers":true,"failure_mode_allow":false/);
    assert.match(text, /"envoy_grpc":\{"cluster_name":"scute"\}/);
    assert.match(text, /ExtAuthzPerRoute","check_settings":\{"context_extensions":\{"listener":"api"\}\}/);
    assert.match(text, /"normalize_path":false,"merge_slashes":false,"path_with_escaped_slashes_action":"KEEP_UNCHANGED"/);
    assert.doesNotMatch(text, /match_typed_subject_alt_names/);
  }
});

test('what matchers can say is said in matchers, and asks nobody', async () => {
  const text = await build({ allow: [WEB] });

  assert.doesNotMatch(text, /ext_authz|"chain"|normalize_path/);
  assert.match(text, /match_typed_subject_alt_names/);
});

test('without sds.authorization, and for TCP, nothing is printed, and the sentence says what would help', async () => {
  assert.match(
    await build({}, {}),
    /inbound api: the rule ".* GET" cannot be said in matchers.* Envoy can ask Scute .*\(sds\.authorization\)/,
  );
  const tcp = { protocol: 'tcp', allow: [WEB], deny: ['spiffe://example.org/other'] };
  assert.match(await build(tcp), /^inbound api: the rule .* cannot be said in matchers/);
});

test('whoever may be admitted may connect: of the one trust domain, or of all, each bound to its own', async () => {
  const partner = { peer: 'spiffe://partner.example/**', methods: ['GET'] };
  const bundles = async (allow: readonly unknown[], more: object = {}, sds: object = {}): Promise<string> => {
    const text = await build({ allow, ...more }, { authorization: {}, ...sds });
    return /"validation_context_sds_secret_config":\{"name":"([^"]*)"/.exec(text)?.[1] ?? text;
  };

  assert.equal(await bundles(RULES), 'spiffe://example.org');
  assert.equal(await bundles([...RULES, 'spiffe://example.org/*/x']), 'spiffe://example.org');
  assert.equal(await bundles([...RULES, partner]), 'ALL');
  assert.equal(await bundles([WEB], { deny: [partner] }), 'spiffe://example.org');
  assert.equal(await bundles([], { policyMode: 'audit' }), 'ALL');
  assert.match(await bundles([...RULES, partner], {}, { disableSpiffeCertValidation: true }), /no secret with all bundles/);
  assert.match(await bundles([...RULES, partner], {}, { defaultAllBundlesName: 'ROOTCA' }), /no secret with all bundles/);
  const matchers = [{ secret: 'spiffe://example.org', allow: [WEB] }];
  assert.match(await bundles(RULES, {}, { matchers }), /"spiffe:\/\/example\.org" has matchers, and Envoy would refuse/);
});

test('a list in a file may name peers of any trust domain: all may connect, and be judged', async () => {
  const { sds } = await load({}, { authorization: {} });
  assert.ok(sds !== undefined);
  const policy = policyFrom({ allow: [{ idsFile: 'ids.txt', methods: ['GET'] }] }, new Map([['ids.txt', listOf('ids.txt', [WEB])]]));

  assert.deepEqual(askedBundle(sds, policy), { ok: true, value: 'ALL' });
});
