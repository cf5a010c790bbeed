import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { chmod, mkdir, readdir, readFile, rmdir, stat, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { status } from '@grpc/grpc-js';
import { startDevDomain } from '../../support/dev-domain.ts';
import { freePort } from '../../support/tcp.ts';
import { eventually } from '../../support/eventually.ts';
import { startNotified } from '../../support/files/notify-process.ts';
import { ask } from '../../support/http/http.ts';
import { createTestAuthority } from '../../support/pki/pki.ts';
import { startScute } from '../../support/scute-process.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { startJwtAgent } from '../../support/tokens/jwt-agent.ts';
import { SUBJECT, testKey } from '../../support/tokens/tokens.ts';
import { svidEntry } from '../../support/workload-api.ts';

const WEB = 'spiffe://example.org/web';

async function startStage(t: TestContext, more: string) {
  const spiffe = await startDevDomain(
    t,
    { name: 'example.org', federatesWith: ['partner.example'], workloads: { web: [WEB] } },
    { name: 'partner.example' },
  );
  const folder = await temporaryFolder(t);
  const directory = join(folder, 'certs');
  await mkdir(directory);
  // As an emptyDir is.
  await chmod(directory, 0o777);
  const file = join(folder, 'helper.conf');
  const lines = [
    `agent_address = "${spiffe.endpoint('web').replace('unix://', '')}"`,
    `cert_dir = "${directory}"`,
    'svid_file_name = "tls.crt"',
    'svid_key_file_name = "tls.key"',
    'svid_bundle_file_name = "ca.pem"',
    more,
  ];
  await writeFile(file, lines.join('\n'));
  const serial = async (): Promise<string> => new X509Certificate(await readFile(join(directory, 'tls.crt'))).serialNumber;
  return { spiffe, folder, directory, file, serial };
}

test('with the configuration of spiffe-helper: its files and no others, warnings where Scute would refuse, and a signal at each rotation', async (t) => {
  const pidFile = join(await temporaryFolder(t), 'app.pid');
  await using application = await startNotified(pidFile);
  const { spiffe, directory, file, serial } = await startStage(
    t,
    `pid_file_name = "${pidFile}"\nrenew_signal = "SIGHUP"\nkey_file_mode = 0640`,
  );
  await using scute = await startScute({ args: ['spiffe-helper', '-config', file] });
  const { next } = await application.line(/^hangup$/);
  const first = await serial();

  await spiffe.rotate('example.org');

  await eventually(async () => assert.notEqual(await serial(), first));
  await application.line(/^hangup$/, { after: next });
  assert.deepEqual((await readdir(directory)).toSorted(), ['ca.pem', 'tls.crt', 'tls.key']);
  assert.equal((await stat(join(directory, 'tls.key'))).mode & 0o777, 0o640);
  assert.equal((await readFile(join(directory, 'ca.pem'), 'utf8')).match(/BEGIN/g)?.length, 1);
  await scute.child.line(/^warning: .* is writable by others/);
});

test('its command is started when the files are there, with our output, is sent the signal at a rotation, and is started anew if it has ended', async (t) => {
  // Nobody ends it but we: it looks itself whether Scute is gone.
  const script = `
    const { ppid } = process;
    process.on('SIGHUP', () => {
      console.log('told', process.pid);
      process.exit();
    });
    setInterval(() => process.ppid === ppid || process.exit(), 50);
    console.log('began', process.pid);`;
  const folder = await temporaryFolder(t);
  const program = join(folder, 'app.cjs');
  await writeFile(program, script);
  const { spiffe, file } = await startStage(
    t,
    `cmd = "${process.execPath}"\ncmd_args = "${program}"\nrenew_signal = "SIGHUP"\ninclude_federated_domains = true`,
  );
  await using scute = await startScute({ args: ['spiffe-helper', '-config', file] });
  const began = (): readonly number[] =>
    scute.child.lines().flatMap((line) => (/^began \d+$/.test(line) ? [Number(line.split(' ')[1])] : []));
  await scute.child.line(/^began \d+$/);

  await spiffe.rotate('example.org');
  await scute.child.line(new RegExp(`^told ${began()[0]}$`));
  // What comes before its end is noticed tells nobody.
  await eventually(async () => {
    await spiffe.rotate('example.org');
    assert.ok(new Set(began()).size >= 2);
  });

  await scute.stop();
});

test('without a daemon the files are written once, and the exit code is 0', async (t) => {
  const { directory, file, serial } = await startStage(t, 'include_federated_domains = true');
  await using scute = await startScute({ args: ['spiffe-helper', `-config=${file}`, '-daemon-mode=false'] });

  assert.deepEqual(await scute.exited, { code: 0, signal: null });

  assert.ok((await serial()).length > 0);
  assert.equal((await readFile(join(directory, 'ca.pem'), 'utf8')).match(/BEGIN/g)?.length, 2);
});

/** What spiffe-helper's own tests configure, beside the X.509 files. */
const JWT_FILES = [
  'jwt_bundle_file_name = "jwt_bundle.json"',
  'jwt_svids = [{ jwt_audience = "one", jwt_extra_audiences = ["two"], jwt_svid_file_name = "jwt_svid.token" }]',
].join('\n');

test('JWT files are as spiffe-helper writes them, nobody is told of a token, and its health is told over HTTP', async (t) => {
  const agent = await startJwtAgent(t);
  agent.lifeSeconds = 4;
  const folder = await temporaryFolder(t);
  const pidFile = join(folder, 'app.pid');
  await using application = await startNotified(pidFile);
  const port = await freePort();
  const file = join(folder, 'helper.conf');
  await writeFile(
    file,
    `agent_address = "${agent.api.endpoint.replace('unix://', '')}"
    cert_dir = "${folder}"
    svid_file_name = "tls.crt"
    svid_key_file_name = "tls.key"
    svid_bundle_file_name = "ca.pem"
    jwt_bundle_file_mode = 0444
    pid_file_name = "${pidFile}"
    renew_signal = "SIGHUP"
    health_checks { listener_enabled = true, bind_port = ${port}, readiness_path = "/healthy" }
    ${JWT_FILES}`,
  );
  const authority = createTestAuthority();
  agent.api.failWith('FetchJWTSVID', status.UNAVAILABLE);
  await using scute = await startScute({ args: ['spiffe-helper', '-config', file] });
  await application.line(/^hangup$/);
  const asked = (path: string) => ask({ kind: 'tcp', host: '127.0.0.1', port }, path);
  const jwtStatus = { [join(folder, 'jwt_bundle.json')]: 'written', [join(folder, 'jwt_svid.token')]: 'unwritten' };
  await eventually(async () => assert.deepEqual(JSON.parse((await asked('/live')).body), healthOf('OK', jwtStatus)));
  assert.equal((await asked('/live')).status, 200);
  const early = await asked('/healthy');
  assert.deepEqual([early.status, JSON.parse(early.body)], [503, healthOf('Service Unavailable', jwtStatus)]);

  agent.api.failWith('FetchJWTSVID', status.UNAVAILABLE, { times: 1 });
  const token = (): Promise<string> => readFile(join(folder, 'jwt_svid.token'), 'utf8');
  await eventually(async () => assert.ok(agent.signed.includes(await token())));
  await eventually(async () => assert.equal((await asked('/healthy')).status, 200));
  assert.deepEqual(agent.asked[0]?.audience, ['one', 'two']);
  assert.equal((await stat(join(folder, 'jwt_svid.token'))).mode & 0o777, 0o600);
  assert.equal((await stat(join(folder, 'jwt_bundle.json'))).mode & 0o777, 0o444);
  const bundles = JSON.parse(await readFile(join(folder, 'jwt_bundle.json'), 'utf8')) as Record<string, string>;
  const { keys } = JSON.parse(Buffer.from(bundles['example.org'] ?? '', 'base64').toString()) as { keys: { readonly kid: string }[] };
  assert.deepEqual(
    keys.map(({ kid }) => kid),
    [testKey('one').kid],
  );

  const before = await token();
  const certificate = await stat(join(folder, 'tls.crt'));
  await eventually(async () => assert.notEqual(await token(), before));
  assert.equal((await stat(join(folder, 'tls.crt'))).ino, certificate.ino, 'a renewed token leaves the X.509 files alone');
  agent.api.setX509([svidEntry(authority, authority.issue({ id: SUBJECT }), SUBJECT)]);
  await eventually(async () => assert.notEqual((await stat(join(folder, 'tls.crt'))).ino, certificate.ino));
  await eventually(() => {
    assert.equal(application.lines().filter((line) => line === 'hangup').length, 2);
    return Promise.resolve();
  });
  for (const signed of agent.signed) assert.equal(`${scute.child.stderr()}${scute.child.lines().join('')}`.includes(signed), false);
});

function healthOf(text: string, jwt: object): object {
  return { status: text, health: { file_write_statuses: { x509_write_status: 'written', jwt_write_status: jwt } } };
}

test('what cannot be written is told as unhealthy, until it can be', async (t) => {
  const agent = await startJwtAgent(t);
  const folder = await temporaryFolder(t);
  const directory = join(folder, 'certs');
  await mkdir(join(directory, 'jwt_svid.token'), { recursive: true });
  const port = await freePort();
  const file = join(folder, 'helper.conf');
  await writeFile(
    file,
    `agent_address = "${agent.api.endpoint.replace('unix://', '')}"\ncert_dir = "${directory}"\n${JWT_FILES}
    health_checks { listener_enabled = true, bind_port = ${port} }`,
  );
  await using scute = await startScute({ args: ['spiffe-helper', '-config', file] });
  const asked = (path: string) => ask({ kind: 'tcp', host: '127.0.0.1', port }, path);
  await eventually(async () => assert.equal((await asked('/live')).status, 503));
  const { body } = await asked('/ready');
  assert.deepEqual(JSON.parse(body), {
    status: 'Service Unavailable',
    health: {
      file_write_statuses: {
        jwt_write_status: { [join(directory, 'jwt_bundle.json')]: 'written', [join(directory, 'jwt_svid.token')]: 'failed' },
      },
    },
  });

  await rmdir(join(directory, 'jwt_svid.token'));
  await eventually(async () => assert.equal((await asked('/ready')).status, 200));
  assert.equal((await asked('/live')).status, 200);
  assert.equal((await asked('/other')).status, 404);
  assert.equal((await scute.stop()).code, 0);
});

test('without a daemon JWT files are written once as well, and nothing is served', async (t) => {
  const { directory, file } = await startStage(t, `${JWT_FILES}\nhealth_checks { listener_enabled = true, bind_port = 1 }`);
  await using scute = await startScute({ args: ['spiffe-helper', '-config', file, '-daemon-mode=false'] });

  assert.deepEqual(await scute.exited, { code: 0, signal: null });

  assert.deepEqual((await readdir(directory)).toSorted(), ['ca.pem', 'jwt_bundle.json', 'jwt_svid.token', 'tls.crt', 'tls.key']);
});

test('a port for health that is taken ends it at once, and nothing is written', async (t) => {
  const { directory, file, folder } = await startStage(t, '');
  const taken = createServer().listen(0);
  await once(taken, 'listening');
  t.after(() => taken.close());
  const { port } = taken.address() as AddressInfo;
  const text = await readFile(file, 'utf8');
  const other = join(folder, 'other.conf');
  await writeFile(other, `${text}\nhealth_checks { listener_enabled = true, bind_port = ${port} }`);
  await using scute = await startScute({ args: ['spiffe-helper', '-config', other] });

  assert.deepEqual(await scute.exited, { code: 1, signal: null });
  assert.match(scute.child.stderr(), /^scute: health_checks: .* the address is in use$/m);
  assert.deepEqual(await readdir(directory), []);
});
