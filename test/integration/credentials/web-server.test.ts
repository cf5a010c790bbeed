import assert from 'node:assert/strict';
import { rename, writeFile } from 'node:fs/promises';
import { Agent, request } from 'node:http';
import { test, type TestContext } from 'node:test';
import type { Address } from '../../../src/config/units.ts';
import { startExampleDomain } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { ask, type AskOptions } from '../../support/http/http.ts';
import { createTestAuthority, ipName, type CertificateOptions } from '../../support/pki/pki.ts';
import { startSidecar, type Sidecar } from '../../support/sidecar.ts';
import { freePort } from '../../support/tcp.ts';
import { issueForWeb, startWebServer, type WebServer } from '../../support/web-server.ts';

/** A sidecar that leads to the server, with an identity that is not to be shown. */
async function startToWeb(t: TestContext, { origin, caFile }: Pick<WebServer, 'origin' | 'caFile'>, listener: object = {}) {
  const spiffe = await startExampleDomain(t);
  const out = { name: 'out', listen: '127.0.0.1:0', protocol: 'http', to: origin, webPki: { caFile }, ...listener };
  const sidecar = await startSidecar(t, { workloadApi: { endpoint: spiffe.endpoint('web') }, outbound: [out] });
  return { sidecar, asks: (path: string, options?: AskOptions) => ask(addressOf(sidecar), path, options) };
}

function addressOf(sidecar: Sidecar): Address {
  const address = sidecar.app.addresses().get('out');
  assert.ok(address !== undefined);
  return address;
}

test('a request goes to a server of the public web under its own name, and nothing of ours is presented', async (t) => {
  const server = await startWebServer(t);
  const { sidecar, asks } = await startToWeb(t, server);

  const answer = await asks('/a?b', {
    headers: [
      ['Host', 'application.internal:8080'],
      ['X-Other', '1'],
    ],
  });

  assert.deepEqual([answer.status, answer.body], [200, 'hello']);
  const [seen] = server.requests;
  assert.equal(seen?.url, '/a?b');
  assert.equal(seen.headers.host, `localhost:${server.port}`);
  assert.equal(seen.rawHeaders.filter((name) => name.toLowerCase() === 'host').length, 1);
  assert.equal(seen.headers['x-other'], '1');
  assert.equal(seen.clientCertificate, false);
  const line = await sidecar.connection();
  assert.deepEqual(
    [line['verdict'], line['rule'], line['peer_id'], line['reason']],
    ['allow', 'webPki', undefined, 'finished'],
    JSON.stringify(line),
  );
  assert.equal(await sidecar.metric('scute_tls_handshakes_total', { result: 'ok', direction: 'outbound' }), 1);
  assert.equal(await sidecar.metric('scute_http_requests_total', { result: 'forwarded', status: '200' }), 1);
});

test('the server is named in Host whatever form the request has', async (t) => {
  const server = await startWebServer(t);
  const { sidecar } = await startToWeb(t, server);
  for (const path of ['http://elsewhere.example/x', '/y']) {
    const answer = await ask(addressOf(sidecar), path, { headers: [['host', path === '/y' ? 'other' : 'elsewhere.example']] });
    assert.equal(answer.status, 200);
  }
  assert.deepEqual(
    server.requests.map(({ url, headers }) => [url, headers.host]),
    [
      ['/x', `localhost:${server.port}`],
      ['/y', `localhost:${server.port}`],
    ],
  );
});

const YEAR_MS = 365 * 86_400_000;

const REFUSED: readonly {
  readonly what: string;
  readonly reason: string;
  readonly certificate: CertificateOptions;
}[] = [
  { what: 'has expired', reason: 'expired', certificate: { notBefore: Date.now() - YEAR_MS, notAfter: Date.now() - 1000 } },
  {
    what: 'is not valid yet',
    reason: 'not_yet_valid',
    certificate: { notBefore: Date.now() + YEAR_MS, notAfter: Date.now() + 2 * YEAR_MS },
  },
  { what: 'is for another name', reason: 'wrong_name', certificate: { dnsSans: ['other.test'] } },
  { what: 'has the name in its subject alone', reason: 'wrong_name', certificate: { dnsSans: [], subject: 'localhost' } },
  { what: 'has a SPIFFE ID and no name', reason: 'wrong_name', certificate: { dnsSans: [], uriSans: ['spiffe://example.org/api'] } },
  { what: 'is good for clients alone', reason: 'untrusted_chain', certificate: { eku: ['clientAuth'] } },
  { what: 'is for a part of the name', reason: 'wrong_name', certificate: { dnsSans: ['local*'] } },
  { what: 'is for an address and not the name', reason: 'wrong_name', certificate: { dnsSans: [], otherSans: [ipName([127, 0, 0, 1])] } },
];

for (const { what, reason, certificate } of REFUSED) {
  test(`a server whose certificate ${what} is sent nothing, for ${reason}`, async (t) => {
    const ca = createTestAuthority({ trustDomain: 'web.test', notBefore: Date.now() - 2 * YEAR_MS, notAfter: Date.now() + 2 * YEAR_MS });
    const server = await startWebServer(t, { ca, certificate: issueForWeb(ca, certificate) });
    await refuses(t, server, reason);
  });
}

async function refuses(t: TestContext, server: WebServer, reason: string, listener: object = {}): Promise<void> {
  const { sidecar, asks } = await startToWeb(t, server, listener);

  const answer = await asks('/');

  assert.deepEqual([answer.status, answer.body], [502, `scute: the server is not who it must be: ${reason}\n`]);
  assert.equal(server.requests.length, 0);
  const line = await sidecar.connection();
  assert.deepEqual([line['verdict'], line['reason'], line['close_reason']], ['deny', reason, 'upstream_denied']);
  assert.equal(await sidecar.metric('scute_tls_handshakes_total', { result: 'error', reason }), 1);
  assert.equal(await sidecar.metric('scute_http_requests_total', { result: 'upstream_denied', status: '502' }), 1);
}

test('a server that vouches for itself is sent nothing, for self_signed', async (t) => {
  const itself = createTestAuthority({
    uriSans: [],
    dnsSans: ['localhost'],
    isCa: false,
    keyUsage: ['digitalSignature'],
    eku: ['serverAuth'],
  });
  await refuses(t, await startWebServer(t, { certificate: { chainPem: itself.pem, keyPem: itself.keyPem } }), 'self_signed');
});

test('a server of a foreign authority is sent nothing, for untrusted_chain, also if it sends its authority', async (t) => {
  const foreign = createTestAuthority({ trustDomain: 'foreign.test' });
  const { pem, chainPem, keyPem } = { ...issueForWeb(foreign), pem: foreign.pem };
  const server = await startWebServer(t, { certificate: { chainPem, keyPem } });
  await refuses(t, server, 'untrusted_chain');
  server.become({ chainPem: chainPem + pem, keyPem });
  await refuses(t, server, 'untrusted_chain');
});

test('the authorities of the public web refuse one that they do not know', async (t) => {
  await refuses(t, await startWebServer(t), 'untrusted_chain', { webPki: true });
});

test('an SVID of our own trust domain, with the right name, is nothing to a listener of the web', async (t) => {
  const spiffe = await startExampleDomain(t);
  const { chainPem, keyPem } = await spiffe.issue('spiffe://example.org/api');
  await refuses(t, await startWebServer(t, { certificate: { chainPem, keyPem } }), 'untrusted_chain');
});

test('a server that is asked for by its address must have that in its certificate', async (t) => {
  const ca = createTestAuthority({ trustDomain: 'web.test' });
  const server = await startWebServer(t, { ca, certificate: issueForWeb(ca, { dnsSans: [], otherSans: [ipName([127, 0, 0, 1])] }) });
  const { asks } = await startToWeb(t, { ...server, origin: `https://127.0.0.1:${server.port}` });
  assert.equal((await asks('/')).status, 200);

  server.become(issueForWeb(ca));
  await refuses(t, { ...server, requests: [], origin: `https://127.0.0.1:${server.port}` }, 'wrong_name');
});

test('a server that is not there and one whose name has no address are told apart', async (t) => {
  const server = await startWebServer(t);
  const port = await freePort();
  const cases = [
    { origin: `https://localhost:${port}`, status: 502, result: 'upstream_refused', close: 'upstream_refused' },
    { origin: 'https://nowhere.invalid', status: 502, result: 'upstream_refused', close: 'upstream_unresolved' },
  ];
  for (const { origin, status, result, close } of cases) {
    const { sidecar, asks } = await startToWeb(t, { ...server, origin });
    assert.equal((await asks('/')).status, status);
    assert.equal((await sidecar.connection())['close_reason'], close);
    assert.equal(await sidecar.metric('scute_http_requests_total', { result, status: String(status) }), 1);
  }
  assert.equal(server.connections(), 0);
});

test('TLS 1.2 is the oldest that is spoken, and a server with no more than 1.1 is refused', async (t) => {
  const server = await startWebServer(t, { tls: { maxVersion: 'TLSv1.2' } });
  const { sidecar, asks } = await startToWeb(t, server);
  assert.equal((await asks('/')).status, 200);
  assert.equal((await sidecar.connection())['tls_version'], 'TLSv1.2');

  const old = await startWebServer(t, { tls: { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' } });
  const stage = await startToWeb(t, old);
  assert.equal((await stage.asks('/')).status, 502);
  assert.equal((await stage.sidecar.connection())['reason'], 'protocol_error');
});

test('a redirect passes to the application as it is, and nobody follows it', async (t) => {
  const [server, other] = await Promise.all([startWebServer(t), startWebServer(t)]);
  server.answer((_request, response) => void response.writeHead(302, { location: `${other.origin}/x` }).end());
  const { asks } = await startToWeb(t, server);

  const answer = await asks('/');

  assert.deepEqual([answer.status, answer.headers['location']], [302, `${other.origin}/x`]);
  assert.equal(other.connections(), 0);
});

test('a listener to the public web needs no identity of ours', async (t) => {
  const server = await startWebServer(t);
  const out = { name: 'out', listen: '127.0.0.1:0', protocol: 'http', to: server.origin, webPki: { caFile: server.caFile } };
  const sidecar = await startSidecar(t, { workloadApi: { endpoint: 'unix:///nowhere/agent.sock' }, outbound: [out] });

  assert.equal((await ask(addressOf(sidecar), '/')).body, 'hello');
});

test('a CA file that changes is in force for the next request, and one that is wrong changes nothing', async (t) => {
  const server = await startWebServer(t);
  const { sidecar } = await startToWeb(t, server);
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  t.after(() => agent.destroy());
  const next = (): Promise<number> => statusOf(addressOf(sidecar), agent);
  assert.equal(await next(), 200);
  assert.equal(await next(), 200);
  assert.equal(server.connections(), 1);

  await replace(server.caFile, 'no certificate\n');
  await eventually(async () => assert.equal(await sidecar.metric('scute_authorities_reloads_total', { result: 'failed' }), 1));
  assert.equal(await next(), 200);
  assert.equal(server.connections(), 1);
  const told = sidecar.log().find(({ message }) => message.startsWith('authorities of the web not reloaded'));
  assert.match(String(told?.['detail']), /ca\.pem has no certificate in PEM/);

  await replace(server.caFile, createTestAuthority({ trustDomain: 'foreign.test' }).pem);
  await eventually(async () => assert.equal(await sidecar.metric('scute_authorities_reloads_total', { result: 'ok' }), 1));
  assert.equal(await next(), 502);
  assert.equal(server.requests.length, 3);
});

async function replace(file: string, text: string): Promise<void> {
  await writeFile(`${file}.new`, text);
  await rename(`${file}.new`, file);
}

function statusOf(address: Address, agent: Agent): Promise<number> {
  assert.ok(address.kind === 'tcp');
  const { host, port } = address;
  return new Promise((resolve, reject) => {
    const sent = request({ host, port, path: '/', agent }, (response) =>
      response.resume().on('end', () => resolve(response.statusCode ?? 0)),
    );
    sent.on('error', reject);
    sent.end();
  });
}

test('a connection on which the certificate of the server has expired is asked nothing more', async (t) => {
  const clock = new FakeClock();
  const server = await startWebServer(t, { tls: { keepAliveTimeout: 0 } });
  // Nothing else ends it.
  const times = { http: { upstreamIdleTimeout: 'off' }, limits: { idleTimeout: 'off' } };
  const out = { name: 'out', listen: '127.0.0.1:0', protocol: 'http', to: server.origin, webPki: { caFile: server.caFile }, ...times };
  const sidecar = await startSidecar(t, { workloadApi: { endpoint: 'unix:///nowhere/agent.sock' }, outbound: [out] }, { clock });
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  t.after(() => agent.destroy());
  assert.equal(await statusOf(addressOf(sidecar), agent), 200);
  server.become(issueForWeb(server.ca, { notAfter: clock.now() + 10 * 3_600_000 }));

  clock.advance(2 * 3_600_000);

  assert.equal(await statusOf(addressOf(sidecar), agent), 200);
  assert.equal(server.connections(), 2);
});

test('a CA file that is not there or has nothing in it keeps Scute from starting, and says why', async (t) => {
  const server = await startWebServer(t);
  await writeFile(server.caFile, 'nothing');
  for (const [caFile, why] of [
    ['/nowhere/ca.pem', /\/nowhere\/ca\.pem.*cannot be read/],
    [server.caFile, /ca\.pem has no certificate in PEM/],
  ] as const) {
    const out = { name: 'out', listen: '127.0.0.1:0', protocol: 'http', to: server.origin, webPki: { caFile } };
    await assert.rejects(startSidecar(t, { workloadApi: { endpoint: 'unix:///nowhere/agent.sock' }, outbound: [out] }), why);
  }
});
