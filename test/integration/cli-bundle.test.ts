import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { buildBundle } from '../support/build.ts';
import { runChild, startChild } from '../support/child.ts';

const CONFIG = `workloadApi: { endpoint: unix:///nonexistent/agent.sock }
inbound: [{ listen: 127.0.0.1:0, to: 127.0.0.1:8080, allow: [spiffe://example.org/web] }]
`;

/** A folder with the bundle and nothing else, so that what it lacks cannot be found beside it. */
let folder = '';
let bundle = '';
let config = '';
const env = { PATH: `${dirname(process.execPath)}:/usr/bin:/bin` };

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'scute-bundle-'));
  bundle = join(folder, 'scute.js');
  config = join(folder, 'scute.yaml');
  await buildBundle(bundle);
  await writeFile(config, CONFIG);
});

after(() => rm(folder, { recursive: true, force: true }));

test('the bundle starts by itself, as an executable file, away from any package', async () => {
  const { code, stdout, stderr } = await runChild([bundle, 'version'], { env });

  assert.deepEqual([code, stderr], [0, '']);
  assert.match(stdout, /^scute \d+\.\d+\.\d+ /);
});

test('the bundle checks a configuration as the sources do', async () => {
  const { code, stdout } = await runChild([bundle, 'check', '-c', config], { env });
  const wrong = await runChild([bundle, 'check', '-c', bundle], { env });

  assert.equal(code, 0);
  assert.match(stdout, /admits spiffe:\/\/example\.org\/web/);
  assert.equal(wrong.code, 64);
});

test('the bundle runs, reloads, keeps the inspector shut on SIGUSR1, and drains on SIGTERM', async () => {
  await using child = await startChild([bundle, 'run', '-c', config], { env });
  await child.line(/"listening"/);

  child.signal('SIGUSR1');
  await writeFile(config, CONFIG.replace('example.org/web', 'example.org/ops'));
  child.signal('SIGHUP');
  await child.line(/allow \+ spiffe:\/\/example\.org\/ops/);
  child.signal('SIGTERM');
  const { code } = await child.exited;

  assert.equal(code, 0);
  assert.doesNotMatch(child.stderr(), /Debugger listening/);
});

test('the bundle refuses to start under options that open the inspector', async () => {
  const { code, stderr } = await runChild([bundle, 'version'], { env: { ...env, NODE_OPTIONS: '--inspect=127.0.0.1:0' } });

  assert.equal(code, 1);
  assert.match(stderr, /will not start: NODE_OPTIONS: --inspect/);
});
