import assert from 'node:assert/strict';
import { chmod, mkdir, rename, rm, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { createTestAuthority } from '../../support/pki/pki.ts';
import { startSource, type SourceHarness } from '../../support/source-harness.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { FakeWorkloadApi, svidEntry } from '../../support/workload-api.ts';

const authority = createTestAuthority();
const ID = 'spiffe://example.org/workload';
const entry = svidEntry(authority, authority.issue({ id: ID }), ID);

const LOOK_MS = 250;
const FIVE_MINUTES_MS = 300_000;

/** Goes from attempt to attempt for so long; then the source has just begun to wait. Gives the waits that it passed. */
async function failFor(source: SourceHarness, clock: FakeClock, forMs: number): Promise<number[]> {
  const waits: number[] = [];
  const untilMs = clock.monotonic() + forMs;
  for (let seen = source.failures.length + (source.failures.length === 0 ? 1 : 0); ; seen += 1) {
    await eventually(() => assert.equal(source.failures.length, seen));
    if (clock.monotonic() >= untilMs) return waits;
    const waitMs = source.failures.at(-1)?.retryInMs ?? 0;
    waits.push(waitMs);
    clock.advance(waitMs);
  }
}

const listen = async (path: string): Promise<FakeWorkloadApi> => {
  const api = await FakeWorkloadApi.start({ path });
  api.setX509([entry]);
  return api;
};

interface Scene {
  readonly path: string;
  /** Until then no agent answers at the path. */
  appear(): Promise<FakeWorkloadApi>;
}

const SCENES: Readonly<Record<string, (folder: string) => Promise<Scene> | Scene>> = {
  'in its folder': (folder) => {
    const path = join(folder, 'api.sock');
    return { path, appear: () => listen(path) };
  },
  'in folders that are made for it': (folder) => {
    const path = join(folder, 'agent', 'public', 'api.sock');
    return {
      path,
      async appear() {
        await mkdir(join(folder, 'agent', 'public'), { recursive: true });
        return listen(path);
      },
    };
  },
  'in a folder that was taken away and made again': async (folder) => {
    const inner = join(folder, 'agent');
    const path = join(inner, 'api.sock');
    await mkdir(inner);
    await (await listen(path)).stop();
    await rm(inner, { recursive: true });
    return {
      path,
      async appear() {
        await mkdir(inner);
        return listen(path);
      },
    };
  },
  'behind a link on the way that is swapped, as in a Kubernetes volume': async (folder) => {
    const [old, next, link] = [join(folder, '..1'), join(folder, '..2'), join(folder, '..data')];
    await mkdir(old);
    await mkdir(next);
    await symlink(old, link);
    await symlink(join('..data', 'api.sock'), join(folder, 'api.sock'));
    const api = await listen(join(next, 'api.sock'));
    return {
      path: join(folder, 'api.sock'),
      async appear() {
        await symlink(next, `${link}.new`);
        await rename(`${link}.new`, link);
        return api;
      },
    };
  },
  'in the place of a dead one': async (folder) => {
    const path = join(folder, 'api.sock');
    const dead = await listen(path);
    await dead.stop();
    return { path, appear: () => dead.replace() };
  },
};

for (const [where, stage] of Object.entries(SCENES))
  test(`an agent's socket that appears after ten minutes ${where} is tried at the next look, a quarter of a second later`, async (t) => {
    const clock = new FakeClock();
    const scene = await stage(await temporaryFolder(t));
    const source = await startSource(t, `unix://${scene.path}`, clock);
    await failFor(source, clock, 2 * FIVE_MINUTES_MS);
    const failures = source.failures.length;

    await using api = await scene.appear();
    api.setX509([entry]);
    clock.advance(LOOK_MS);

    await source.held(ID);
    assert.equal(source.failures.length, failures);
    await source.stop();
  });

for (const [what, code, tcp] of [
  ['PermissionDenied', status.PERMISSION_DENIED, false],
  ['Unavailable', status.UNAVAILABLE, false],
  ['Unavailable over TCP', status.UNAVAILABLE, true],
] as const)
  test(`after ${what} the agent is asked within 5 s for five minutes, then within 30 s`, async (t) => {
    const clock = new FakeClock();
    await using api = await FakeWorkloadApi.start({ tcp });
    api.setX509([entry]);
    api.failWith('FetchX509SVID', code);
    api.setBundles({});
    const source = await startSource(t, api.endpoint, clock);

    const early = await failFor(source, clock, FIVE_MINUTES_MS);
    assert.ok(early.length > 60, `${early.length} attempts`);
    assert.ok(Math.max(...early) <= 5000, `waited ${Math.max(...early)} ms`);

    const later = await failFor(source, clock, FIVE_MINUTES_MS);
    assert.deepEqual(new Set(later), new Set([22_500]));
  });

test('an agent that refuses while it starts is asked again within 5 s of when it serves, although it had been away for ten minutes', async (t) => {
  const clock = new FakeClock();
  await using api = await FakeWorkloadApi.prepare();
  api.setX509([entry]);
  api.failWith('FetchX509SVID', status.PERMISSION_DENIED);
  api.setBundles({});
  const source = await startSource(t, api.endpoint, clock);
  await failFor(source, clock, 2 * FIVE_MINUTES_MS);

  const away = source.failures.length;
  await api.listen();
  clock.advance(LOOK_MS);
  await eventually(() => assert.equal(source.failures.length, away + 1));
  assert.equal(source.failures.at(-1)?.retryInMs, 75);
  await failFor(source, clock, 60_000);
  api.failWith('FetchX509SVID', status.PERMISSION_DENIED, { times: 0 });
  api.setX509([entry]);
  clock.advance(5000);

  await source.held(ID);
});

test('a socket that is given another owner or mode is tried at the next look', async (t) => {
  const clock = new FakeClock();
  await using api = await FakeWorkloadApi.start();
  api.failWith('FetchX509SVID', status.INVALID_ARGUMENT);
  const source = await startSource(t, api.endpoint, clock);
  await failFor(source, clock, 60_000);

  api.setX509([entry]);
  await chmod(api.endpoint.slice('unix://'.length), 0o666);
  clock.advance(LOOK_MS);

  await source.held(ID);
});

test('whoever changes the socket without end makes us try five times a second at most', async (t) => {
  const clock = new FakeClock();
  await using api = await FakeWorkloadApi.start();
  api.failWith('FetchX509SVID', status.UNAVAILABLE);
  const source = await startSource(t, api.endpoint, clock);
  await eventually(() => assert.equal(source.failures.length, 1));
  const path = api.endpoint.slice('unix://'.length);

  let mode = 0o600;
  await eventually(
    async () => {
      mode ^= 0o066;
      await chmod(path, mode);
      clock.advance(25);
      assert.ok(api.calls.length >= 30);
    },
    { withinMs: 60_000 },
  );

  const perSecond = (api.calls.length - 1) / (clock.monotonic() / 1000);
  assert.ok(perSecond <= 5, `${perSecond} attempts a second`);
});

test('a source that stops while it waits leaves no timer', async (t) => {
  const clock = new FakeClock();
  await using api = await FakeWorkloadApi.start();
  api.failWith('FetchX509SVID', status.PERMISSION_DENIED);
  const source = await startSource(t, api.endpoint, clock);
  await failFor(source, clock, 30_000);

  await source.stop();

  // What gRPC has not closed by itself is cut after a second.
  await eventually(() => assert.equal(clock.armed, 0));
});
