import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type Child, startChild } from '../../support/child.ts';
import { workloadApiClient } from '../../support/workload-api-client.ts';

const MAIN = fileURLToPath(new URL('../../../src/main.ts', import.meta.url));

async function temporaryFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'scute-dev-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

async function scuteDev(t: TestContext, args: readonly string[], env: Readonly<Record<string, string>>): Promise<Child> {
  const child = await startChild([process.execPath, '--disable-sigusr1', MAIN, 'dev', ...args], {
    env: { PATH: process.env['PATH'] ?? '', ...env },
  });
  t.after(() => child.stop());
  return child;
}

test('scute dev without a file serves two workloads, says so, and leaves no file behind', async (t) => {
  const temporary = await temporaryFolder(t);

  const child = await scuteDev(t, [], { TMPDIR: temporary });
  await child.line(/^READY$/);
  const sockets = child.lines().flatMap((line) => /^SPIFFE_ENDPOINT_SOCKET=(\S+) {2}(\S+)$/.exec(line)?.slice(1) ?? []);
  const { svids } = await workloadApiClient(t, sockets[0] ?? '')
    .stream('fetchX509SVID')
    .next();
  child.signal('SIGTERM');
  const exit = await child.exited;

  assert.deepEqual([sockets[1], sockets[3]], ['spiffe://example.org/web', 'spiffe://example.org/api']);
  assert.equal(svids[0]?.spiffeId, 'spiffe://example.org/web');
  assert.match(child.stderr(), /never use it in production/i);
  assert.doesNotMatch(child.stdout() + child.stderr(), /PRIVATE KEY/);
  assert.equal(exit.code, 0);
  assert.deepEqual(await readdir(temporary), []);
});

test('scute dev uses the same sockets each time where XDG_RUNTIME_DIR gives a folder of the user', async (t) => {
  const runtime = await temporaryFolder(t);

  const child = await scuteDev(t, [], { XDG_RUNTIME_DIR: runtime });
  await child.line(/^READY$/);

  assert.ok(child.stdout().includes(`SPIFFE_ENDPOINT_SOCKET=unix://${runtime}/scute-dev/web.sock  spiffe://example.org/web`));
  child.signal('SIGINT');
  assert.equal((await child.exited).code, 0);
  assert.deepEqual(await readdir(runtime), []);
});

test('scute dev that cannot take its sockets away says which, and ends with 1', async (t) => {
  const folder = await temporaryFolder(t);
  const child = await scuteDev(t, [], { XDG_RUNTIME_DIR: folder });
  await child.line(/^READY$/);

  await rm(join(folder, 'scute-dev'), { recursive: true });
  await writeFile(join(folder, 'scute-dev'), 'a file');
  child.signal('SIGTERM');

  assert.equal((await child.exited).code, 1);
  assert.match(child.stderr(), /^scute dev left something behind: ENOTDIR: .*scute-dev\/[^;]*; ENOTDIR: .*$/m);
});

test('scute dev -c reports every problem of the file with line and column, exits 64 and starts nothing', async (t) => {
  const folder = await temporaryFolder(t);
  const file = join(folder, 'dev.yaml');
  await writeFile(
    file,
    'trustDomains:\n  - name: Example.org\n    svidLife: 5\n    workloads:\n      - socket: web.sock\n        ids: []\n',
  );

  const child = await scuteDev(t, ['-c', file], { TMPDIR: folder });
  const exit = await child.exited;

  assert.equal(exit.code, 64);
  assert.match(child.stderr(), /dev\.yaml:2:11 trustDomains\[0\]\.name: .*Example\.org/);
  assert.match(child.stderr(), /dev\.yaml:3:15 trustDomains\[0\]\.svidLife: /);
  assert.match(child.stderr(), /dev\.yaml:5:17 trustDomains\[0\]\.workloads\[0\]\.socket: /);
  assert.deepEqual(await readdir(folder), ['dev.yaml']);
});
