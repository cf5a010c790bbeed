import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseConfig } from '../../config/load.ts';
import { formatIssues } from '../../config/issue.ts';
import { buildEnvoyConfig } from './config.ts';

const SDS = { listen: 'unix:///run/sds.sock' };
const IN = { name: 'in', listen: '127.0.0.1:1', to: '127.0.0.1:2', allow: ['spiffe://example.org/web'] };

async function build(config: object) {
  const loaded = await parseConfig(JSON.stringify({ workloadApi: { endpoint: 'unix:///a' }, ...config }), {
    file: 'f',
    flags: {},
    env: {},
  });
  if (!loaded.ok) throw new Error(formatIssues(loaded.error));
  return buildEnvoyConfig(loaded.value);
}

async function textOf(config: object): Promise<string> {
  const built = await build(config);
  if (!built.ok) throw new Error(built.error.message);
  return JSON.stringify(built.value);
}

async function problemOf(config: object): Promise<string> {
  const built = await build(config);
  return built.ok ? 'none' : built.error.message;
}

test('a listener that admits nobody becomes none: without matchers Envoy would admit everybody', async () => {
  const text = await textOf({ inbound: [{ ...IN, allow: [] }], sds: SDS });

  assert.doesNotMatch(text, /DownstreamTlsContext/);
});

test('no listener is without matchers', async () => {
  const text = await textOf({
    inbound: [IN],
    outbound: [{ ...IN, name: 'out', listen: '127.0.0.1:3', allow: undefined, expect: IN.allow }],
    sds: SDS,
  });

  assert.equal(text.match(/TlsContext"/g)?.length, 2);
  assert.equal(text.match(/"match_typed_subject_alt_names":\[\{/g)?.length, 2);
});

test('no session is resumed in either direction, since Envoy does not judge a peer again that resumes one', async () => {
  const text = await textOf({
    inbound: [IN],
    outbound: [{ ...IN, name: 'out', listen: '127.0.0.1:3', allow: undefined, expect: IN.allow }],
    sds: SDS,
  });

  assert.match(text, /"disable_stateless_session_resumption":true,"disable_stateful_session_resumption":true/);
  assert.match(text, /UpstreamTlsContext","max_session_keys":0/);
});

test('a connection has the times that it has in Scute', async () => {
  const limits = { connectTimeout: '1s', handshakeTimeout: '2s', idleTimeout: 'off', maxLifetime: '1h' };
  const out = { ...IN, name: 'out', listen: '127.0.0.1:3', allow: undefined, expect: IN.allow };
  const bytes = await textOf({ inbound: [IN], outbound: [out], limits, sds: SDS });
  assert.equal(bytes.match(/"idle_timeout":"0s","max_downstream_connection_duration":"3600s"/g)?.length, 2);
  assert.match(bytes, /"transport_socket_connect_timeout":"2s"/);
  assert.match(bytes, /"name":"in","type":"STATIC","connect_timeout":"1s"/);
  assert.match(bytes, /"name":"out","type":"STATIC","connect_timeout":"3s"/);

  const requests = await textOf({ inbound: [{ ...IN, protocol: 'http', http: { headTimeout: '4s' } }], limits, sds: SDS });
  assert.match(requests, /"idle_timeout":"0s","max_connection_duration":"3600s"/);
  assert.match(requests, /"stream_idle_timeout":"0s","request_headers_timeout":"4s"/);
  assert.match(requests, /"common_http_protocol_options":\{"idle_timeout":"1.5s"\},"explicit_http_config":\{"http_protocol_options":/);
  const spliced = await textOf({ inbound: [{ ...IN, protocol: 'http', http: { application: 'h2c' } }], limits, sds: SDS });
  assert.match(spliced, /"explicit_http_config":\{"http2_protocol_options":\{\}\}/);
  assert.doesNotMatch(spliced, /allow_connect/);
  const connects = { inbound: [{ ...IN, protocol: 'http', http: { application: 'h2c', extendedConnect: true } }], limits, sds: SDS };
  assert.equal((await textOf(connects)).match(/"http2_protocol_options":\{[^}]*"allow_connect":true\}/g)?.length, 2);
  assert.doesNotMatch(await textOf({ inbound: [IN], sds: SDS }), /duration/);
});

test('each trust domain is judged by its own bundle; a list of several is refused, since each could issue IDs of the other', async () => {
  assert.match(await textOf({ inbound: [IN], sds: SDS }), /"name":"spiffe:\/\/example\.org"/);
  const both = [{ ...IN, allow: ['spiffe://example.org/web', 'spiffe://partner.example/**'] }];
  for (const sds of [SDS, { ...SDS, disableSpiffeCertValidation: true }, { ...SDS, matchers: [{ secret: 'ALL', listener: 'in' }] }])
    assert.match(await problemOf({ inbound: both, sds }), /example\.org and partner\.example cannot be kept apart in one list/);
});

test('where Scute has matchers for a listener, Envoy needs none of its own', async () => {
  const text = await textOf({ inbound: [IN], sds: { ...SDS, matchers: [{ secret: 'ROOTCA', listener: 'in' }] } });

  assert.match(text, /"validation_context_sds_secret_config":\{"name":"ROOTCA"/);
  assert.doesNotMatch(text, /match_typed/);
});

test('a secret that carries the list of one listener is never given to another, which would admit both', async () => {
  const admin = { ...IN, name: 'admin', listen: '127.0.0.1:3', allow: ['spiffe://example.org/ops'] };
  const server = { name: 'out', listen: '127.0.0.1:4', to: '127.0.0.1:5', expect: ['spiffe://example.org/db'] };
  const matchers = [{ secret: 'spiffe://example.org', listener: 'in' }];
  for (const others of [{ inbound: [IN, admin] }, { inbound: [IN], outbound: [server] }])
    assert.match(await problemOf({ ...others, sds: { ...SDS, matchers } }), /"spiffe:\/\/example\.org" has matchers of others/);

  const elsewhere = await textOf({ inbound: [IN, admin], sds: { ...SDS, matchers: [{ secret: 'ROOTCA', listener: 'in' }] } });
  assert.match(elsewhere, /"exact":"spiffe:\/\/example\.org\/ops"/);
});

test('a secret that would never come is not asked for: its name is of another trust domain, or all of them as plain authorities', async () => {
  const withMatchers = (secret: string, sds: object = {}) => ({
    inbound: [IN],
    sds: { ...SDS, ...sds, matchers: [{ secret, listener: 'in' }] },
  });
  const plain = { disableSpiffeCertValidation: true };

  for (const lost of [withMatchers('spiffe://partner.example'), withMatchers('ALL', plain)]) {
    const text = await textOf(lost);
    assert.match(text, /"exact":"spiffe:\/\/example\.org\/web"/);
    assert.match(text, /"validation_context_sds_secret_config":\{"name":"spiffe:\/\/example\.org"/);
  }
  const bundleCalledAll = { ...plain, defaultBundleName: 'ALL', defaultAllBundlesName: 'EVERY' };
  for (const served of [
    withMatchers('spiffe://example.org'),
    withMatchers('ALL'),
    withMatchers('ROOTCA', plain),
    withMatchers('ALL', bundleCalledAll),
  ])
    assert.doesNotMatch(await textOf(served), /match_typed/);
});

test('a listener on every address takes IPv4 as well', async () => {
  const all = await textOf({ inbound: [{ ...IN, listen: '[::]:1' }], sds: SDS });
  assert.match(all, /"address":"::","port_value":1,"ipv4_compat":true/);
  for (const listen of ['[::1]:1', '0.0.0.0:1'])
    assert.doesNotMatch(await textOf({ inbound: [{ ...IN, listen }], sds: SDS }), /ipv4_compat/);
});

test('a server is offered TLS 1.3, which Envoy offers to none by itself', async () => {
  const text = await textOf({ outbound: [{ name: 'out', listen: '127.0.0.1:3', to: '127.0.0.1:4', expect: IN.allow }], sds: SDS });

  assert.match(text, /"common_tls_context":\{"tls_params":\{"tls_maximum_protocol_version":"TLSv1_3"\}/);
});

test('each listener presents its own identity', async () => {
  const withIdentity = (identity: object | undefined, sds: object = SDS) => ({ inbound: [{ ...IN, ...(identity && { identity }) }], sds });
  assert.match(await textOf(withIdentity({ hint: 'x' })), /"name":"hint:x"/);
  assert.match(await textOf(withIdentity({ id: 'spiffe://example.org/x' })), /"name":"spiffe:\/\/example\.org\/x"/);
  assert.match(await textOf(withIdentity(undefined)), /"name":"default"/);
  assert.match(await problemOf(withIdentity(undefined, { ...SDS, identity: { hint: 'y' } })), /"default" is another one/);
});

test('without SDS there is nothing to print', async () => {
  assert.match(await problemOf({ inbound: [IN] }), /no sds section/);
});

test('the SPIFFE ID goes into the fields that the configuration names, and what a peer sent there goes away', async () => {
  const http = { ...IN, protocol: 'http', http: { spiffeIdHeader: 'x-peer', upgrades: ['tcp', 'websocket'] } };
  const text = await textOf({ inbound: [http], sds: SDS });

  assert.match(text, /"request_headers_to_remove":\["x-peer"\]/);
  assert.match(text, /"key":"x-peer","value":"%DOWNSTREAM_PEER_URI_SAN%"\},"append_action":"OVERWRITE_IF_EXISTS_OR_ADD"/);
  assert.match(text, /"headers_with_underscores_action":"DROP_HEADER"/);
  assert.match(text, /"upgrade_configs":\[\{"upgrade_type":"websocket"\},\{"upgrade_type":"tcp"\}\]/);
  for (const [xfcc, said] of [
    ['sanitize-set', 'SANITIZE_SET'],
    ['sanitize', 'SANITIZE'],
    ['unsafe-forward', 'ALWAYS_FORWARD_ONLY'],
    ['unsafe-append', 'APPEND_FORWARD'],
  ] as const)
    assert.match(await textOf({ inbound: [{ ...http, http: { xfcc } }], sds: SDS }), new RegExp(`"forward_client_cert_details":"${said}"`));
});

test('a setting that the printed listener would be without is named instead of lost', async () => {
  const out = { name: 'out', listen: '127.0.0.1:3', to: '127.0.0.1:4', expect: IN.allow };
  const pipe = { ...IN, listen: 'unix:///run/in.sock' };
  for (const [config, problem] of [
    [{ inbound: [{ ...IN, proxyProtocol: { send: 'tls' } }] }, /inbound in: proxyProtocol\.send/],
    [{ inbound: [{ ...IN, proxyProtocol: { acceptFrom: ['10.0.0.0/8'] } }] }, /inbound in: proxyProtocol\.acceptFrom/],
    [{ inbound: [{ ...IN, protocol: 'http', http: { maxBodyBytes: 10 } }] }, /inbound in: http\.maxBodyBytes/],
    [{ inbound: [{ ...pipe, socketGroup: 1 }] }, /in: socketGroup/],
    [{ outbound: [{ ...out, protocol: 'http' }] }, /outbound out: protocol: http/],
  ] as const)
    assert.match(await problemOf({ ...config, sds: SDS }), problem);
  assert.match(await textOf({ inbound: [pipe], sds: SDS }), /"path":"\/run\/in\.sock","mode":384/);
});

test('the server is told the same name in SNI', async () => {
  const out = { name: 'out', listen: '127.0.0.1:3', expect: IN.allow };
  assert.match(await textOf({ outbound: [{ ...out, to: 'db.example.org:4' }], sds: SDS }), /"sni":"db\.example\.org"/);
  assert.doesNotMatch(await textOf({ outbound: [{ ...out, to: '10.0.0.1:4' }], sds: SDS }), /"sni"/);
});

test('a name is looked up for both kinds of addresses, as Scute does', async () => {
  const text = await textOf({ inbound: [{ ...IN, to: 'localhost:2' }], sds: SDS });

  assert.match(text, /"type":"LOGICAL_DNS","dns_lookup_family":"ALL"/);
});

test('no listener has the name of the cluster that secrets come from', async () => {
  const listeners = ['scute', 'scute-sds', 'x'].map((name, index) => ({ ...IN, name, listen: `127.0.0.1:${index + 10}` }));
  const built = await build({ inbound: listeners, sds: SDS });
  assert.ok(built.ok);
  const { clusters } = (built.value as { static_resources: { clusters: { name: string }[] } }).static_resources;
  const names = clusters.map(({ name }) => name);

  assert.equal(new Set(names).size, 4);
  assert.match(JSON.stringify(built.value), new RegExp(`"envoy_grpc":\\{"cluster_name":"${names.at(-1)}"`));
  assert.match(await textOf({ inbound: [IN], sds: SDS }), /"cluster_name":"scute"/);
});

test('a port that is another one at each start is not printed', async () => {
  assert.match(await problemOf({ inbound: [IN], sds: { listen: '127.0.0.1:0', unsafeTcp: true } }), /sds\.listen has port 0/);
});

test('a rule that matchers cannot say is named, and nothing is printed', async () => {
  const peer = 'spiffe://example.org/web';
  const cannot = (rule: string): RegExp => new RegExp(`^(in|out)bound \\w+: the rule ${JSON.stringify(rule)} cannot be said in matchers`);
  const http = { ...IN, protocol: 'http' };
  assert.match(
    await problemOf({ inbound: [{ ...IN, deny: ['spiffe://example.org/old'] }], sds: SDS }),
    cannot('deny spiffe://example.org/old'),
  );
  assert.match(await problemOf({ inbound: [{ ...http, allow: [{ peer, methods: ['GET'] }] }], sds: SDS }), cannot(`${peer} GET`));
  assert.match(
    await problemOf({ inbound: [{ ...IN, allow: [{ peer, mode: 'audit' }] }], sds: SDS }),
    /the rule ".*\(audit\)" cannot be said/,
  );
  assert.match(await problemOf({ inbound: [{ ...IN, policyMode: 'audit' }], sds: SDS }), /^inbound in: a policy in audit cannot be said/);
  const out = { name: 'out', listen: '127.0.0.1:3', to: '127.0.0.1:4', expect: [peer], deny: ['spiffe://example.org/old'] };
  assert.match(await problemOf({ outbound: [out], sds: SDS }), cannot('deny spiffe://example.org/old'));
  assert.match(await textOf({ inbound: [IN], sds: SDS }), /match_typed_subject_alt_names/);
});
