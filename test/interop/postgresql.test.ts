import assert from 'node:assert/strict';
import { chmod, chown, mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { type Finished, runChild, startChild } from '../support/child.ts';
import { startDevDomain } from '../support/dev-domain.ts';
import { codeBlocks } from '../support/documents.ts';
import { useScute } from '../support/scute-process.ts';
import { needs, part } from './parts.ts';
import { freePort, refusal, startInbound, startOutbound, temporaryFolder } from './stage.ts';

const DATABASE = 'spiffe://example.org/database';
const APP = 'spiffe://example.org/app';
const OTHER = 'spiffe://example.org/other';
const USER = 'interop';

interface Account {
  readonly uid: number;
  readonly gid: number;
}

const asRoot = process.getuid?.() === 0;
/** PostgreSQL itself, and what root needs to run it. */
const SERVER = ['initdb', 'postgres', ...(asRoot ? (['setpriv'] as const) : [])] as const;

/** PostgreSQL refuses to run as root, as tests may in a container: there it runs as the account that its package made. */
async function otherAccount(): Promise<Account | undefined> {
  if (!asRoot) return undefined;
  const accounts = (await readFile('/etc/passwd', 'utf8')).split('\n').map((line) => line.split(':'));
  const [, , uid, gid] = accounts.find(([name]) => name === 'postgres') ?? accounts.find(([name]) => name === 'nobody') ?? [];
  if (uid === undefined || gid === undefined)
    throw new Error('root cannot run PostgreSQL, and there is neither an account postgres nor nobody');
  return { uid: Number(uid), gid: Number(gid) };
}

function as(account: Account | undefined, argv: readonly [string, ...string[]]): [string, ...string[]] {
  if (account === undefined) return [...argv];
  return [part('setpriv'), `--reuid=${account.uid}`, `--regid=${account.gid}`, '--clear-groups', ...argv];
}

/** An unmodified PostgreSQL, that hears nothing but loopback. */
async function startPostgres(t: TestContext): Promise<string> {
  const account = await otherAccount();
  const folder = await mkdtemp(join(tmpdir(), 'scute-pg-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  await chmod(folder, 0o700);
  if (account !== undefined) await chown(folder, account.uid, account.gid);
  const data = join(folder, 'data');
  const options = { cwd: folder, env: { LC_ALL: 'C', TZ: 'UTC' } };
  const created = await runChild(
    as(account, [part('initdb'), '--pgdata', data, '--username', USER, '--auth', 'trust', '--no-sync', '--encoding', 'UTF8']),
    options,
  );
  assert.equal(created.code, 0, created.stderr);
  const port = await freePort();
  const settings = { listen_addresses: '127.0.0.1', port, unix_socket_directories: '', fsync: 'off', ssl: 'off', max_connections: 30 };
  const flags = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
  const postgres = await startChild(as(account, [part('postgres'), '-D', data, ...flags]), options);
  // SIGINT: a fast shutdown. SIGTERM would wait for clients.
  t.after(() => postgres.stop({ signal: 'SIGINT' }).then(() => undefined));
  await postgres.line(/database system is ready to accept connections/);
  return `127.0.0.1:${port}`;
}

async function startPair(t: TestContext, client: 'app' | 'other') {
  const to = await startPostgres(t);
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { database: [DATABASE], app: [APP], other: [OTHER] } });
  const inbound = await startInbound(t, { endpoint: spiffe.endpoint('database'), to, allow: [APP] });
  const outbound = await startOutbound(t, { endpoint: spiffe.endpoint(client), to: inbound.address, expect: [DATABASE] });
  const connection = { PGHOST: '127.0.0.1', PGPORT: String(outbound.port), PGUSER: USER, PGDATABASE: 'postgres' };
  const run = (program: 'psql' | 'pgbench', ...args: readonly string[]): Promise<Finished> =>
    runChild([part(program), ...args], { env: { ...connection, PGSSLMODE: 'disable', PGCONNECT_TIMEOUT: '15', LC_ALL: 'C' } });
  return { spiffe, inbound, run };
}

test('psql works through two sidecars', needs(...SERVER, 'psql'), async (t) => {
  const { run } = await startPair(t, 'app');

  const { code, stdout, stderr } = await run(
    'psql',
    '--no-psqlrc',
    '-At',
    '-c',
    'select sum(n), length(repeat($$x$$, 2000000)) from generate_series(1, 1000) n',
  );

  assert.deepEqual({ code, stdout, stderr }, { code: 0, stdout: '500500|2000000\n', stderr: '' });
});

test('the two sidecars and the command of the guide lead to PostgreSQL', needs(...SERVER, 'psql'), async (t) => {
  const [database, shop] = ['spiffe://example.org/database', 'spiffe://example.org/shop'];
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { database: [database], shop: [shop] } });
  const folder = await temporaryFolder(t);
  const [beside, before] = codeBlocks('docs/guides/postgresql.md').filter(({ info }) => info === 'yaml config');
  const [command] = codeBlocks('docs/guides/postgresql.md').filter(({ info }) => info === 'sh psql');
  assert.ok(beside !== undefined && before !== undefined && command !== undefined);
  const of = (text: string, workload: string, names: Readonly<Record<string, string>>): string =>
    Object.entries({ ...names, 'unix:///run/spire/agent.sock': spiffe.endpoint(workload), '/run/scute': folder }).reduce(
      (changed, [shown, here]) => changed.replaceAll(shown, here),
      text,
    );
  const here = { '127.0.0.1:5432': await startPostgres(t), '0.0.0.0:8432': '127.0.0.1:0', '0.0.0.0:9090': '127.0.0.1:0' };
  const server = await useScute(t, { config: of(beside.text, 'database', here) });
  await server.ready('postgresql');
  await mkdir(join(folder, 'pg'));
  const client = await useScute(t, {
    config: of(before.text, 'shop', {
      'db.internal:8432': await server.address('postgresql'),
      'socketGroup: 1500': `socketGroup: ${process.getgid?.()}`,
    }),
  });
  await client.ready('postgresql');

  const { code, stdout, stderr } = await runChild(
    ['/bin/sh', '-c', `${of(command.text, 'shop', { 'user=shop dbname=shop': `user=${USER} dbname=postgres` }).trim()} -XAt -c 'select 1'`],
    { env: { PATH: `${dirname(part('psql'))}:/usr/bin:/bin`, LC_ALL: 'C' } },
  );

  assert.deepEqual({ code, stdout, stderr }, { code: 0, stdout: '1\n', stderr: '' });
});

test('pgbench works through two sidecars while SVIDs rotate', needs(...SERVER, 'pgbench'), async (t) => {
  const { spiffe, run } = await startPair(t, 'app');
  const filled = await run('pgbench', '--initialize', '--scale', '1', '--quiet');
  assert.equal(filled.code, 0, filled.stderr);

  const running = run('pgbench', '--client', '8', '--transactions', '50', '--no-vacuum');
  for (let rotation = 0; rotation < 3; rotation += 1) await spiffe.rotate();
  const { code, stdout, stderr } = await running;

  assert.equal(code, 0, stderr);
  assert.match(stdout, /number of transactions actually processed: 400\/400/);
  assert.match(stdout, /number of failed transactions: 0 /);
});

test('psql of another workload gets nothing', needs(...SERVER, 'psql'), async (t) => {
  const { inbound, run } = await startPair(t, 'other');

  const { code, stdout } = await run('psql', '--no-psqlrc', '-At', '-c', 'select 1');

  assert.equal(code, 2);
  assert.equal(stdout, '');
  await refusal(inbound.scute, 'not_allowed');
});
