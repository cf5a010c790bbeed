import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';
import { needs } from '../../interop/parts.ts';
import { onTerminal, runChild, startChild, type Child, type Finished } from '../../support/child.ts';
import { eventually } from '../../support/eventually.ts';
import { ask } from '../../support/http/http.ts';
import { freePort } from '../../support/tcp.ts';

const MAIN = fileURLToPath(new URL('../../../src/main.ts', import.meta.url));
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
  for (const command of [
    'run',
    'check',
    'explain',
    'policy',
    'policy test',
    'audit',
    'status',
    'certs',
    'inspect',
    'jwt fetch',
    'jwt validate',
    'fleet',
    'envoy',
    'dev',
    'demo',
    'harness',
    'version',
  ]) {
    const { code, stdout } = await scute([...command.split(' '), '--help']);
    assert.equal(code, 0);
    assert.match(stdout, new RegExp(`Examples?:\\n  scute ${command}`), command);
  }
});

test('scute version names its own version, that of Node and that of OpenSSL, and so do --version and -V', async () => {
  for (const how of ['version', '--version', '-V']) {
    const { code, stdout } = await scute([how]);

    assert.equal(code, 0);
    assert.match(stdout, /^scute \d+\.\d+\.\d+ \(node 26\.\S+, openssl 3\.\S+\)\n$/);
  }
});

test('wrong usage is exit code 64 with one sentence on standard error', async () => {
  const wrong: [string[], RegExp][] = [
    [['chekc'], /unknown command 'chekc'\n\(Did you mean check\?\)/],
    [['chekc', '--help'], /unknown command 'chekc'\n/],
    [['--help', 'chekc'], /unknown command 'chekc'\n/],
    [['help', 'chekc'], /unknown command 'chekc'\n/],
    [['chekc', '--version'], /unknown command 'chekc'\n/],
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

test('scute check says where Envoy may admit peers that are on the deny list: by a pattern', async (t) => {
  const revoked = `${await configFile(t, '')}.revoked`;
  await writeFile(revoked, 'ids:\n  - spiffe://example.org/old\n...\n');
  const check = async (peer: string, revocations?: object): Promise<string> => {
    const sds = { listen: 'unix:///sds.sock', matchers: [{ secret: 'ROOTCA', allow: [peer] }] };
    const config = { workloadApi: { endpoint: 'unix:///agent.sock' }, sds, ...(revocations !== undefined && { revocations }) };
    const { code, stdout, stderr } = await scute(['check', '-c', await configFile(t, JSON.stringify(config))]);
    assert.deepEqual([code, stderr], [0, '']);
    return stdout;
  };

  assert.match(await check('spiffe://example.org/*', { file: revoked }), /^ {2}note: of a pattern, Envoy admits whom the deny list names/m);
  assert.doesNotMatch(await check('spiffe://example.org/web', { file: revoked }), /of a pattern/);
  assert.doesNotMatch(await check('spiffe://example.org/*'), /of a pattern/);
});

test('a policy that matchers of Envoy cannot say is named with file and line: scute check warns, scute envoy prints nothing', async (t) => {
  const file = await configFile(
    t,
    `workloadApi: { endpoint: unix:///agent.sock }
inbound:
  - name: api
    listen: 127.0.0.1:1
    to: 127.0.0.1:2
    allow: [spiffe://example.org/web]
    deny:
      - spiffe://example.org/old
  - { name: web, listen: 127.0.0.1:3, to: 127.0.0.1:4, policyMode: audit, allow: [spiffe://example.org/web] }
  - { name: good, listen: 127.0.0.1:5, to: 127.0.0.1:6, allow: [{ peer: spiffe://example.org/web, notAfter: 2027-01-01T00:00:00Z }] }
sds:
  listen: unix:///sds.sock
  matchers:
    - { secret: ROOTCA, listener: api }
    - { secret: ALL, listener: web }
    - secret: spiffe://example.org
      allow: []
    - { secret: spiffe://partner.example, allow: [spiffe://partner.example/*/${'x'.repeat(90)}] }
`,
  );

  const checked = await scute(['check', '-c', file]);
  assert.deepEqual([checked.code, checked.stderr], [0, '']);
  const warnings = checked.stdout.split('\n').filter((line) => line.startsWith('warning: '));
  assert.deepEqual(
    warnings.map((line) => line.replace(`warning: ${file}:`, '').replace(/ is withheld: .*/, '')),
    [
      '8:9: sds: "ROOTCA", of listener api,',
      '9:5: sds: "ALL", of listener web,',
      '16:7: sds: "spiffe://example.org"',
      '18:51: sds: "spiffe://partner.example"',
    ],
  );
  assert.match(warnings[0] ?? '', /the rule "deny spiffe:\/\/example\.org\/old" cannot be said in matchers/);
  assert.match(checked.stdout, /^ {2}Envoy can ask Scute .* ext_authz/m);
  assert.match(checked.stdout, /^ {2}"ROOTCA" is withheld$/m);

  const printed = await scute(['envoy', '-c', file]);
  assert.deepEqual([printed.code, printed.stdout], [1, '']);
  assert.match(
    printed.stderr,
    new RegExp(`^scute: ${file}:8:9: inbound api: the rule "deny .*" cannot be said in matchers.*\\. Envoy can ask Scute`),
  );
});

test('a rule of a time is printed by scute envoy only as a list that Scute serves: a printed one would hold for ever', async (t) => {
  const rule = '{ peer: spiffe://example.org/web, notAfter: 2027-01-01T00:00:00Z }';
  const print = async (more: string, listener = `inbound:\n  - { name: api, listen: 127.0.0.1:1, to: 127.0.0.1:2, allow: [${rule}] }`) => {
    const text = `workloadApi: { endpoint: unix:///agent.sock }\n${listener}\nsds: { listen: unix:///sds.sock${more} }\n`;
    const file = await configFile(t, text);
    const { code, stdout, stderr } = await scute(['envoy', '-c', file]);
    return { code, stdout, stderr: stderr.replace(file, 'FILE') };
  };

  const served = await print(', matchers: [{ secret: ROOTCA, listener: api }]');
  assert.equal(served.code, 0);
  assert.match(served.stdout, /validation_context_sds_secret_config:\n +name: "ROOTCA"/);
  assert.doesNotMatch(served.stdout, /example\.org\/web/);

  for (const more of ['', ', matchers: [{ secret: spiffe://partner.example, listener: api }]']) {
    const frozen = await print(more);
    assert.deepEqual([frozen.code, frozen.stdout], [1, '']);
    assert.match(
      frozen.stderr,
      /^scute: FILE:3:\d+: inbound api: the rule ".* until .*" holds at some times, .*: let Scute say it, by sds\.matchers/,
    );
  }
  const outbound = await print('', `outbound:\n  - { name: db, listen: 127.0.0.1:1, to: 127.0.0.1:2, expect: [${rule}] }`);
  assert.deepEqual([outbound.code, outbound.stdout], [1, '']);
  assert.match(
    outbound.stderr,
    /^scute: FILE:3:\d+: outbound db: the rule ".*" holds at some times, and a list that is printed would hold at all of them\n$/,
  );
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

test('scute check says where all below a path is denied and the path itself is not', async (t) => {
  const listener = { listen: '127.0.0.1:1', to: '127.0.0.1:2', protocol: 'http', allow: ['spiffe://example.org/web'] };
  const check = async (paths: readonly string[]): Promise<string> => {
    const inbound = [{ ...listener, deny: [{ peer: 'spiffe://example.org/**', paths }] }];
    const file = await configFile(t, JSON.stringify({ workloadApi: { endpoint: 'unix:///run/agent.sock' }, inbound }));
    return (await scute(['check', '-c', file])).stdout;
  };

  assert.match(await check(['/admin/**']), /^ {2}note: \/admin\/\*\* is denied, and \/admin itself is not: deny both, if both are meant$/m);
  assert.doesNotMatch(await check(['/admin/**', '/admin']), /note:/);
});

test('scute check says what would listen where and who is admitted', async (t) => {
  const file = await configFile(
    t,
    `workloadApi: { endpoint: unix:///agent.sock }
inbound:
  - { name: api, listen: 0.0.0.0:8443, to: 127.0.0.1:8080, allow: [spiffe://example.org/web, spiffe://partner.example/**] }
  - { name: told, listen: 0.0.0.0:9443, to: 127.0.0.1:8081, allow: [], proxyProtocol: { send: tls, acceptFrom: [10.0.0.0/8] } }
  - { name: shut, listen: unix:///run/shut.sock, to: unix:///run/app.sock, allow: [], identity: { hint: internal } }
  - { name: web, listen: 127.0.0.1:1, to: 127.0.0.1:2, allow: [spiffe://example.org/web], protocol: http, http: { extendedConnect: true } }
  - { name: older, listen: 127.0.0.1:3, to: 127.0.0.1:4, allow: [spiffe://example.org/web], protocol: http, alpn: [], http: { xfcc: sanitize } }
  - { name: newer, listen: 127.0.0.1:5, to: 127.0.0.1:6, allow: [spiffe://example.org/web], protocol: http, alpn: [h2], http: { spiffeIdHeader: X-Spiffe-Id, translation: http-proxy } }
  - { name: grpc, listen: 127.0.0.1:7, to: 127.0.0.1:8, allow: [spiffe://example.org/web], protocol: http, http: { application: h2c, extendedConnect: true } }
outbound:
  - { name: db, listen: unix:///run/db.sock, socketMode: "0660", to: db.internal:5432, expect: [spiffe://example.org/db] }
  - { name: shop, listen: unix:///run/shop.sock, to: shop.internal:443, expect: [spiffe://example.org/shop], protocol: http }
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
inbound web  127.0.0.1:1 (mTLS) to 127.0.0.1:2 (plain)
  serves HTTP/2 and HTTP/1.1, and tells the application who asks in X-Forwarded-Client-Cert
  serves WebSockets over HTTP/2 (extended CONNECT) as the GET with Upgrade that they are over HTTP/1.1
  admits spiffe://example.org/web
inbound older  127.0.0.1:3 (mTLS) to 127.0.0.1:4 (plain)
  serves HTTP/1.1, and tells the application who asks in no field
  admits spiffe://example.org/web
inbound newer  127.0.0.1:5 (mTLS) to 127.0.0.1:6 (plain)
  serves HTTP/2, and tells the application who asks in X-Forwarded-Client-Cert and X-Spiffe-Id
  carries HTTP/2 to HTTP/1.1 by http-proxy
  admits spiffe://example.org/web
inbound grpc  127.0.0.1:7 (mTLS) to 127.0.0.1:8 (plain)
  serves HTTP/2, and tells the application who asks in X-Forwarded-Client-Cert
  note: the application speaks h2c, so peers must speak HTTP/2: one that speaks HTTP/1.1 is refused in the handshake
  serves WebSockets over HTTP/2 (extended CONNECT) if the application does, to which rules for GET do not apply
  admits spiffe://example.org/web
outbound db  unix:///run/db.sock (mode 0660) (plain) to db.internal:5432 (mTLS)
  expects spiffe://example.org/db
outbound shop  unix:///run/shop.sock (mode 0600) (plain) to shop.internal:443 (mTLS)
  serves HTTP/1.1
  expects spiffe://example.org/shop
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

/** A configuration that starts, with nobody at the Workload API. */
const SERVING = `workloadApi: { endpoint: unix:///nonexistent/agent.sock }
inbound: [{ listen: 127.0.0.1:0, to: 127.0.0.1:8080, allow: [spiffe://example.org/web] }]
`;

/** As `… | reader`, or of standard error, when the reader has left before the first byte. */
async function withoutReader(t: TestContext, args: readonly string[], stream: 1 | 2 = 1): Promise<Child> {
  const folder = await mkdtemp(join(tmpdir(), 'scute-cli-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const script = `mkfifo "$0" && exec 3<>"$0" 4>"$0" 3<&- && exec "$@" ${stream}>&4 4>&-`;
  const child = await startChild(['sh', '-c', script, join(folder, 'output'), process.execPath, '--disable-sigusr1', MAIN, ...args], {
    env: { PATH, TMPDIR: folder, SPIFFE_ENDPOINT_SOCKET: 'unix:///nonexistent/agent.sock' },
  });
  t.after(() => child.stop());
  return child;
}

test('a reader that leaves early ends a command quietly, with 128 and the number of SIGPIPE', async (t) => {
  const file = await configFile(t, `${SERVING}sds: { listen: unix:///nonexistent/sds.sock }\n`);
  const commands = [['--help'], ['version'], ['--version'], ['run', '--help'], ['check', '-c', file], ['envoy', '-c', file], ['demo']];
  for (const args of commands) {
    const child = await withoutReader(t, args);
    assert.deepEqual([(await child.exited).code, child.stderr()], [141, ''], args.join(' '));
  }

  assert.equal((await (await withoutReader(t, ['harness'])).exited).code, 141);
  const dev = await withoutReader(t, ['dev']);
  assert.equal((await dev.exited).code, 141);
  assert.match(dev.stderr(), /^WARNING: this is a development trust domain\.[^\n]*\n$/);
});

test('scute run serves on when nobody reads its log', async (t) => {
  const port = await freePort();
  const run = await withoutReader(t, ['run', '-c', await configFile(t, `${SERVING}metrics: { listen: 127.0.0.1:${port} }\n`)]);

  await eventually(async () => assert.equal((await ask({ kind: 'tcp', host: '127.0.0.1', port }, '/livez')).status, 200));
  run.signal('SIGTERM');

  assert.equal((await run.exited).code, 0);
});

test('what a full disk does not take is said, and is exit code 1', async () => {
  const { code, stderr } = await runChild(['sh', '-c', 'exec "$@" >/dev/full', 'sh', process.execPath, MAIN, 'version'], { env: { PATH } });

  assert.equal(code, 1);
  assert.equal(stderr, 'scute: cannot write to standard output: ENOSPC: no space left on device, write\n');
});

test('without a reader of complaints, wrong usage is still exit code 64', async (t) => {
  const wrong = await withoutReader(t, ['chekc'], 2);

  assert.equal((await wrong.exited).code, 64);
});

test('on a terminal the log has colours, but not with NO_COLOR or TERM=dumb', needs('script'), async (t) => {
  const file = await configFile(t, SERVING);
  const output = async (env: Record<string, string>): Promise<string> => {
    await using child = await startChild(onTerminal([process.execPath, '--disable-sigusr1', MAIN, 'run', '-c', file]), {
      env: { PATH, ...env },
    });
    await child.line(/listening/);
    child.write('\u0003');
    assert.equal((await child.exited).code, 0);
    return child.stdout();
  };

  assert.ok((await output({ TERM: 'xterm' })).includes('\u001B['));
  for (const env of [{ TERM: 'xterm', NO_COLOR: '1' }, { TERM: 'dumb' }]) {
    const plain = await output(env);
    assert.match(plain, /INFO: listening/);
    assert.ok(!plain.includes('\u001B'), plain);
  }
});
