import assert from 'node:assert/strict';
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { buildBundle } from '../../support/build.ts';
import { runChild, startChild } from '../../support/child.ts';

const CONFIG = `workloadApi: { endpoint: unix:///nonexistent/agent.sock }
inbound: [{ listen: 127.0.0.1:0, to: 127.0.0.1:8080, allow: [spiffe://example.org/web] }]
`;

/** A folder with the bundle and nothing else, not even what a sidecar does not need, so that what it lacks cannot be found beside it. */
let folder = '';
let bundle = '';
/** All that `npm run build` writes. */
let whole = '';
let config = '';
const env = { PATH: `${dirname(process.execPath)}:/usr/bin:/bin` };

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'scute-bundle-'));
  bundle = join(folder, 'scute.js');
  config = join(folder, 'scute.yaml');
  whole = await mkdtemp(join(tmpdir(), 'scute-bundle-'));
  await buildBundle(join(whole, 'scute.js'));
  await copyFile(join(whole, 'scute.js'), bundle);
  await writeFile(config, CONFIG);
});

after(async () => {
  for (const made of [folder, whole]) await rm(made, { recursive: true, force: true });
});

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

test('a sidecar loads no writer of certificates: the bundle has none, and the trust domain of `scute dev` loads it from beside', async () => {
  await using child = await startChild([join(whole, 'scute.js'), 'dev'], { env: { ...env, XDG_RUNTIME_DIR: folder } });
  await child.line(/^READY$/);
  child.signal('SIGTERM');
  assert.equal((await child.exited).code, 0);

  // A name of the package that no minifier changes: it shows in errors.
  const name = 'Cannot convert ASN.1 signature value to WebCrypto format';
  assert.ok((await readFile(join(whole, 'scute-dev.cjs'), 'utf8')).includes(name));
  assert.ok(!(await readFile(bundle, 'utf8')).includes(name));
  const { code, stderr } = await runChild([bundle, 'dev'], { env: { ...env, XDG_RUNTIME_DIR: folder } });
  assert.notEqual(code, 0);
  assert.match(stderr, /scute-dev\.cjs/);
});

test('the bundle serves the dashboard from beside it, and says so where that is missing', async () => {
  const withAdmin = join(folder, 'admin.yaml');
  await writeFile(withAdmin, `${CONFIG}admin: { listen: 127.0.0.1:0 }\n`);
  for (const [program, status, content] of [
    [join(whole, 'scute.js'), 200, /<div id="page">/],
    [bundle, 503, /the dashboard is missing/],
  ] as const) {
    await using child = await startChild([program, 'run', '-c', withAdmin], { env });
    const { text } = await child.line(/"listener":"admin"/);
    const { address } = JSON.parse(text) as { readonly address: string };
    const answer = await fetch(`http://${address}/`);
    assert.equal(answer.status, status);
    assert.match(await answer.text(), content);
  }
});

test('the bundle refuses to start under options that open the inspector', async () => {
  const { code, stderr } = await runChild([bundle, 'version'], { env: { ...env, NODE_OPTIONS: '--inspect=127.0.0.1:0' } });

  assert.equal(code, 1);
  assert.match(stderr, /will not start: NODE_OPTIONS: --inspect/);
});
