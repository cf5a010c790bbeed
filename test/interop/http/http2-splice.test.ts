import assert from 'node:assert/strict';
import { createServer } from 'node:http2';
import { test } from 'node:test';
import { startDevDomain } from '../../support/dev-domain.ts';
import { needs } from '../parts.ts';
import { listen, startInbound } from '../stage.ts';
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
