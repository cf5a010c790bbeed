/** An Envoy that asks Scute about each request, as `scute envoy` tells it to. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { rename, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage } from 'node:http';
import { connect as connectHttp2, type IncomingHttpHeaders } from 'node:http2';
import { Agent, request } from 'node:https';
import { createServer as createTcpServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { connect } from 'node:tls';
import { parse, stringify } from 'yaml';
import type { IssuedPem } from '../../../src/devdomain/dev-domain.ts';
import { startDevDomain } from '../../support/dev-domain.ts';
import { codeBlocks } from '../../support/documents.ts';
import { pageOf } from '../../support/reference.ts';
import { eventually } from '../../support/eventually.ts';
import { createTestAuthority } from '../../support/pki/pki.ts';
import { policyFrom, policyOf } from '../../support/policy/policies.ts';
import { startScute, useScute, type LogLine, type ScuteOptions, type ScuteProcess } from '../../support/scute-process.ts';
import { startSds } from '../../support/sds.ts';
import { heldSnapshot, svidOf } from '../../support/pki/snapshots.ts';
import { printedBootstrap } from './printed.ts';
import { startEnvoyProcess } from './process.ts';
import { needs } from '../parts.ts';
import { freePort, temporaryFolder } from '../stage.ts';

const API = 'spiffe://example.org/api';
const WEB = 'spiffe://example.org/web';
const BATCH = 'spiffe://example.org/batch';
const PARTNER = 'spiffe://partner.example/job';

const RULES = {
  allow: [
    { peer: WEB, methods: ['GET', 'POST'], paths: ['/items/**'] },
    { peer: BATCH, paths: ['/items/**'], mode: 'audit' },
    { peer: PARTNER, methods: ['GET'] },
  ],
  deny: [{ peer: 'spiffe://example.org/**', paths: ['/items/secret/**'] }],
};

interface Answer {
  readonly status: number;
  readonly body: string;
}

type Svid = Pick<IssuedPem, 'chainPem' | 'keyPem'>;

/** Requests on one connection after the other, each over mTLS, with the target and the fields as they are given. */
function visitor(t: TestContext, port: number, svid: Svid, keepAlive = false) {
  const agent = new Agent({ keepAlive, maxSockets: 1, cert: svid.chainPem, key: svid.keyPem, rejectUnauthorized: false });
  t.after(() => agent.destroy());
  return async (
    target: string,
    { method = 'GET', headers = {} }: { readonly method?: string; readonly headers?: Record<string, string> } = {},
  ): Promise<Answer> => {
    const asked = request({ host: '127.0.0.1', port, path: target, method, headers: { host: 'app.example', ...headers }, agent });
    asked.end();
    const [response] = (await once(asked, 'response')) as [IncomingMessage];
    const chunks: Buffer[] = [];
    for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk);
    return { status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString() };
  };
}

/** One request in these very bytes. */
async function raw(port: number, { chainPem, keyPem }: Svid, head: string): Promise<string> {
  const socket = connect({ port, host: '127.0.0.1', rejectUnauthorized: false, cert: chainPem, key: keyPem });
  let reply = '';
  socket.setEncoding('latin1').on('data', (text: string) => (reply += text));
  socket.on('error', () => undefined);
  socket.once('secureConnect', () => socket.write(Buffer.from(`${head}\r\nHost: app.example\r\nConnection: close\r\n\r\n`, 'latin1')));
  await once(socket, 'close');
  return reply.split('\r\n')[0] ?? '';
}

/** One request over HTTP/2, and its status. */
async function overHttp2(t: TestContext, port: number, { chainPem, keyPem }: Svid, path: string): Promise<unknown> {
  const session = connectHttp2(`https://127.0.0.1:${port}`, { rejectUnauthorized: false, cert: chainPem, key: keyPem });
  t.after(() => session.destroy());
  const stream = session.request({ ':authority': 'app.example', ':path': path });
  const [head] = (await once(stream, 'response')) as [IncomingHttpHeaders];
  return head[':status'];
}

interface Seen {
  readonly method: string;
  readonly url: string;
  readonly headers: Readonly<Record<string, unknown>>;
}

/** What `scute envoy` prints, for a machine that is so busy that an answer may take long. */
async function printedFor(t: TestContext, config: object): Promise<string> {
  return (await printedBootstrap(t, config)).replaceAll('timeout: "1s"', 'timeout: "60s"');
}

/** An application that says what it was asked. */
async function startApplication(t: TestContext) {
  const seen: Seen[] = [];
  const server = createServer((asked, answer) => {
    seen.push({ method: asked.method ?? '', url: asked.url ?? '', headers: asked.headers });
    answer.end('hello');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  return { to: `127.0.0.1:${(server.address() as AddressInfo).port}`, seen };
}

async function startStage(
  t: TestContext,
  policy: object = RULES,
  { start = useScute }: { readonly start?: (t: TestContext, options: ScuteOptions) => Promise<ScuteProcess> } = {},
) {
  const spiffe = await startDevDomain(
    t,
    { name: 'example.org', federatesWith: ['partner.example'], workloads: { api: [API] } },
    { name: 'partner.example' },
  );
  const application = await startApplication(t);
  const port = await freePort();
  const listen = `unix://${join(await temporaryFolder(t), 'sds.sock')}`;
  const configOf = (rules: object): { inbound: object[] } =>
    ({
      workloadApi: { endpoint: spiffe.endpoint('api') },
      sds: { listen, authorization: {} },
      inbound: [{ name: 'app', listen: '127.0.0.1:0', to: application.to, protocol: 'http', ...rules }],
    }) as { inbound: object[] };
  const config = configOf(policy);
  const scute = await start(t, { config });
  await scute.ready('app', 'sds');
  const printed = await printedFor(t, { ...config, inbound: [{ ...config.inbound[0], listen: `127.0.0.1:${port}` }] });
  const envoy = await startEnvoyProcess(t, printed);
  return { spiffe, application, port, config, configOf, scute, envoy, printed };
}

test('with ext_authz a request is judged by method and path, and one that only audit lets pass is told', needs('envoy'), async (t) => {
  const { spiffe, application, port, scute, envoy } = await startStage(t);
  const web = visitor(t, port, await spiffe.issue(WEB));
  const batch = visitor(t, port, await spiffe.issue(BATCH));
  const partner = visitor(t, port, await spiffe.issue(PARTNER));
  const other = visitor(t, port, await spiffe.issue('spiffe://example.org/other'));

  assert.deepEqual(await web('/items/1?x=1'), { status: 200, body: 'hello' });
  assert.deepEqual(await web('/items/1', { method: 'DELETE' }), { status: 403, body: `scute: not_allowed: ${WEB} may not do this\n` });
  assert.deepEqual(await web('/items/secret/1'), { status: 403, body: `scute: denied: ${WEB} may not do this\n` });
  assert.equal((await web('/other')).status, 403);
  assert.equal((await batch('/items/1')).status, 200);
  assert.equal((await batch('/items/secret/1')).status, 403);
  assert.equal((await partner('/anything')).status, 200);
  assert.equal((await other('/items/1')).status, 403);
  assert.deepEqual(
    application.seen.map(({ method, url }) => `${method} ${url}`),
    ['GET /items/1?x=1', 'GET /items/1', 'GET /anything'],
  );

  await scute.logged(({ message, audit, peer_id }) => message === 'check answered' && audit === 'not_allowed' && peer_id === BATCH);
  const near = await scute.logged(({ message, near: rule }) => message === 'check answered' && rule !== undefined);
  assert.match(String(near['near']), /web GET,POST \/items\/\*\*: matched but for the method/);
  assert.equal(await envoy.stat(/ext_authz\.(error|failure_mode_allowed)$/), 0);
});

test(
  'no spelling of a path, and no field, reaches a handler that is denied, and what is allowed arrives as it was judged',
  needs('envoy'),
  async (t) => {
    const { spiffe, application, port } = await startStage(t);
    const svid = await spiffe.issue(WEB);
    for (const target of [
      '/items/%73ecret/1',
      '/items/secre%74/1',
      '/items/x/../secret/1',
      '/items/x/%2e%2e/secret/1',
      '/items//secret/1',
      '/items/secret%2f1',
      '/items/secret%5c1',
      '/items\\secret\\1',
      '/items/secret;x/1',
      '/items/secret/1#x',
      '/items/./secret/1',
      '/items/secret\xff/1',
      'http://app.example/items/secret/1',
    ]) {
      const line = await raw(port, svid, `GET ${target} HTTP/1.1`);
      assert.match(line, /^HTTP\/1\.1 (400|403) /, target);
    }
    assert.match(await raw(port, svid, 'get /items/1 HTTP/1.1'), /^HTTP\/1\.1 (400|403) |^$/);
    assert.match(await raw(port, svid, 'TRACE /items/1 HTTP/1.1'), /^HTTP\/1\.1 (400|403) /);
    assert.match(await raw(port, svid, 'CONNECT app.example:80 HTTP/1.1'), /^HTTP\/1\.1 (400|403|404|501) /);
    assert.equal(application.seen.length, 0);

    const web = visitor(t, port, svid);
    const headers = {
      'x-http-method-override': 'DELETE',
      'x-original-url': '/items/secret/1',
      'x-rewrite-url': '/items/secret/1',
      'x.original~url': '/items/secret/1',
      'x.forwarded~client-cert': `URI=${BATCH}`,
      'x-kept': '1',
    };
    assert.equal((await web('/items/a%7cb?%2e%2e', { headers })).status, 200);
    const [seen] = application.seen;
    assert.equal(seen?.url, '/items/a%7cb?%2e%2e');
    assert.deepEqual(
      Object.keys(seen?.headers ?? {})
        .filter((name) => /override|url|kept|cert/.test(name))
        .toSorted(),
      ['x-forwarded-client-cert', 'x-kept'],
    );
  },
);

test('a policy that changes under load: no allowed request fails, and no denied one passes after it', needs('envoy'), async (t) => {
  const { spiffe, port, scute, configOf } = await startStage(t);
  const web = await spiffe.issue(WEB);
  const load = Array.from({ length: 16 }, () => visitor(t, port, web, true));
  const over = new AbortController();
  const counts = { allowed: 0, denied: 0 };
  /** Odd: the policy denies `/items/a`. While it changes, and before, it may be either. */
  let era = 0;
  const failures: string[] = [];
  const running = load.map(async (ask, index) => {
    while (!over.signal.aborted) {
      // Allowed before and after.
      const kept = await ask(`/items/b/${index}`);
      if (kept.status !== 200) failures.push(`allowed: ${kept.status} ${kept.body}`);
      counts.allowed += 1;
      const sentIn = era;
      const { status } = await ask('/items/a');
      if (sentIn % 2 === 1 && sentIn === era && status !== 403) failures.push(`denied: ${status}`);
      if (status === 403) counts.denied += 1;
      else if (status !== 200) failures.push(`either: ${status}`);
    }
  });
  const reload = async (rules: object): Promise<void> => {
    const before = scute.log().filter(({ message }) => message === 'configuration reloaded').length;
    assert.ok(scute.configFile !== undefined);
    await writeFile(`${scute.configFile}.new`, JSON.stringify(configOf(rules)));
    await rename(`${scute.configFile}.new`, scute.configFile);
    scute.child.signal('SIGHUP');
    await eventually(() => assert.ok(scute.log().filter(({ message }) => message === 'configuration reloaded').length > before));
  };
  const more = async (kind: 'allowed' | 'denied', count: number): Promise<void> => {
    const wanted = counts[kind] + count;
    await eventually(() => assert.ok(counts[kind] >= wanted));
  };

  for (let round = 0; round < 3; round += 1) {
    await more('allowed', 100);
    await reload({ ...RULES, deny: [{ peer: WEB, paths: ['/items/a'] }] });
    era += 1;
    await more('denied', 100);
    era += 1;
    await reload(RULES);
  }
  over.abort();
  await Promise.all(running);

  assert.deepEqual(failures, []);
});

test('while Scute is gone nobody passes, and when it is back everybody does who may', needs('envoy'), async (t) => {
  let scutes: ScuteProcess[] = [];
  const start = async (_: TestContext, options: ScuteOptions): Promise<ScuteProcess> => {
    const scute = await startScute(options);
    scutes = [...scutes, scute];
    return scute;
  };
  t.after(() => Promise.all(scutes.map((scute) => scute.stop())));
  const { spiffe, application, port, config, scute, envoy } = await startStage(t, RULES, { start });
  const web = visitor(t, port, await spiffe.issue(WEB), true);
  assert.equal((await web('/items/1')).status, 200);

  await scute.stop({ signal: 'SIGKILL' });
  for (let round = 0; round < 20; round += 1) assert.equal((await web('/items/1')).status, 503);
  assert.equal(application.seen.length, 1);
  await start(t, { config });
  await eventually(async () => assert.equal((await web('/items/1')).status, 200));
  assert.equal((await web('/items/secret/1')).status, 403);
  assert.equal(await envoy.stat(/ext_authz\.failure_mode_allowed$/), 0);
});

const own = createTestAuthority({ trustDomain: 'example.org' });
const partner = createTestAuthority({ trustDomain: 'partner.example' });

/** An Envoy, made of what `scute envoy` prints and `edit` makes of it, that asks this very process. */
async function startBesideSds(
  t: TestContext,
  edit: (listener: PrintedListener, bootstrap: Printed) => void,
  policy = policyOf('spiffe://example.org/**'),
) {
  const sds = await startSds(t, { listeners: new Map([['app', { policy, notReady: () => undefined }]]) });
  sds.publish(heldSnapshot([svidOf(own, API)], [own, partner]));
  const application = await startApplication(t);
  const port = await freePort();
  const allow = [{ peer: 'spiffe://example.org/**', methods: ['GET'] }];
  const inbound = [{ name: 'app', listen: `127.0.0.1:${port}`, to: application.to, protocol: 'http', allow }];
  const workloadApi = { endpoint: 'unix:///none' };
  const bootstrap = parse(
    await printedFor(t, { workloadApi, sds: { listen: `unix://${sds.path}`, authorization: {} }, inbound }),
  ) as Printed;
  const [listener] = bootstrap.static_resources.listeners;
  assert.ok(listener);
  edit(listener, bootstrap);
  const envoy = await startEnvoyProcess(t, stringify(bootstrap));
  return { sds, application, port, envoy };
}

/** What of a printed bootstrap is changed here. */
interface PrintedListener {
  readonly filter_chains: [
    {
      filters: object[];
      readonly transport_socket: { readonly typed_config: { readonly common_tls_context: Record<string, unknown> } };
    },
  ];
}

interface Printed {
  readonly static_resources: { readonly listeners: readonly PrintedListener[]; readonly clusters: readonly Record<string, unknown>[] };
}

/** The reasons of the checks so far. */
function reasons(sds: Awaited<ReturnType<typeof startSds>>): readonly unknown[] {
  return sds
    .log()
    .filter(({ message }) => message === 'check answered')
    .map(({ reason }) => reason);
}

test(
  'an Envoy that takes any certificate: a peer is denied for what the certificate is, whatever names the principal is made of',
  needs('envoy'),
  async (t) => {
    const { sds, application, port } = await startBesideSds(t, ({ filter_chains: [chain] }) => {
      // Whoever has any certificate may connect, and Envoy takes its names for its principal.
      const { common_tls_context } = chain.transport_socket.typed_config;
      delete common_tls_context['validation_context_sds_secret_config'];
      const trusted_ca = { inline_string: own.pem };
      common_tls_context['validation_context'] = {
        trusted_ca,
        trust_chain_verification: 'ACCEPT_UNTRUSTED',
        allow_expired_certificate: true,
      };
    });
    const impostor = createTestAuthority({ trustDomain: 'example.org' });
    const cases = [
      ['not_an_svid', own.issue({ uriSans: [], subject: WEB })],
      ['not_an_svid', own.issue({ uriSans: [], dnsSans: ['web.example.org'] })],
      ['not_an_svid', own.issue({ uriSans: [WEB, BATCH] })],
      ['not_an_svid', own.issue({ uriSans: ['https://example.org/web'] })],
      ['untrusted_chain', impostor.issue({ id: WEB })],
      ['untrusted_chain', partner.issue({ id: WEB })],
      ['expired', own.issue({ id: WEB, notBefore: Date.now() - 7_200_000, notAfter: Date.now() - 3_600_000 })],
    ] as const;

    for (const [reason, certificate] of cases) {
      const { status, body } = await visitor(t, port, certificate)('/items/1');
      assert.deepEqual([status, body], [403, `scute: ${reason}: the peer may not do this\n`]);
    }
    assert.deepEqual(application.seen, []);
    assert.deepEqual(
      reasons(sds),
      cases.map(([reason]) => reason),
    );
    assert.equal((await visitor(t, port, own.issue({ id: WEB }))('/items/1')).status, 200);
  },
);

test('a peer below an intermediate is judged by the chain that Envoy shows', needs('envoy'), async (t) => {
  const { sds, port } = await startBesideSds(t, () => undefined);
  const intermediate = own.intermediate({ subject: 'intermediate' });

  assert.equal((await visitor(t, port, intermediate.issue({ id: WEB }))('/items/1')).status, 200);
  assert.equal(
    (await visitor(t, port, own.issue({ id: WEB }))('/items/1', { headers: { 'x-forwarded-client-cert': 'Chain="%"' } })).status,
    200,
  );
  assert.deepEqual(reasons(sds), [undefined, undefined]);
});

test('bytes of a path that are no text, which Envoy would show as another path, are judged as they go on', needs('envoy'), async (t) => {
  const { sds, application, port } = await startBesideSds(
    t,
    () => undefined,
    policyFrom({ allow: ['spiffe://example.org/**'], deny: [{ peer: 'spiffe://example.org/**', paths: ['/secret'] }] }),
  );
  const web = own.issue({ id: WEB });

  assert.equal(await overHttp2(t, port, web, '/secr\xffet'), 400);
  assert.equal(await overHttp2(t, port, web, '/secr!et'), 200);
  assert.equal(await overHttp2(t, port, web, '/secret'), 403);

  assert.deepEqual(reasons(sds), ['bad_request', undefined, 'denied']);
  assert.deepEqual(
    application.seen.map(({ url }) => url),
    ['/secr!et'],
  );
});

test('what the documents show of the filter makes an Envoy ask', needs('envoy'), async (t) => {
  const [block] = codeBlocks(pageOf('Checks of Envoy')).filter(({ info }) => info === 'yaml envoy-ext-authz');
  assert.ok(block !== undefined);
  const shown = parse(block.text.replaceAll(/\bapi\b/g, 'app')) as object;
  const { sds, port } = await startBesideSds(t, ({ filter_chains: [chain] }) => {
    const [manager] = chain.filters;
    assert.ok(manager !== undefined && 'typed_config' in manager);
    const { typed_config } = manager as { readonly typed_config: Record<string, unknown> };
    for (const key of Object.keys(shown)) delete typed_config[key];
    assert.doesNotMatch(JSON.stringify(typed_config), /ext_authz/);
    Object.assign(typed_config, shown);
  });

  assert.equal((await visitor(t, port, own.issue({ id: WEB }))('/items/1')).status, 200);
  assert.equal((await visitor(t, port, own.issue({ uriSans: [WEB, BATCH] }))('/items/1')).status, 403);
  assert.deepEqual(reasons(sds), [undefined, 'not_an_svid']);
});

test('the network filter asks about a connection, and names the listener in metadata', needs('envoy'), async (t) => {
  const filter = (initial_metadata: readonly object[]): object => ({
    name: 'envoy.filters.network.ext_authz',
    typed_config: {
      '@type': 'type.googleapis.com/envoy.extensions.filters.network.ext_authz.v3.ExtAuthz',
      stat_prefix: 'app',
      transport_api_version: 'V3',
      grpc_service: { envoy_grpc: { cluster_name: 'scute' }, timeout: '1s', initial_metadata },
      include_peer_certificate: true,
    },
  });
  const tcp = (chain: { filters: object[] }, initial_metadata: readonly object[]): void => {
    const typed_config = {
      '@type': 'type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy',
      stat_prefix: 'app',
      cluster: 'app',
    };
    chain.filters = [filter(initial_metadata), { name: 'envoy.filters.network.tcp_proxy', typed_config }];
  };
  const stages = [
    await startBesideSds(t, ({ filter_chains: [chain] }) => tcp(chain, [{ key: 'scute-listener', value: 'app' }])),
    await startBesideSds(t, ({ filter_chains: [chain] }) => tcp(chain, [])),
  ] as const;
  const ask = async ({ port }: (typeof stages)[number], certificate: Svid): Promise<string> => raw(port, certificate, 'GET / HTTP/1.1');

  assert.match(await ask(stages[0], own.issue({ id: WEB })), /^HTTP\/1\.1 200 /);
  assert.equal(await ask(stages[0], own.issue({ uriSans: [WEB, BATCH] })), '');
  assert.deepEqual(reasons(stages[0].sds), [undefined, 'not_an_svid']);
  assert.equal(await ask(stages[1], own.issue({ id: WEB })), '', 'it names no listener');

  // It is asked when the caller speaks: what the application says before that has gone out, to whomever Envoy let connect.
  const greeter = createTcpServer((socket) => socket.end('greeting'));
  greeter.listen(0, '127.0.0.1');
  await once(greeter, 'listening');
  t.after(() => greeter.close());
  const { port } = await startBesideSds(t, ({ filter_chains: [chain] }, { static_resources: { clusters } }) => {
    tcp(chain, [{ key: 'scute-listener', value: 'nobody' }]);
    for (const cluster of clusters.filter(({ name }) => name === 'app')) {
      delete cluster['typed_extension_protocol_options'];
      const address = { socket_address: { address: '127.0.0.1', port_value: (greeter.address() as AddressInfo).port } };
      cluster['load_assignment'] = { cluster_name: 'app', endpoints: [{ lb_endpoints: [{ endpoint: { address } }] }] };
    }
  });
  const { chainPem, keyPem } = own.issue({ id: WEB });
  const silent = connect({ port, host: '127.0.0.1', rejectUnauthorized: false, cert: chainPem, key: keyPem });
  silent.on('error', () => undefined);
  const [greeting] = (await once(silent, 'data')) as [Buffer];
  silent.destroy();
  assert.equal(greeting.toString(), 'greeting');
});

test('what a check adds to a request (figures)', needs('envoy'), async (t) => {
  const asking = await startStage(t, { allow: [{ peer: WEB, methods: ['GET'], paths: ['/items/**'] }] });
  const matching = await startStage(t, { allow: [WEB] });
  assert.doesNotMatch(matching.printed, /ext_authz/);
  const visitors = await Promise.all([asking, matching].map(async ({ port, spiffe }) => visitor(t, port, await spiffe.issue(WEB), true)));
  const times: [number[], number[]] = [[], []];
  // In turns, so that what else the machine does is the same for both.
  for (let round = 0; round < 30; round += 1) {
    for (const [index, ask] of visitors.entries()) {
      for (let each = 0; each < 50; each += 1) {
        const startedMs = performance.now();
        const { status } = await ask('/items/1');
        // The first ones compile what they run.
        if (round >= 10) times[index]?.push(performance.now() - startedMs);
        assert.equal(status, 200);
      }
    }
  }
  const say = (of: readonly number[]): string => {
    const sorted = of.toSorted((a, b) => a - b);
    return [0.5, 0.99].map((at) => `${sorted[Math.floor(sorted.length * at)]?.toFixed(2)} ms`).join(' and ');
  };
  const lines = (): readonly LogLine[] => asking.scute.log().filter(({ message }) => message === 'check answered');
  await eventually(() => assert.equal(lines().length, 1500));
  const judged = lines()
    .slice(-1000)
    .map((line) => Number(line['duration_ms']));
  t.diagnostic(`p50 and p99 of a request: ${say(times[0])} with ext_authz, ${say(times[1])} with matchers; of it in Scute ${say(judged)}`);
});
