import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { join } from 'node:path';
import { test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { eventually } from '../../support/eventually.ts';
import { createTestAuthority } from '../../support/pki/pki.ts';
import { useScute } from '../../support/scute-process.ts';
import { FakeWorkloadApi, svidEntry } from '../../support/workload-api.ts';
import { startListeners, visit } from './stage.ts';
import { needs } from '../parts.ts';
import { temporaryFolder } from '../stage.ts';

const WEB = 'spiffe://example.org/web';
const API = 'spiffe://example.org/api';

test(
  'no agent, no permission, an SVID that expires meanwhile, an Envoy that stands still: it goes on with what it has, and then has the newest',
  needs('envoy'),
  async (t) => {
    const own = createTestAuthority({ trustDomain: 'example.org' });
    const agent = await FakeWorkloadApi.start();
    t.after(() => agent[Symbol.asyncDispose]());
    /** Gives out another SVID, and its serial number. */
    const issue = (lifetimeMs = 3_600_000): string => {
      const leaf = own.issue({ id: API, notAfter: Date.now() + lifetimeMs });
      agent.setX509([svidEntry(own, leaf, API)]);
      agent.setBundles({ 'spiffe://example.org': own.der });
      return new X509Certificate(leaf.chainDer).serialNumber;
    };
    let newest = issue();
    const path = join(await temporaryFolder(t), 'sds.sock');
    const scute = await useScute(t, { config: { workloadApi: { endpoint: agent.endpoint }, sds: { listen: `unix://${path}` } } });
    await scute.ready('sds');
    const sides = (['GRPC', 'DELTA_GRPC'] as const).map((protocol) => ({ certificate: 'default', trust: 'ROOTCA', protocol }));
    const { envoy, ports } = await startListeners(t, { path }, sides);
    const web = own.issue({ id: WEB });
    const assertShown = async (serial: string): Promise<void> => {
      for (const { reply, certificate } of await Promise.all(ports.map((port) => visit(port, web))))
        assert.deepEqual([reply, certificate?.serialNumber], ['HELLO', serial]);
    };
    const eventuallyShown = (serial: string): Promise<void> => eventually(() => assertShown(serial));
    await assertShown(newest);

    await agent.stop();
    await scute.logged(({ message }) => message === 'Workload API stream failed');
    await assertShown(newest);
    newest = issue();
    await agent.listen();
    await eventuallyShown(newest);

    agent.failWith('FetchX509SVID', status.PERMISSION_DENIED);
    await scute.logged(({ message, reason }) => message === 'a secret that was sent is withdrawn' && reason === 'not_held');
    await assertShown(newest);
    newest = issue(3000);
    await eventuallyShown(newest);

    await agent.stop();
    await scute.logged(({ message, reason }) => message === 'a secret that was sent is withdrawn' && reason === 'not_valid');
    await assertShown(newest);
    newest = issue();
    await agent.listen();
    await eventuallyShown(newest);

    envoy.signal('SIGSTOP');
    for (let rotation = 0; rotation < 5; rotation += 1) {
      const pushed = scute.log().filter(({ message }) => message === 'secrets pushed').length;
      newest = issue();
      await eventually(() => assert.ok(scute.log().filter(({ message }) => message === 'secrets pushed').length > pushed));
    }
    envoy.signal('SIGCONT');
    await eventuallyShown(newest);
    assert.equal(await envoy.stat(/update_rejected|update_failure/), 0);
  },
);
