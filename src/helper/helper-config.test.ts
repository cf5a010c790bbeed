import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatIssues } from '../config/issue.ts';
import { parseHcl } from './hcl.ts';
import { readHelperConfig, splitArguments, type HelperConfig, type HelperSurroundings } from './helper-config.ts';

const NAMES = 'svid_file_name = "svid.pem"\nsvid_key_file_name = "svid_key.pem"\nsvid_bundle_file_name = "svid_bundle.pem"\n';
const SURROUNDINGS: HelperSurroundings = { source: 'helper.conf', folder: '/work', endpointSocket: undefined, daemonMode: undefined };

function read(text: string, more: Partial<HelperSurroundings> = {}): HelperConfig {
  const config = readHelperConfig(text, { ...SURROUNDINGS, ...more });
  if (!config.ok) throw new Error(formatIssues(config.error));
  return config.value;
}

function problemsOf(text: string): readonly string[] {
  const config = readHelperConfig(text, SURROUNDINGS);
  return config.ok ? [] : formatIssues(config.error).split('\n');
}

test('the example that spiffe-helper comes with: three files in a directory, and a command that is not there', () => {
  const { endpoint, set, child, daemonMode, warnings } = read(`agent_address = "/tmp/spire-agent/public/api.sock"
cmd = ""
cmd_args = ""
cert_dir = "certs"
renew_signal = "SIGUSR1"
${NAMES}# Add CA with intermediates into Bundle file instead of SVID file,
# add_intermediates_to_bundle = false
`);

  assert.equal(endpoint, 'unix:///tmp/spire-agent/public/api.sock');
  assert.equal(set.directory, '/work/certs');
  assert.deepEqual(set.names, { svid: 'svid.pem', key: 'svid_key.pem', bundle: 'svid_bundle.pem', bundleMap: undefined });
  assert.deepEqual([set.certFileMode, set.keyFileMode, set.layout, set.mergedBundle], [0o644, 0o600, 'flat', false]);
  assert.deepEqual([child, daemonMode, warnings, set.notify], [undefined, true, [], []]);
});

test('its examples for PostgreSQL, MySQL and mosquitto: a command with arguments as it splits them', () => {
  const postgresql = read(
    `cmd = "/usr/bin/psql"\ncmd_args = "-p 5432 -c \\"SELECT pg_reload_conf();\\""\ncert_dir = "/opt/certs"\nrenew_signal = ""\n${NAMES}`,
  );
  assert.deepEqual(postgresql.child, { command: ['/usr/bin/psql', '-p', '5432', '-c', 'SELECT pg_reload_conf();'], signal: undefined });

  const mysql = read(
    `cmd = "/usr/bin/mysql"\ncmd_args = "-e \\"ALTER INSTANCE RELOAD TLS;\\""\n${NAMES}add_intermediates_to_bundle = true`,
  );
  assert.deepEqual(mysql.child?.command.slice(1), ['-e', 'ALTER INSTANCE RELOAD TLS;']);
  assert.equal(mysql.set.addIntermediatesToBundle, true);

  const mosquitto = read(`cmd = "/usr/sbin/mosquitto"\ncmd_args = "-c ./mosquitto.conf"\nrenew_signal = "SIGHUP"\n${NAMES}`);
  assert.deepEqual(mosquitto.child, { command: ['/usr/sbin/mosquitto', '-c', './mosquitto.conf'], signal: 'SIGHUP' });
});

test('the address of the agent: the file, then SPIFFE_ENDPOINT_SOCKET, then that of the example', () => {
  assert.equal(read(`agent_address = "/a"\n${NAMES}`, { endpointSocket: 'unix:///b' }).endpoint, 'unix:///a');
  assert.equal(read(NAMES, { endpointSocket: 'unix:///b' }).endpoint, 'unix:///b');
  assert.equal(read(NAMES).endpoint, 'unix:///tmp/spire-agent/public/api.sock');
});

test('modes are octal with a 0 ahead and decimal without, as Go reads them; a key for everybody is warned of', () => {
  assert.equal(read(`key_file_mode = 0640\n${NAMES}`).set.keyFileMode, 0o640);
  const odd = read(`key_file_mode = 444\n${NAMES}`);
  assert.equal(odd.set.keyFileMode, 0o674);
  assert.match(odd.warnings[0] ?? '', /key_file_mode 674 \(octal\) shows the private key/);
});

test('a process by its file, a hint, federated domains in one bundle, and no daemon', () => {
  const { set } = read(
    `pid_file_name = "app.pid"\nrenew_signal = "SIGHUP"\nhint = "db"\ninclude_federated_domains = true\nomit_expired = true\n${NAMES}`,
  );
  assert.deepEqual(set.notify, [{ kind: 'signal', pidFile: '/work/app.pid', signal: 'SIGHUP' }]);
  assert.deepEqual(set.identity, { by: 'hint', hint: 'db' });
  assert.deepEqual([set.mergedBundle, set.omitExpired], [true, true]);

  const once = read(`cmd = "/bin/true"\ndaemon_mode = false\n${NAMES}`);
  assert.deepEqual([once.daemonMode, once.child], [false, undefined]);
  assert.equal(once.warnings.length, 1);
  assert.equal(read(`daemon_mode = false\n${NAMES}`, { daemonMode: true }).daemonMode, true);
});

test('what it would refuse, and what Scute cannot do, is named with line and column', () => {
  for (const [text, problem] of [
    [`${NAMES}cert_dri = "x"`, 'helper.conf:4:1 cert_dri: is not a key of spiffe-helper'],
    [`${NAMES}cert_dir = 7`, 'helper.conf:4:1 cert_dir: must be text in quotes'],
    [
      'svid_file_name = "a"',
      'helper.conf:1:1 svid_file_name: all or none of svid_file_name, svid_key_file_name and svid_bundle_file_name must be given',
    ],
    ['cert_dir = "a"', 'helper.conf svid_file_name: is required: JWT files alone are not written'],
    [
      `${NAMES}renew_signal = "SIGKILL"`,
      'helper.conf:4:1 renew_signal: must be one of SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH, SIGINT, SIGQUIT, SIGTERM',
    ],
    [`${NAMES}pid_file_name = "a"`, 'helper.conf:4:1 pid_file_name: needs renew_signal'],
    [
      `${NAMES}jwt_svids = [{ jwt_audience = "a", jwt_svid_file_name = "b" }]`,
      'helper.conf:4:1 jwt_svids: is for JWT-SVIDs, which are not written',
    ],
    [
      `${NAMES}health_checks { listener_enabled = true }`,
      'helper.conf:4:1 health_checks: is not served: use the metrics listener of a configuration of Scute, which has /livez and /readyz',
    ],
    [NAMES.replace('"svid.pem"', '"../svid.pem"'), 'helper.conf:1:1 svid_file_name: "../svid.pem" is not the name of a file in cert_dir'],
    [`${NAMES}key_file_mode = 01777`, 'helper.conf:4:1 key_file_mode: must be an octal mode such as 0600, and is 1023 in decimal'],
    [
      `${NAMES}cmd_args = "a\\"b"`,
      'helper.conf:4:1 cmd_args: has a quotation mark in an argument that does not begin with one, or none at its end',
    ],
  ] as const)
    assert.deepEqual(problemsOf(text), [problem], text);
});

test('HCL: comments, lists, objects and escapes are read; what is not understood has its place', () => {
  const parsed = parseHcl('/* a\n b */ one = "x\\"\\n" # c\ntwo = [1, 0x10, -3, true,]\nthree { a = "b", c { d = 1 } } // e');
  assert.ok(parsed.ok, parsed.ok ? '' : parsed.error.message);
  assert.equal(parsed.value.get('one')?.value, 'x"\n');
  const two = parsed.value.get('two');
  assert.ok(two?.kind === 'list');
  assert.deepEqual(
    two.value.map(({ value }) => value),
    [1, 16, -3, true],
  );
  for (const [text, place] of [
    ['a = "open', '1:5'],
    ['a = 1\na = 2', '2:1'],
    ['a = <<EOF\nEOF', '1:5'],
    ['a = 09', '1:5'],
    ['a = 1.5', '1:5'],
    ['a "b" = 1', '1:3'],
    ['a = [1 2]', '1:8'],
    ['a = {', '1:6'],
    ['a = "\\x"', '1:5'],
    ['= 1', '1:1'],
    [`a = ${'['.repeat(100)}`, '1:21'],
  ] as const) {
    const wrong = parseHcl(text);
    assert.equal(wrong.ok ? 'good' : `${wrong.error.line}:${wrong.error.column}`, place, text);
  }
});

test('arguments are split at each space, but not in quotation marks', () => {
  assert.deepEqual(splitArguments('a "b c" "d ""e""" f'), ['a', 'b c', 'd "e"', 'f']);
  assert.deepEqual(splitArguments('a  b '), ['a', '', 'b', '']);
  for (const wrong of ['a"b', '"a', '"a"b']) assert.equal(splitArguments(wrong), undefined, wrong);
});
