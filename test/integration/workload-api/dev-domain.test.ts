import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { devConfigSchema } from '../../../src/devdomain/config.ts';
import { createDevDomain } from '../../../src/devdomain/dev-domain.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { eventually } from '../../support/eventually.ts';
import { startSource } from '../../support/source-harness.ts';

test('the source follows the embedded trust domain: SVIDs, rotation, new roots, federation, withdrawal and return', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'scute-dev-'));
  const config = devConfigSchema.parse({
    trustDomains: [
      {
        name: 'example.org',
        intermediates: 1,
        bundlesWithoutIdentity: true,
        workloads: [
          {
            name: 'web',
            socket: join(folder, 'web.sock'),
            ids: [{ id: 'spiffe://example.org/web', hint: 'front' }, 'spiffe://example.org/batch'],
          },
        ],
      },
      { name: 'partner.test' },
    ],
  });
  const domain = createDevDomain(config, { clock: systemClock, onFailure: (failure) => assert.fail(String(failure)) });
  await domain.start(t.signal);
  t.after(async () => {
    await domain.stop(AbortSignal.abort());
    await rm(folder, { recursive: true, force: true });
  });
  const source = await startSource(t, domain.endpoint('web'));

  const first = await source.held('spiffe://example.org/web');
  assert.equal(first.svids.length, 2);
  assert.equal(first.svids[0].hint, 'front');
  assert.equal(first.svids[0].chain.length, 2);

  await domain.rotate('example.org');
  await eventually(() => assert.ok((source.view.current()?.generation ?? 0) > first.generation));
  assert.notEqual((await source.held()).svids[0].chain[0]?.serial, first.svids[0].chain[0]?.serial);

  await domain.rotateRoot('example.org');
  await eventually(() =>
    assert.deepEqual(
      [...(source.view.current()?.bundles.values() ?? [])].map((bundle) => bundle.authorities.length),
      [2],
    ),
  );
  await domain.setFederation('example.org', ['partner.test']);
  await eventually(() => assert.equal(source.view.current()?.bundles.size, 2));

  await domain.withdraw('web');
  await source.none();
  await domain.restore('web');
  await source.held('spiffe://example.org/web');
  assert.deepEqual(source.rejected, []);
});
