import assert from 'node:assert/strict';
import { test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { createTestAuthority } from '../../support/pki/pki.ts';
import { startSource } from '../../support/source-harness.ts';
import { FakeWorkloadApi, svidEntry } from '../../support/workload-api.ts';

const authority = createTestAuthority();
const partner = createTestAuthority({ trustDomain: 'partner.test' });
const ID = 'spiffe://example.org/workload';
const entry = svidEntry(authority, authority.issue(), ID);

test('WA-4: PermissionDenied in the middle of a stream withdraws SVIDs and bundles at once', async (t) => {
  await using api = await FakeWorkloadApi.start();
  api.setX509([entry], { 'spiffe://partner.test': partner.der });
  const source = await startSource(t, api.endpoint);
  const { generation } = await source.held();

  api.failWith('FetchX509SVID', status.PERMISSION_DENIED);

  const none = await source.none();
  assert.equal(none.bundles.size, 0);
  assert.equal(none.generation, generation + 1);
  assert.match(none.reason, /no identity/);
});

test('PermissionDenied again and again is one withdrawal, and the SVID comes back when it is given again', async (t) => {
  await using api = await FakeWorkloadApi.start();
  api.setX509([entry]);
  const source = await startSource(t, api.endpoint);
  await source.held();

  api.failWith('FetchX509SVID', status.PERMISSION_DENIED, { times: 3 });
  await source.none();
  await source.held();

  assert.deepEqual(
    source.published.map((snapshot) => snapshot.kind),
    ['held', 'none', 'held'],
  );
});

test('bundles are asked for only while there is no SVID', async (t) => {
  await using api = await FakeWorkloadApi.start();
  api.setBundles({ 'spiffe://example.org': authority.der });
  api.setX509([entry]);
  const source = await startSource(t, api.endpoint);
  await source.held();
  assert.equal(api.callsOf('FetchX509Bundles').length, 0);

  api.failWith('FetchX509SVID', status.PERMISSION_DENIED, { times: 3 });
  await eventually(() => {
    const current = source.view.current();
    assert.ok(current?.kind === 'none' && current.bundles.size === 1);
  });
  await source.held();

  await eventually(() => assert.equal(api.openStreams('FetchX509Bundles'), 0));
  assert.equal(api.callsOf('FetchX509Bundles').length, 1);
});

test('bundles without an SVID follow their stream: added, removed, and refused whole when one is bad', async (t) => {
  await using api = await FakeWorkloadApi.start();
  api.failWith('FetchX509SVID', status.PERMISSION_DENIED);
  api.setBundles({ 'spiffe://example.org': authority.der });
  const source = await startSource(t, api.endpoint);
  const held = (): string[] => [...(source.view.current()?.bundles.keys() ?? [])].toSorted();
  await eventually(() => assert.deepEqual(held(), ['example.org']));

  api.setBundles({ 'spiffe://partner.test': Buffer.from('garbage') });
  await eventually(() => assert.equal(source.rejected.at(-1)?.code, 'bad_authority'));
  assert.deepEqual(held(), ['example.org']);

  api.setBundles({ 'spiffe://partner.test': partner.der });
  await eventually(() => assert.deepEqual(held(), ['partner.test']));

  api.failWith('FetchX509Bundles', status.PERMISSION_DENIED);
  await eventually(() => assert.deepEqual(held(), []));
  assert.ok(source.published.every((snapshot) => snapshot.kind === 'none'));
});

test('an agent without FetchX509Bundles is told of once, asked again rarely, and does not disturb the stream of SVIDs', async (t) => {
  const clock = new FakeClock();
  await using api = await FakeWorkloadApi.start();
  api.failWith('FetchX509SVID', status.PERMISSION_DENIED);
  api.failWith('FetchX509Bundles', status.UNIMPLEMENTED);
  const source = await startSource(t, api.endpoint, clock);
  await eventually(() => assert.equal(source.failures.filter((failure) => failure.code === 'UNIMPLEMENTED').length, 1));

  const denied = (): number[] => source.failures.filter(({ code }) => code === 'PERMISSION_DENIED').map(({ retryInMs }) => retryInMs);
  for (let count = 1; count <= 6; count += 1) {
    await eventually(() => assert.equal(denied().length, count));
    clock.advance(denied().at(-1) ?? 0);
  }

  assert.deepEqual(denied(), [75, 150, 300, 600, 1200, 2400]);
  assert.equal(api.callsOf('FetchX509Bundles').length, 1);
});
