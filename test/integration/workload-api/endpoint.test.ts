import assert from 'node:assert/strict';
import { test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { createTestAuthority } from '../../support/pki/pki.ts';
import { eventually } from '../../support/eventually.ts';
import { startSource } from '../../support/source-harness.ts';
import { FakeWorkloadApi, svidEntry } from '../../support/workload-api.ts';

const authority = createTestAuthority();
const ID = 'spiffe://example.org/workload';
const entry = svidEntry(authority, authority.issue(), ID);

test('EP-1: the endpoint of the environment variable is used', async (t) => {
  await using api = await FakeWorkloadApi.start();
  api.setX509([entry]);

  const source = await startSource(t, api.endpoint);

  assert.equal((await source.held()).svids[0].id, ID);
  assert.deepEqual(source.connected, [api.endpoint]);
});

test('EP-2: every call carries workload.spiffe.io: true', async (t) => {
  await using api = await FakeWorkloadApi.start();
  api.failWith('FetchX509SVID', status.PERMISSION_DENIED);
  api.setBundles({ 'spiffe://example.org': authority.der });

  const source = await startSource(t, api.endpoint);
  await eventually(() => assert.equal(source.view.current()?.bundles.size, 1));

  assert.ok(api.callsOf('FetchX509SVID').length > 0);
  assert.ok(api.callsOf('FetchX509Bundles').length > 0);
  assert.ok(api.calls.every((call) => call.hadHeader));
});

test('EP-3: a TCP endpoint works', async (t) => {
  await using api = await FakeWorkloadApi.start({ tcp: true });
  api.setX509([entry]);

  const source = await startSource(t, api.endpoint);

  assert.equal((await source.held()).svids[0].id, ID);
});

test('EP-8: a socket that appears late is picked up', async (t) => {
  await using api = await FakeWorkloadApi.prepare();
  api.setX509([entry]);
  const source = await startSource(t, api.endpoint);
  await eventually(() => assert.ok(source.failures.length >= 3));
  assert.ok(source.failures.every((failure) => failure.code === 'UNAVAILABLE'));

  await api.listen();

  assert.equal((await source.held()).svids[0].id, ID);
});
