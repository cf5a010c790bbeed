import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { runChild } from '../../support/child.ts';
import { startDevDomain } from '../../support/dev-domain.ts';
import { needs, part } from '../parts.ts';
import { runGo } from '../peers.ts';
import { issueFiles, listen, refusal, startInbound } from '../stage.ts';
import { runH2spec } from './h2spec.ts';

const API = 'spiffe://example.org/api';
const WEB = 'spiffe://example.org/web';
const OTHER = 'spiffe://example.org/other';

/** Scute with `protocol: http` before an application of HTTP/1.1 that answers with what it read, in upper case. */
async function start(t: TestContext, listener: object = {}) {
  const spiffe = await startDevDomain(t, {
    name: 'example.org',
    intermediates: 1,
    workloads: { api: [{ id: API, dnsNames: ['api.example'] }], web: [WEB], other: [OTHER] },
  });
  const seen: string[] = [];
  const to = await listen(
    t,
    createServer((request, response) => {
      let body = '';
      seen.push(`${request.httpVersion} ${request.method} ${request.url} ${String(request.headers['x-forwarded-client-cert'])}`);
      request.on('data', (chunk: Buffer) => (body += chunk.toString('latin1').toUpperCase()));
      request.on('error', () => undefined);
      request.on('end', () => response.end(body === '' ? 'nothing was sent, and this is all there is to say' : body));
    }),
  );
  const side = await startInbound(t, {
    endpoint: spiffe.endpoint('api'),
    to,
    allow: [WEB],
    alpn: ['h2', 'http/1.1'],
    listener: { protocol: 'http', ...listener },
    // Of some connections it leaves only its own side, and those have 5 seconds.
    file: { drainTimeout: '10s' },
  });
  return { spiffe, side, seen };
}

test('curl chooses HTTP/2, and the application gets HTTP/1.1 with who asks', needs('curl'), async (t) => {
  const { spiffe, side, seen } = await start(t);
  const files = await issueFiles(t, spiffe, WEB);
  const identity = ['--cert', files.chain, '--key', files.key, '--cacert', files.authorities];
  const where = ['--connect-to', `api.example:443:127.0.0.1:${side.port}`];
  const curl = [
    part('curl'),
    '--silent',
    '--show-error',
    '--max-time',
    '20',
    ...identity,
    ...where,
    '--write-out',
    ' %{http_version}',
  ] as const;

  const get = await runChild([...curl, 'https://api.example/hello'], { env: {} });
  // Two requests over one connection.
  const post = await runChild(
    [
      ...curl,
      '--data',
      'hello',
      'https://api.example/a',
      '--next',
      ...curl.slice(1),
      '-T',
      join(import.meta.dirname, '../stage.ts'),
      'https://api.example/b',
    ],
    { env: {} },
  );
  const old = await runChild([...curl, '--http1.1', 'https://api.example/hello'], { env: {} });

  assert.deepEqual([get.code, get.stdout], [0, 'nothing was sent, and this is all there is to say 2']);
  assert.deepEqual([post.code, post.stdout.slice(0, 7)], [0, 'HELLO 2']);
  assert.equal(post.stdout.slice(7), `${(await readFile(join(import.meta.dirname, '../stage.ts'), 'latin1')).toUpperCase()} 2`);
  assert.match(old.stdout, / 1\.1$/);
  assert.ok(
    seen.every((line) => line.startsWith('1.1 ') && line.includes(`;URI=${WEB}`)),
    seen.join('\n'),
  );
});

test("Go's net/http over HTTP/2 is answered, or told that it is not allowed", needs('go-spiffe'), async (t) => {
  const { spiffe, side, seen } = await start(t);
  const ask = (workload: string) =>
    runGo('client', '-socket', spiffe.endpoint(workload), '-address', side.address, '-peer', API, '-protocol', 'h2');

  const allowed = await ask('web');
  const refused = await ask('other');

  assert.deepEqual([allowed['reply'], allowed['httpVersion'], allowed['alpn']], ['HELLO', 'HTTP/2.0', 'h2']);
  assert.equal(refused['error'], 'status 403');
  await refusal(side.scute, 'not_allowed');
  assert.equal(seen.length, 1);
});

/** Where Node 26.10 by itself differs from what h2spec, which is older than RFC 9113, expects. */
const KNOWN = [
  // Frames for streams that are closed are ignored, which section 5.1 allows.
  'closed: Sends a DATA frame after sending RST_STREAM frame',
  'closed: Sends a HEADERS frame after sending RST_STREAM frame',
  'closed: Sends a DATA frame',
  'closed: Sends a HEADERS frame',
  'Sends stream identifier that is numerically smaller than previous',
  // There are no priorities any more.
  'Sends PRIORITY frame that depend on itself',
  'Sends a PRIORITY frame with 0x0 stream identifier',
  // The connection is closed instead.
  'Sends a PING frame with ACK',
  'Sends multiple WINDOW_UPDATE frames increasing the flow control window to above 2^31-1 on a stream',
];

test('h2spec finds nothing before an application that speaks HTTP/1.1', needs('h2spec', 'haproxy'), async (t) => {
  const { spiffe, side } = await start(t, { alpn: ['h2'] });

  const { sum, failures } = await runH2spec(t, spiffe, WEB, side.address);

  assert.equal(sum, '145 tests, 145 passed, 0 skipped, 0 failed', failures);
});

test('with http-proxy, h2spec finds no more than in Node itself', needs('h2spec', 'haproxy'), async (t) => {
  const { spiffe, side } = await start(t, { alpn: ['h2'], http: { translation: 'http-proxy' } });

  const { sum, failures } = await runH2spec(t, spiffe, WEB, side.address);

  const failed = [...failures.matchAll(/^ +× \d+: (.+)$/gm)].map(([, name = '']) => name);
  assert.match(sum, /^145 tests, /);
  assert.deepEqual(
    failed.filter((name) => !KNOWN.includes(name)),
    [],
    failures,
  );
});
