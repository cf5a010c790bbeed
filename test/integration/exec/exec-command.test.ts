import assert from 'node:assert/strict';
import { once } from 'node:events';
import { chmod, readFile, rm, writeFile } from 'node:fs/promises';
import { constants as fileConstants } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { scute } from '../../support/command.ts';
import { API } from '../../support/data-path.ts';
import { folderInMemory } from '../../support/files/files.ts';
import { ask } from '../../support/http/http.ts';
import { startScute } from '../../support/scute-process.ts';
import { dial } from '../../support/tcp.ts';
import { tlsServer } from '../../support/tls-peer.ts';
import { anSvid, aPeer, startExecStage } from '../../support/exec-stage.ts';

const messages = (log: readonly { readonly message: string }[]): string[] => log.map(({ message }) => message);

test('the application starts when the identity is there, not before; its output is its own, and its end ends Scute', async (t) => {
  const { api, exec } = await startExecStage(t, { early: true });
  const running = await exec(['/bin/sh', '-c', 'echo started; cat; exit 7']);
  await running.line(/"message":"listening".*"in"|"in".*"message":"listening"/);
  assert.equal(running.stdout(), '');

  api.setX509([anSvid()]);
  await running.line(/^started$/);
  running.write('said by us\n');
  running.endInput();

  assert.equal((await running.exited).code, 7);
  assert.equal(running.stdout(), 'started\nsaid by us\n');
  const told = messages(running.log()).filter((message) => /^(?:application|stopp)|identity updated/.test(message));
  assert.deepEqual(told, ['identity updated', 'application started', 'application ended', 'stopping', 'stopped']);
  const [stopping] = running.log().filter(({ message }) => message === 'stopping');
  assert.equal(stopping?.['reason'], 'the application ended');
});

test('the exit code is that of the application, or says why there was none', async (t) => {
  const { exec, folder } = await startExecStage(t);
  const notExecutable = join(folder, 'data');
  await writeFile(notExecutable, 'no program\n');
  await chmod(notExecutable, 0o644);
  for (const [command, expected] of [
    [['/bin/true'], 0],
    [['/bin/sh', '-c', 'exit 255'], 255],
    [['/bin/sh', '-c', 'kill -KILL $$'], 128 + constants.signals.SIGKILL],
    [['/no/such/program'], 127],
    [[notExecutable], 126],
  ] as const) {
    const running = await exec(command);
    const { code, signal } = await running.exited;
    assert.deepEqual([code, signal], [expected, null], `${command.join(' ')}\n${running.stderr()}`);
    if (expected === 126 || expected === 127) {
      const [line] = running.log().filter(({ message }) => message === 'application cannot be started');
      assert.equal(line?.['command'], command[0]);
    }
  }
});

test('the application is sent what we are sent, each time, and we end when it does', async (t) => {
  const { exec } = await startExecStage(t);
  const names = ['HUP', 'QUIT', 'USR1', 'USR2', 'INT', 'TERM'] as const;
  const program = `
    for (const name of ${JSON.stringify(names)}) process.on('SIG' + name, () => console.log(name));
    process.stdin.resume().on('end', () => process.exit(9));
    console.log('ready');
  `;
  const running = await exec([process.execPath, '--eval', program]);
  let { next } = await running.line(/^ready$/);

  for (const name of [...names, 'TERM', 'INT', 'TERM'] as const) {
    running.signal(`SIG${name}`);
    ({ next } = await running.line(new RegExp(`^${name}$`), { after: next }));
  }
  running.endInput();

  assert.equal((await running.exited).code, 9);
});

test('who is told to end while it waits for an identity starts nothing, whoever says so', async (t) => {
  const { exec, admin } = await startExecStage(t, { early: true });
  for (const [tell, expected] of [
    [(running: Awaited<ReturnType<typeof exec>>) => running.signal('SIGTERM'), 143],
    [(running: Awaited<ReturnType<typeof exec>>) => running.signal('SIGINT'), 130],
    [async () => void (await scute('stop', '--admin', admin)), 143],
  ] as const) {
    const running = await exec(['/bin/echo', 'started']);
    await running.line(/"listener":"admin"/);
    running.signal('SIGHUP');
    await tell(running);
    assert.equal((await running.exited).code, expected, running.stderr());
    assert.equal(running.stdout(), '');
  }

  const late = await exec(['/bin/echo', 'started'], { settings: { waitTimeout: '100ms' } });
  assert.equal((await late.exited).code, 69);
  assert.equal(late.stdout(), '');
  const [line] = late.log().filter(({ message }) => message.startsWith('application not started'));
  assert.deepEqual(line?.['failing'], ['identity']);
});

test('an application that does not heed SIGTERM is killed when stopTimeout is over; of what it left behind nobody waits', async (t) => {
  const { exec, admin, folder } = await startExecStage(t);
  const left = join(folder, 'left');
  const stubborn = await exec(['/bin/sh', '-c', `trap '' TERM; (sleep 60 & echo $! > ${left}) > /dev/null 2>&1; echo ready; cat`], {
    settings: { stopTimeout: '100ms' },
  });
  await stubborn.line(/^ready$/);

  assert.equal((await scute('stop', '--admin', admin)).code, 0);

  assert.equal((await stubborn.exited).code, 137);
  assert.ok(messages(stubborn.log()).includes('application killed, since it did not end'));
  const orphan = Number(await readFile(left, 'utf8'));
  assert.ok(process.kill(orphan, 'SIGKILL'), 'it lives on, as it would without us');
});

test('the application has the environment of Scute but for what is for Scute alone, and none of its descriptors', async (t) => {
  const { exec } = await startExecStage(t);
  const own = {
    SCUTE_LOG_LEVEL: 'info',
    NOTIFY_SOCKET: '/run/none',
    LISTEN_FDNAMES: 'a',
    WATCHDOG_USEC: '1',
    CREDENTIALS_DIRECTORY: '/run/credentials',
  };
  const running = await exec(['/bin/sh', '-c', 'env; echo; ls -l /proc/self/fd'], {
    env: { ...own, PAYLOAD: 'of the application' },
    under: ['/bin/sh', '-c', 'exec "$0" "$@" 3</etc/hostname 4</etc/hostname 9</etc/hostname'],
  });

  assert.equal((await running.exited).code, 0, running.stderr());
  const [environment = '', descriptors = ''] = running.stdout().split('\n\n');
  assert.ok(environment.includes('PAYLOAD=of the application'));
  for (const name of Object.keys(own)) assert.ok(!environment.includes(`${name}=`), name);
  // What opened them beyond the first sixteen was not Scute, nor a service manager.
  const open = [...descriptors.matchAll(/ (\d+) -> (\S+)/g)].filter(
    ([, fd, target = '']) => Number(fd) < 16 && !/^\/proc\/\d+\/fd$/.test(target),
  );
  assert.deepEqual(
    open.map(([, fd]) => fd),
    ['0', '1', '2'],
  );
});

test('a pipe that the log goes into as well blocks for the application, as it expects, and not for Scute', async (t) => {
  const { exec } = await startExecStage(t);
  const look = `
    for fd in /proc/$PPID/fd/*; do
      [ "$(readlink $fd)" = "$(readlink /proc/self/fd/2)" ] && sed -n 's/^flags:[[:space:]]*//p' /proc/$PPID/fdinfo/$(basename $fd)
    done
    echo said by the application >&2
  `;
  const running = await exec(['/bin/sh', '-c', look], { under: ['/bin/bash', '-c', '"$0" "$@" 2> >(cat >&2)'] });

  assert.equal((await running.exited).code, 0, running.stderr());
  const flags = running.stdout().trim().split('\n');
  const blocks = flags.map((each) => (Number.parseInt(each, 8) & fileConstants.O_NONBLOCK) === 0);
  assert.equal(blocks[0], true, 'standard error, which the application has too');
  assert.ok(blocks.includes(false), 'the pipe, opened once more');
  const told = messages(running.log());
  for (const message of ['started', 'application started', 'application ended', 'stopped']) assert.ok(told.includes(message), message);
  assert.ok(running.stderr().includes('said by the application\n'));
});

test('a configuration that is wrong, or a proxy that cannot start, starts no application', async (t) => {
  const { exec, folder } = await startExecStage(t);
  for (const [flags, settings, problem] of [
    [['--user', 'no-such-user'], {}, /^command line exec\.user: there is no user "no-such-user"/],
    [[], { user: 4_294_967_000 }, /exec\.group: is required: the system does not know the user 4294967000/],
    [[], { group: 'root' }, /exec\.group: is for another user alone/],
    [[], { user: 0, group: 'no-such-group' }, /exec\.group: there is no group "no-such-group"/],
    [[], { stopTimeout: '0s' }, /exec\.stopTimeout: /],
    [[], { stopTimeout: '2h' }, /exec\.stopTimeout: is too long: 1h at most/],
  ] as const) {
    const running = await exec(['/bin/echo', 'started'], { flags, settings });
    assert.equal((await running.exited).code, 64, running.stderr());
    assert.match(running.stderr(), problem);
    assert.equal(running.stdout(), '');
  }
  await writeFile(join(folder, 'admin.sock'), 'in the way');
  const unbound = await exec(['/bin/echo', 'started']);
  assert.equal((await unbound.exited).code, 1);
  assert.equal(unbound.stdout(), '');

  const usage = await scute('exec', '--', '/bin/true');
  assert.equal(usage.code, 64);
  assert.match(usage.stderr, /required option '-c, --config <file>'/);
  assert.equal((await scute('exec', '-c', 'scute.yaml')).code, 64);
});

test('another user runs the application if Scute may lend it, and without that right nothing is started', async (t) => {
  const { exec } = await startExecStage(t);
  const running = await exec(['/bin/sh', '-c', 'id -u; id -g; id -G; echo $HOME; cat /proc/$PPID/environ >/dev/null && echo read'], {
    flags: ['--user', '65534'],
    settings: { group: 65534 },
    env: { HOME: '/root' },
  });
  const { code } = await running.exited;
  if (process.getuid?.() !== 0) {
    assert.equal(code, 126);
    return;
  }
  assert.match(running.stdout(), /^65534\n65534\n65534\n\/nonexistent\n$/);
  assert.match(running.stderr(), /environ: Permission denied/);
});

test('after the application ended, the drain can be cut off by a second signal, and the exit code is still its own', async (t) => {
  const { exec, folder } = await startExecStage(t);
  const socket = join(folder, 'out.sock');
  /** Runs with a connection that nobody ends. */
  const draining = async (program: string) => {
    const server = await tlsServer(t, aPeer(API), (peer) => peer.pipe(peer));
    const listener = { name: 'out', listen: `unix://${socket}`, to: server.address, expect: [API] };
    const file = { drainTimeout: '10m', outbound: [listener] };
    const running = await exec(['/bin/sh', '-c', `${program}; echo ready; read -r line; exit 7`], { file });
    await running.line(/^ready$/);
    const client = await dial(t, `unix://${socket}`);
    client.write('hello');
    await once(client, 'data');
    return running;
  };

  const byItself = await draining(':');
  byItself.write('\n');
  await byItself.line(/"message":"stopping"/);
  byItself.signal('SIGHUP');
  byItself.signal('SIGTERM');
  const { status } = await ask({ kind: 'unix', path: join(folder, 'admin.sock') }, '/livez');
  assert.equal(status, 200, 'who asks first asks for what is under way');
  byItself.signal('SIGTERM');
  assert.equal((await byItself.exited).code, 7);
  const [stopped] = byItself.log().filter(({ message }) => message === 'stopped');
  assert.equal(stopped?.['forced_connections'], 1);

  const asked = await draining("trap 'exit 8' TERM");
  asked.signal('SIGTERM');
  await asked.line(/"message":"stopping"/);
  asked.signal('SIGINT');
  assert.equal((await asked.exited).code, 8);
});

test('what cannot be put away at the end is told, and takes no exit code from the application; without one it is 1', async (t) => {
  const { api, exec } = await startExecStage(t);
  const { folder, unsafeDisk } = await folderInMemory(t);
  const directory = join(folder, 'web');
  const file = { files: [{ name: 'web', directory, unsafeDisk, cleanUpOnStop: true }] };
  const inTheWay = `mv ${directory} ${directory}.gone && touch ${directory}`;

  const running = await exec(['/bin/sh', '-c', `${inTheWay}; exit 7`], { file });
  assert.equal((await running.exited).code, 7, running.stderr());
  assert.match(running.stderr(), /^scute: .*web cannot be opened as a directory/m);

  await rm(directory);
  await using alone = await startScute({ config: { workloadApi: { endpoint: api.endpoint }, ...file } });
  await alone.logged(({ message }) => message === 'files replaced');
  await rm(directory, { recursive: true });
  await writeFile(directory, '');
  assert.equal((await alone.stop()).code, 1, alone.child.stderr());
  assert.match(alone.child.stderr(), /^scute: .*web cannot be opened as a directory/m);
});

test('while it waits, runs and has ended, the application is in the API, in scute status, in metrics and in the checks', async (t) => {
  const { api, exec, admin, folder } = await startExecStage(t, { early: true });
  const address = { kind: 'unix', path: join(folder, 'admin.sock') } as const;
  const application = async (): Promise<unknown> => {
    const { application: found } = JSON.parse((await ask(address, '/api/v1/overview')).body) as { application: object };
    return { ...found, since: undefined };
  };
  const metric = async (): Promise<readonly string[]> => {
    const { body } = await ask(address, '/metrics');
    return body.match(/^scute_application_(?:waiting|running|exit_code|ends_total\{result="exit_code"\}) \d+$/gm) ?? [];
  };
  const server = await tlsServer(t, aPeer(API), (peer) => peer.pipe(peer));
  const socket = join(folder, 'out.sock');
  const file = { drainTimeout: '10m', outbound: [{ name: 'out', listen: `unix://${socket}`, to: server.address, expect: [API] }] };
  const running = await exec(['/bin/sh', '-c', 'read -r line; exit 7'], { file });
  await running.line(/"listener":"admin"/);
  const facts = { program: '/bin/sh', since: undefined, pid: null, result: null, exitCode: null };
  assert.deepEqual(await application(), { ...facts, state: 'waiting' });
  assert.deepEqual(await metric(), [
    'scute_application_waiting 1',
    'scute_application_running 0',
    'scute_application_ends_total{result="exit_code"} 0',
  ]);

  api.setX509([anSvid()]);
  const { text } = await running.line(/"message":"application started"/);
  const { pid } = JSON.parse(text) as { readonly pid: number };
  assert.deepEqual(await application(), { ...facts, state: 'running', pid });
  assert.match((await scute('status', '--admin', admin)).stdout, new RegExp(`application {2}/bin/sh running as process ${pid}, for `));
  const client = await dial(t, `unix://${socket}`);
  client.write('hello');
  await once(client, 'data');

  running.write('\n');
  await running.line(/"message":"stopping"/);
  assert.deepEqual(await application(), { ...facts, state: 'ended', result: 'exit_code', exitCode: 7 });
  assert.deepEqual(await metric(), [
    'scute_application_waiting 0',
    'scute_application_running 0',
    'scute_application_ends_total{result="exit_code"} 1',
    'scute_application_exit_code 7',
  ]);
  assert.match((await ask(address, '/readyz?verbose')).body, /\[!\]application warning: \/bin\/sh ended by itself: exit code 7$/m);
  client.destroy();
  assert.equal((await running.exited).code, 7);
});
