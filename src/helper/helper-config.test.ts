import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatIssues } from '../config/issue.ts';
import { parseHcl } from './hcl.ts';
import { readHelperConfig, splitArguments, type HelperConfig, type HelperSurroundings } from './helper-config.ts';

const NAMES = 'svid_file_name = "svid.pem"\nsvid_key_file_name = "svid_key.pem"\nsvid_bundle_file_name = "svid_bundle.pem"\n';
const SURROUNDINGS: HelperSurroundings = { source: 'helper.conf', folder: '/srv', endpointSocket: undefined, daemonMode: undefined };

function read(text: string, more: Partial<HelperSurroundings> = {}): HelperConfig {
  const config = readHelperConfig(text, { ...SURROUNDINGS, ...more });
  if (!config.ok) throw new Error(formatIssues(config.error));
  return config.value;
}

/** As a configuration with X.509 files alone has it. */
function readOne(text: string, more: Partial<HelperSurroundings> = {}) {
  const { sets, ...config } = read(text, more);
  assert.equal(sets.length, 1);
  return { ...config, set: sets[0] };
}

function problemsOf(text: string): readonly string[] {
  const config = readHelperConfig(text, SURROUNDINGS);
  return config.ok ? [] : formatIssues(config.error).split('\n');
}

test('the example that spiffe-helper comes with: three files in a directory, and a command that is not there', () => {
  const { endpoint, set, child, daemonMode, warnings } = readOne(`agent_address = "/tmp/spire-agent/public/api.sock"
cmd = ""
cmd_args = ""
cert_dir = "certs"
renew_signal = "SIGUSR1"
${NAMES}# Add CA with intermediates into Bundle file instead of SVID file,
# add_intermediates_to_bundle = false
`);

  assert.equal(endpoint, 'unix:///tmp/spire-agent/public/api.sock');
  assert.equal(set.directory, '/srv/certs');
  assert.deepEqual(set.names, {
    svid: 'svid.pem',
    key: 'svid_key.pem',
    bundle: 'svid_bundle.pem',
    bundleMap: undefined,
    jwtBundle: undefined,
  });
  assert.deepEqual([set.certFileMode, set.keyFileMode, set.layout, set.mergedBundle], [0o644, 0o600, 'flat', false]);
  assert.deepEqual([child, daemonMode, warnings, set.notify], [undefined, true, [], []]);
});

test('its examples for PostgreSQL, MySQL and mosquitto: a command with arguments as it splits them', () => {
  const postgresql = read(
    `cmd = "/usr/bin/psql"\ncmd_args = "-p 5432 -c \\"SELECT pg_reload_conf();\\""\ncert_dir = "/opt/certs"\nrenew_signal = ""\n${NAMES}`,
  );
  assert.deepEqual(postgresql.child, { command: ['/usr/bin/psql', '-p', '5432', '-c', 'SELECT pg_reload_conf();'], signal: undefined });

  const mysql = readOne(
    `cmd = "/usr/bin/mysql"\ncmd_args = "-e \\"ALTER INSTANCE RELOAD TLS;\\""\n${NAMES}add_intermediates_to_bundle = true`,
  );
  assert.deepEqual(mysql.child?.command.slice(1), ['-e', 'ALTER INSTANCE RELOAD TLS;']);
  assert.equal(mysql.set.addIntermediatesToBundle, true);

  const mosquitto = read(`cmd = "/usr/sbin/mosquitto"\ncmd_args = "-c ./mosquitto.conf"\nrenew_signal = "SIGHUP"\n${NAMES}`);
  assert.deepEqual(mosquitto.child, { command: ['/usr/sbin/mosquitto', '-c', './mosquitto.conf'], signal: 'SIGHUP' });
});

test('its examples for Envoy and ghostunnel: a program by its name, in a directory below where it is started', () => {
  const envoy = readOne(`cmd = "hot-restarter.py"\ncmd_args = "start_envoy.sh"\ncert_dir = "certs"\nrenew_signal = "SIGHUP"\n${NAMES}`);
  assert.deepEqual(envoy.child, { command: ['hot-restarter.py', 'start_envoy.sh'], signal: 'SIGHUP' });
  assert.equal(envoy.set.directory, '/srv/certs');

  const args = 'server --listen localhost:8002 --target localhost:8001 --keystore certs/svid_key.pem';
  const ghostunnel = readOne(`cmd = "ghostunnel"\ncmd_args = "${args}"\ncert_dir = "certs"\nrenew_signal = "SIGUSR1"\n${NAMES}`);
  assert.deepEqual(ghostunnel.child, { command: ['ghostunnel', ...args.split(' ')], signal: 'SIGUSR1' });
});

test('the address of the agent: the file, then SPIFFE_ENDPOINT_SOCKET, then that of the example', () => {
  assert.equal(read(`agent_address = "/a"\n${NAMES}`, { endpointSocket: 'unix:///b' }).endpoint, 'unix:///a');
  assert.equal(read(NAMES, { endpointSocket: 'unix:///b' }).endpoint, 'unix:///b');
  assert.equal(read(NAMES).endpoint, 'unix:///tmp/spire-agent/public/api.sock');
});

test('modes are octal with a 0 ahead and decimal without, as Go reads them; a key for everybody is warned of', () => {
  assert.equal(readOne(`key_file_mode = 0640\n${NAMES}`).set.keyFileMode, 0o640);
  const odd = readOne(`key_file_mode = 444\n${NAMES}`);
  assert.equal(odd.set.keyFileMode, 0o674);
  assert.match(odd.warnings[0] ?? '', /key_file_mode 674 \(octal\) shows the private key/);
});

test('a process by its file, a hint, federated domains in one bundle, and no daemon', () => {
  const { set } = readOne(
    `pid_file_name = "app.pid"\nrenew_signal = "SIGHUP"\nhint = "db"\ninclude_federated_domains = true\nomit_expired = true\n${NAMES}`,
  );
  assert.deepEqual(set.notify, [{ kind: 'signal', pidFile: '/srv/app.pid', signal: 'SIGHUP' }]);
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
    ['cert_dir = "a"', 'helper.conf svid_file_name: is required, or jwt_svids or jwt_bundle_file_name: there is nothing to write'],
    [
      `${NAMES}renew_signal = "SIGKILL"`,
      'helper.conf:4:1 renew_signal: must be one of SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH, SIGINT, SIGQUIT, SIGTERM',
    ],
    [`${NAMES}pid_file_name = "a"`, 'helper.conf:4:1 pid_file_name: needs renew_signal'],
    [`${NAMES}jwt_svids = [{ jwt_audience = "a" }]`, 'helper.conf:4:14 jwt_svids: jwt_svid_file_name is required'],
    [`${NAMES}jwt_svids = [{ jwt_svid_file_name = "a" }]`, 'helper.conf:4:14 jwt_svids: jwt_audience is required'],
    [`${NAMES}jwt_svids = ["a"]`, 'helper.conf:4:14 jwt_svids: must be a list of objects, each in braces'],
    [
      `${NAMES}jwt_svids = [{ jwt_audience = "a", jwt_svid_file_name = "b", hint = "c" }]`,
      'helper.conf:4:62 jwt_svids: "hint" is not a key of spiffe-helper',
    ],
    [
      `${NAMES}jwt_svids = [{ jwt_audience = "a", jwt_svid_file_name = "b", jwt_extra_audiences = [1] }]`,
      'helper.conf:4:62 jwt_svids: jwt_extra_audiences must be a list of texts in quotes',
    ],
    [
      `${NAMES}jwt_svids = [{ jwt_audience = "a", jwt_svid_file_name = "../b" }]`,
      'helper.conf:4:14 jwt_svids: "../b" is not the name of a file in cert_dir',
    ],
    [
      `${NAMES}jwt_svids = [{ jwt_audience = "a", jwt_svid_file_name = "svid.pem" }]`,
      'helper.conf:4:14 jwt_svids: "svid.pem" is the name of another file',
    ],
    [`${NAMES}health_checks { bind_port = 70000 }`, 'helper.conf:4:17 health_checks.bind_port: 70000 is not the number of a port'],
    [`${NAMES}health_checks { bind_port = "1" }`, 'helper.conf:4:17 health_checks.bind_port: must be a number'],
    [`${NAMES}health_checks { liveness_path = "live" }`, 'helper.conf:4:17 health_checks.liveness_path: "live" is not the path of a URL'],
    [`${NAMES}health_checks { liveness_path = "/ready" }`, 'helper.conf health_checks.readiness_path: is the same as liveness_path'],
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

test('the configuration of its own tests: each JWT-SVID and the JWT bundles are sets of their own, with modes of their own', () => {
  const { sets, health } = read(`cert_dir = "certs"
jwt_bundle_file_mode = 444
jwt_svid_file_mode = 0440
renew_signal = "SIGHUP"
${NAMES}jwt_bundle_file_name = "jwt_bundle.json"
jwt_svids = [
  {
    jwt_svid_file_name = "jwt_svid.token"
    jwt_audience = "your-audience"
    jwt_extra_audiences = ["your-extra-audience-1", "your-extra-audience-2"]

  }
]
`);
  assert.deepEqual(
    sets.map(({ name, directory, keyFileMode, certFileMode }) => [name, directory, keyFileMode, certFileMode]),
    [
      ['spiffe-helper', '/srv/certs', 0o600, 0o644],
      ['spiffe-helper/jwt_svid.token', '/srv/certs', 0o440, 0o644],
      ['spiffe-helper/jwt_bundle.json', '/srv/certs', 0o600, 0o674],
    ],
  );
  assert.deepEqual(sets[1]?.jwtSvids, [
    {
      fileName: 'jwt_svid.token',
      audience: ['your-audience', 'your-extra-audience-1', 'your-extra-audience-2'],
      identity: { by: 'default' },
    },
  ]);
  assert.equal(health, undefined);
});

test('its example for Kubernetes: everything once; JWT files may be all there is, and then no command is ever started', () => {
  const once = read(`cmd = ""
cmd_args = ""
cert_dir = ""
renew_signal = ""
${NAMES}jwt_bundle_file_name = "cert.jwt"
jwt_svids = [{jwt_audience="test", jwt_svid_file_name="jwt_svid.token"}]
daemon_mode = false
`);
  assert.deepEqual([once.sets.length, once.sets[0].directory, once.daemonMode], [3, '/srv', false]);

  const alone = read('cmd = "/bin/true"\nhint = "db"\njwt_svids = [{jwt_audience="test", jwt_svid_file_name="t"}]');
  assert.deepEqual([alone.sets.length, alone.child], [1, undefined]);
  assert.deepEqual(alone.sets[0].jwtSvids[0]?.identity, { by: 'hint', hint: 'db' });
  assert.match(alone.warnings[0] ?? '', /cmd and pid_file_name are for X\.509 files/);
});

test('where it tells its health: as the file says, else where spiffe-helper does, and nowhere without a daemon', () => {
  assert.deepEqual(read(`${NAMES}health_checks { listener_enabled = true }`).health, {
    port: 8081,
    livenessPath: '/live',
    readinessPath: '/ready',
  });
  const chosen = 'health_checks = { listener_enabled = true, bind_port = 8082, liveness_path = "/a", readiness_path = "/b" }';
  assert.deepEqual(read(`${NAMES}${chosen}`).health, { port: 8082, livenessPath: '/a', readinessPath: '/b' });
  assert.equal(read(`${NAMES}daemon_mode = false\n${chosen}`).health, undefined);
  assert.equal(read(`${NAMES}health_checks { bind_port = 8082 }`).health, undefined);
});
