/** `scute exec` in a PID namespace of its own, as in a container. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test, type TestContext } from 'node:test';
import { eventually } from '../support/eventually.ts';
import { startExecStage, type ExecProcess } from '../support/exec-stage.ts';
import { processTree } from '../support/process-tree.ts';
import { needs } from './parts.ts';

const NAMESPACE = ['unshare', '--user', '--map-root-user', '--pid', '--fork', '--kill-child', '--mount-proc'];
const [unshare = '', ...flags] = NAMESPACE;
const isAllowed = spawnSync(unshare, [...flags, 'true']).status === 0;
/** Some systems let only root, or nobody, have one. */
const inNamespace = (parts: ReturnType<typeof needs> = {}): ReturnType<typeof needs> =>
  isAllowed ? parts : { skip: 'nobody may have a PID namespace of its own here' };

/** The first process of the namespace, as it is known outside. */
async function firstOf(running: ExecProcess): Promise<number> {
  const [, first] = await processTree(running.pid);
  assert.ok(first !== undefined);
  return first.pid;
}

/** Leaves an orphan that ends at once, says so, and lives on; ends with 5 when it is told to. */
const LEAVES_AN_ORPHAN = 'trap "exit 5" TERM; (sleep 0.1 &); echo ready; while :; do sleep 0.05; done';

async function start(t: TestContext, init: readonly string[] = []): Promise<ExecProcess> {
  const { exec } = await startExecStage(t);
  const running = await exec(['/bin/sh', '-c', LEAVES_AN_ORPHAN], { under: [...NAMESPACE, ...init] });
  await running.line(/^ready$/);
  return running;
}

async function zombies(running: ExecProcess): Promise<number> {
  return (await processTree(running.pid)).filter(({ state, name }) => state === 'Z' && name === 'sleep').length;
}

test(
  'as PID 1 scute exec sends signals on and has the exit code of the application, but reaps no orphan, and says so',
  inNamespace(),
  async (t) => {
    const running = await start(t);
    // The log comes by another pipe than what the application says.
    await eventually(() => {
      const [started] = running.log().filter(({ message }) => message === 'started');
      assert.equal(started?.['pid'], 1);
      assert.ok(running.log().some(({ message }) => message.startsWith('Scute is PID 1 and reaps no orphans')));
    });
    await eventually(async () => assert.equal(await zombies(running), 1));

    process.kill(await firstOf(running), 'SIGTERM');

    assert.equal((await running.exited).code, 5);
  },
);

test('as PID 1 a job that ends by itself, or by a signal, ends Scute with its exit code', inNamespace(), async (t) => {
  const { exec } = await startExecStage(t);
  for (const [script, expected] of [
    ['exit 3', 3],
    ['kill -KILL $$', 137],
  ] as const) {
    const running = await exec(['/bin/sh', '-c', script], { under: NAMESPACE });
    assert.equal((await running.exited).code, expected, running.stderr());
  }
});

test('under an init orphans are reaped, and signals and exit codes are the same', inNamespace(needs('tini')), async (t) => {
  const running = await start(t, ['tini', '--']);
  assert.ok(!running.log().some(({ message }) => message.startsWith('Scute is PID 1')));
  // The orphan has ended when only those are left that run on.
  await eventually(async () => {
    const all = await processTree(running.pid);
    assert.deepEqual(
      all.filter(({ state }) => state === 'Z'),
      [],
    );
    assert.ok(all.length <= 5, JSON.stringify(all));
  });

  process.kill(await firstOf(running), 'SIGTERM');

  assert.equal((await running.exited).code, 5);
});

test('of a Scute that is killed the application is told by the system, if setpriv has asked for it', needs('setpriv'), async (t) => {
  const { exec } = await startExecStage(t);
  const program = ['/bin/sh', '-c', 'trap "echo told; exit" TERM; echo ready; while :; do sleep 0.05; done'];
  const running = await exec(['setpriv', '--pdeathsig', 'TERM', ...program]);
  await running.line(/^ready$/);

  running.signal('SIGKILL');

  await running.line(/^told$/);
});
