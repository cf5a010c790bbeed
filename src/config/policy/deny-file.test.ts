import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdir, open, readFile, rename, rm, symlink, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { eventually } from '../../../test/support/eventually.ts';
import { temporaryFolder } from '../../../test/support/temporary-folder.ts';
import { systemClock } from '../../lib/clock.ts';
import { requireSpiffeId } from '../../spiffe/spiffe-id.ts';
import { createDenyFile, type DenyFile, type DenyListReload } from './deny-file.ts';
import { formatIssues } from '../issue.ts';

const [A, B] = ['spiffe://example.org/a', 'spiffe://example.org/b'].map(requireSpiffeId);
const listOf = (...ids: readonly (string | undefined)[]): string => `ids:\n${ids.map((id) => `  - ${id}\n`).join('')}...\n`;

interface Watched {
  readonly path: string;
  readonly file: DenyFile;
  /** What was told so far. */
  readonly told: string[];
  /** Which of the two are refused. */
  readonly denied: () => string;
  readonly replace: (text: string | Buffer) => Promise<void>;
}

function describe(reload: DenyListReload): string {
  if (!reload.ok) return formatIssues(reload.problems);
  const { added, removed } = reload;
  return [...added.first.map((entry) => `+${entry}`), ...removed.first.map((entry) => `-${entry}`)].join();
}

async function watched(t: TestContext, path: string, intervalMs = 10): Promise<Watched> {
  const file = createDenyFile({ file: path, clock: systemClock, intervalMs });
  const told: string[] = [];
  file.onReload((reload) => told.push(describe(reload)));
  const loaded = await file.load();
  assert.ok(loaded.ok, loaded.ok ? '' : formatIssues(loaded.error));
  const stop = new AbortController();
  const watching = file.watch(stop.signal);
  t.after(async () => {
    stop.abort();
    await watching;
  });
  return {
    path,
    file,
    told,
    denied: () => [A, B].filter((id) => id !== undefined && file.current().refusal(id, []) !== undefined).join(),
    async replace(text) {
      await writeFile(`${path}.new`, text);
      await rename(`${path}.new`, path);
    },
  };
}

async function watchedFile(t: TestContext, intervalMs?: number): Promise<Watched> {
  const path = join(await temporaryFolder(t), 'revoked.yaml');
  await writeFile(path, listOf(A));
  return watched(t, path, intervalMs);
}

test('a list that is renamed into place or written over is in force as a whole, with what changed', async (t) => {
  const { path, told, denied, replace } = await watchedFile(t);
  assert.equal(denied(), A);

  await replace(listOf(A, B));
  await eventually(() => assert.deepEqual(told, [`+${B}`]));
  assert.equal(denied(), `${A},${B}`);
  await writeFile(path, listOf(B));

  await eventually(() => assert.deepEqual(told.at(-1), `-${A}`));
  assert.equal(denied(), B);
});

test('a list whose entries are the same is not told, unless somebody asked', async (t) => {
  const { file, told, replace } = await watchedFile(t);

  await replace(`# again\n${listOf(A, A)}`);
  // The sentence has the line of the new file, so that one was read.
  await eventually(() => assert.match(file.current().refusal(requireSpiffeId(String(A)), []) ?? '', /revoked\.yaml:[34]\)$/));
  assert.deepEqual(told, []);
  file.reload();

  await eventually(() => assert.deepEqual(told, ['']));
});

const BROKEN: readonly [string, string | Buffer, RegExp][] = [
  ['cut off', listOf(A, B).slice(0, -4), /:4:1: the line "\.\.\." is missing/],
  ['empty', '', /:1:1: the line "\.\.\." is missing/],
  ['wrong in one line', listOf(A, 'nobody', B), /:3:5: "nobody"/],
  ['full of zeros', Buffer.alloc(100_000), /:1:1: the line is longer/],
];

for (const [how, text, problem] of BROKEN) {
  test(`a list that is ${how} is told once, and the old one stays until there is a good one, be it the old one`, async (t) => {
    const { file, told, denied, replace } = await watchedFile(t);

    await replace(text);
    await eventually(() => assert.equal(told.length, 1));
    assert.match(told[0] ?? '', problem);
    assert.match(formatIssues(file.status()?.failure?.problems ?? []), problem);
    assert.equal(file.status()?.entries, 1);
    assert.equal(denied(), A);
    await replace(listOf(A));

    await eventually(() => assert.equal(told.length, 2));
    assert.deepEqual([told[1], file.status()?.failure, denied()], ['', undefined, A]);
  });
}

test('a list that vanishes, or gives way to a folder, is told once each, and its return as well', async (t) => {
  const { path, file, told, denied, replace } = await watchedFile(t);

  await unlink(path);
  await eventually(() => assert.equal(told.length, 1));
  assert.match(told[0] ?? '', /revoked\.yaml: cannot be read: ENOENT/);
  await mkdir(path);
  await eventually(() => assert.equal(told.length, 2));
  assert.match(told[1] ?? '', /revoked\.yaml: is not a regular file/);
  assert.equal(denied(), A);
  await rm(path, { recursive: true });
  await eventually(() => assert.equal(told.length, 3));
  await replace(listOf(B));

  await eventually(() => assert.equal(told.length, 4));
  assert.deepEqual([told[3], file.status()?.failure, denied()], [`+${B},-${A}`, undefined, B]);
});

test('a pipe that nobody writes to holds nothing up', async (t) => {
  const { path, told, replace, denied } = await watchedFile(t);

  await unlink(path);
  execFileSync('mkfifo', [path]);
  await eventually(() => assert.match(told.at(-1) ?? '', /is not a regular file/));
  await replace(listOf(B));

  await eventually(() => assert.equal(denied(), B));
});

test('a link that leads to itself is told, and a good one after it is in force', async (t) => {
  const { path, told, replace, denied } = await watchedFile(t);

  await symlink(path, `${path}.link`);
  await rename(`${path}.link`, path);
  await eventually(() => assert.match(told.at(-1) ?? '', /cannot be read: ELOOP/));
  await replace(listOf(B));

  await eventually(() => assert.equal(denied(), B));
});

test('a Kubernetes ConfigMap that swaps `..data` two levels up is seen', async (t) => {
  const folder = await temporaryFolder(t);
  const version = async (name: string, text: string): Promise<void> => {
    await mkdir(join(folder, name));
    await writeFile(join(folder, name, 'revoked.yaml'), text);
    await symlink(name, join(folder, '..data.new'));
    await rename(join(folder, '..data.new'), join(folder, '..data'));
  };
  await version('..1', listOf(A));
  await symlink('..data/revoked.yaml', join(folder, 'revoked.yaml'));
  const { told, denied } = await watched(t, join(folder, 'revoked.yaml'));

  await version('..2', listOf(B));

  await eventually(() => assert.deepEqual(told, [`+${B},-${A}`]));
  assert.equal(denied(), B);
});

test('of many changes the first twenty are told, and how many there are', async (t) => {
  const { file, replace } = await watchedFile(t);
  const reloads: DenyListReload[] = [];
  file.onReload((reload) => reloads.push(reload));

  await replace(listOf(...Array.from({ length: 5000 }, (_, index) => `spiffe://example.org/w${index}`)));
  await eventually(() => assert.equal(reloads.length, 1));

  const [reload] = reloads;
  assert.ok(reload?.ok === true);
  assert.deepEqual([reload.entries, reload.added.count, reload.added.first.length, reload.removed.count], [5000, 5000, 20, 1]);
});

test('lists that follow each other fast are never taken half', async (t) => {
  const { path, file, denied, replace } = await watchedFile(t, 1);
  const long = Array.from({ length: 20_000 }, (_, index) => `spiffe://example.org/w${index}`);
  const sizes = new Set<number>();
  const stop = new AbortController();
  const looking = (async () => {
    while (!stop.signal.aborted) {
      sizes.add(file.current().size);
      await new Promise((resolve) => setImmediate(resolve));
    }
  })();

  for (let round = 0; round < 100; round++) {
    const text = listOf(...long.slice(0, round % 2 === 0 ? 20_000 : 10_000));
    // Written over in two parts, or renamed into place.
    if (round % 3 === 0) {
      await writeFile(path, text.slice(0, text.length / 2));
      await writeFile(path, text.slice(text.length / 2), { flag: 'a' });
    } else await replace(text);
  }
  await replace(listOf(B));
  await eventually(() => assert.equal(denied(), B));
  stop.abort();
  await looking;

  assert.deepEqual(
    [...sizes].filter((size) => ![1, 10_000, 20_000].includes(size)),
    [],
  );
  assert.equal(await readFile(path, 'utf8'), listOf(B));
});

test('a list that is changed while it is read is not taken, whatever of it was read', async (t) => {
  const path = join(await temporaryFolder(t), 'revoked.yaml');
  await writeFile(path, listOf(...Array.from({ length: 20_000 }, (_, index) => `spiffe://example.org/w${index}`)));
  const file = createDenyFile({ file: path, clock: systemClock, intervalMs: 10 });
  const loading = { isOver: false };
  const loaded = file.load().finally(() => (loading.isOver = true));

  while (!loading.isOver) {
    const handle = await open(path, 'r+');
    // A letter of the last entry.
    await handle.write('w', (await handle.stat()).size - 'w19999\n...\n'.length);
    await handle.close();
  }

  const outcome = await loaded;
  assert.ok(!outcome.ok);
  assert.match(formatIssues(outcome.error), /revoked\.yaml: was changed while it was read/);
});
