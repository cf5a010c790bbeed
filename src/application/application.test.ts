import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { startChild } from '../../test/support/child.ts';
import { eventually } from '../../test/support/eventually.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { temporaryFolder } from '../../test/support/temporary-folder.ts';
import { createMetrics } from '../telemetry/metrics/metrics.ts';
import { createEvents } from '../telemetry/events/events.ts';
import { createLogger } from '../telemetry/log/logger.ts';
import { Application, type ApplicationOptions } from './application.ts';

interface Stage {
  readonly application: Application;
  readonly clock: FakeClock;
  /** Messages of the log, with the exit code. */
  readonly log: () => readonly string[];
  readonly file: string;
  /** Lines that the program has written into its file. */
  readonly lines: () => Promise<readonly string[]>;
}

/** A shell script, which has a file to write into as `$0`. */
async function prepare(
  t: TestContext,
  script: string,
  settings: Partial<ApplicationOptions['settings']> = {},
  shell = '/bin/sh',
): Promise<Stage> {
  const file = join(await temporaryFolder(t), 'said');
  const clock = new FakeClock();
  const log: string[] = [];
  const destination = {
    write(line: string): void {
      const { message, exit_code: code, reason } = JSON.parse(line) as Readonly<Record<string, string>>;
      log.push([message, code ?? reason].filter((part) => part !== undefined).join(' '));
    },
  };
  const { logger } = await createLogger({ level: 'debug', format: 'json', destination });
  const application = new Application({
    command: [shell, '-c', script, file],
    env: { PATH: '/usr/bin:/bin' },
    settings: { user: undefined, restartOnRotation: true, stopTimeoutMs: 5000, ...settings },
    clock,
    events: createEvents({ logger, metrics: createMetrics({ version: '0' }), clock }).application,
    onOurEnd: () => () => undefined,
  });
  t.after(() => application.signal('SIGKILL'));
  return {
    application,
    clock,
    file,
    log: () => log,
    lines: async () => (await readFile(file, 'utf8').catch(() => '')).split('\n').slice(0, -1),
  };
}

/** Runs until it is told to end, and writes a line each time that it starts. */
const RUNS = 'trap "exit 3" TERM; echo started >> "$0"; while :; do sleep 0.01; done';

async function saidTimes({ lines }: Stage, count: number): Promise<void> {
  await eventually(async () => assert.equal((await lines()).length, count));
}

test('at a rotation the application is asked to end, awaited, and started anew, ten seconds after its start at the soonest', async (t) => {
  const stage = await prepare(t, RUNS);
  const { application, clock, log } = stage;
  application.start();
  await saidTimes(stage, 1);

  application.identityChanged();
  application.identityChanged();
  clock.advance(9999);
  assert.ok(!log().includes('application asked to end rotation'));
  clock.advance(1);
  await saidTimes(stage, 2);
  clock.advance(60_000);
  application.identityChanged();
  clock.advance(0);
  await saidTimes(stage, 3);

  application.signal('SIGTERM');
  assert.equal(await application.ended, 3);
  assert.deepEqual(log(), [
    'application started start',
    'application asked to end rotation',
    'application ended 3',
    'application started rotation',
    'application asked to end rotation',
    'application ended 3',
    'application started rotation',
    'application ended 3',
  ]);
  assert.equal(clock.armed, 0);
});

test('an application that does not end for a rotation is killed, and started anew', async (t) => {
  const stage = await prepare(t, 'trap "" TERM; echo started >> "$0"; while :; do sleep 0.01; done');
  const { application, clock, log } = stage;
  application.start();
  await saidTimes(stage, 1);
  application.identityChanged();
  clock.advance(10_000);
  clock.advance(4999);
  assert.ok(!log().includes('application killed, since it did not end'));

  clock.advance(1);

  await saidTimes(stage, 2);
  application.stop();
  clock.advance(5000);
  assert.equal(await application.ended, 137);
  assert.equal(clock.armed, 0);
});

test('who ends by itself is not started anew, though a rotation waits; nor who is told to end while it is being started anew', async (t) => {
  const own = await prepare(t, 'echo started >> "$0"; exit 4');
  own.application.start();
  own.application.identityChanged();
  assert.equal(await own.application.ended, 4);
  own.clock.advance(60_000);
  assert.deepEqual(await own.lines(), ['started']);
  assert.equal(own.clock.armed, 0);

  // It ends only when it is told so twice.
  const told = await prepare(t, 'trap "test -e $0.once && exit 5; touch $0.once" TERM; echo started >> "$0"; while :; do sleep 0.01; done');
  told.application.start();
  await saidTimes(told, 1);
  told.application.identityChanged();
  told.clock.advance(10_000);
  assert.ok(told.log().includes('application asked to end rotation'));
  await eventually(async () => assert.equal((await readFile(`${told.file}.once`, 'utf8')).length, 0));
  told.application.signal('SIGTERM');
  assert.equal(await told.application.ended, 5);
  assert.deepEqual(await told.lines(), ['started']);
});

test('without restartOnRotation nothing is started anew', async (t) => {
  const stage = await prepare(t, RUNS, { restartOnRotation: false });
  stage.application.start();
  await saidTimes(stage, 1);
  stage.application.identityChanged();
  assert.equal(stage.clock.armed, 0);
  stage.application.signal('SIGTERM');
  assert.equal(await stage.application.ended, 3);
});

test('a program that is gone when it is to be started anew ends it all with 127', async (t) => {
  const stage = await prepare(t, 'cp /bin/sh "$0.sh"');
  stage.application.start();
  assert.equal(await stage.application.ended, 0);
  const shell = `${stage.file}.sh`;
  const gone = await prepare(t, RUNS, {}, shell);
  gone.application.start();
  await saidTimes(gone, 1);
  await rm(shell);

  gone.application.identityChanged();
  gone.clock.advance(10_000);

  assert.equal(await gone.application.ended, 127);
  assert.deepEqual(gone.log().slice(-2), ['application ended 3', 'application cannot be started']);
  gone.application.start();
  assert.deepEqual(await gone.lines(), ['started'], 'it is over for good');
});

test('a program that runs as another user by now can be neither told nor ended, and is left behind in time, or kept for a rotation', async (t) => {
  if (process.getuid?.() !== 0) {
    t.skip('only root can become another user');
    return;
  }
  const file = join(await temporaryFolder(t), 'said');
  await writeFile(file, '', { mode: 0o666 });
  // What `sudo` does to the application, this does to Scute: there are two users, and neither may send the other a signal.
  const program = `
    import { Application } from ${JSON.stringify(import.meta.resolve('./application.ts'))};
    const say = (...words) => console.log(words.map((word) => (typeof word === 'object' ? Object.keys(word).join(' ') : word)).join(' '));
    const events = new Proxy({}, { get: (_, name) => (...args) => say(name, ...args.filter((arg) => typeof arg !== 'number')) });
    const timers = [];
    const clock = { monotonic: () => 0, after: (ms, then) => (timers.push(then), { cancel() {} }) };
    const settings = { stopTimeoutMs: 1000, restartOnRotation: true };
    const command = ['/bin/sh', '-c', 'trap "" TERM; echo $$; exec sleep 300 < /dev/null > /dev/null 2>&1'];
    const application = new Application({ command, env: process.env, settings, clock, events, onOurEnd: () => () => {} });
    void application.ended.then((code) => say('over', code));
    const steps = {
      start: () => application.start(),
      leave: () => process.setuid(65534),
      tell: () => say(String(application.tell('SIGHUP'))),
      rotate: () => application.identityChanged(),
      time: () => timers.shift()(),
      signal: () => application.signal('SIGTERM'),
    };
    process.stdin.setEncoding('utf8').on('data', (lines) => {
      for (const line of lines.split('\\n').slice(0, -1)) steps[line]();
    });
  `;
  const child = await startChild([process.execPath, '--input-type=module', '--eval', program]);
  t.after(() => child.stop({ signal: 'SIGKILL' }));
  let next = 0;
  const step = async (name: string, ...expected: readonly RegExp[]): Promise<string> => {
    child.write(`${name}\n`);
    let text = '';
    for (const each of expected) ({ text, next } = await child.line(each, { after: next }));
    return text;
  };
  const pid = Number(await step('start', /^\d+$/));
  t.after(() => process.kill(pid, 'SIGKILL'));
  await step('leave');

  await step('tell', /^notSent SIGHUP pid detail$/, /^false$/);
  await step('rotate');
  await step('time', /^asked rotation$/, /^notSent SIGTERM pid detail$/);
  await step('time', /^notSent SIGKILL pid detail$/, /^notEnded rotation$/);
  await step('signal', /^notSent SIGTERM pid detail$/);
  await step('time', /^notSent SIGKILL pid detail$/, /^notEnded shutdown$/, /^over 1$/);

  child.endInput();
  assert.deepEqual(await child.exited, { code: 0, signal: null }, 'nothing is waited for');
  assert.ok(process.kill(pid, 0), 'it lives on');
});

test('if Scute ends for a mistake of its own, the application is told', async (t) => {
  const file = join(await temporaryFolder(t), 'said');
  const program = `
    import { Application } from ${JSON.stringify(import.meta.resolve('./application.ts'))};
    const nothing = () => {};
    const events = new Proxy({}, { get: () => nothing });
    const script = 'trap "echo told >> $0; exit" TERM; echo started >> $0; while :; do sleep 0.01; done';
    const clock = { monotonic: () => 0, after: () => ({ cancel: nothing }) };
    const settings = { stopTimeoutMs: 1000, restartOnRotation: false };
    const onOurEnd = (listener) => process.once('exit', listener);
    new Application({ command: ['/bin/sh', '-c', script, ${JSON.stringify(file)}], env: process.env, settings, clock, events, onOurEnd }).start();
    process.stdin.once('data', () => { throw new Error('a mistake'); });
  `;
  const child = execFile(process.execPath, ['--input-type=module', '--eval', program]);
  t.after(() => child.kill('SIGKILL'));
  const said = (): Promise<string> => readFile(file, 'utf8').catch(() => '');
  await eventually(async () => assert.equal(await said(), 'started\n'));

  child.stdin?.write('now');

  await eventually(async () => assert.equal(await said(), 'started\ntold\n'));
});
