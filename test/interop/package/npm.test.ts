import assert from 'node:assert/strict';
import { cp, mkdir, mkdtemp, readlink, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, test, type TestContext } from 'node:test';
import { buildPackage, pack } from '../../../build/package.ts';
import { onTerminal, runChild, startChild, type Child, type Finished } from '../../support/child.ts';
import { findProgram, needs, part } from '../parts.ts';

const root = join(import.meta.dirname, '../../..');
/** npm with a cold cache on a slow, busy machine. */
const INSTALL_WITHIN_MS = 600_000;

let folder = '';
let packed = '';

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'scute-npm-'));
  packed = await pack(await buildPackage(join(folder, 'package')), folder);
});

after(() => rm(folder, { recursive: true, force: true }));

interface Machine {
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
}

/** This Node, with the npm of this machine. */
const NEW = { node: process.execPath, npm: findProgram('npm') ?? '', npx: findProgram('npx') ?? '' };
const OLD_PARTS = needs('node-20', 'npm-10', 'npx-10', 'script');

function older(): typeof NEW {
  return { node: part('node-20'), npm: part('npm-10'), npx: part('npx-10') };
}

/** A folder with nothing, a path with `node`, `npm`, `npx` and the system's programs, and a cache of npm with nothing. */
async function freshMachine(programs: typeof NEW): Promise<Machine> {
  const cwd = await mkdtemp(join(folder, 'machine-'));
  const bin = join(cwd, 'bin');
  await mkdir(bin);
  for (const [name, program] of Object.entries(programs)) await symlink(program, join(bin, name));
  // npx asks whether it may install what it was told to: yes. What says how to reach a registry stays; what npm said to this test as one of its scripts does not.
  const said = /^(?:npm_(?!config_(?:registry|cafile|proxy|https_proxy|noproxy)$)|NODE_OPTIONS$|INIT_CWD$)/;
  const inherited = Object.fromEntries(
    Object.entries(process.env as Readonly<Record<string, string>>).filter(([name]) => !said.test(name)),
  );
  return {
    cwd,
    env: {
      ...inherited,
      PATH: `${bin}:/usr/bin:/bin`,
      npm_config_prefix: join(cwd, 'global'),
      npm_config_cache: join(cwd, 'cache'),
      npm_config_yes: 'true',
      TMPDIR: cwd,
    },
  };
}

function run(machine: Machine, ...argv: [string, ...string[]]): Promise<Finished> {
  return runChild(argv, { ...machine, withinMs: INSTALL_WITHIN_MS });
}

/** The demonstration on a terminal, until it says where its dashboard is. Ctrl-C ends it, and all that npm started between. */
async function demonstrates(t: TestContext, machine: Machine, ...argv: [string, ...string[]]): Promise<void> {
  const child: Child = await startChild(onTerminal(argv), machine);
  t.after(() => child.stop());
  const { text } = await child.line(/Dashboard: http/, { withinMs: INSTALL_WITHIN_MS });
  const [dashboard = ''] = /http:\/\/[\d.:]+\//.exec(text) ?? [];
  const answer = await fetch(dashboard);
  assert.equal(answer.status, 200);
  assert.match(await answer.text(), /<div id="page">/);
  child.write('\u0003');
  await child.exited;
  await assert.rejects(fetch(dashboard), /fetch failed/);
}

test('npx runs the demonstration from the packed file, with nothing beside it', needs('script'), async (t) => {
  await demonstrates(t, await freshMachine(NEW), 'npx', `--package=${packed}`, '--', 'scute', 'demo');
});

test('npm install --global makes a command of the packed file', needs('script'), async (t) => {
  const machine = await freshMachine(NEW);
  const installed = await run(machine, 'npm', 'install', '--global', '--no-audit', '--no-fund', packed);
  assert.equal(installed.code, 0, installed.stderr);
  const command = join(machine.cwd, 'global/bin/scute');
  assert.match(await readlink(command), /scute-start\.cjs$/);
  assert.match((await run(machine, command, 'version')).stdout, /^scute \d+\.\d+\.\d+ \(node 26\./);
  await demonstrates(t, machine, command, 'demo');
});

test('on Node 20 the command says what it needs and how npm brings it, and that works', OLD_PARTS, async (t) => {
  const machine = await freshMachine(older());
  const { code, stdout, stderr } = await run(machine, 'npx', `--package=${packed}`, '--', 'scute', 'demo');
  assert.deepEqual([code, stdout], [1, '']);
  const [, said = ''] =
    /^scute: will not start: this is Node v20\.\S+; it needs 26\.12 or later\. npm has it: (npx .*) …, where FILE is the file or folder that you installed from$/m.exec(
      stderr,
    ) ?? [];
  assert.notEqual(said, '', stderr);
  assert.doesNotMatch(stderr, /SyntaxError|bad option/);
  // The same words, with the packed file and the Node of this tree in the place of what npm's registry has, and of what is for the reader to fill in.
  const node = join(root, `node_modules/node-linux-${process.arch}`);
  const words = said.split(' ').map((word) => word.replace(/(?<==)node-linux-\S+/, node).replace(/(?<=^--package=)FILE$/, packed)) as [
    string,
    ...string[],
  ];
  await demonstrates(t, machine, ...words, 'demo');
});

test('the two commands of the README work in a clone with Node 20 and npm alone', OLD_PARTS, async (t) => {
  const machine = await freshMachine(older());
  const clone = join(machine.cwd, 'clone');
  const { stdout } = await runChild(['git', 'ls-files', '--cached', '--others', '--exclude-standard', '-z'], {
    cwd: root,
    env: machine.env,
  });
  for (const file of stdout
    .split('\0')
    .filter((name) => /^(?:src|configs)\/|^package(?:-lock)?\.json$|^tsconfig\.json$|^build\/link-node\.cjs$/.test(name))) {
    await mkdir(dirname(join(clone, file)), { recursive: true });
    await cp(join(root, file), join(clone, file));
  }
  const inClone = { ...machine, cwd: clone };
  const installed = await run(inClone, 'npm', 'ci', '--no-audit', '--no-fund');
  assert.equal(installed.code, 0, installed.stderr);
  await demonstrates(t, inClone, 'npm', 'start');
});
