import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { StatusRefusal } from '../../../src/telemetry/log/records.ts';
import { createAdminParts, startService } from '../../support/admin/admin.ts';
import { assertSchema } from '../../support/admin/api.ts';
import { ask, type AskOptions } from '../../support/http/http.ts';

const PATH = '/api/v1/overview';
const JSON_TYPE = ['content-type', 'application/json'] as const;

async function startAdmin(t: Parameters<typeof startService>[0]) {
  const parts = await createAdminParts();
  const address = await startService(t, parts.adminServer());
  return {
    ...parts,
    /** Asks, and fails unless it was refused for this, in JSON, counted once. */
    refused: async (reason: StatusRefusal, status: number, path: string, options: AskOptions = {}) => {
      const before = parts.metrics.statusRefusals.admin[reason];
      const answer = await ask(address, path, options);
      assert.equal(answer.status, status, path);
      if (options.method !== 'HEAD') {
        assertSchema('Problem', JSON.parse(answer.body));
        assert.equal((JSON.parse(answer.body) as { error: string }).error, reason);
      }
      assert.equal(parts.metrics.statusRefusals.admin[reason], before + 1, path);
      return answer;
    },
    ask: (path: string, options: AskOptions = {}) => ask(address, path, options),
  };
}

test('a page of another origin or site does not read the API, by whichever header a browser says so', async (t) => {
  const { refused, ask: get } = await startAdmin(t);

  for (const origin of [
    'http://attacker.example',
    'null',
    'https://localhost',
    'http://localhost:1',
    'http://localhost.attacker.example',
    '',
  ])
    await refused('foreign_origin', 403, PATH, { headers: [['origin', origin]] });
  for (const site of ['cross-site', 'same-site', 'anything', 'none, cross-site'])
    await refused('cross_site', 403, PATH, { headers: [['sec-fetch-site', site]] });
  await refused('cross_site', 403, PATH, {
    headers: [
      ['sec-fetch-site', 'none'],
      ['sec-fetch-site', 'cross-site'],
    ],
  });
  await refused('foreign_host', 421, PATH, { headers: [['host', 'attacker.example']] });
  await refused('bad_request', 400, PATH, { withoutHost: true });
  // What is not there is not told to them either.
  await refused('foreign_origin', 403, '/api/v1/nothing', { headers: [['origin', 'http://attacker.example']] });

  for (const headers of [[], [['origin', 'http://localhost']], [['sec-fetch-site', 'same-origin']], [['sec-fetch-site', 'none']]])
    assert.equal((await get(PATH, { headers: headers as [string, string][] })).status, 200, JSON.stringify(headers));
});

test('the API is for reading alone, and each path is one resource or nothing', async (t) => {
  const { refused, ask: get } = await startAdmin(t);

  for (const method of ['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS']) {
    const { headers } = await refused('bad_method', 405, PATH, { method, headers: [JSON_TYPE] });
    assert.equal(headers['allow'], 'GET, HEAD');
  }
  for (const path of [
    '/api/v1/../../config_dump',
    '/api/v1/%2e%2e/config_dump',
    '/api/v1/overview/',
    '/api/v1//overview',
    '/api/v1/__proto__',
    '/api/v1',
    '/api/',
    '/api/v2/overview',
    '/api/v1/certificates%3Fkind=svid',
  ])
    await refused('not_found', 404, path);
  const head = await get(PATH, { method: 'HEAD' });
  assert.deepEqual([head.status, head.body], [200, '']);
});

test('a parameter that is not known, comes twice or means nothing is refused instead of being passed over', async (t) => {
  const { refused } = await startAdmin(t);

  for (const query of [
    'certificates?kinds=svid',
    'certificates?kind=key',
    'certificates?kind=svid&kind=peer',
    'certificates?expiringIn=5',
    'certificates?expiringIn=',
    'certificates?limit=0',
    'certificates?limit=501',
    'certificates?limit=1e2',
    'certificates?limit=-1',
    'certificates?cursor=',
    'certificates?cursor=connection.5',
    'certificates?cursor=svid.99999999999999999999',
    'certificates?kind=peer&cursor=svid.1',
    'connections?kind=svid',
    'overview?limit=5',
    'sds?cursor=../../etc/passwd',
  ])
    await refused('bad_request', 400, `/api/v1/${query}`);
});

test('answers of the API are not stored, sniffed, framed or run', async (t) => {
  const { ask: get } = await startAdmin(t);

  for (const path of [PATH, '/api/v1/nothing', '/api/v1/certificates?limit=x']) {
    const { headers, body } = await get(path);
    assert.equal(headers['content-type'], 'application/json', path);
    assert.equal(headers['cache-control'], 'no-store', path);
    assert.equal(headers['x-content-type-options'], 'nosniff', path);
    assert.equal(headers['content-security-policy'], "default-src 'none'; frame-ancestors 'none'", path);
    assert.equal(headers['cross-origin-resource-policy'], 'same-origin', path);
    assert.equal(headers['access-control-allow-origin'], undefined, path);
    assert.ok(body.endsWith('\n'), path);
  }
});

test('a refusal quotes what was wrong as text, and is one line of the log in five seconds', async (t) => {
  const { refused, lines, clock } = await startAdmin(t);
  const before = lines.length;

  for (let asked = 0; asked < 3; asked++) {
    const { body } = await refused('bad_request', 400, '/api/v1/overview?%3Cscript%3E%E2%80%AE=1');
    assert.ok(!body.includes('<'), body);
    assert.match((JSON.parse(body) as { detail: string }).detail, /<script>/);
  }
  clock.advance(5000);

  const told = lines.slice(before).map((line) => JSON.parse(line) as Record<string, unknown>);
  assert.deepEqual(
    told.map(({ message, listener, reason, count }) => [message, listener, reason, count]),
    [
      ['status request refused', 'admin', 'bad_request', 1],
      ['status request refused', 'admin', 'bad_request', 2],
    ],
  );
  assert.ok(!lines.join('').includes('\u202e'));
});

test('probes and the rest of the admin listener may be asked from anywhere, as before', async (t) => {
  const { ask: get } = await startAdmin(t);

  for (const path of ['/livez', '/readyz?verbose', '/metrics', '/config_dump'])
    assert.notEqual((await get(path, { headers: [['origin', 'http://attacker.example']] })).status, 403, path);
});

test('the API is not on the metrics listener', async (t) => {
  const { metricsServer, metrics } = await createAdminParts();
  const address = await startService(t, metricsServer());

  assert.equal((await ask(address, '/api/v1/')).status, 404);
  assert.equal((await ask(address, PATH)).status, 404);
  assert.equal(metrics.statusRefusals.metrics.not_found, 2);
});
