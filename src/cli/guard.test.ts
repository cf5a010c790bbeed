import assert from 'node:assert/strict';
import { test } from 'node:test';
import { refusals, type ProcessFacts } from './guard.ts';

const CLEAN: ProcessFacts = { env: {}, execArgv: ['--disable-sigusr1'], nodeVersion: 'v26.12.0', inspectorUrl: undefined };

test('a plain process is not refused', () => {
  assert.deepEqual(refusals(CLEAN), []);
  assert.deepEqual(refusals({ ...CLEAN, nodeVersion: 'v27.0.1' }), []);
  assert.deepEqual(
    refusals({
      ...CLEAN,
      env: { NODE_TLS_REJECT_UNAUTHORIZED: '1', NODE_EXTRA_CA_CERTS: '/ca.pem', NODE_OPTIONS: '--max-old-space-size=64' },
    }),
    [],
  );
});

test('an older Node is refused with both versions named', () => {
  for (const nodeVersion of ['v20.20.2', 'v26.9.9', 'v25.99.0']) {
    assert.deepEqual(refusals({ ...CLEAN, nodeVersion }), [`this is Node ${nodeVersion}; it needs 26.12 or later`]);
  }
});

test('an environment that turns verification off or asks for session secrets is refused', () => {
  assert.match(refusals({ ...CLEAN, env: { NODE_TLS_REJECT_UNAUTHORIZED: '0' } })[0] ?? '', /NODE_TLS_REJECT_UNAUTHORIZED=0/);
  assert.match(refusals({ ...CLEAN, env: { SSLKEYLOGFILE: '/tmp/keys' } })[0] ?? '', /SSLKEYLOGFILE/);
});

test('code that was compiled elsewhere is refused', () => {
  assert.match(
    refusals({ ...CLEAN, env: { NODE_COMPILE_CACHE: '/tmp/cache' } })[0] ?? '',
    /^NODE_COMPILE_CACHE names a folder of compiled code/,
  );
  assert.deepEqual(refusals({ ...CLEAN, env: { NODE_COMPILE_CACHE: '' } }), []);
});

test('options of Node that leak keys, or weaken TLS or HTTP, are refused, on the command line and in NODE_OPTIONS', () => {
  const options = [
    '--inspect',
    '--inspect=0.0.0.0:9229',
    '--inspect-brk',
    '--inspect-wait',
    '--inspect-port=0',
    '--inspect_brk',
    '--tls-keylog=/tmp/keys',
    '--trace-tls',
    '--heapsnapshot-signal=SIGUSR2',
    '--heapsnapshot-near-heap-limit=1',
    '--tls-min-v1.0',
    '--tls-min-v1.1',
    '--tls_min_v1.1',
    '--tls-max-v1.2',
    '--tls-cipher-list=NULL',
    '--openssl-legacy-provider',
    '--insecure-http-parser',
    '--config-file=node.config.json',
    '--experimental-config-file=node.config.json',
    '--experimental-default-config-file',
  ];
  for (const option of options) {
    assert.equal(refusals({ ...CLEAN, execArgv: [option] }).length, 1, option);
    assert.equal(refusals({ ...CLEAN, env: { NODE_OPTIONS: `--no-warnings ${option}` } }).length, 1, option);
    assert.equal(refusals({ ...CLEAN, env: { NODE_OPTIONS: `--title="a b" "${option}"` } }).length, 1, option);
  }
});

test('options in NODE_OPTIONS are told apart as Node does', () => {
  for (const text of [
    String.raw`"--tls-min-v1\.0"`,
    String.raw`"\--tls-min-v1.0"`,
    String.raw`--tls"-\m"in-v1.0`,
    String.raw`--title="\"" --tls-min-v1.0 --title="\""`,
    '--title="\\\n" --tls-min-v1.0 --title="a"',
    '--title=a\\ --tls-min-v1.0',
  ])
    assert.deepEqual(
      refusals({ ...CLEAN, env: { NODE_OPTIONS: text } }),
      ['NODE_OPTIONS: --tls-min-v1.0 allows old versions of TLS'],
      text,
    );
  for (const text of ['--title="a --tls-min-v1.0"', String.raw`--title="\" --tls-min-v1.0"`, '--title=a\n--tls-min-v1.0'])
    assert.deepEqual(refusals({ ...CLEAN, env: { NODE_OPTIONS: text } }), [], text);
});

test('options that strengthen TLS are not refused', () => {
  assert.deepEqual(refusals({ ...CLEAN, execArgv: ['--tls-min-v1.3', '--tls-min-v1.2', '--tls-max-v1.3'] }), []);
});

test('an inspector that is open, however it was opened, is refused', () => {
  assert.match(refusals({ ...CLEAN, inspectorUrl: 'ws://127.0.0.1:9229/x' })[0] ?? '', /inspector is open/);
});
