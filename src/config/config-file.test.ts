import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rename, rm, symlink, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { eventually } from '../../test/support/eventually.ts';
import { listText, policyText, startConfigMap } from '../../test/support/policy/policy-file.ts';
import { systemClock } from '../lib/clock.ts';
import { createConfigFile, type ConfigFile, type LoadedConfig } from './config-file.ts';
import { formatIssues } from './issue.ts';
import { parsePolicyNow, type ConfigSources } from './load.ts';
import { readPolicyFile } from './policy/policy-file.ts';

function yaml(id: string): string {
  return `workloadApi: { endpoint: unix:///agent.sock }\ninbound: [{ listen: 127.0.0.1:1, to: 127.0.0.1:2, allow: [spiffe://example.org/${id}] }]\n`;
}

interface Watched {
  readonly path: string;
  readonly file: ConfigFile;
  /** The allow lists, or the problems, that were told so far. */
  readonly told: string[];
}

function describe(loaded: LoadedConfig): string {
  return loaded.ok ? (loaded.value.inbound[0]?.policy.entries.join() ?? '') : formatIssues(loaded.error);
}

async function temporaryFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'scute-config-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

async function watched(t: TestContext, path: string, readPolicy?: ConfigSources['readPolicy']): Promise<Watched> {
  const file = createConfigFile({ sources: { file: path, flags: {}, env: {}, readPolicy }, clock: systemClock, intervalMs: 10 });
  const told: string[] = [];
  file.onReload((loaded) => told.push(describe(loaded)));
  assert.ok((await file.load()).ok);
  const stop = new AbortController();
  const watching = file.watch(stop.signal);
  t.after(async () => {
    stop.abort();
    await watching;
  });
  return { path, file, told };
}

async function watchedFile(t: TestContext): Promise<Watched> {
  const path = join(await temporaryFolder(t), 'scute.yaml');
  await writeFile(path, yaml('a'));
  return watched(t, path);
}

test('a file that is written or replaced is told once each', async (t) => {
  const { path, told } = await watchedFile(t);

  await writeFile(path, yaml('b'));
  await eventually(() => assert.deepEqual(told, ['spiffe://example.org/b']));
  await writeFile(`${path}.new`, yaml('c'));
  await rename(`${path}.new`, path);

  await eventually(() => assert.deepEqual(told, ['spiffe://example.org/b', 'spiffe://example.org/c']));
});

test('a file that is written with the bytes that it had is not told', async (t) => {
  const { path, told } = await watchedFile(t);

  await writeFile(path, yaml('a'));
  await writeFile(`${path}.new`, yaml('a'));
  await rename(`${path}.new`, path);
  await writeFile(path, yaml('b'));

  await eventually(() => assert.ok(told.length > 0));
  assert.deepEqual(told, ['spiffe://example.org/b']);
});

test('a Kubernetes ConfigMap that swaps a link two levels up is seen', async (t) => {
  const folder = await temporaryFolder(t);
  for (const version of ['v1', 'v2']) {
    await mkdir(join(folder, version));
    await writeFile(join(folder, version, 'scute.yaml'), yaml(version));
  }
  await symlink('v1', join(folder, '..data'));
  await symlink('..data/scute.yaml', join(folder, 'scute.yaml'));
  const { told } = await watched(t, join(folder, 'scute.yaml'));

  await symlink('v2', join(folder, '..new'));
  await rename(join(folder, '..new'), join(folder, '..data'));

  await eventually(() => assert.deepEqual(told, ['spiffe://example.org/v2']));
});

test('a bad file is told with its problems, and the good one that follows as well, even if it is the old one', async (t) => {
  const { path, told } = await watchedFile(t);

  await writeFile(path, 'inbound: 5\n');
  await eventually(() => assert.match(told[0] ?? '', /scute\.yaml:1:10 inbound: /));
  await writeFile(path, yaml('a'));

  await eventually(() => assert.equal(told[1], 'spiffe://example.org/a'));
});

test('a file that vanishes is told once, and its return as well', async (t) => {
  const { path, told } = await watchedFile(t);

  await unlink(path);
  await eventually(() => assert.match(told[0] ?? '', /cannot be read: ENOENT/));
  await writeFile(path, yaml('b'));

  await eventually(() => assert.equal(told.length, 2));
  assert.equal(told[1], 'spiffe://example.org/b');
});

test('a reload that was asked for is told even if nothing changed', async (t) => {
  const { file, told } = await watchedFile(t);

  file.reload();

  await eventually(() => assert.deepEqual(told, ['spiffe://example.org/a']));
});

test('a change between the first load and the watch is not lost', async (t) => {
  const path = join(await temporaryFolder(t), 'scute.yaml');
  await writeFile(path, yaml('a'));
  const file = createConfigFile({ sources: { file: path, flags: {}, env: {} }, clock: systemClock, intervalMs: 10 });
  const told: string[] = [];
  const forget = file.onReload((loaded) => told.push(describe(loaded)));
  await file.load();
  await writeFile(path, yaml('b'));
  const stop = new AbortController();

  const watching = file.watch(stop.signal);

  await eventually(() => assert.deepEqual(told, ['spiffe://example.org/b']));
  forget();
  stop.abort();
  await watching;
});

test('a list of SPIFFE IDs that the file names is watched with it, whichever of the two is wrong', async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, 'scute.yaml');
  const withList = (name: string): string => yaml('x').replace('[spiffe://example.org/x]', `[{ idsFile: ${name} }]`);
  const list = (id: string): string => `spiffe://example.org/${id}\n...\n`;
  await writeFile(path, withList('a.txt'));
  await writeFile(join(folder, 'a.txt'), list('a'));
  const { told, file } = await watched(t, path);
  const last = (count: number): Promise<string> =>
    eventually(() => {
      assert.equal(told.length, count, told.join('\n'));
      return Promise.resolve(told.at(-1)?.replaceAll(`${folder}/`, '') ?? '');
    });
  let changes: string | undefined;
  file.onReload((loaded) => {
    const [ids] = loaded.ok ? [...(loaded.value.inbound[0]?.policy.lists.values() ?? [])] : [];
    changes = ids?.change && `+${ids.change.added.first.join()} -${ids.change.removed.first.join()}`;
  });

  await writeFile(join(folder, 'a.txt'), list('b'));
  assert.equal(await last(1), `idsFile a.txt`);
  assert.equal(changes, '+spiffe://example.org/b -spiffe://example.org/a');
  await writeFile(join(folder, 'a.txt'), list('b/'));
  assert.match(await last(2), /^scute\.yaml:2:\d+ inbound\[0\]\.allow\[0\]\.idsFile: a\.txt cannot be used\na\.txt:1:1: "spiffe:/);
  // The file is wrong as well, so it is not known what it means.
  await writeFile(path, 'inbound: [\n');
  assert.match(await last(3), /not valid YAML/);
  await writeFile(path, withList('b.txt'));
  assert.match(await last(4), /b\.txt: cannot be read: ENOENT/);
  await writeFile(join(folder, 'b.txt'), list('c'));
  assert.equal(await last(5), 'idsFile b.txt');
  await writeFile(join(folder, 'a.txt'), list('nobody asks'));
  await unlink(join(folder, 'b.txt'));
  assert.match(await last(6), /b\.txt: cannot be read: ENOENT/);
  await writeFile(path, yaml('z'));
  assert.equal(await last(7), 'spiffe://example.org/z');
});

test('a configuration that names a policy file which is wrong, or a list of that is, comes into force when that is mended', async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, 'scute.yaml');
  const ID = 'spiffe://example.org/b';
  const policy = (text: string): Promise<void> => writeFile(join(folder, 'policy.yaml'), text);
  const withPolicy = yaml('x').replace('allow: [spiffe://example.org/x]', 'policyFile: policy.yaml');
  await writeFile(path, yaml('a'));
  const { told } = await watched(t, path);
  const last = (count: number): Promise<string> =>
    eventually(() => Promise.resolve(assert.equal(told.length, count, told.join('\n')))).then(() => told.at(-1) ?? '');

  await writeFile(path, withPolicy);
  assert.match(await last(1), /policy\.yaml: cannot be read: ENOENT/);
  await policy(policyText([{ idsFile: 'ids.txt' }]));
  assert.match(await last(2), /ids\.txt: cannot be read: ENOENT/);
  await writeFile(join(folder, 'ids.txt'), listText([ID]));
  assert.equal(await last(3), `idsFile ${join(folder, 'ids.txt')}`);

  // It is a policy, and not one for such a listener.
  await policy(policyText([{ peer: ID, methods: ['GET'] }]));
  await writeFile(path, `# anew\n${withPolicy}`);
  assert.match(await last(4), /methods, paths and hosts are for protocol: http/);
  await policy(policyText([ID]));
  assert.equal(await last(5), ID);
});

test('a configuration and a list that are swapped while they are read are not mixed', async (t) => {
  const config = (allow: string): string =>
    JSON.stringify({
      workloadApi: { endpoint: 'unix:///agent.sock' },
      inbound: [
        { name: 'a', listen: '127.0.0.1:1', to: '127.0.0.1:2', allow: [{ idsFile: 'ids.txt' }, allow] },
        { name: 'b', listen: '127.0.0.1:3', to: '127.0.0.1:4', policyFile: 'policy.yaml' },
      ],
    });
  const [A, B, C] = ['a', 'b', 'c'].map((name) => `spiffe://example.org/${name}`) as [string, string, string];
  const others = { 'policy.yaml': policyText([A]) };
  const { folder, become } = await startConfigMap(t, { ...others, 'scute.yaml': config(A), 'ids.txt': listText([B]) });
  let act: (() => Promise<void>) | undefined;
  // Between the text and the lists.
  const { told, file } = await watched(t, join(folder, 'scute.yaml'), async (policy) => {
    const now = act;
    act = undefined;
    await now?.();
    return readPolicyFile(policy, { parse: parsePolicyNow, known: new Map() });
  });
  const lists: string[] = [];
  file.onReload((loaded) => {
    if (loaded.ok) lists.push([...(loaded.value.inbound[0]?.policy.lists.values() ?? [])].map(({ digest }) => digest).join());
  });

  act = () => become({ ...others, 'scute.yaml': config(C), 'ids.txt': listText([B, A]) });
  file.reload();
  await eventually(() => Promise.resolve(assert.equal(told.length, 2, told.join('\n'))));
  assert.match(told[0] ?? '', /scute\.yaml: was changed while it was read/);
  assert.equal(told[1], `idsFile ${join(folder, 'ids.txt')},${C}`);

  // The same text, and another list.
  act = () => become({ ...others, 'scute.yaml': config(C), 'ids.txt': listText([B]) });
  file.reload();
  await eventually(() => Promise.resolve(assert.equal(lists.length, 2, told.join('\n'))));
  assert.notEqual(lists[0], lists[1]);
});
