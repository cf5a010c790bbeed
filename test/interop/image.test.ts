import assert from 'node:assert/strict';
import { chmod, cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { runChild, startChild, type Child, type Finished } from '../support/child.ts';
import { presented, startExampleDomain, WEB } from '../support/data-path.ts';
import { outcome, tlsClient } from '../support/tls-peer.ts';
import { findProgram, needs, part } from './parts.ts';
import { freePort, startEcho } from './stage.ts';

const root = join(import.meta.dirname, '..', '..');
const FORMATS = ['oci', 'docker'] as const;
const BUILD_WITHIN_MS = 600_000;
const SHUTDOWN = {
  socketPath: '/run/scute/admin.sock',
  path: '/shutdown',
  method: 'POST',
  headers: { 'content-type': 'application/json' },
};
const ENVIRONMENT = process.env as Readonly<Record<string, string>>;

/** Programs that the Dockerfile runs, and what they need: `ldd` is a script for bash, npm asks `env` for Node. */
const PROGRAMS = ['sh', 'bash', 'env', 'ldd', 'grep', 'mkdir', 'cp', 'chown', 'chmod', 'rm'];
/** Packages of Debian whose libraries Node loads. */
const DEBIAN = ['libc6', 'libgcc-s1', 'libstdc++6', 'libatomic1'];

/** Prints the licences that are in the image. */
const LICENCES = `for (const file of ['/usr/local/LICENSE', '/opt/scute/LICENCES.txt', '/opt/scute/LICENSE', ...${JSON.stringify(DEBIAN)}.map((name) => '/usr/share/doc/' + name + '/copyright')])
  process.stdout.write(fs.readFileSync(file))`;

interface Buildah {
  /** Runs it to its end, which must be a good one. */
  run(args: readonly string[], withinMs?: number): Promise<Finished>;
  start(args: readonly string[]): Promise<Child>;
}

/** On a storage that goes with the test, without a daemon, a registry, or namespaces that a container might not have. */
async function startBuildah(stack: AsyncDisposableStack, folder: string): Promise<Buildah> {
  const registries = join(folder, 'registries.conf');
  const policy = join(folder, 'policy.json');
  await writeFile(registries, 'unqualified-search-registries = ["docker.io"]\n');
  await writeFile(policy, '{ "default": [{ "type": "insecureAcceptAnything" }] }');
  const options = {
    cwd: folder,
    env: { ...ENVIRONMENT, CONTAINERS_REGISTRIES_CONF: registries, BUILDAH_ISOLATION: 'chroot', TMPDIR: folder },
  };
  const argv = ([command = '', ...args]: readonly string[]): [string, ...string[]] => [
    part('buildah'),
    '--storage-driver=vfs',
    `--root=${join(folder, 'storage')}`,
    `--runroot=${join(folder, 'run')}`,
    command,
    ...(command === 'build' || command === 'from' ? ['--signature-policy', policy] : []),
    ...args,
  ];
  const run: Buildah['run'] = async (args, withinMs = 120_000) => {
    const finished = await runChild(argv(args), { ...options, withinMs });
    assert.equal(finished.code, 0, `buildah ${args.join(' ')}\n${finished.stdout.slice(-3000)}\n${finished.stderr.slice(-3000)}`);
    return finished;
  };
  stack.defer(async () => {
    await run(['rm', '--all']);
    await run(['rmi', '--all', '--force']);
  });
  return { run, start: (args) => startChild(argv(args), options) };
}

/** What npm has to know of this machine to reach its registry, but for passwords. */
interface NpmSettings {
  readonly env: Readonly<Record<string, string>>;
  /** A file of certificates. */
  readonly authorities: string | undefined;
  readonly cache: string | undefined;
}

async function npmSettings(): Promise<NpmSettings> {
  const keys = ['registry', 'proxy', 'https-proxy', 'noproxy', 'cafile', 'cache'];
  const { stdout } = await runChild(['npm', 'config', 'get', ...keys], { cwd: root, env: ENVIRONMENT });
  const lines = stdout.matchAll(/^([\w-]+)=(?!null$|undefined$)(.+)$/gm);
  const { cafile, cache, ...given } = Object.fromEntries(Array.from(lines, ([, key = '', value = '']) => [key, value]));
  const env = Object.fromEntries(Object.entries(given).map(([key, value]) => [`npm_config_${key.replaceAll('-', '_')}`, value]));
  return { env, authorities: cafile ?? ENVIRONMENT['NODE_EXTRA_CA_CERTS'], cache };
}

/** An image under the name that the Dockerfile begins with, made of this machine's Node, npm and system. */
async function makeBase(buildah: Buildah, folder: string, name: string, npm: NpmSettings): Promise<void> {
  const base = join(folder, 'base');
  const local = join(base, 'usr/local');
  await mkdir(join(local, 'bin'), { recursive: true });
  await mkdir(join(base, 'etc'));
  await mkdir(join(base, 'root'));
  await mkdir(join(base, 'tmp'), { mode: 0o1777 });
  await writeFile(join(base, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\n');
  await cp(process.execPath, join(local, 'bin/node'), { dereference: true });
  const { stdout: modules } = await runChild(['npm', 'root', '--global'], { env: ENVIRONMENT });
  await cp(join(modules.trim(), 'npm'), join(local, 'lib/node_modules/npm'), { recursive: true, dereference: true });
  await symlink('../lib/node_modules/npm/bin/npm-cli.js', join(local, 'bin/npm'));
  if (npm.authorities !== undefined) await cp(npm.authorities, join(base, 'etc/authorities.pem'), { dereference: true });
  await cp(join(root, `node_modules/node-linux-${process.arch}/LICENSE`), join(local, 'LICENSE'));
  const programs = PROGRAMS.map((program) => findProgram(program, ['/usr/bin']) ?? assert.fail(program));
  // Of a script, ldd says that it is not dynamic.
  const { stdout: loaded } = await runChild(['ldd', process.execPath, ...programs]);
  const libraries = new Set(loaded.match(/(?<=^\t(?:.* => )?)\/\S+/gm));
  const copyrights = DEBIAN.map((name) => `/usr/share/doc/${name}/copyright`);
  const { code, stderr } = await runChild(['cp', '--dereference', '--parents', ...programs, ...libraries, ...copyrights, base]);
  assert.equal(code, 0, stderr);
  await symlink('usr/bin', join(base, 'bin'));
  const env = { PATH: '/usr/local/bin:/usr/bin:/bin', HOME: '/root', ...npm.env };
  const trust = npm.authorities === undefined ? {} : { NODE_EXTRA_CA_CERTS: '/etc/authorities.pem' };
  const lines = Object.entries({ ...env, ...trust }).map(([key, value]) => `ENV ${key}=${JSON.stringify(value)}\n`);
  const file = join(folder, 'base.dockerfile');
  await writeFile(file, `FROM scratch\nCOPY . /\n${lines.join('')}`);
  await buildah.run(['build', '--tag', `docker.io/library/${name}`, '--file', file, base]);
}

/** `node:26.12.1-bookworm-slim`, say. */
async function baseOf(dockerfile: string): Promise<string> {
  const text = await readFile(dockerfile, 'utf8');
  const values = new Map([...text.matchAll(/^ARG (\w+)=(\S+)$/gm)].map(([, key = '', value = '']) => [key, value]));
  const [, name = ''] = /^FROM (\S+)/m.exec(text) ?? [];
  return name.replaceAll(/\$\{(\w+)\}/g, (_, key: string) => values.get(key) ?? '');
}

test(
  'the image builds without Docker, in both formats, and what is in it serves',
  { timeout: 1_200_000, ...needs('buildah') },
  async (t) => {
    const folder = await mkdtemp(join(tmpdir(), 'scute-image-'));
    // In reverse: what runs ends, its storage is given back, the folder goes.
    await using stack = new AsyncDisposableStack();
    stack.defer(() => rm(folder, { recursive: true, force: true }));
    const buildah = await startBuildah(stack, folder);
    const dockerfile = join(root, 'Dockerfile');
    const npm = await npmSettings();
    await makeBase(buildah, folder, await baseOf(dockerfile), npm);
    const cache = npm.cache === undefined ? [] : ['--volume', `${npm.cache}:/root/.npm`];
    const spiffe = await startExampleDomain(t);
    const agent = spiffe.endpoint('api').slice('unix://'.length);
    // The image runs as a user of its own.
    await chmod(dirname(agent), 0o755);
    await chmod(agent, 0o666);
    const application = await startEcho(t);

    for (const format of FORMATS) {
      const image = `localhost/scute:${format}`;
      const settings = ['--format', format, '--pull-never', '--network', 'host', ...cache];
      await buildah.run(['build', ...settings, '--tag', image, '--file', dockerfile, root], BUILD_WITHIN_MS);

      const { stdout } = await buildah.run(['inspect', '--type', 'image', image]);
      const { OCIv1: described } = JSON.parse(stdout) as { OCIv1: { config: ImageConfig } };
      const { config } = described;
      assert.deepEqual(
        [config.User, config.StopSignal, config.Cmd],
        ['65532:65532', 'SIGTERM', ['run', '-c', '/etc/scute/scute.yaml']],
        format,
      );
      assert.equal(config.Labels['org.opencontainers.image.title'], 'scute');

      const container = (await buildah.run(['from', '--pull-never', image])).stdout.trim();
      const inside = ['run', '--volume', `${dirname(agent)}:/run/agent`, container, '--'];
      const scute = [...inside, ...config.Entrypoint];
      assert.match((await buildah.run([...scute, 'version'])).stdout, /^scute \d/);
      const said = await buildah.run([...inside, '/usr/local/bin/node', '-e', LICENCES]);
      for (const licence of [
        /Node\.js is licensed/,
        /^@grpc\/grpc-js \d/m,
        /Apache License/,
        /GNU Lesser General Public/i,
        /GCC RUNTIME LIBRARY EXCEPTION/i,
      ])
        assert.match(said.stdout, licence);
      const facts = `const { uid, gid, mode } = fs.statSync('/run/scute'); console.log(process.getuid(), uid, gid, (mode & 0o7777).toString(8), fs.existsSync('/bin/sh'))`;
      assert.equal((await buildah.run([...inside, '/usr/local/bin/node', '-e', facts])).stdout, '65532 65532 65532 750 false\n');

      const address = `127.0.0.1:${await freePort()}`;
      const flags = ['--inbound', address, '--to', application.address, '--allow', WEB, '--workload-api', 'unix:///run/agent/api.sock'];
      const running = await buildah.start([...scute, 'run', ...flags, '--admin', 'unix:///run/scute/admin.sock']);
      // A signal would end Buildah alone.
      const shutdown = `require('http').request(${JSON.stringify(SHUTDOWN)}).on('error', () => {}).end()`;
      const stop = () => buildah.run([...inside, '/usr/local/bin/node', '-e', shutdown]);
      stack.defer(async () => void (await stop()));
      await running.line(/"message":"identity updated"/, { withinMs: 60_000 });
      const socket = tlsClient(t, address, presented(await spiffe.issue(WEB)));
      let tickets = 0;
      socket.on('session', () => tickets++);
      socket.end('hello');
      const { text } = await outcome(socket);
      assert.deepEqual([text, tickets], ['HELLO', 0], running.lines().join('\n'));

      await stop();
      assert.equal((await running.exited).code, 0);
    }
  },
);

interface ImageConfig {
  readonly User: string;
  readonly StopSignal: string;
  readonly Entrypoint: readonly string[];
  readonly Cmd: readonly string[];
  readonly Labels: Readonly<Record<string, string>>;
}
