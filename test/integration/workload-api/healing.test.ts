import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { createTestAuthority } from '../../support/pki/pki.ts';
import { startSource } from '../../support/source-harness.ts';
import { FakeWorkloadApi, svidEntry, type SvidEntry } from '../../support/workload-api.ts';

const authority = createTestAuthority();
const NAMES = { first: 'spiffe://example.org/first', second: 'spiffe://example.org/second' };
const entryFor = (id: string): SvidEntry => svidEntry(authority, authority.issue({ id }), id);
const HOUR_MS = 3_600_000;

test('a socket replaced by another inode is noticed while the old stream is still open', async (t) => {
  const clock = new FakeClock();
  await using old = await FakeWorkloadApi.start();
  old.setX509([entryFor(NAMES.first)]);
  const source = await startSource(t, old.endpoint, clock);
  await source.held(NAMES.first);

  await using successor = await old.replace();
  successor.setX509([entryFor(NAMES.second)]);

  await eventually(() => {
    clock.advance(100);
    const current = source.view.current();
    assert.ok(current?.kind === 'held' && current.svids[0].id === NAMES.second);
  });
  assert.deepEqual(
    source.failures.map(({ code, retryInMs }) => ({ code, retryInMs })),
    [{ code: 'SOCKET_REPLACED', retryInMs: 0 }],
  );
  await eventually(() => assert.equal(old.openStreams('FetchX509SVID'), 0));
});

test('a socket that is removed while its stream is open does not disturb the stream', async (t) => {
  const clock = new FakeClock();
  await using api = await FakeWorkloadApi.start();
  api.setX509([entryFor(NAMES.first)]);
  const source = await startSource(t, api.endpoint, clock);
  await source.held(NAMES.first);

  await api.removeSocket();
  clock.advance(1000);
  api.setX509([entryFor(NAMES.second)]);

  await source.held(NAMES.second);
  assert.equal(source.failures.length, 0);
});

test('an agent that is started again on the same path is found without a restart', async (t) => {
  await using api = await FakeWorkloadApi.start();
  api.setX509([entryFor(NAMES.first)]);
  const source = await startSource(t, api.endpoint);
  await source.held(NAMES.first);

  for (const name of [NAMES.second, NAMES.first, NAMES.second]) {
    await api.stop();
    api.setX509([entryFor(name)]);
    await api.listen();
    await source.held(name);
  }
});

test('what answers at the socket and never speaks gRPC is given up after 5 s, and its connection closed', async (t) => {
  const clock = new FakeClock();
  const sockets = new Set<Socket>();
  let accepted = 0;
  const mute = createServer((socket) => {
    accepted += 1;
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
    socket.resume();
  });
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    mute.close();
  });
  mute.listen(0, '127.0.0.1');
  await once(mute, 'listening');
  const bound = mute.address();
  assert.ok(typeof bound === 'object' && bound !== null);
  const source = await startSource(t, `tcp://127.0.0.1:${bound.port}`, clock);
  await eventually(() => assert.equal(sockets.size, 1));

  clock.advance(5000);

  await eventually(() => assert.equal(source.failures[0]?.code, 'TRANSPORT'));
  clock.advance(1000);
  await eventually(() => assert.equal(accepted, 2));
  await eventually(() => assert.equal(sockets.size, 1));
  await source.stop();
  clock.advance(1000);
  await eventually(() => assert.equal(sockets.size, 0));
});

for (const [way, jumpMs] of [
  ['forward, or the machine slept', HOUR_MS / 4],
  ['back', -HOUR_MS / 100],
] as const) {
  test(`when the wall clock jumps ${way}, the agent is asked again, and its answer judged by the new time`, async (t) => {
    const clock = new FakeClock();
    await using api = await FakeWorkloadApi.start();
    api.setX509([entryFor(NAMES.first)]);
    const source = await startSource(t, api.endpoint, clock);
    const before = await source.held();

    clock.jump(jumpMs);
    clock.advance(2000);

    await eventually(() => assert.equal(source.published.length, 2));
    assert.equal(source.view.current()?.generation, before.generation + 1);
    assert.deepEqual(
      source.failures.map(({ code, retryInMs }) => ({ code, retryInMs })),
      [{ code: 'CLOCK_JUMPED', retryInMs: 0 }],
    );
  });
}

test('an SVID refused because the clock was wrong is accepted after the clock was set right', async (t) => {
  const clock = new FakeClock();
  clock.jump(-24 * HOUR_MS);
  await using api = await FakeWorkloadApi.start();
  api.setX509([entryFor(NAMES.first)]);
  const source = await startSource(t, api.endpoint, clock);
  await eventually(() => assert.equal(source.rejected.at(-1)?.code, 'not_yet_valid'));

  clock.jump(24 * HOUR_MS);
  clock.advance(2000);

  await source.held(NAMES.first);
});

test('a jump during a wait for the next attempt ends the wait', async (t) => {
  const clock = new FakeClock();
  await using api = await FakeWorkloadApi.start();
  api.setX509([entryFor(NAMES.first)]);
  api.failWith('FetchX509SVID', status.INVALID_ARGUMENT, { times: 1 });
  const source = await startSource(t, api.endpoint, clock);
  await eventually(() => assert.equal(source.failures.length, 1));

  clock.jump(HOUR_MS / 4);
  clock.advance(2000);

  await source.held(NAMES.first);
});

test('small corrections of the wall clock disturb nothing', async (t) => {
  const clock = new FakeClock();
  await using api = await FakeWorkloadApi.start();
  api.setX509([entryFor(NAMES.first)]);
  const source = await startSource(t, api.endpoint, clock);
  await source.held();

  for (const jumpMs of [2000, -3000, 4000, -4000]) {
    clock.jump(jumpMs);
    clock.advance(2000);
  }

  assert.equal(source.failures.length, 0);
});

test('an agent that is silent until two thirds of the life of the SVID are over is asked for a newer one, and not too often', async (t) => {
  const clock = new FakeClock();
  const nowMs = clock.now();
  const ageing = authority.issue({ id: NAMES.first, notBefore: nowMs - 1000, notAfter: nowMs + 299_000 });
  await using api = await FakeWorkloadApi.start();
  api.setX509([svidEntry(authority, ageing, NAMES.first)]);
  const source = await startSource(t, api.endpoint, clock);
  await source.held();

  clock.advance(196_000);
  assert.equal(source.failures.length, 0);

  clock.advance(5000);
  await eventually(() => assert.equal(source.failures.at(-1)?.code, 'SVID_AGEING'));
  await eventually(() => assert.equal(source.connected.length, 2));
  assert.equal(source.published.length, 1);

  for (const [index, gapMs] of [8000, 16_000, 30_000, 46_000].entries()) {
    clock.advance(gapMs);
    await eventually(() => assert.equal(source.connected.length, index + 3));
    assert.equal(api.calls.length, index + 3);
  }

  api.setX509([entryFor(NAMES.second)]);
  await source.held(NAMES.second);
});

test('an SVID that expires while the agent is gone stays what is held, and is replaced when the agent is back', async (t) => {
  const clock = new FakeClock();
  await using api = await FakeWorkloadApi.start();
  api.setX509([entryFor(NAMES.first)]);
  const source = await startSource(t, api.endpoint, clock);
  await source.held();
  await api.stop({ unlink: true });
  await eventually(() => assert.ok(source.failures.length > 0));

  clock.advance(2 * HOUR_MS);
  assert.equal(source.view.current()?.kind, 'held');

  const root = createTestAuthority({ notAfter: clock.now() + 2 * HOUR_MS });
  const issued = root.issue({ id: NAMES.second, notBefore: clock.now() - 1000, notAfter: clock.now() + HOUR_MS });
  api.setX509([svidEntry(root, issued, NAMES.second)]);
  await api.listen();

  await eventually(() => {
    clock.advance(1000);
    const current = source.view.current();
    assert.ok(current?.kind === 'held' && current.svids[0].id === NAMES.second);
  });
});
