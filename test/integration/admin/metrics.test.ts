import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createMetricsServer } from '../../../src/admin/metrics-server.ts';
import type { Metrics } from '../../../src/telemetry/metrics/metrics.ts';
import { createAdminParts, LOOPBACK, startService } from '../../support/admin/admin.ts';
import { ask } from '../../support/http/http.ts';

test('metrics are served in the Prometheus text format, also to many who ask at once', async (t) => {
  const { metricsServer, events } = await createAdminParts();
  events.registerListener({ name: 'web', direction: 'inbound' }).opened = 3;
  const address = await startService(t, metricsServer());

  const answers = await Promise.all(Array.from({ length: 20 }, () => ask(address, '/metrics')));

  for (const { status, headers, body } of answers) {
    assert.equal(status, 200);
    assert.equal(headers['content-type'], 'text/plain; version=0.0.4; charset=utf-8');
    assert.match(body, /^scute_build_info\{version="1\.2\.3",nodejs="\d+\.\d+\.\d+",openssl="[^"]+"\} 1$/m);
    assert.match(body, /^scute_tcp_open_total\{direction="inbound",listener="web",peer="src"\} 3$/m);
  }
});

test('HEAD has the headers of GET and no body', async (t) => {
  const { metricsServer } = await createAdminParts();
  const address = await startService(t, metricsServer());

  const { status, headers, body } = await ask(address, '/livez', { method: 'HEAD' });

  assert.equal(status, 200);
  assert.equal(headers['content-length'], '3');
  assert.equal(body, '');
});

test('metrics cannot be changed from outside', async (t) => {
  const { metricsServer } = await createAdminParts();
  const address = await startService(t, metricsServer());

  for (const method of ['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS']) {
    const { status, headers } = await ask(address, '/metrics', { method, headers: [['content-type', 'application/json']] });
    assert.equal(status, 405, method);
    assert.equal(headers['allow'], 'GET, HEAD', method);
  }
});

test('a scraper may use a name only if it is allowed', async (t) => {
  const { metricsServer } = await createAdminParts();
  const address = await startService(t, metricsServer({ ...LOOPBACK, allowedHosts: ['pod.example'] }));

  assert.equal((await ask(address, '/metrics', { headers: [['host', 'pod.example:9090']] })).status, 200);
  assert.equal((await ask(address, '/metrics', { headers: [['host', 'other.example:9090']] })).status, 421);
});

test('a stop lets a scrape under way finish, and then nobody is answered', async (t) => {
  const { metrics, readiness, events, clock } = await createAdminParts();
  const asked = Promise.withResolvers<void>();
  const release = Promise.withResolvers<void>();
  const render: Metrics['render'] = async () => {
    asked.resolve();
    await release.promise;
    return metrics.render();
  };
  const server = createMetricsServer({ config: { ...LOOPBACK, probes: [] }, metrics: { ...metrics, render }, readiness, events, clock });
  const address = await startService(t, server);
  const scrape = ask(address, '/metrics');
  await asked.promise;

  const stopped = server.stop(AbortSignal.timeout(60_000));
  await assert.rejects(ask(address, '/livez'), { code: 'ECONNREFUSED' });
  release.resolve();

  const { status, headers } = await scrape;
  assert.equal(status, 200);
  assert.equal(headers['connection'], 'close');
  await stopped;
});

test('a stop whose deadline is over drops a scrape that hangs', async (t) => {
  const { metrics, readiness, events, clock } = await createAdminParts();
  const asked = Promise.withResolvers<void>();
  const render: Metrics['render'] = () => {
    asked.resolve();
    return new Promise(() => undefined);
  };
  const server = createMetricsServer({ config: { ...LOOPBACK, probes: [] }, metrics: { ...metrics, render }, readiness, events, clock });
  const address = await startService(t, server);
  const scrape = assert.rejects(ask(address, '/metrics'));
  await asked.promise;

  await server.stop(AbortSignal.abort());

  await scrape;
});
