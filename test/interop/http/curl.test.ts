import assert from 'node:assert/strict';
import { createServer as createHttpServer } from 'node:http';
import { createServer as createHttp2Server } from 'node:http2';
import { test, type TestContext } from 'node:test';
import { type Finished, runChild } from '../../support/child.ts';
import { startDevDomain } from '../../support/dev-domain.ts';
import { needs, part } from '../parts.ts';
import { issueFiles, listen, type PemFiles, refusal, startInbound, startOutbound } from '../stage.ts';

const API = 'spiffe://example.org/api';
const WEB = 'spiffe://example.org/web';

function startDomain(t: TestContext) {
  return startDevDomain(t, {
    name: 'example.org',
    intermediates: 1,
    workloads: { api: [{ id: API, dnsNames: ['api.example'] }], web: [WEB] },
  });
}

/** The request has the server's DNS name, which its SVID has too. */
function curl(port: number, files: PemFiles, ...more: readonly string[]): Promise<Finished> {
  const identity = ['--cert', files.chain, '--key', files.key, '--cacert', files.authorities];
  const where = ['--connect-to', `api.example:443:127.0.0.1:${port}`, 'https://api.example/hello'];
  return runChild([part('curl'), '--silent', '--show-error', '--max-time', '20', ...identity, ...more, ...where], { env: {} });
}

test('curl with an SVID that is allowed gets its answer', needs('curl'), async (t) => {
  const spiffe = await startDomain(t);
  const to = await listen(
    t,
    createHttpServer((request, response) => response.end(`served ${request.url}`)),
  );
  const { port } = await startInbound(t, { endpoint: spiffe.endpoint('api'), to, allow: [WEB] });

  const { code, stdout, stderr } = await curl(port, await issueFiles(t, spiffe, WEB));

  assert.deepEqual({ code, stdout, stderr }, { code: 0, stdout: 'served /hello', stderr: '' });
});

test('curl speaks HTTP/2 through a listener with alpn: [h2]', needs('curl'), async (t) => {
  const spiffe = await startDomain(t);
  const to = await listen(
    t,
    createHttp2Server((request, response) => response.end(`served ${request.httpVersion}`)),
  );
  const { port } = await startInbound(t, { endpoint: spiffe.endpoint('api'), to, allow: [WEB], alpn: ['h2'] });

  const { code, stdout } = await curl(port, await issueFiles(t, spiffe, WEB), '--http2', '--write-out', ' %{http_version}');

  assert.deepEqual({ code, stdout }, { code: 0, stdout: 'served 2.0 2' });
});

test('curl with an SVID that is not allowed gets nothing', needs('curl'), async (t) => {
  const spiffe = await startDomain(t);
  let requests = 0;
  const to = await listen(
    t,
    createHttpServer((_, response) => response.end(String((requests += 1)))),
  );
  const { scute, port } = await startInbound(t, { endpoint: spiffe.endpoint('api'), to, allow: [WEB] });

  const { code, stdout } = await curl(port, await issueFiles(t, spiffe, 'spiffe://example.org/other'));

  assert.notEqual(code, 0);
  assert.equal(stdout, '');
  await refusal(scute, 'not_allowed');
  assert.equal(requests, 0);
});

test('curl in plain HTTP reaches a server through an outbound listener', needs('curl'), async (t) => {
  const spiffe = await startDomain(t);
  const to = await listen(
    t,
    createHttpServer((_, response) => response.end('served')),
  );
  const inbound = await startInbound(t, { endpoint: spiffe.endpoint('api'), to, allow: [WEB] });
  const outbound = await startOutbound(t, { endpoint: spiffe.endpoint('web'), to: inbound.address, expect: [API] });

  const { code, stdout } = await runChild([part('curl'), '--silent', '--max-time', '20', `http://${outbound.address}/`], { env: {} });

  assert.deepEqual({ code, stdout }, { code: 0, stdout: 'served' });
});

test(
  'curl that takes an outbound listener for its proxy, or checks health in HTTP/1.0 without Host, is served',
  needs('curl'),
  async (t) => {
    const spiffe = await startDomain(t);
    const to = await listen(
      t,
      createHttpServer((request, response) =>
        response.end([request.method, request.url, request.headers.host, 'proxy-connection' in request.headers].join(' ')),
      ),
    );
    const inbound = await startInbound(t, { endpoint: spiffe.endpoint('api'), to, allow: [WEB], listener: { protocol: 'http' } });
    const outbound = await startOutbound(t, {
      endpoint: spiffe.endpoint('web'),
      to: inbound.address,
      expect: [API],
      listener: { protocol: 'http' },
    });
    const ask = async (...argv: readonly string[]): Promise<string> =>
      (await runChild([part('curl'), '--silent', '--show-error', '--max-time', '20', ...argv], { env: {} })).stdout;

    const through = ['--proxy', `http://${outbound.address}`, 'http://api.example:80/hello?a'];
    assert.equal(await ask(...through), 'GET /hello?a api.example false');
    assert.equal(await ask('--http1.0', '--header', 'Host:', `http://${outbound.address}/health`), 'GET /health  false');
    // With a body, and over one connection twice.
    assert.equal(await ask('--data', 'x', ...through, through[2] ?? ''), 'POST /hello?a api.example false'.repeat(2));
  },
);
