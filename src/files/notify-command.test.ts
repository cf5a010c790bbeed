import assert from 'node:assert/strict';
import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { eventually } from '../../test/support/eventually.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { temporaryFolder } from '../../test/support/temporary-folder.ts';
import { systemClock } from '../lib/clock.ts';
import type { NotifyFailure } from '../telemetry/log/files-records.ts';
import { commandTarget } from './notify-command.ts';

const CONTEXT = { set: 'web', directory: '/run/web', spiffeId: 'spiffe://example.org/web', replacedAtMs: 0 };
const NEVER_MS = 3_600_000;

async function run(...command: [string, ...string[]]): Promise<{ readonly failure: NotifyFailure | undefined; readonly output: string }> {
  let output = '';
  const target = commandTarget({ command, timeoutMs: NEVER_MS, clock: systemClock, onOutput: (text) => (output = text) });
  return { failure: await target.tell(CONTEXT, new AbortController().signal), output };
}

async function isRunning(pid: number): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, 'latin1').catch(() => '');
  return stat !== '' && !/\) [ZX] /.test(stat);
}

/** Two processes of one group, of which neither heeds SIGTERM; the files of `folder` have their numbers. */
const STUBBORN = `trap '' TERM; (trap '' TERM; echo $$ > "$0/first"; while :; do sleep 1; done) & sh -c 'echo $$ > "$0/second"; exec sleep 3600' "$0" & wait`;

test('a command runs with a path and what it is told of the set, and with nothing else of our environment', async (t) => {
  process.env['SCUTE_TEST_SECRET'] = 'hidden';
  t.after(() => delete process.env['SCUTE_TEST_SECRET']);

  const { failure, output } = await run('/usr/bin/env');

  assert.equal(failure, undefined);
  assert.deepEqual(output.trim().split('\n').toSorted(), [
    'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    'SCUTE_DIRECTORY=/run/web',
    'SCUTE_SET=web',
    'SCUTE_SPIFFE_ID=spiffe://example.org/web',
  ]);
});

test('no shell reads its arguments', async () => {
  assert.equal((await run('/bin/echo', '$HOME; id', '`id`')).output, '$HOME; id `id`\n');
});

test('an exit code other than 0, a signal, and a program that is not there are failures', async () => {
  assert.deepEqual(await run('/bin/sh', '-c', 'echo no >&2; exit 3'), {
    failure: { reason: 'exit_code', detail: '/bin/sh ended with exit code 3' },
    output: 'no\n',
  });
  assert.match((await run('/bin/sh', '-c', 'kill -9 $$')).failure?.detail ?? '', /was ended by SIGKILL/);
  assert.equal((await run('/no/such/program')).failure?.reason, 'not_started');
});

test('of a command that writes without end only the last of it is kept', async () => {
  const { failure, output } = await run('/bin/sh', '-c', 'head -c 300000000 /dev/zero; echo end');

  assert.equal(failure, undefined);
  assert.ok(output.length <= 1024, String(output.length));
  assert.ok(output.endsWith('end\n'));
});

test('what a command leaves behind in its group does not outlive it, nor is it waited for', async (t) => {
  const folder = await temporaryFolder(t);

  const { failure } = await run(
    '/bin/sh',
    '-c',
    `sh -c 'echo $$ > "$0/left"; trap "" TERM HUP; while :; do sleep 1; done' "$0" & while [ ! -s "$0/left" ]; do :; done`,
    folder,
  );

  assert.equal(failure, undefined);
  const left = Number(await readFile(join(folder, 'left'), 'utf8'));
  await eventually(async () => assert.equal(await isRunning(left), false));
});

async function startStubborn(t: TestContext, signal: AbortSignal) {
  const folder = await temporaryFolder(t);
  const clock = new FakeClock();
  const target = commandTarget({ command: ['/bin/sh', '-c', STUBBORN, folder], timeoutMs: 5000, clock, onOutput: () => {} });
  const told = target.tell(CONTEXT, signal);
  const pids = await eventually(async () => {
    const names = await readdir(folder);
    const numbers = await Promise.all(names.map(async (name) => Number(await readFile(join(folder, name), 'utf8'))));
    assert.equal(numbers.filter((pid) => pid > 0).length, 2);
    return numbers;
  });
  return { clock, told, pids };
}

test('a command that hangs, forks and ignores signals is ended with all of its processes when its time is over', async (t) => {
  const { clock, told, pids } = await startStubborn(t, new AbortController().signal);

  clock.advance(5000);
  clock.advance(2000);

  assert.deepEqual((await told)?.reason, 'timeout');
  await eventually(async () => assert.deepEqual(await Promise.all(pids.map(isRunning)), [false, false]));
  assert.equal(clock.armed, 0);
});

test('whoever leaves the group of a command and holds its output is not waited for', async (t) => {
  const folder = await temporaryFolder(t);
  const clock = new FakeClock();
  const left = join(folder, 'left');
  const script = `setsid sh -c 'echo $$ > "$0/left"; exec sleep 3600' "$0" & while [ ! -s "$0/left" ]; do :; done`;
  const target = commandTarget({ command: ['/bin/sh', '-c', script, folder], timeoutMs: NEVER_MS, clock, onOutput: () => {} });
  const told = target.tell(CONTEXT, new AbortController().signal);
  const pid = await eventually(async () => {
    const number = Number(await readFile(left, 'utf8'));
    assert.ok(number > 0);
    return number;
  });
  t.after(() => process.kill(pid));

  const over = eventually(() => {
    clock.advance(2000);
    return Promise.race([told.then(() => 'over'), new Promise((resolve) => setImmediate(resolve, 'waiting'))]).then((state) =>
      assert.equal(state, 'over'),
    );
  });

  await over;
  assert.equal(await told, undefined);
});

test('a command under way is ended when Scute stops', async (t) => {
  const stopping = new AbortController();
  const { clock, told, pids } = await startStubborn(t, stopping.signal);

  stopping.abort();
  clock.advance(2000);

  assert.match((await told)?.detail ?? '', /since Scute stops/);
  await eventually(async () => assert.deepEqual(await Promise.all(pids.map(isRunning)), [false, false]));
});
