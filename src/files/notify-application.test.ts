import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { startChild, type Child } from '../../test/support/child.ts';
import type { NotifyFailure } from '../telemetry/log/files-records.ts';
import { applicationTarget, type ToldApplication } from './notify-application.ts';

const REPLACED_AT_MS = 1000;

async function startApplication(t: TestContext, program: string): Promise<Child> {
  const child = await startChild([process.execPath, '--eval', `${program}; setInterval(() => {}, 1000); console.log('ready');`]);
  t.after(() => child.stop({ signal: 'SIGKILL' }));
  await child.line(/^ready$/);
  return child;
}

/** What becomes of telling `child`, and what it was sent. */
async function tell(child: Child, running?: () => ToldApplication['running'], mayTell = true) {
  const sent: string[] = [];
  const process = { pid: child.pid, startedAtMs: 999 };
  const application: ToldApplication = {
    program: './application',
    get running() {
      return running === undefined ? process : running();
    },
    tell(signal) {
      if (!mayTell) return false;
      child.signal(signal);
      sent.push(signal);
      return true;
    },
  };
  const target = applicationTarget(application, 'SIGHUP');
  const context = { set: 'web', directory: '/run/web', spiffeId: 'spiffe://example.org/web', replacedAtMs: REPLACED_AT_MS };
  const failure: NotifyFailure | undefined = await target.tell(context, new AbortController().signal);
  return { failure, sent };
}

test('an application that was there before a replacement is sent the signal, and one that came later is not', async (t) => {
  const child = await startApplication(t, "process.on('SIGHUP', () => console.log('told'))");

  assert.deepEqual(await tell(child), { failure: undefined, sent: ['SIGHUP'] });
  await child.line(/^told$/);
  const startedAt = (startedAtMs: number): ReturnType<typeof tell> => {
    const running = { pid: child.pid, startedAtMs };
    return tell(child, () => running);
  };
  // In the same millisecond, either may have been first.
  assert.deepEqual((await startedAt(1000)).sent, ['SIGHUP']);
  assert.deepEqual(await startedAt(1001), { failure: undefined, sent: [] });
  assert.deepEqual(await tell(child, () => undefined), { failure: undefined, sent: [] });
});

test('an application that the signal would end, or that ignores it, is not sent it', async (t) => {
  const bare = await startApplication(t, '');
  const { failure, sent } = await tell(bare);
  assert.deepEqual(
    [failure?.reason, failure?.detail, sent],
    ['unhandled_signal', `./application: process ${bare.pid} has no handler for SIGHUP`, []],
  );
});

test('one that has ended, or has another in its place by now, is not sent it, and it is tried again', async (t) => {
  const child = await startApplication(t, "process.on('SIGHUP', () => console.log('told'))");
  // Another process each time that it is asked for.
  const meanwhile = await tell(child, () => ({ pid: child.pid, startedAtMs: 0 }));
  assert.deepEqual([meanwhile.failure?.reason, meanwhile.sent], ['no_process', []]);

  await child.stop();
  const gone = await tell(child);
  assert.deepEqual([gone.failure?.reason, gone.sent], ['no_process', []]);
});

test('one that the system does not let us tell is said to be of another user', async (t) => {
  const child = await startApplication(t, "process.on('SIGHUP', () => console.log('told'))");
  const { failure } = await tell(child, undefined, false);
  assert.equal(failure?.reason, 'foreign_process');
  assert.match(failure.detail, new RegExp(`process ${child.pid} cannot be sent SIGHUP`));
});
