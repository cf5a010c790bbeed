import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer as createHttpServer } from 'node:http';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { startDevDomain } from '../support/dev-domain.ts';
import { needs } from './parts.ts';
import { startHaproxy, startNginx } from './proxies.ts';
import { exchange, issueFiles, listen, refusal, startEcho, startInbound, startOutbound, temporaryFolder } from './stage.ts';

// HAProxy and nginx know certificates, not SPIFFE: they present an SVID and check the chain of ours.
const WEB = 'spiffe://example.org/web';
const API = 'spiffe://example.org/api';
const OTHER = 'spiffe://example.org/other';

function startDomain(t: TestContext) {
  return startDevDomain(t, {
    name: 'example.org',
    intermediates: 1,
    workloads: { web: [WEB], api: [{ id: API, dnsNames: ['api.example'] }] },
  });
}

/** `crt FILE ca-file FILE verify required`, the SVID of `id` and its key in one file. */
async function haproxyTls(t: TestContext, spiffe: Awaited<ReturnType<typeof startDomain>>, id: string): Promise<string> {
  const { chain, key, authorities } = await issueFiles(t, spiffe, id);
  const both = join(await temporaryFolder(t), 'both.pem');
  await writeFile(both, (await readFile(chain, 'utf8')) + (await readFile(key, 'utf8')), { mode: 0o600 });
  return `ssl crt ${both} ca-file ${authorities} verify required`;
}

test('HAProxy as an mTLS client reaches the application', needs('haproxy'), async (t) => {
  const spiffe = await startDomain(t);
  const echo = await startEcho(t);
  const { address } = await startInbound(t, { endpoint: spiffe.endpoint('api'), to: echo.address, allow: [WEB] });
  const port = await startHaproxy(t, { to: address, server: await haproxyTls(t, spiffe, WEB) });

  assert.equal(await exchange(port, 'hello'), 'HELLO');
});

test('HAProxy with another SPIFFE ID is refused', needs('haproxy'), async (t) => {
  const spiffe = await startDomain(t);
  const echo = await startEcho(t);
  const { scute, address } = await startInbound(t, { endpoint: spiffe.endpoint('api'), to: echo.address, allow: [WEB] });
  const port = await startHaproxy(t, { to: address, server: await haproxyTls(t, spiffe, OTHER) });

  assert.equal(await exchange(port, 'hello'), '');
  await refusal(scute, 'not_allowed');
  assert.equal(echo.connections(), 0);
});

test('an application reaches a server behind HAProxy', needs('haproxy'), async (t) => {
  const spiffe = await startDomain(t);
  const echo = await startEcho(t);
  const port = await startHaproxy(t, { to: echo.address, bind: await haproxyTls(t, spiffe, API) });
  const outbound = await startOutbound(t, { endpoint: spiffe.endpoint('web'), to: `127.0.0.1:${port}`, expect: [API] });

  assert.equal(await exchange(outbound.port, 'hello'), 'HELLO');
});

test('nginx as an mTLS client reaches a web application', needs('nginx'), async (t) => {
  const spiffe = await startDomain(t);
  const to = await listen(
    t,
    createHttpServer((request, response) => response.end(`served ${request.url}`)),
  );
  const { address } = await startInbound(t, { endpoint: spiffe.endpoint('api'), to, allow: [WEB] });
  const { chain, key, authorities } = await issueFiles(t, spiffe, WEB);
  const port = await startNginx(t, (own) => [
    `listen 127.0.0.1:${own};`,
    `proxy_ssl_certificate ${chain};`,
    `proxy_ssl_certificate_key ${key};`,
    `proxy_ssl_trusted_certificate ${authorities};`,
    'proxy_ssl_verify on;',
    'proxy_ssl_verify_depth 5;',
    // It checks the DNS name, which this SVID has too.
    'proxy_ssl_name api.example;',
    'proxy_ssl_server_name on;',
    'proxy_ssl_protocols TLSv1.2 TLSv1.3;',
    `location / { proxy_pass https://${address}; }`,
  ]);

  const response = await fetch(`http://127.0.0.1:${port}/hello`, { headers: { connection: 'close' } });

  assert.equal(await response.text(), 'served /hello');
});

test('an application reaches nginx that asks for certificates', needs('nginx'), async (t) => {
  const spiffe = await startDomain(t);
  const { chain, key, authorities } = await issueFiles(t, spiffe, API);
  const port = await startNginx(t, (own) => [
    `listen 127.0.0.1:${own} ssl;`,
    `ssl_certificate ${chain};`,
    `ssl_certificate_key ${key};`,
    `ssl_client_certificate ${authorities};`,
    'ssl_verify_client on;',
    'ssl_protocols TLSv1.2 TLSv1.3;',
    'ssl_verify_depth 5;',
    'return 200 "served $ssl_client_verify $ssl_protocol";',
  ]);
  const outbound = await startOutbound(t, { endpoint: spiffe.endpoint('web'), to: `127.0.0.1:${port}`, expect: [API] });

  const response = await fetch(`http://${outbound.address}/`, { headers: { connection: 'close' } });

  assert.equal(await response.text(), 'served SUCCESS TLSv1.3');
});
