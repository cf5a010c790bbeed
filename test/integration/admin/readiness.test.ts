import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CheckResult } from '../../../src/admin/checks/readiness.ts';
import { createAdminParts, startService } from '../../support/admin/admin.ts';
import { ask } from '../../support/http/http.ts';

test('a process is alive as soon as its status listener is up, and ready only when every check holds', async (t) => {
  const { metricsServer, readiness } = await createAdminParts();
  let listening: CheckResult = { ok: false, detail: 'web is not bound' };
  readiness.register('identity', () => ({ ok: true }));
  readiness.register('listeners', () => listening);
  const address = await startService(t, metricsServer());

  assert.deepEqual(await statusAndBody(address, '/livez'), [200, 'ok\n']);
  assert.deepEqual(await statusAndBody(address, '/readyz'), [503, 'not ready: listeners\n']);

  listening = { ok: true };
  assert.deepEqual(await statusAndBody(address, '/readyz'), [200, 'ok\n']);
});

test('readiness turns false again when an identity expires, and true when it is renewed', async (t) => {
  const { metricsServer, readiness, clock } = await createAdminParts();
  let notAfterMs = clock.now() + 60_000;
  readiness.register('identity_valid', () => (clock.now() < notAfterMs ? { ok: true } : { ok: false, detail: 'the SVID has expired' }));
  const address = await startService(t, metricsServer());
  assert.equal((await ask(address, '/readyz')).status, 200);

  clock.jump(120_000);
  assert.deepEqual(await statusAndBody(address, '/readyz'), [503, 'not ready: identity_valid\n']);

  notAfterMs = clock.now() + 60_000;
  assert.equal((await ask(address, '/readyz')).status, 200);
});

test('once stopping, never ready again, but alive', async (t) => {
  const { metricsServer, readiness } = await createAdminParts();
  readiness.register('identity', () => ({ ok: true }));
  const address = await startService(t, metricsServer());

  readiness.stopping();

  assert.deepEqual(await statusAndBody(address, '/readyz'), [503, 'not ready: not_stopping\n']);
  assert.equal((await ask(address, '/livez')).status, 200);
});

test('verbose readiness has a line a check, and one that only informs does not block', async (t) => {
  const { metricsServer, readiness } = await createAdminParts();
  let identity: CheckResult = { ok: true, detail: 'spiffe://example.org/web' };
  readiness.register('identity', () => identity);
  readiness.register('application_exposure', () => ({ ok: false, detail: 'web at 0.0.0.0:8080' }), { blocks: false });
  const address = await startService(t, metricsServer());

  assert.deepEqual(await statusAndBody(address, '/readyz?verbose'), [
    200,
    '[+]identity ok: spiffe://example.org/web\n[!]application_exposure warning: web at 0.0.0.0:8080\n[+]not_stopping ok\nreadyz check passed\n',
  ]);

  identity = { ok: false, detail: 'no answer yet' };
  assert.deepEqual(await statusAndBody(address, '/readyz?verbose=1'), [
    503,
    '[-]identity failed: no answer yet\n[!]application_exposure warning: web at 0.0.0.0:8080\n[+]not_stopping ok\nreadyz check failed\n',
  ]);
});

test('both listeners and the metric say the same', async (t) => {
  const { metricsServer, adminServer, readiness, metrics } = await createAdminParts();
  readiness.register('identity', () => ({ ok: false, detail: 'none' }));
  metrics.setReadinessSource(() => readiness.evaluate().checks);
  const probes = await startService(t, metricsServer());
  const admin = await startService(t, adminServer());

  assert.equal((await ask(probes, '/readyz')).status, 503);
  assert.equal((await ask(admin, '/readyz')).status, 503);
  assert.match((await ask(probes, '/metrics')).body, /^scute_ready\{check="identity",blocks="true"\} 0$/m);
  assert.match((await ask(probes, '/metrics')).body, /^scute_ready\{check="not_stopping",blocks="true"\} 1$/m);
});

async function statusAndBody(...[address, path]: Parameters<typeof ask>): Promise<readonly [number, string]> {
  const { status, body } = await ask(address, path);
  return [status, body];
}
