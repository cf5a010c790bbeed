import assert from 'node:assert/strict';
import { test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { MAX_MESSAGE_BYTES } from '../../../src/workload-api/client.ts';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { createTestAuthority } from '../../support/pki/pki.ts';
import { startSource } from '../../support/source-harness.ts';
import { FakeWorkloadApi, svidEntry, type SvidEntry } from '../../support/workload-api.ts';

const authority = createTestAuthority();
const NAMES = { first: 'spiffe://example.org/first', second: 'spiffe://example.org/second' };
const entryFor = (id: string): SvidEntry => svidEntry(authority, authority.issue({ id }), id);

for (const [id, code] of [
  ['EP-5', status.UNAVAILABLE],
  ['EP-6', status.PERMISSION_DENIED],
] as const) {
  test(`${id}: three answers ${status[code]}, then success: the SVID is served, and the calls are at least 50 ms apart`, async (t) => {
    await using api = await FakeWorkloadApi.start();
    api.setX509([entryFor(NAMES.first)]);
    api.failWith('FetchX509SVID', code, { times: 3 });

    const source = await startSource(t, api.endpoint);
    await source.held(NAMES.first);

    const times = api.callsOf('FetchX509SVID').map((call) => call.atMs);
    assert.equal(times.length, 4);
    for (const [index, atMs] of times.slice(1).entries()) assert.ok(atMs - (times[index] ?? 0) >= 50, `gap ${index + 1}`);
  });
}

for (const code of [status.INVALID_ARGUMENT, status.UNIMPLEMENTED]) {
  test(`EP-7: for 5 s after ${status[code]} each method is called at most twice, and later again`, async (t) => {
    const clock = new FakeClock();
    await using api = await FakeWorkloadApi.start();
    api.setX509([entryFor(NAMES.first)]);
    api.failWith('FetchX509SVID', code, { times: 1 });
    const source = await startSource(t, api.endpoint, clock);
    await eventually(() => assert.equal(source.failures.length, 1));

    clock.advance(5000);
    assert.ok((source.failures[0]?.retryInMs ?? 0) > 5000);
    assert.deepEqual(
      api.calls.map((call) => call.method),
      ['FetchX509SVID'],
    );

    clock.advance(25_000);
    await source.held(NAMES.first);
  });
}

test('InvalidArgument after a good answer leaves what is held in force', async (t) => {
  await using api = await FakeWorkloadApi.start();
  api.setX509([entryFor(NAMES.first)]);
  const source = await startSource(t, api.endpoint);
  const before = await source.held(NAMES.first);

  api.failWith('FetchX509SVID', status.INVALID_ARGUMENT);
  await eventually(() => assert.equal(source.failures.at(-1)?.code, 'INVALID_ARGUMENT'));

  assert.equal(source.view.current(), before);
});

test('WA-1: after a stream closed with Unavailable a new one is opened, and its SVID served', async (t) => {
  await using api = await FakeWorkloadApi.start();
  api.setX509([entryFor(NAMES.first)]);
  const source = await startSource(t, api.endpoint);
  await source.held(NAMES.first);

  api.endStreams('FetchX509SVID', status.UNAVAILABLE);
  await eventually(() => assert.equal(api.callsOf('FetchX509SVID').length, 2));
  api.setX509([entryFor(NAMES.second)]);

  await source.held(NAMES.second);
  assert.deepEqual(
    source.published.map((snapshot) => snapshot.kind),
    ['held', 'held'],
  );
});

test('a stream that ends in order after a good answer is opened again at once', async (t) => {
  await using api = await FakeWorkloadApi.start();
  api.setX509([entryFor(NAMES.first)]);
  const source = await startSource(t, api.endpoint);
  await source.held(NAMES.first);

  api.endStreams('FetchX509SVID');

  await eventually(() => assert.equal(api.callsOf('FetchX509SVID').length, 2));
  assert.deepEqual(
    source.failures.map(({ code, retryInMs }) => ({ code, retryInMs })),
    [{ code: 'OK', retryInMs: 0 }],
  );
});

test('an agent that answers the same and hangs up, again and again, is asked ever more rarely', async (t) => {
  const clock = new FakeClock();
  await using api = await FakeWorkloadApi.start();
  api.setX509([entryFor(NAMES.first)]);
  const source = await startSource(t, api.endpoint, clock);
  await source.held(NAMES.first);

  for (let count = 1; count <= 6; count += 1) {
    await eventually(() => assert.equal(api.openStreams('FetchX509SVID'), 1));
    await eventually(() => assert.equal(source.connected.length, count));
    api.endStreams('FetchX509SVID');
    await eventually(() => assert.equal(source.failures.length, count));
    clock.advance(source.failures.at(-1)?.retryInMs ?? 0);
  }

  assert.deepEqual(
    source.failures.map((failure) => failure.retryInMs),
    [0, 75, 150, 300, 600, 1200],
  );
});

test('garbage never resets the back-off', async (t) => {
  const clock = new FakeClock();
  await using api = await FakeWorkloadApi.start();
  api.sendRaw('FetchX509SVID', Buffer.from([0xff, 0x00]));
  const source = await startSource(t, api.endpoint, clock);

  for (let count = 1; count <= 11; count += 1) {
    await eventually(() => assert.equal(source.rejected.length, count));
    api.endStreams('FetchX509SVID', status.UNAVAILABLE);
    await eventually(() => assert.equal(source.failures.length, count));
    clock.advance(source.failures.at(-1)?.retryInMs ?? 0);
  }

  assert.deepEqual(
    source.failures.map((failure) => failure.retryInMs),
    [75, 150, 300, 600, 1200, 2400, 3750, 3750, 3750, 3750, 3750],
  );
});

test('a message above the limit ends the stream, leaves what is held in force, and is survived', async (t) => {
  await using api = await FakeWorkloadApi.start();
  api.setX509([entryFor(NAMES.first)]);
  const source = await startSource(t, api.endpoint);
  const before = await source.held(NAMES.first);

  api.sendRawOnce('FetchX509SVID', Buffer.alloc(MAX_MESSAGE_BYTES + 1));
  await eventually(() => assert.equal(source.failures.at(-1)?.code, 'RESOURCE_EXHAUSTED'));
  assert.equal(source.view.current(), before);

  api.setX509([entryFor(NAMES.second)]);
  await source.held(NAMES.second);
});

test('an agent that is gone leaves what is held in force, and is found again when it is back', async (t) => {
  await using api = await FakeWorkloadApi.start();
  api.setX509([entryFor(NAMES.first)]);
  const source = await startSource(t, api.endpoint);
  const before = await source.held(NAMES.first);

  await api.stop({ unlink: true });
  await eventually(() => assert.ok(source.failures.length >= 3));
  assert.equal(source.view.current(), before);

  api.setX509([entryFor(NAMES.second)]);
  await api.listen();
  await source.held(NAMES.second);
});

test('when the source stops, its stream is gone, and nothing is called again', async (t) => {
  const clock = new FakeClock();
  await using api = await FakeWorkloadApi.start();
  api.setX509([entryFor(NAMES.first)]);
  const source = await startSource(t, api.endpoint, clock);
  await source.held();

  await source.stop();
  await source.stop();

  await eventually(() => assert.equal(api.openStreams('FetchX509SVID'), 0));
  assert.equal(clock.armed, 0);
  assert.equal(api.calls.length, 1);
});
