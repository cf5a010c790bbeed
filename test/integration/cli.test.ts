import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';
import { runChild, startChild, type Finished } from '../support/child.ts';

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const PATH = process.env['PATH'] ?? '';

function scute(
  args: readonly string[],
  { env = {}, nodeArgs = ['--disable-sigusr1'] }: { env?: Record<string, string>; nodeArgs?: string[] } = {},
): Promise<Finished> {
  return runChild([process.execPath, ...nodeArgs, MAIN, ...args], { env: { PATH, ...env } });
}

async function configFile(t: TestContext, text: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'scute-cli-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const file = join(folder, 'scute.yaml');
  await writeFile(file, text);
  return file;
}

test('every command has a help with an example', async () => {
  for (const command of ['run', 'check', 'envoy', 'dev', 'demo', 'harness', 'version']) {
    const { code, stdout } = await scute([command, '--help']);
    assert.equal(code, 0);
    assert.match(stdout, new RegExp(`Examples?:\\n  scute ${command}`), command);
  }
});

test('scute version names its own version, that of Node and that of OpenSSL', async () => {
  const { code, stdout } = await scute(['version']);

  assert.equal(code, 0);
  assert.match(stdout, /^scute \d+\.\d+\.\d+ \(node 26\.\S+, openssl 3\.\S+\)\n$/);
});

test('wrong usage is exit code 64 with one sentence on standard error', async () => {
  const wrong: [string[], RegExp][] = [
    [['chekc'], /unknown command 'chekc'\n\(Did you mean check\?\)/],
    [['run', '--bogus'], /unknown option '--bogus'/],
    [['run'], /nothing to run/],
    [['run', '-c', 'a.yaml', '--inbound', '127.0.0.1:1'], /not from both/],
    [['run', '--to', '127.0.0.1:1'], /belongs to the --inbound or --outbound before it/],
    [['run', '--outbound', '127.0.0.1:1', '--allow', 'spiffe://example.org/a'], /belongs to the --inbound before it/],
    [['run', '--inbound', '127.0.0.1:1', '--to', '127.0.0.1:2', '--to', '127.0.0.1:3'], /has one already/],
    [['run', 'extra'], /too many arguments/],
    [['check'], /required option '-c, --config <file>'/],
  ];
  for (const [args, expected] of wrong) {
    const { code, stdout, stderr } = await scute(args);
    assert.equal(code, 64, args.join(' '));
    assert.equal(stdout, '');
    assert.match(stderr, expected);
  }
});

test('flags are judged by the schema of the file, and all their problems come at once', async () => {
  const args = [
    '--inbound',
    ':8443',
    '--allow',
    'nonsense',
    '--outbound',
    '0.0.0.0:1',
    '--to',
    'db.internal',
    '--admin',
    '0.0.0.0:2',
    '--log-level',
    'loud',
  ];

  const { code, stderr } = await scute(['run', ...args]);

  assert.equal(code, 64);
  for (const path of [
    'inbound[0].listen',
    'inbound[0].to',
    'inbound[0].allow[0]',
    'outbound[0].listen',
    'outbound[0].to',
    'outbound[0].expect',
    'admin.listen',
    'log.level',
    'workloadApi.endpoint',
  ]) {
    assert.ok(stderr.includes(`command line ${path}: `), `${path}\n${stderr}`);
  }
});

test('scute envoy prints text as text, though YAML 1.1 has more words for true, false and numbers, and a file name adds nothing', async (t) => {
  const file = `${await configFile(t, '')}\nadmin: { address: x }`;
  const listener = { listen: '127.0.0.1:1', to: '127.0.0.1:2', allow: ['spiffe://example.org/web'] };
  const inbound = ['yes', 'inf'].map((name, index) => ({ ...listener, name, listen: `127.0.0.1:${index + 3}` }));
  const sds = { listen: 'unix:///run/sds.sock', defaultSvidName: 'on' };
  await writeFile(file, JSON.stringify({ workloadApi: { endpoint: 'unix:///run/agent.sock' }, inbound, sds }));

  const { code, stdout } = await scute(['envoy', '-c', file]);

  assert.equal(code, 0);
  const printed = parse(stdout, { version: '1.1' }) as object;
  assert.deepEqual(Object.keys(printed), ['node', 'static_resources']);
  for (const name of ['yes', 'inf', 'on']) assert.match(stdout, new RegExp(`name: "${name}"\n`));
  assert.doesNotMatch(stdout.slice(stdout.indexOf('\n')), /: (?!\d+$|true$|false$)[^"\n{[]/m, 'a plain text');
});

test('scute envoy says that Envoy does not know the deny list', async (t) => {
  const inbound = [{ listen: '127.0.0.1:1', to: '127.0.0.1:2', allow: ['spiffe://example.org/web'] }];
  const config = { workloadApi: { endpoint: 'unix:///run/agent.sock' }, inbound, sds: { listen: 'unix:///run/sds.sock' } };
  const print = async (more: object): Promise<string> =>
    (await scute(['envoy', '-c', await configFile(t, JSON.stringify({ ...config, ...more }))])).stdout;

  assert.match(await print({ revocations: { file: '/etc/scute/revoked.yaml' } }), /^# Envoy does not know the deny list/m);
  assert.doesNotMatch(await print({}), /deny list/);
});

test('scute check reports every problem with file, line and column, and exits 64', async (t) => {
  const file = await configFile(t, 'inbound:\n  - listen: 0.0.0.0:8443\n    to: 10.0.0.1:80\n    alow: []\nbogus: 1\n');

  const { code, stdout, stderr } = await scute(['check', '-c', file]);

  assert.equal(code, 64);
  assert.equal(stdout, '');
  assert.deepEqual(
    stderr
      .trimEnd()
      .split('\n')
      .map((line) => line.replace(`${file}:`, '').replace(/: .*/, '')),
    ['1:1 workloadApi.endpoint', '2:5 inbound[0].allow', '3:9 inbound[0].to', '4:5 inbound[0].alow', '5:1 bogus'],
  );
});

test('scute check says what would listen where and who is admitted', async (t) => {
  const file = await configFile(
    t,
    `workloadApi: { endpoint: unix:///agent.sock }
inbound:
  - { name: api, listen: 0.0.0.0:8443, to: 127.0.0.1:8080, allow: [spiffe://example.org/web, spiffe://partner.example/**] }
  - { name: told, listen: 0.0.0.0:9443, to: 127.0.0.1:8081, allow: [], proxyProtocol: { send: tls, acceptFrom: [10.0.0.0/8] } }
  - { name: shut, listen: unix:///run/shut.sock, to: unix:///run/app.sock, allow: [], identity: { hint: internal } }
outbound:
  - { name: db, listen: unix:///run/db.sock, socketMode: "0660", to: db.internal:5432, expect: [spiffe://example.org/db] }
metrics: { listen: 0.0.0.0:9090 }
`,
  );

  const { code, stdout } = await scute(['check', '-c', file]);

  assert.equal(code, 0);
  assert.equal(
    stdout,
    `${file} is valid
workload API  unix:///agent.sock
inbound api  0.0.0.0:8443 (mTLS) to 127.0.0.1:8080 (plain)
  admits spiffe://example.org/web
  admits spiffe://partner.example/** (the whole trust domain)
inbound told  0.0.0.0:9443 (mTLS) to 127.0.0.1:8081 (plain)
  sends the application a PROXY header (tls, SPIFFE ID in TLV 0xD0)
  requires a PROXY header from 10.0.0.0/8
  admits nobody: the allow list is empty
inbound shut  unix:///run/shut.sock (mode 0600) (mTLS) to unix:///run/app.sock (plain)
  presents the SVID with hint "internal"
  admits nobody: the allow list is empty
outbound db  unix:///run/db.sock (mode 0660) (plain) to db.internal:5432 (mTLS)
  expects spiffe://example.org/db
metrics  0.0.0.0:9090
`,
  );
});

test('a wrong configuration starts nothing: scute run exits 64 with all problems', async (t) => {
  const file = await configFile(t, 'inbound:\n  - { listen: 127.0.0.1:0, to: 127.0.0.1:80, allow: [], alow: [] }\nlog: { level: loud }\n');

  const { code, stdout, stderr } = await scute(['run', '-c', file], { env: { SPIFFE_ENDPOINT_SOCKET: 'unix:///agent.sock' } });

  assert.equal(code, 64);
  assert.equal(stdout, '');
  assert.equal(stderr.trimEnd().split('\n').length, 2);
});

test('scute refuses to start where keys would leak or certificates would not be verified', async () => {
  const refused: [Parameters<typeof scute>[1], RegExp][] = [
    [{ env: { NODE_TLS_REJECT_UNAUTHORIZED: '0' } }, /NODE_TLS_REJECT_UNAUTHORIZED=0/],
    [{ env: { SSLKEYLOGFILE: '/nonexistent/keys' } }, /SSLKEYLOGFILE/],
    [{ env: { NODE_OPTIONS: '--inspect=127.0.0.1:0' } }, /NODE_OPTIONS: --inspect opens the inspector/],
    [{ nodeArgs: ['--inspect=127.0.0.1:0'] }, /--inspect opens the inspector/],
    [{ env: { NODE_OPTIONS: '--tls-min-v1.0' } }, /old versions of TLS/],
  ];
  for (const [options, expected] of refused) {
    const { code, stderr } = await scute(['version'], options);
    assert.equal(code, 1);
    assert.match(stderr, expected);
  }
});

test('SIGUSR1 does not open the inspector, with or without --disable-sigusr1', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'scute-cli-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  for (const nodeArgs of [['--disable-sigusr1'], []]) {
    await using child = await startChild([process.execPath, ...nodeArgs, MAIN, 'dev'], { env: { PATH, TMPDIR: folder } });
    await child.line(/^READY$/);

    child.signal('SIGUSR1');
    // The inspector would say so on standard error before the process can end in order.
    child.signal('SIGTERM');
    const { code } = await child.exited;

    assert.equal(code, 0);
    assert.doesNotMatch(child.stderr(), /Debugger listening/);
  }
});

test('the second signal ends the process at once, with 128 and its number', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'scute-cli-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  await using child = await startChild([process.execPath, '--disable-sigusr1', MAIN, 'dev'], { env: { PATH, TMPDIR: folder } });
  await child.line(/^READY$/);

  child.signal('SIGTERM');
  child.signal('SIGINT');
  const { code } = await child.exited;

  assert.ok(code === 130 || code === 143, String(code));
});
