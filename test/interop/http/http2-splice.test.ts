import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http2';
import { join } from 'node:path';
import { test } from 'node:test';
import { runChild } from '../../support/child.ts';
import { startDevDomain } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { needs, part } from '../parts.ts';
import { runPython, startPython } from '../peers.ts';
import { startHaproxy } from '../proxies.ts';
import { issueFiles, listen, startInbound, temporaryFolder } from '../stage.ts';

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
  const files = await issueFiles(t, spiffe, WEB);
  const both = join(await temporaryFolder(t), 'both.pem');
  await writeFile(both, (await readFile(files.chain, 'utf8')) + (await readFile(files.key, 'utf8')), { mode: 0o600 });
  // It has no client certificate of its own.
  const port = await startHaproxy(t, { to: side.address, server: `ssl crt ${both} ca-file ${files.authorities} verify required alpn h2` });

  const { stdout } = await runChild([part('h2spec'), '-h', '127.0.0.1', '-p', String(port), '-o', '2'], { withinMs: 500_000 });

  assert.match(stdout, /^145 tests, 145 passed, 0 skipped, 0 failed$/m, stdout.slice(stdout.indexOf('Failures:')));
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
