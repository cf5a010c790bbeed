import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmod, cp, mkdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { promisify } from 'node:util';
import { devConfigSchema } from '../../../src/devdomain/config.ts';
import { createDevDomain } from '../../../src/devdomain/dev-domain.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { BESIDE } from '../../support/build.ts';
import { API, WEB } from '../../support/data-path.ts';
import { runChild } from '../../support/child.ts';
import { eventually } from '../../support/eventually.ts';
import { readyz } from '../../support/scute-process.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { freePort } from '../stage.ts';
import { AGENT_FOLDER, startContainer, type ContainerOptions } from './container.ts';
import { agentFolder, ask, configFolder, ended, imageOfFile, mountable, PARTS, START_WITHIN_MS, startStage } from './container-stage.ts';

const image = imageOfFile();

test('with 64 MiB and a fifth of a core, as the image’s user, it is ready and serves 1,000 requests', PARTS, async (t) => {
  const stage = await startStage(t, image(), { memoryMib: 64, cpuPercent: 20 });

  await ask(stage, 1000);

  const { mostMib, residentMib } = await stage.container.memory();
  t.diagnostic(`${mostMib.toFixed(1)} MiB at most, ${residentMib.toFixed(1)} resident`);
  assert.equal(await ended(stage.container), '');
});

test('with 128 MiB, as a random user of group 0, it serves 10,000 short connections', PARTS, async (t) => {
  const stage = await startStage(t, image(), { memoryMib: 128, uid: 1_000_680_000, gid: 0 });

  await ask(stage, 10_000);

  const { mostMib, residentMib } = await stage.container.memory();
  t.diagnostic(`${mostMib.toFixed(1)} MiB at most, ${residentMib.toFixed(1)} resident`);
  assert.equal(await ended(stage.container), '');
});

test('with 64 file descriptors it refuses the connections that are too many, says so, and serves when they have gone', PARTS, async (t) => {
  const stage = await startStage(t, image(), { descriptors: 64 });
  const silent = Array.from({ length: 200 }, () => connect(stage.port, '127.0.0.1').on('error', () => undefined));
  t.after(() => {
    for (const socket of silent) socket.destroy();
  });

  const { text } = await stage.container.line(/"message":"connections refused unread"/);

  assert.match(text, /"reason":"file_limit","detail":"no file descriptors are left; \d+ are held by peers that are not admitted yet"/);
  await readyz(stage.metricsPort);
  for (const socket of silent) socket.destroy();
  await eventually(() => ask(stage, 1));
  for (let again = 0; again < 20; again += 1) await ask(stage, 1);
  assert.equal(await ended(stage.container), '');
});

test('as root it runs, and warns', PARTS, async (t) => {
  const { container } = await startStage(t, image(), { uid: 0, gid: 0 });

  assert.match(await ended(container), /^scute: running as root, which it never needs/);
});

/** Node as the image starts it, with something else than Scute. */
function nodeWith(...args: readonly string[]): Pick<ContainerOptions, 'entrypoint' | 'args'> {
  return { entrypoint: image().config.Entrypoint.slice(0, -1), args };
}

const LIMITS = `const { heap_size_limit } = v8.getHeapStatistics();
  console.log(process.constrainedMemory() / 2 ** 20, heap_size_limit / 2 ** 20)`;

/** In MiB: what Node sees, and half of it with the young generation on top. */
function assertHalf(printed: string, memoryMib: number): void {
  const [seen, heap = 0] = printed.trim().split(' ').map(Number);
  assert.equal(seen, memoryMib, printed);
  assert.ok(heap >= memoryMib / 2 && heap <= memoryMib * 0.65, `${heap} of ${memoryMib} MiB`);
}

test('the heap may take half of the container’s memory, and no more', PARTS, async (t) => {
  for (const memoryMib of [64, 128, 256, 1024]) {
    const container = await startContainer(t, image(), { memoryMib, ...nodeWith('-e', LIMITS) });
    assert.equal((await container.exited).code, 0, container.stderr());
    assertHalf(container.stdout(), memoryMib);
  }
});

/**
 * Gives what it starts, as process 1, files in the form of cgroup v2 to read, since a kernel that has v1 has no limits of v2: in cgroup $2 the limits
 * $3 (memory.max) and $4 (memory.high), in the one above it, if there is one, $5 (memory.max).
 */
const AS_CGROUP_V2 = `set -e
  mount -t proc proc "$1/proc"
  mount -t tmpfs tmpfs "$1/sys"
  own="$1/sys/fs/cgroup$2"
  mkdir -p "$own"
  [ "$2" = / ] || { echo "$5" > "$own/../memory.max"; echo max > "$own/../memory.high"; }
  echo "$3" > "$own/memory.max"
  echo "$4" > "$own/memory.high"
  echo "0::$2" > "$1/sys/cgroup"
  mount --bind "$1/sys/cgroup" "$1/proc/1/cgroup"
  root=$1
  shift 5
  exec chroot "$root" "$@"`;

interface CgroupV2 {
  readonly path: string;
  readonly max: string;
  readonly high: string;
  readonly above?: string;
}

/** What a container prints of its limits. */
async function limitsIn({ path, max, high, above = 'max' }: CgroupV2): Promise<string> {
  const inNamespaces = ['unshare', '--mount', '--pid', '--fork', 'sh', '-c', AS_CGROUP_V2, 'sh'] as const;
  const node = [...image().config.Entrypoint.slice(0, -1), '-e', LIMITS];
  const { code, stdout, stderr } = await runChild([...inNamespaces, image().root, path, max, high, above, ...node]);
  assert.equal(code, 0, stderr);
  return stdout;
}

const POD = '/kubepods.slice/pod/scute';
const bytes = (mib: number): string => String(mib * 2 ** 20);

test(
  'so it is with the limits of cgroup v2, the lower of memory.max and memory.high, by the files that a container sees of it',
  PARTS,
  async () => {
    for (const path of ['/', POD]) {
      assertHalf(await limitsIn({ path, max: bytes(96), high: 'max' }), 96);
      assertHalf(await limitsIn({ path, max: bytes(128), high: bytes(96) }), 96);
      assertHalf(await limitsIn({ path, max: 'max', high: bytes(96) }), 96);
      assertHalf(await limitsIn({ path, max: bytes(48), high: 'max' }), 48);
    }
  },
);

test('without a limit of its own the heap follows the machine, whatever limit the cgroup above has', PARTS, async () => {
  for (const above of ['max', bytes(96)]) {
    const [, heap = 0] = (await limitsIn({ path: POD, max: 'max', high: 'max', above })).trim().split(' ').map(Number);
    assert.ok(heap >= totalmem() / 2 ** 20 / 2, `${heap} MiB`);
  }
  assertHalf(await limitsIn({ path: POD, max: bytes(128), high: 'max', above: bytes(96) }), 128);
});

test('V8 takes the code cache, and leaves it when it was made for other flags', PARTS, async (t) => {
  const [node = '', ...options] = image().config.Entrypoint;
  const deserialized = async (...flags: readonly string[]): Promise<number> => {
    const container = await startContainer(t, image(), {
      entrypoint: [node, ...flags, '--profile-deserialization', ...options],
      args: ['version'],
    });
    assert.equal((await container.exited).code, 0, container.stderr());
    assert.match(container.stdout(), /^scute \d/m);
    const { size } = await stat(join(image().root, 'opt/scute/scute.cache'));
    return [...container.stdout().matchAll(/\[Deserializing from (\d+) bytes/g)].filter(([, bytes]) => Math.abs(Number(bytes) - size) < 64)
      .length;
  };

  assert.equal(await deserialized(), 1);
  assert.equal(await deserialized('--max-old-space-size=48'), 1);
  assert.equal(await deserialized('--no-opt'), 0);
});

/** Of the image's program folder, a copy in which one bit of some files is another. */
async function changedFolder(t: TestContext, names: readonly string[]): Promise<Readonly<Record<string, string>>> {
  const changed = join(await mountable(t), 'scute');
  await cp(join(image().root, 'opt/scute'), changed, { recursive: true });
  for (const name of names) {
    const file = join(changed, name);
    const bytes = await readFile(file);
    const at = bytes.length >> 1;
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    await writeFile(file, bytes);
  }
  return { '/opt/scute': changed };
}

function willNotRun(what: string): string {
  return `scute: will not run ${what}: not what was built with this image; pull the image again, by its digest\n`;
}

test('a code cache, a program, or settings for OpenSSL that were changed do not run', PARTS, async (t) => {
  const both = '/opt/scute/scute.cjs or /opt/scute/scute.cache';
  for (const [name, what] of [
    ['scute.cache', both],
    ['scute.cjs', both],
    ['openssl.cnf', '/opt/scute/openssl.cnf'],
  ] as const) {
    const container = await startContainer(t, image(), { args: ['version'], mounts: await changedFolder(t, [name]) });
    assert.equal((await container.exited).code, 1);
    assert.equal(container.stderr(), willNotRun(what));
  }
});

test('what was changed beside the program is refused when it is asked for, and nothing else is', PARTS, async (t) => {
  const port = await freePort();
  const etc = await configFolder(t, {
    workloadApi: { endpoint: `unix://${AGENT_FOLDER}/api.sock` },
    inbound: [{ name: 'in', listen: '127.0.0.1:0', to: '127.0.0.1:9', allow: [WEB] }],
    admin: { listen: `127.0.0.1:${port}` },
  });
  const mounts = { ...(await changedFolder(t, BESIDE)), '/etc/scute': etc };
  const dev = await startContainer(t, image(), { args: ['dev'], mounts });
  assert.equal((await dev.exited).code, 1);
  assert.ok(dev.stderr().startsWith(willNotRun('/opt/scute/scute-dev.cjs')), dev.stderr());

  const container = await startContainer(t, image(), { mounts });
  await container.line(/"listener":"admin"/, { withinMs: START_WITHIN_MS });
  assert.equal((await fetch(`http://127.0.0.1:${port}/`)).status, 503);
  assert.equal((await fetch(`http://127.0.0.1:${port}/livez`)).status, 200);
  await eventually(() => assert.equal(container.stderr(), willNotRun('/opt/scute/scute-dashboard.cjs')));
});

test('compiled code from outside is refused', PARTS, async (t) => {
  const cache = await mountable(t);
  const container = await startContainer(t, image(), {
    args: ['version'],
    env: { NODE_COMPILE_CACHE: '/cache' },
    mounts: { '/cache': cache },
  });

  assert.equal((await container.exited).code, 1);
  assert.match(container.stderr(), /^scute: will not start: NODE_COMPILE_CACHE names a folder of compiled code/);
});

test('without a configuration it ends with 64 and names the file', PARTS, async (t) => {
  const container = await startContainer(t, image());

  assert.equal((await container.exited).code, 64);
  assert.match(container.stderr(), /^\/etc\/scute\/scute\.yaml: cannot be read: ENOENT/);
});

test('what is no configuration where one should be ends it with 64 and one sentence', PARTS, async (t) => {
  const places = {
    'is a directory, not a file': (file: string) => mkdir(file),
    "cannot be read: EACCES: permission denied, open '/etc/scute/scute.yaml'": (file: string) => writeFile(file, '', { mode: 0 }),
    "cannot be read: ENOENT: no such file or directory, open '/etc/scute/scute.yaml'": (file: string) => symlink('nowhere', file),
    'is larger than 4194304 bytes': (file: string) => writeFile(file, Buffer.alloc(100 * 2 ** 20, '#')),
    'is a pipe that nobody wrote to its end within 10 s': (file: string) => promisify(execFile)('mkfifo', ['--mode=644', file]),
  };
  for (const [sentence, make] of Object.entries(places)) {
    const etc = await mountable(t);
    await make(join(etc, 'scute.yaml'));
    const container = await startContainer(t, image(), { mounts: { '/etc/scute': etc } });
    assert.equal((await container.exited).code, 64);
    assert.equal(container.stderr(), `/etc/scute/scute.yaml: ${sentence}\n`);
  }
});

test('a socket in a folder that nobody can write ends it with 1, and names path, user and what to do', PARTS, async (t) => {
  const inbound = { name: 'in', to: '127.0.0.1:9', allow: [WEB] };
  const socket = 'unix:///run/scute/x.sock';
  const workloadApi = { endpoint: `unix://${AGENT_FOLDER}/api.sock` };
  const configs = [
    { workloadApi, inbound: [{ ...inbound, listen: socket }] },
    { workloadApi, inbound: [{ ...inbound, listen: '127.0.0.1:0' }], admin: { listen: socket } },
    { workloadApi, inbound: [{ ...inbound, listen: '127.0.0.1:0' }], sds: { listen: socket } },
  ];
  for (const config of configs) {
    const container = await startContainer(t, image(), { mounts: { '/etc/scute': await configFolder(t, config) } });
    assert.equal((await container.exited).code, 1);
    assert.match(
      container.stderr(),
      /^scute: .*cannot make "\/run\/scute\/x\.sock": user 65532 cannot write to "\/run\/scute", since it is on a read-only file system; mount a volume there that this user may write to, or choose another path\n$/,
    );
  }
  const volume = await temporaryFolder(t);
  await chmod(volume, 0o755);
  const container = await startContainer(t, image(), {
    mounts: { '/etc/scute': await configFolder(t, configs[0] ?? {}) },
    volumes: { '/run/scute': volume },
  });
  assert.equal((await container.exited).code, 1);
  assert.match(container.stderr(), /user 65532 cannot write to "\/run\/scute", since its permissions forbid that;/);
});

test('while the Workload API’s folder is empty it stays up, is not ready and says which path; a late agent heals it', PARTS, async (t) => {
  const agent = await mountable(t);
  const metricsPort = await freePort();
  const etc = await configFolder(t, {
    workloadApi: { endpoint: `unix://${AGENT_FOLDER}/late/api.sock` },
    inbound: [{ name: 'in', listen: '127.0.0.1:0', to: '127.0.0.1:9', allow: [WEB] }],
    metrics: { listen: `127.0.0.1:${metricsPort}` },
  });
  const container = await startContainer(t, image(), { mounts: { '/etc/scute': etc, [AGENT_FOLDER]: agent } });
  await container.line(/"message":"Workload API stream failed"/);
  await eventually(async () => {
    const answer = await fetch(`http://127.0.0.1:${metricsPort}/readyz?verbose`);
    assert.equal(answer.status, 503);
    assert.equal((await fetch(`http://127.0.0.1:${metricsPort}/livez`)).status, 200);
  });
  assert.ok(
    container.lines().some((line) => line.includes(`connect ENOENT ${AGENT_FOLDER}/late/api.sock`)),
    container.lines().join('\n'),
  );

  const socket = join(agent, 'late/api.sock');
  await mkdir(dirname(socket));
  const workloads = [{ name: 'api', socket, ids: [API] }];
  const spiffe = createDevDomain(devConfigSchema.parse({ trustDomains: [{ name: 'example.org', workloads }] }), {
    clock: systemClock,
    onFailure: (failure) => {
      throw failure;
    },
  });
  await spiffe.start(AbortSignal.timeout(60_000));
  t.after(() => spiffe.stop(AbortSignal.abort()));
  await agentFolder(spiffe);
  await readyz(metricsPort);
  assert.equal(await ended(container), '');
});
