import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, readFile, readlink, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { buildExecutable } from '../../../build/executable/executable.ts';
import { onTerminal, runChild, startChild, type Child } from '../../support/child.ts';

const CONFIG = `workloadApi: { endpoint: unix:///nonexistent/agent.sock }
admin: { listen: 127.0.0.1:0 }
`;
const LISTENER = 'inbound: [{ listen: 127.0.0.1:0, to: 127.0.0.1:8080, allow: [spiffe://example.org/web] }]\n';
/** Nothing of the system is needed but the C library. */
const env = { PATH: '/nonexistent' };

let folder = '';
/** The only file of a folder, so that nothing can be found beside it. */
let scute = '';
let config = '';
let licences = '';

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'scute-executable-'));
  scute = join(folder, 'alone/scute');
  licences = await buildExecutable(scute);
  config = join(folder, 'scute.yaml');
  await writeFile(config, CONFIG + LISTENER);
});

after(() => rm(folder, { recursive: true, force: true }));

async function startRun(t: { after(done: () => unknown): void }, more: Readonly<Record<string, string>> = {}): Promise<Child> {
  const child = await startChild([scute, 'run', '-c', config], { env: { ...env, ...more } });
  t.after(() => child.stop());
  await child.line(/"listener":"inbound-0".*"listening"/);
  return child;
}

/** The ports on which a process accepts, by its sockets. */
async function listening(pid: number): Promise<number[]> {
  const links = await Promise.all(readdirSync(`/proc/${pid}/fd`).map((fd) => readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')));
  const sockets = new Set(links.map((link) => /^socket:\[(\d+)\]$/.exec(link)?.[1]));
  const lines = (await readFile(`/proc/${pid}/net/tcp`, 'utf8')).trim().split('\n').slice(1);
  return lines
    .map((line) => line.trim().split(/\s+/))
    .filter(([, , , state, , , , , , inode]) => state === '0A' && sockets.has(inode))
    .map(([, local = '']) => Number.parseInt(local.split(':')[1] ?? '', 16));
}

test('the executable is one file, and answers without any other', async () => {
  assert.deepEqual(readdirSync(join(folder, 'alone')), ['scute']);
  const { code, stdout, stderr } = await runChild([scute, 'version'], { env });
  assert.deepEqual([code, stderr], [0, '']);
  assert.match(stdout, /^scute \d+\.\d+\.\d+ \(node 26\.\S+, openssl 3\.\S+\)\n$/);
});

test('the licences of all that is in the executable are made with it', () => {
  for (const part of ['zod', '@grpc/grpc-js', 'Node.js', 'OpenSSL', 'libuv', 'ICU']) assert.ok(licences.includes(part), part);
});

test('V8 takes the code cache of the executable', async (t) => {
  const child = await startRun(t);
  assert.doesNotMatch(child.stderr(), /code cache/);
});

test('no way opens the inspector of the executable', async (t) => {
  const plain = await startRun(t);
  // Without --disable-sigusr1, Node has a thread that waits for the signal from the first moment on.
  const threads = readdirSync(`/proc/${plain.pid}/task`).map((task) => readFileSync(`/proc/${plain.pid}/task/${task}/comm`, 'utf8').trim());
  assert.ok(threads.length > 1 && !threads.includes('SignalInspector'), threads.join(' '));
  plain.signal('SIGUSR1');
  await runChild([process.execPath, '--eval', `process._debugProcess(${plain.pid})`]);
  // It is alive, and listens where it did.
  plain.signal('SIGHUP');
  await plain.line(/"message":"configuration reloaded"/);
  assert.equal((await listening(plain.pid)).length, 2, 'the inbound listener and the admin listener');
  assert.doesNotMatch(plain.stderr(), /Debugger/);

  for (const options of [
    '--inspect=127.0.0.1:0',
    '--inspect-brk=127.0.0.1:0',
    '--inspect-port=0',
    '--heapsnapshot-signal=SIGUSR2',
    '--tls-keylog=/tmp/x',
  ]) {
    const { code, stderr } = await runChild([scute, 'version'], { env: { ...env, NODE_OPTIONS: options } });
    assert.equal(code, 1, options);
    assert.match(stderr, /^scute: will not start: NODE_OPTIONS: --/, options);
    assert.doesNotMatch(stderr, /Debugger/, options);
  }
  for (const args of [
    ['--inspect=127.0.0.1:0', 'version'],
    ['version', '--inspect=127.0.0.1:0'],
    ['--node-options=--inspect=127.0.0.1:0', 'version'],
  ]) {
    const { code, stderr } = await runChild([scute, ...args], { env });
    assert.equal(code, 64, args.join(' '));
    assert.match(stderr, /unknown option/);
    assert.doesNotMatch(stderr, /Debugger/);
  }
});

test('what NODE_OPTIONS loads is not loaded, and an environment that leaks keys is refused', async () => {
  const loaded = join(folder, 'loaded.cjs');
  await writeFile(loaded, "require('node:fs').writeSync(2, 'LOADED')");
  for (const how of ['--require', '--import']) {
    const { stdout, stderr } = await runChild([scute, 'version'], { env: { ...env, NODE_OPTIONS: `${how}=${loaded}` } });
    assert.match(stdout, /^scute /);
    assert.doesNotMatch(stderr, /LOADED/);
  }
  const { code, stderr } = await runChild([scute, 'version'], { env: { ...env, SSLKEYLOGFILE: '/tmp/keys', NODE_COMPILE_CACHE: folder } });
  assert.equal(code, 1);
  assert.match(stderr, /SSLKEYLOGFILE.*\n.*NODE_COMPILE_CACHE/);
});

test('what lies beside the executable is never loaded', async () => {
  const beside = join(folder, 'alone/scute-dev.cjs');
  await writeFile(beside, "require('node:fs').writeSync(2, 'LOADED')");
  try {
    await using child = await startChild([scute, 'dev'], { env: { ...env, XDG_RUNTIME_DIR: folder } });
    await child.line(/^READY$/);
    assert.doesNotMatch(child.stderr(), /LOADED/);
  } finally {
    await rm(beside);
  }
});

test('what is loaded on use is within: the dashboard, the log for terminals, the parser of policy files', async (t) => {
  const child = await startRun(t);
  const { text } = await child.line(/"listener":"admin"/);
  const answer = await fetch(`http://${(JSON.parse(text) as { readonly address: string }).address}/`);
  assert.equal(answer.status, 200);
  assert.match(await answer.text(), /<div id="page">/);

  const onScreen = await startChild(onTerminal([scute, 'run', '-c', config]), { env: { PATH: '/usr/bin:/bin' } });
  t.after(() => onScreen.stop());
  await onScreen.line(/INFO.*listening/);

  const policy = join(folder, 'policy.yaml');
  const withPolicy = join(folder, 'with-policy.yaml');
  const rules = (who: string): string => `allow: [spiffe://example.org/${who}]\n...\n`;
  await writeFile(policy, rules('web'));
  await writeFile(withPolicy, `${CONFIG}inbound: [{ listen: 127.0.0.1:0, to: 127.0.0.1:8080, policyFile: ${policy} }]\n`);
  await using reader = await startChild([scute, 'run', '-c', withPolicy], { env });
  await reader.line(/"listener":"inbound-0".*"listening"/);
  await writeFile(policy, rules('ops'));
  reader.signal('SIGHUP');
  await reader.line(/spiffe:\/\/example\.org\/ops/);
});

test('the executable is the same file each time it is built', async () => {
  const again = join(folder, 'again/scute');
  await buildExecutable(again);
  const [one, two] = await Promise.all([readFile(scute), readFile(again)]);
  assert.ok(one.equals(two));
});
