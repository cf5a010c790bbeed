import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { test, type TestContext } from 'node:test';
import { createExposureWatch } from '../../src/admin/checks/exposure.ts';
import type { Address } from '../../src/config/units.ts';
import { createAdminParts, startService } from '../support/admin/admin.ts';
import { eventually } from '../support/eventually.ts';
import { ask } from '../support/http/http.ts';

const isLinux = process.platform === 'linux';
const WEB = { name: 'web', direction: 'inbound' } as const;

test(
  'an application that listens on all interfaces is warned of, counted and shown, without blocking readiness',
  { skip: !isLinux },
  async (t) => {
    const parts = await createAdminParts();
    const port = await listen(t, '0.0.0.0');
    const exposure = await watch(t, parts, port);
    parts.readiness.register('identity', () => ({ ok: true }));
    parts.readiness.register('application_exposure', exposure.check, { blocks: false });
    const address = await startService(t, parts.metricsServer());

    const verbose = await ask(address, '/readyz?verbose');
    assert.equal(verbose.status, 200);
    assert.ok(
      verbose.body.includes(`[!]application_exposure warning: can be reached around Scute: web at 0.0.0.0:${port}\n`),
      verbose.body,
    );
    assert.match((await ask(address, '/metrics')).body, /^scute_application_exposed\{listener="web"\} 1$/m);
    assert.match(
      parts.lines.join(''),
      /"level":"warn".*"listener":"web","addresses":\["0\.0\.0\.0:\d+"\],"message":"the application can be reached around Scute"/,
    );
  },
);

test('an application on IPv6 for everybody is seen too', { skip: !isLinux }, async (t) => {
  const parts = await createAdminParts();
  const port = await listen(t, '::');

  const exposure = await watch(t, parts, port);

  assert.deepEqual(exposure.exposed().get('web'), [`[::]:${port}`]);
});

test('an application on loopback alone is as it should be', { skip: !isLinux }, async (t) => {
  const parts = await createAdminParts();
  const port = await listen(t, '127.0.0.1');

  const exposure = await watch(t, parts, port);

  assert.deepEqual(exposure.check(), { ok: true });
  assert.match((await parts.metrics.render()).body, /^scute_application_exposed\{listener="web"\} 0$/m);
});

test('an own listener on the same port of another address is not a way around', { skip: !isLinux }, async (t) => {
  const parts = await createAdminParts();
  const port = await listen(t, '0.0.0.0');

  const exposure = await watch(t, parts, port, [{ kind: 'tcp', host: '0.0.0.0', port }]);

  assert.deepEqual(exposure.check(), { ok: true });
});

test('the warning goes when the application moves to loopback', { skip: !isLinux }, async (t) => {
  const parts = await createAdminParts();
  const application = createServer().listen(0, '0.0.0.0');
  await once(application, 'listening');
  const exposure = await watch(t, parts, (application.address() as AddressInfo).port);
  assert.equal(exposure.check().ok, false);

  application.close();
  await once(application, 'close');
  parts.clock.advance(30_000);

  await eventually(() => assert.deepEqual(exposure.check(), { ok: true }));
});

async function listen(t: TestContext, host: string): Promise<number> {
  const server = createServer().listen(0, host);
  t.after(() => server.close());
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

async function watch(t: TestContext, parts: Awaited<ReturnType<typeof createAdminParts>>, port: number, own: readonly Address[] = []) {
  const { clock, events } = parts;
  const exposure = createExposureWatch({
    applications: [{ listener: WEB, to: { kind: 'tcp', host: '127.0.0.1', port } }],
    ownAddresses: () => own,
    events,
    clock,
  });
  t.after(() => exposure.stop(AbortSignal.abort()));
  await exposure.start(new AbortController().signal);
  const { armed } = clock;
  clock.advance(1000);
  // It has looked when it waits again.
  await eventually(() => assert.equal(clock.armed, armed));
  return exposure;
}
