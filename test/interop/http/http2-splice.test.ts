import assert from 'node:assert/strict';
import { createServer } from 'node:http2';
import { test } from 'node:test';
import { startDevDomain } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { needs } from '../parts.ts';
import { runPython, startPython } from '../peers.ts';
import { issueFiles, listen, startInbound } from '../stage.ts';
import { runH2spec } from './h2spec.ts';

const API = 'spiffe://example.org/api';
const WEB = 'spiffe://example.org/web';

test('h2spec finds nothing before an application that speaks HTTP/2', needs('h2spec', 'haproxy'), async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { api: [API], web: [WEB] } });
  const server = createServer((request, response) => {
    request.on('error', () => undefined);
    response.on('error', () => undefined);
    request.resume().on('end', () => response.end('nothing was sent, and this is all there is to say'));
  });
  server.on('session', (session) => session.on('error', () => undefined));
  const side = await startInbound(t, {
    endpoint: spiffe.endpoint('api'),
    to: await listen(t, server),
    allow: [WEB],
    alpn: ['h2'],
    listener: { protocol: 'http', http: { application: 'h2c' } },
    file: { drainTimeout: '10s' },
  });

  const { sum, failures } = await runH2spec(t, spiffe, WEB, side.address);

  assert.equal(sum, '145 tests, 145 passed, 0 skipped, 0 failed', failures);
});

test('a server of WebSockets over HTTP/2 is reached by a client of another kind', needs('python'), async (t) => {
  const http = { application: 'h2c', extendedConnect: true };
  const spiffe = await startDevDomain(t, {
    name: 'example.org',
    workloads: { api: [{ id: API, dnsNames: ['api.example'] }], web: [WEB] },
  });
  const server = await startPython(t, 'websocket_h2_peer', ['serve']);
  const side = await startInbound(t, {
    endpoint: spiffe.endpoint('api'),
    to: String((await server.first('listening'))['listening']),
    allow: [{ peer: WEB, methods: ['CONNECT'], paths: ['/socket'], hosts: ['api.example'] }] as unknown as readonly string[],
    alpn: ['h2'],
    listener: { protocol: 'http', http: { ...http, spiffeIdHeader: 'X-Peer' } },
  });
  const { chain, key, authorities } = await issueFiles(t, spiffe, WEB);

  const said = await runPython('websocket_h2_peer', 'call', side.address, 'api.example', chain, key, authorities);

  assert.deepEqual(said, { status: 200, echoed: Array.from({ length: 8 }, () => true), closed: true });
  assert.deepEqual(await server.first('opened'), { opened: WEB, version: '2', path: '/socket' });
  await eventually(() => {
    const line = side.scute.log().find(({ path }) => path === '/socket');
    assert.deepEqual([line?.['method'], line?.['status']], ['CONNECT', 200]);
  });
});
