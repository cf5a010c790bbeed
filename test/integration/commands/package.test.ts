import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, readlink, rm, symlink, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { buildPackage, type PackageFolder } from '../../../build/package.ts';
import { runChild, startChild } from '../../support/child.ts';

const CONFIG = `workloadApi: { endpoint: unix:///nonexistent/agent.sock }
inbound: [{ listen: 127.0.0.1:0, to: 127.0.0.1:8080, allow: [spiffe://example.org/web] }]
`;
const env = { PATH: `${dirname(process.execPath)}:/usr/bin:/bin` };

let folder = '';
let made: PackageFolder;
/** As npm makes it: a link of the command's name. */
let command = '';
let manifest: Readonly<Record<string, unknown>> = {};

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'scute-package-'));
  made = await buildPackage(join(folder, 'package'));
  manifest = JSON.parse(await readFile(join(made.folder, 'package.json'), 'utf8')) as Readonly<Record<string, unknown>>;
  command = join(folder, 'scute');
  await symlink(join(made.folder, (manifest['bin'] as { scute: string }).scute), command);
});

after(() => rm(folder, { recursive: true, force: true }));

test('the package needs no other package, runs nothing when it is installed, and may be published', () => {
  for (const key of ['dependencies', 'optionalDependencies', 'peerDependencies', 'devDependencies', 'scripts', 'private'])
    assert.equal(manifest[key], undefined, key);
  assert.deepEqual([manifest['name'], manifest['license']], ['scute', 'Apache-2.0']);
});

test('the package gives its schemas to who asks for them by name, and nothing of its code', async () => {
  const modules = join(folder, 'node_modules');
  await mkdir(modules);
  await symlink(made.folder, join(modules, 'scute'));
  const require = createRequire(join(folder, 'any.js'));
  for (const name of ['scute', 'api', 'fleet-api'])
    assert.equal((require(`scute/${name}.schema.json`) as { $id: string }).$id, `${name}.schema.json`);
  assert.throws(() => require('scute/scute-dev.cjs'), { code: 'ERR_PACKAGE_PATH_NOT_EXPORTED' });
});

test('the licences of all whose code is in the package are with it', async () => {
  const text = await readFile(join(made.folder, 'LICENCES.txt'), 'utf8');
  for (const name of ['@grpc/grpc-js', '@bufbuild/protobuf', 'pino', 'preact', 'zod', 'pino-pretty', '@peculiar/x509']) {
    const one = made.packages.find((shipped) => shipped.name === name);
    assert.ok(one !== undefined && one.text.length > 200, name);
    assert.ok(text.includes(`${name} ${one.version} (${one.license})\n\n${one.text}`), name);
  }
});

test('the command of the package starts Scute in its own place, with the inspector shut and the settings for OpenSSL', async () => {
  const config = join(folder, 'scute.yaml');
  await writeFile(config, CONFIG);
  await using child = await startChild([command, 'run', '-c', config], { env });
  await child.line(/"listening"/);

  const argv = (await readFile(`/proc/${child.pid}/cmdline`, 'utf8')).split('\0');
  assert.equal(await readlink(`/proc/${child.pid}/exe`), process.execPath);
  assert.deepEqual(argv.slice(1, 4), [
    '--disable-sigusr1',
    `--openssl-config=${join(made.folder, 'openssl.cnf')}`,
    join(made.folder, 'scute.js'),
  ]);
  child.signal('SIGUSR1');
  child.signal('SIGTERM');
  assert.deepEqual(await child.exited, { code: 0, signal: null });
  assert.doesNotMatch(child.stderr(), /Debugger listening/);
});

test('what was given to Node goes to Scute as well, and is judged there', async () => {
  const { code, stderr } = await runChild([process.execPath, '--tls-cipher-list=NULL', command, 'version'], { env });
  assert.equal(code, 1);
  assert.match(stderr, /will not start: --tls-cipher-list changes the ciphers of TLS/);
  const inspected = await runChild([command, 'version'], { env: { ...env, NODE_OPTIONS: '--inspect=127.0.0.1:0' } });
  assert.equal(inspected.code, 1);
  assert.match(inspected.stderr, /will not start: NODE_OPTIONS: --inspect/);
  const ours = await runChild([process.execPath, '--max-old-space-size=64', command, 'version'], { env });
  assert.equal(ours.code, 0, ours.stderr);
});

test('an older Node gets a sentence, and how to get another', async () => {
  const older = join(folder, 'older.cjs');
  await writeFile(older, "Object.defineProperty(process, 'version', { value: 'v20.20.2' });");
  const { code, stdout, stderr } = await runChild([process.execPath, '--require', older, command, 'demo'], { env });
  assert.deepEqual([code, stdout], [1, '']);
  assert.match(stderr, /^scute: will not start: this is Node v20\.20\.2; it needs 26\.12 or later\. \S.*\n$/);
});
