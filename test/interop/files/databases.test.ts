import assert from 'node:assert/strict';
import { chown, mkdir, readFile } from 'node:fs/promises';
import { once } from 'node:events';
import { join } from 'node:path';
import { test } from 'node:test';
import { runChild, startChild } from '../../support/child.ts';
import { needs, part } from '../parts.ts';
import { freePort } from '../stage.ts';
import { rotateUnderLoad, startFilesStage, visit, type Exchange } from './rotations.ts';

const asRoot = process.getuid?.() === 0;

test('Redis takes 100 rotations by CONFIG SET, and no client fails', needs('redis-server', 'redis-cli'), async (t) => {
  const stage = await startFilesStage(t);
  const { folder, directory } = stage;
  const socket = join(folder, 'redis.sock');
  const files = { 'tls-cert-file': 'svid.pem', 'tls-key-file': 'svid_key.pem', 'tls-ca-cert-file': 'svid_bundle.pem' };
  const settings = Object.entries(files).flatMap(([key, name]) => [key, join(directory, name)]);
  const port = await freePort();
  const first = await stage.startWriter({});
  const options = [
    '--port',
    '0',
    '--bind',
    '127.0.0.1',
    '--tls-port',
    String(port),
    '--tls-auth-clients',
    'no',
    '--unixsocket',
    socket,
    '--save',
    '',
  ];
  const redis = await startChild([
    part('redis-server'),
    ...options,
    ...settings.map((text, index) => (index % 2 === 0 ? `--${text}` : text)),
  ]);
  t.after(() => redis.stop().then(() => undefined));
  await redis.line(/ready to accept connections/i);
  await first.stop();
  await stage.startWriter({ notify: [{ command: [part('redis-cli'), '-e', '-s', socket, 'config', 'set', ...settings] }] });

  await rotateUnderLoad(stage, (ca) => visit(port, ca, {}, { ask: 'PING\r\n', answer: '+PONG' }));
});

/** SSLRequest (Frontend/Backend Protocol, section 55.2.11), and a start-up message, which the server answers with a wish for a password or a refusal. */
const POSTGRES: Exchange = {
  async opening(socket) {
    socket.write(Buffer.from([0, 0, 0, 8, 4, 210, 22, 47]));
    const [answer] = (await once(socket, 'data')) as [Buffer];
    assert.equal(answer.toString('latin1'), 'S');
  },
  ask: startUp({ user: 'interop', database: 'postgres' }),
  answer: 'server_version',
};

function startUp(parameters: Readonly<Record<string, string>>): Buffer {
  const text = Buffer.from(`${Object.entries(parameters).flat().join('\0')}\0\0`);
  const head = Buffer.alloc(8);
  head.writeInt32BE(text.length + 8, 0);
  head.writeInt32BE(196_608, 4);
  return Buffer.concat([head, text]);
}

test(
  'PostgreSQL takes 100 rotations by SIGHUP, and no client fails',
  needs('initdb', 'postgres', 'psql', ...(asRoot ? (['setpriv'] as const) : [])),
  async (t) => {
    const stage = await startFilesStage(t);
    const { folder, directory } = stage;
    const accounts = (await readFile('/etc/passwd', 'utf8')).split('\n').map((line) => line.split(':'));
    const [, , uid = '', gid = ''] = accounts.find(([name]) => name === 'postgres') ?? accounts.find(([name]) => name === 'nobody') ?? [];
    // It refuses to run as root.
    const as = (argv: readonly [string, ...string[]]): [string, ...string[]] =>
      asRoot ? [part('setpriv'), `--reuid=${uid}`, `--regid=${gid}`, '--clear-groups', ...argv] : [...argv];
    const home = join(folder, 'postgres');
    await mkdir(home, { mode: 0o700 });
    if (asRoot) await chown(home, Number(uid), Number(gid));
    const data = join(home, 'data');
    const options = { cwd: home, env: { LC_ALL: 'C', TZ: 'UTC' } };
    const created = await runChild(
      as([part('initdb'), '--pgdata', data, '--username', 'interop', '--auth', 'trust', '--no-sync']),
      options,
    );
    assert.equal(created.code, 0, created.stderr);
    const port = await freePort();
    // Its pid file is not ours where it runs as another user than Scute: then it is asked by a command.
    const notify = asRoot
      ? {
          command: [
            part('psql'),
            '--no-psqlrc',
            '-h',
            home,
            '-p',
            String(port),
            '-U',
            'interop',
            '-d',
            'postgres',
            '-c',
            'select pg_reload_conf()',
          ],
        }
      : { pidFile: join(data, 'postmaster.pid') };
    await stage.startWriter({ notify: [notify], ...(asRoot && { group: Number(gid), keyFileMode: '0640' }) });
    const settings = {
      listen_addresses: '127.0.0.1',
      port,
      unix_socket_directories: home,
      fsync: 'off',
      ssl: 'on',
      ssl_cert_file: join(directory, 'svid.pem'),
      ssl_key_file: join(directory, 'svid_key.pem'),
    };
    const flags = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
    const postgres = await startChild(as([part('postgres'), '-D', data, ...flags]), options);
    t.after(() => postgres.stop({ signal: 'SIGINT' }).then(() => undefined));
    await postgres.line(/database system is ready to accept connections/);

    await rotateUnderLoad(stage, (ca) => visit(port, ca, {}, POSTGRES));
  },
);
