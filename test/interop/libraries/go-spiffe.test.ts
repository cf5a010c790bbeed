import assert from 'node:assert/strict';
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createHttp2Server, type Http2ServerRequest, type Http2ServerResponse } from 'node:http2';
import { test, type TestContext } from 'node:test';
import type { PeerReport } from '../../../src/inspect/peer.ts';
import { scute } from '../../support/command.ts';
import { startDevDomain } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { needs } from '../parts.ts';
import { runGo, startGo } from '../peers.ts';
import { exchange, listen, refusal, startEcho, startInbound, startOutbound } from '../stage.ts';

const WEB = 'spiffe://example.org/web';
const API = 'spiffe://example.org/api';
const OTHER = 'spiffe://example.org/other';
const FAR = 'spiffe://far.example/client';

function startDomain(t: TestContext) {
  return startDevDomain(
    t,
    { name: 'example.org', intermediates: 1, federatesWith: ['far.example'], workloads: { web: [WEB], api: [API], other: [OTHER] } },
    { name: 'far.example', keyType: 'ec-p384', federatesWith: ['example.org'], workloads: { far: [FAR] } },
  );
}

function answerInUpperCase(request: IncomingMessage | Http2ServerRequest, response: ServerResponse | Http2ServerResponse): void {
  let body = '';
  request.setEncoding('utf8').on('data', (chunk: string) => (body += chunk));
  request.on('end', () => response.end(body.toUpperCase()));
}

test('a go-spiffe client that is allowed reaches the application', needs('go-spiffe'), async (t) => {
  const spiffe = await startDomain(t);
  const echo = await startEcho(t);
  const { address } = await startInbound(t, { endpoint: spiffe.endpoint('api'), to: echo.address, allow: [WEB] });

  const said = await runGo('client', '-socket', spiffe.endpoint('web'), '-address', address, '-peer', API, '-message', 'hello');

  assert.deepEqual(said, { reply: 'HELLO', peerId: API, tlsVersion: 'TLS 1.3', alpn: '', httpVersion: '' });
});

test('a go-spiffe client of a federated trust domain reaches the application', needs('go-spiffe'), async (t) => {
  const spiffe = await startDomain(t);
  const echo = await startEcho(t);
  const { address } = await startInbound(t, { endpoint: spiffe.endpoint('api'), to: echo.address, allow: ['spiffe://far.example/**'] });

  const said = await runGo('client', '-socket', spiffe.endpoint('far'), '-address', address, '-peer', API);

  assert.equal(said['reply'], 'HELLO');
});

test('a go-spiffe client with another SPIFFE ID is refused, and the application sees nothing', needs('go-spiffe'), async (t) => {
  const spiffe = await startDomain(t);
  const echo = await startEcho(t);
  const { scute, address } = await startInbound(t, { endpoint: spiffe.endpoint('api'), to: echo.address, allow: [WEB] });

  const said = await runGo('client', '-socket', spiffe.endpoint('other'), '-address', address, '-peer', API);

  assert.notEqual(said['error'], undefined);
  await refusal(scute, 'not_allowed');
  assert.equal(echo.connections(), 0);
});

test('a go-spiffe client that expects another server ends the handshake itself', needs('go-spiffe'), async (t) => {
  const spiffe = await startDomain(t);
  const echo = await startEcho(t);
  const { address } = await startInbound(t, { endpoint: spiffe.endpoint('api'), to: echo.address, allow: [WEB] });

  const said = await runGo('client', '-socket', spiffe.endpoint('web'), '-address', address, '-peer', OTHER);

  assert.match(String(said['error']), /unexpected ID/);
  assert.equal(echo.connections(), 0);
});

test('go-spiffe clients connect before and after every rotation of SVIDs and authorities', needs('go-spiffe'), async (t) => {
  const spiffe = await startDomain(t);
  const echo = await startEcho(t);
  const { scute, address } = await startInbound(t, { endpoint: spiffe.endpoint('api'), to: echo.address, allow: [WEB] });
  const updates = (): number => scute.log().filter(({ message }) => message === 'identity updated').length;
  const steps = [
    () => spiffe.rotate('example.org'),
    () => spiffe.prepareRoot('example.org'),
    () => spiffe.activateRoot('example.org'),
    () => spiffe.retireRoots('example.org'),
  ];

  const replies: unknown[] = [];
  for (const step of steps) {
    const before = updates();
    await step();
    await eventually(() => assert.ok(updates() > before, 'scute has the new identity'));
    replies.push((await runGo('client', '-socket', spiffe.endpoint('web'), '-address', address, '-peer', API))['reply']);
  }

  assert.deepEqual(replies, ['HELLO', 'HELLO', 'HELLO', 'HELLO']);
});

test('net/http over HTTP/1.1 reaches a web application through Scute', needs('go-spiffe'), async (t) => {
  const spiffe = await startDomain(t);
  const to = await listen(t, createHttpServer(answerInUpperCase));
  const { address } = await startInbound(t, { endpoint: spiffe.endpoint('api'), to, allow: [WEB] });

  const said = await runGo('client', '-socket', spiffe.endpoint('web'), '-address', address, '-peer', API, '-protocol', 'http1');

  assert.deepEqual([said['reply'], said['httpVersion'], said['peerId']], ['HELLO', 'HTTP/1.1', API]);
});

test('net/http over HTTP/2 reaches an application through a listener with alpn: [h2]', needs('go-spiffe'), async (t) => {
  const spiffe = await startDomain(t);
  const to = await listen(t, createHttp2Server(answerInUpperCase));
  const { address } = await startInbound(t, { endpoint: spiffe.endpoint('api'), to, allow: [WEB], alpn: ['h2'] });

  const said = await runGo('client', '-socket', spiffe.endpoint('web'), '-address', address, '-peer', API, '-protocol', 'h2');

  assert.deepEqual([said['reply'], said['httpVersion'], said['alpn']], ['HELLO', 'HTTP/2.0', 'h2']);
});

test('an application reaches a go-spiffe server that has the expected SPIFFE ID', needs('go-spiffe'), async (t) => {
  const spiffe = await startDomain(t);
  const server = await startGo(t, 'server', '-socket', spiffe.endpoint('api'), '-peer', WEB);
  const to = String((await server.first('listening'))['listening']);
  const { port } = await startOutbound(t, { endpoint: spiffe.endpoint('web'), to, expect: [API] });

  const reply = await exchange(port, 'hello');

  assert.equal(reply, 'HELLO');
  assert.equal((await server.first('accepted'))['accepted'], WEB);
});

test('an application reaches nothing when the go-spiffe server has another SPIFFE ID', needs('go-spiffe'), async (t) => {
  const spiffe = await startDomain(t);
  const server = await startGo(t, 'server', '-socket', spiffe.endpoint('other'), '-peer', WEB);
  const to = String((await server.first('listening'))['listening']);
  const { scute, port } = await startOutbound(t, { endpoint: spiffe.endpoint('web'), to, expect: [API] });

  const reply = await exchange(port, 'secret');

  assert.equal(reply, '');
  await refusal(scute, 'not_allowed');
});

test('an application gets nothing from a go-spiffe server that refuses Scute', needs('go-spiffe'), async (t) => {
  const spiffe = await startDomain(t);
  const server = await startGo(t, 'server', '-socket', spiffe.endpoint('api'), '-peer', OTHER);
  const to = String((await server.first('listening'))['listening']);
  const { port } = await startOutbound(t, { endpoint: spiffe.endpoint('web'), to, expect: [API] });

  const reply = await exchange(port, 'hello');

  assert.equal(reply, '');
  assert.match(String((await server.first('handshakeError'))['handshakeError']), /unexpected ID/);
});

test('scute inspect knows a go-spiffe server, and says that another one does not want it', needs('go-spiffe'), async (t) => {
  const spiffe = await startDomain(t);
  const inspect = async (peer: string) => {
    const server = await startGo(t, 'server', '-socket', spiffe.endpoint('api'), '-peer', peer);
    const address = String((await server.first('listening'))['listening']);
    const flags = ['--workload-api', spiffe.endpoint('web'), '--expect', API, '--timeout', '10m', '--json'];
    const { code, stdout } = await scute('inspect', address, ...flags, '--wait', peer === WEB ? '1ms' : '10m');
    return { code, ...(JSON.parse(stdout) as PeerReport) };
  };

  const wanted = await inspect(WEB);
  assert.deepEqual([wanted.code, wanted.verdict?.result, wanted.askedForCertificate], [0, 'allow', true]);
  const ids = wanted.certificates.map(({ id }) => id);
  assert.deepEqual(
    wanted.certificates.map(({ kind, issuer }) => [kind, issuer]),
    [
      ['peer', ids[1]],
      ['peer_intermediate', ids[2]],
      ['authority', null],
    ],
  );

  const unwanted = await inspect(OTHER);
  assert.deepEqual([unwanted.code, unwanted.verdict?.result, unwanted.afterwards?.what], [1, 'allow', 'ended']);
  assert.match(unwanted.afterwards?.detail ?? '', /alert bad certificate/);
});
