import assert from 'node:assert/strict';
import { rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import type { IssuedPem } from '../../../src/devdomain/dev-domain.ts';
import { startDevDomain } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { useScute } from '../../support/scute-process.ts';
import { startListeners, visit } from './stage.ts';
import { needs } from '../parts.ts';
import { temporaryFolder } from '../stage.ts';

const WEB = 'spiffe://example.org/web';
const OTHER = 'spiffe://example.org/other';

test(
  'an allow list that changes by a reload is that of each Envoy; an empty one is withheld, and admits nobody to an Envoy that starts then',
  needs('envoy'),
  async (t) => {
    const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { api: ['spiffe://example.org/api'] } });
    const path = join(await temporaryFolder(t), 'sds.sock');
    const configWith = (allow: readonly string[]): object => ({
      workloadApi: { endpoint: spiffe.endpoint('api') },
      sds: { listen: `unix://${path}`, matchers: [{ secret: 'ROOTCA', allow }] },
      log: { level: 'debug' },
    });
    const scute = await useScute(t, { config: configWith([WEB]) });
    await scute.address('sds');
    const file = scute.configFile ?? '';
    const reload = async (allow: readonly string[]): Promise<void> => {
      await writeFile(`${file}.new`, JSON.stringify(configWith(allow)));
      await rename(`${file}.new`, file);
      scute.child.signal('SIGHUP');
    };
    const sides = (['GRPC', 'DELTA_GRPC'] as const).map((protocol) => ({ certificate: 'default', trust: 'ROOTCA', protocol }));
    const { envoy, ports } = await startListeners(t, { path }, sides);
    const [web, other] = [await spiffe.issue(WEB), await spiffe.issue(OTHER)];
    const repliesTo = async (peer: IssuedPem, at = ports): Promise<readonly string[]> =>
      Promise.all(at.map(async (port) => (await visit(port, peer)).reply));
    const assertAdmitted = async (admitted: IssuedPem, refused: IssuedPem): Promise<void> => {
      assert.deepEqual(await repliesTo(admitted), ['HELLO', 'HELLO']);
      assert.deepEqual(await repliesTo(refused), ['', '']);
    };
    await assertAdmitted(web, other);

    await reload([OTHER]);
    await eventually(() => assertAdmitted(other, web));
    await reload([WEB, 'spiffe://example.org/*']);
    await eventually(async () => assert.deepEqual([...(await repliesTo(web)), ...(await repliesTo(other))], Array(4).fill('HELLO')));
    await reload([WEB]);
    await eventually(() => assertAdmitted(web, other));

    // Withheld: an empty list would be everybody to Envoy. One that runs goes on by the last list, whatever else it is told.
    await reload([]);
    await scute.logged((line) => line.message === 'a secret that was sent is withdrawn' && line['reason'] === 'empty_allow_list');
    const serials = async (): Promise<readonly unknown[]> =>
      Promise.all(ports.map(async (port) => (await visit(port, web)).certificate?.serialNumber));
    const before = await serials();
    await spiffe.rotate();
    await eventually(async () => assert.ok((await serials()).every((serial) => !before.includes(serial))));
    await assertAdmitted(web, other);
    const anew = await startListeners(t, { path }, sides, { ready: false });
    assert.deepEqual(await repliesTo(web, anew.ports), ['', '']);

    await reload([OTHER]);
    await eventually(() => assertAdmitted(other, web));
    await eventually(async () => assert.deepEqual(await repliesTo(other, anew.ports), ['HELLO', 'HELLO']));
    assert.equal((await envoy.stat(/update_rejected|update_failure/)) + (await anew.envoy.stat(/update_rejected|update_failure/)), 0);
  },
);
