/** `POST /drain` on the admin listener: by peer, trust domain or listener, over TCP and HTTP, in both directions. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test, type TestContext } from 'node:test';
import { API, presented, startExampleDomain, WEB } from '../../support/data-path.ts';
import { startDevDomain } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { ask, type Answer } from '../../support/http/http.ts';
import { HTTP2_KINDS } from '../../support/http/http2-kinds.ts';
import { answerOn, connectClient } from '../../support/http/http2-stage.ts';
import { startHttpApplication, wire } from '../../support/http/http-stage.ts';
import { startSidecar, type Sidecar } from '../../support/sidecar.ts';
import { closed, dial, ping, startEcho } from '../../support/tcp.ts';
import { tlsClient, tlsServer } from '../../support/tls-peer.ts';

const PARTNER = 'spiffe://partner.test/caller';
const GET = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n';
const JSON_TYPE = ['content-type', 'application/json'] as const;

function post(sidecar: Sidecar, body: unknown, ...headers: readonly (readonly [string, string])[]): Promise<Answer> {
  const admin = sidecar.app.addresses().get('admin');
  assert.ok(admin);
  return ask(admin, '/drain', { method: 'POST', headers: [JSON_TYPE, ...headers], body: JSON.stringify(body) });
}

async function drained(sidecar: Sidecar, body: unknown): Promise<number> {
  const { status, body: text } = await post(sidecar, body);
  assert.equal(status, 200, text);
  return (JSON.parse(text) as { readonly draining: number }).draining;
}

/** Two inbound listeners, of TCP, and an outbound one; peers of two trust domains. */
async function startTcp(t: TestContext) {
  const spiffe = await startDevDomain(
    t,
    { name: 'example.org', federatesWith: ['partner.test'], workloads: { api: [API], web: [WEB] } },
    { name: 'partner.test', federatesWith: ['example.org'] },
  );
  const application = await startEcho(t);
  const server = await tlsServer(t, presented(await spiffe.issue(WEB)), (socket) => socket.pipe(socket));
  const clock = new FakeClock();
  const inbound = (name: string) => ({ name, listen: '127.0.0.1:0', to: application.address, allow: [WEB, PARTNER] });
  const config = {
    workloadApi: { endpoint: spiffe.endpoint('api') },
    inbound: [inbound('one'), inbound('two')],
    outbound: [{ name: 'out', listen: '127.0.0.1:0', to: server.address, expect: [WEB] }],
    admin: { listen: '127.0.0.1:0' },
    drainTimeout: '10s',
  };
  const sidecar = await startSidecar(t, config, { clock });
  const [web, partner] = [presented(await spiffe.issue(WEB)), presented(await spiffe.issue(PARTNER))];
  const sockets = {
    web1: tlsClient(t, sidecar.address('one'), web),
    web2: tlsClient(t, sidecar.address('two'), web),
    partner1: tlsClient(t, sidecar.address('one'), partner),
    out: await dial(t, sidecar.address('out')),
  };
  for (const socket of Object.values(sockets)) await ping(socket);
  return { sidecar, clock, sockets, again: () => tlsClient(t, sidecar.address('one'), web) };
}

type Name = 'web1' | 'web2' | 'partner1' | 'out';
const SELECTIONS: readonly (readonly [what: string, body: object, meant: readonly Name[]])[] = [
  ['a peer', { peer: WEB }, ['web1', 'web2', 'out']],
  ['a peer through one listener', { peer: WEB, listener: 'two' }, ['web2']],
  ['a trust domain', { trustDomain: 'partner.test' }, ['partner1']],
  ['a trust domain through one listener', { trustDomain: 'example.org', listener: 'one' }, ['web1']],
  ['a listener', { listener: 'one' }, ['web1', 'partner1']],
  ['an outbound listener', { listener: 'out' }, ['out']],
  ['a peer that is not there', { peer: 'spiffe://example.org/nobody' }, []],
  ['a trust domain of which nobody is there', { trustDomain: 'example.or' }, []],
];

for (const [what, body, meant] of SELECTIONS) {
  test(`${what} is drained over TCP, and nobody else; who was may connect again at once`, async (t) => {
    const { sidecar, clock, sockets, again } = await startTcp(t);
    const ends = meant.map((name) => closed(sockets[name]));

    assert.equal(await drained(sidecar, body), meant.length);
    assert.equal(await drained(sidecar, body), 0);
    await ping(again());
    clock.advance(11_000);

    for (const end of ends) assert.equal(await end, 'ECONNRESET');
    for (const [name, socket] of Object.entries(sockets)) if (!meant.includes(name as Name)) await ping(socket);
    assert.equal(await sidecar.metric('scute_connections_drained_total', { reason: 'drain_requested' }), meant.length);
    const line = sidecar.log().find(({ message }) => message === 'connections asked to drain');
    assert.equal(line?.['connections'], meant.length);
  });
}

test('over HTTP, requests that are under way are answered, and later ones go over new connections; in both directions', async (t) => {
  const spiffe = await startExampleDomain(t);
  const held: (() => void)[] = [];
  const application = await startHttpApplication(t, (_, response) => held.push(() => response.end('ok')));
  const release = (): void => {
    for (const answer of held.splice(0)) answer();
  };
  const http = { listen: '127.0.0.1:0', protocol: 'http' };
  const admin = { listen: '127.0.0.1:0' };
  const inbound = await startSidecar(t, {
    workloadApi: { endpoint: spiffe.endpoint('api') },
    inbound: [{ ...http, name: 'in', to: application.address, allow: [WEB] }],
    admin,
  });
  const outbound = await startSidecar(t, {
    workloadApi: { endpoint: spiffe.endpoint('web') },
    outbound: [{ ...http, name: 'out', to: inbound.address('in'), expect: [API] }],
    admin,
  });
  const web = presented(await spiffe.issue(WEB));
  const [direct, through] = [wire(tlsClient(t, inbound.address('in'), web)), wire(await dial(t, outbound.address('out')))];
  for (const line of [direct, through]) line.socket.write(GET);
  const client = await connectClient(t, inbound.address('in'), web);
  const answer = answerOn(client.request({ ':path': '/' }));
  const goaway = once(client, 'goaway');
  await eventually(() => assert.equal(held.length, 3));

  assert.equal(await drained(outbound, { peer: API }), 1);
  assert.equal(await drained(inbound, { listener: 'in' }), 3);
  await goaway;
  release();

  assert.equal((await answer).status, 200);
  const { text, error } = await direct.over();
  assert.match(text, / 200 OK\r\n[\s\S]*Connection: close\r\n\r\nok$/);
  assert.equal(error, undefined);
  await through.until('ok');
  assert.doesNotMatch(through.text(), /Connection: close/);
  through.socket.write(GET);
  await eventually(() => assert.equal(held.length, 1));
  release();
  await through.until(/ok[\s\S]*ok/);
  await eventually(async () => assert.equal(await inbound.metric('scute_connections_drained_total', { reason: 'drain_requested' }), 3));
  assert.equal(await outbound.metric('scute_connections_drained_total', { reason: 'drain_requested' }), 1);
});

for (const kind of HTTP2_KINDS)
  test(`over HTTP/2 before ${kind.application}, a drain lets what is under way end, and what comes after goes over a new connection`, async (t) => {
    const spiffe = await startExampleDomain(t);
    const held: (() => void)[] = [];
    const application = await kind.startHttpApplication(t, (_, response) => held.push(() => response.end('ok')));
    const inbound = await startSidecar(t, {
      workloadApi: { endpoint: spiffe.endpoint('api') },
      inbound: [
        { listen: '127.0.0.1:0', protocol: 'http', http: { application: kind.speaks }, name: 'in', to: application.address, allow: [WEB] },
      ],
      admin: { listen: '127.0.0.1:0' },
    });
    const web = presented(await spiffe.issue(WEB));
    const client = await connectClient(t, inbound.address('in'), web);
    const answer = answerOn(client.request({ ':path': '/' }));
    const [goaway, closed] = [once(client, 'goaway'), once(client, 'close')];
    await eventually(() => assert.equal(held.length, 1));

    assert.equal(await drained(inbound, { peer: WEB }), 1);
    await goaway;
    held.pop()?.();

    assert.equal((await answer).status, 200);
    await closed;
    const next = answerOn((await connectClient(t, inbound.address('in'), web)).request({ ':path': '/' }));
    await eventually(() => assert.equal(held.length, 1));
    held.pop()?.();
    assert.equal((await next).status, 200);
    assert.equal(await inbound.metric('scute_connections_drained_total', { reason: 'drain_requested' }), 1);
  });

test('over HTTP, a client without a request may ask once more, and reads that it was the last', async (t) => {
  const spiffe = await startExampleDomain(t);
  const application = await startHttpApplication(t, (_, response) => response.end('ok'));
  const clock = new FakeClock();
  const sidecar = await startSidecar(
    t,
    {
      workloadApi: { endpoint: spiffe.endpoint('api') },
      inbound: [{ listen: '127.0.0.1:0', protocol: 'http', name: 'in', to: application.address, allow: [WEB] }],
      admin: { listen: '127.0.0.1:0' },
    },
    { clock },
  );
  const web = presented(await spiffe.issue(WEB));
  const [asks, rests] = [1, 2].map(() => wire(tlsClient(t, sidecar.address('in'), web)));
  assert.ok(asks !== undefined && rests !== undefined);
  for (const line of [asks, rests]) {
    line.socket.write(GET);
    await line.until('ok');
  }

  assert.equal(await drained(sidecar, { trustDomain: 'example.org' }), 2);
  asks.socket.write(GET);

  assert.match((await asks.over()).text, /ok[\s\S]*Connection: close\r\n\r\nok$/);
  clock.advance(5000);
  assert.equal((await rests.over()).error, undefined);
  assert.equal(await sidecar.metric('scute_tcp_close_total', { reason: 'drain_requested' }), 2);
});

test('what is not understood drains nobody, and names the value', async (t) => {
  const { sidecar, sockets } = await startTcp(t);
  const usage = /^the body must be /;
  for (const [body, status, message] of [
    [undefined, 400, usage],
    [null, 400, usage],
    [[], 400, usage],
    ['spiffe://example.org/web', 400, usage],
    [{}, 400, usage],
    [{ peer: WEB, trustDomain: 'example.org' }, 400, usage],
    [{ peer: WEB, listeners: 'one' }, 400, usage],
    [{ peer: WEB, __proto__: null, toString: 1 }, 400, usage],
    [{ peer: 'spiffe://Example.org/web' }, 400, /^peer "spiffe:\/\/Example\.org\/web": bad_trust_domain_character\n$/],
    [{ peer: 'spiffe://example.org/*' }, 400, /^peer "spiffe:\/\/example\.org\/\*": bad_path_character\n$/],
    [{ peer: 'example.org' }, 400, /^peer "example\.org": wrong_scheme\n$/],
    [{ peer: 1 }, 400, /^peer must be a string\n$/],
    [{ peer: null, listener: 'one' }, 400, /^peer must be a string\n$/],
    [{ trustDomain: 'spiffe://example.org' }, 400, /^trustDomain "spiffe:\/\/example\.org": bad_trust_domain_character\n$/],
    [{ trustDomain: '' }, 400, /^trustDomain "": empty_trust_domain\n$/],
    [{ listener: ['one'] }, 400, /^listener must be a string\n$/],
    [{ listener: 'three' }, 404, /^there is no listener "three"\n$/],
    [{ listener: 'admin', peer: WEB }, 404, /^there is no listener "admin"\n$/],
  ] as const) {
    const answer = await post(sidecar, body);
    assert.equal(answer.status, status, `${JSON.stringify(body)}: ${answer.body}`);
    assert.match(answer.body, message);
  }
  for (const socket of Object.values(sockets)) await ping(socket);
  assert.ok(!sidecar.log().some(({ message }) => message === 'connections asked to drain'));
});

test('no page of another origin drains anybody', async (t) => {
  const { sidecar } = await startTcp(t);
  const admin = sidecar.app.addresses().get('admin');
  assert.ok(admin);
  const body = JSON.stringify({ listener: 'one' });
  const status = async (...headers: (readonly [string, string])[]): Promise<number> =>
    (await ask(admin, '/drain', { method: 'POST', headers, body })).status;

  assert.equal((await ask(admin, '/drain')).status, 405);
  assert.equal(await status(['content-type', 'text/plain']), 415);
  assert.equal(await status(['content-type', 'application/x-www-form-urlencoded']), 415);
  assert.equal(await status(JSON_TYPE, ['origin', 'https://evil.example']), 403);
  assert.equal(await status(JSON_TYPE, ['origin', 'null']), 403);
  assert.equal(await status(JSON_TYPE, ['sec-fetch-site', 'cross-site']), 403);
  assert.equal(await status(JSON_TYPE, ['host', 'evil.example']), 421);
  assert.equal(await sidecar.metric('scute_tcp_open_connections', { listener: 'one' }), 2);
  assert.ok(!sidecar.log().some(({ message }) => message === 'connections asked to drain'));
  assert.equal(await status(JSON_TYPE), 200);
});
