import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { chmod, chown, rm, symlink, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { startNotified } from '../../test/support/files/notify-process.ts';
import { temporaryFolder } from '../../test/support/temporary-folder.ts';
import type { NotifyFailure } from '../telemetry/log/files-records.ts';
import { signalTarget } from './notify-signal.ts';
import type { NotifyTarget } from './notify-target.ts';

const CONTEXT = { set: 'web', directory: '/run/web', spiffeId: 'spiffe://example.org/web', replacedAtMs: 0 };
const isRoot = process.getuid?.() === 0;

async function aTarget(
  t: TestContext,
): Promise<{ readonly pidFile: string; readonly target: NotifyTarget; readonly tell: () => Promise<NotifyFailure | undefined> }> {
  const pidFile = join(await temporaryFolder(t), 'app.pid');
  const target = signalTarget({ pidFile, signal: 'SIGHUP' });
  return { pidFile, target, tell: () => target.tell(CONTEXT, new AbortController().signal) };
}

test('the process whose number is in the file is sent the signal; the rest of the file is not looked at', async (t) => {
  const { pidFile, target, tell } = await aTarget(t);
  await using child = await startNotified(pidFile);
  await writeFile(pidFile, `${child.pid}\n/var/lib/postgresql\n`);

  assert.equal(await tell(), undefined);

  await child.line(/^hangup$/);
  assert.equal(await target.isAnother?.(), false);
});

test('a process that takes the place of the one that was told is another', async (t) => {
  const { pidFile, target, tell } = await aTarget(t);
  await using first = await startNotified(pidFile);
  await tell();
  await first.stop();
  assert.equal(await target.isAnother?.(), false, 'nobody is there');

  await using second = await startNotified(pidFile);

  assert.equal(await target.isAnother?.(), true);
  assert.equal(await tell(), undefined);
  await second.line(/^hangup$/);
  assert.equal(await target.isAnother?.(), false);
});

test('a process that the signal would end is not sent it', async (t) => {
  const { pidFile, tell } = await aTarget(t);
  await using child = await startNotified(pidFile, { handles: false });

  const failure = await tell();

  assert.equal(failure?.reason, 'unhandled_signal');
  process.kill(child.pid, 0);
});

test('what is no number of a process that may be sent a signal is named with its place', async (t) => {
  const { pidFile, tell } = await aTarget(t);
  for (const text of [
    '',
    'nonsense',
    '-1',
    '-7777',
    '0',
    '1',
    '1 2',
    '0x10',
    '1e3',
    '99999999999',
    '4194305',
    String(process.pid),
    '\n7',
  ]) {
    await writeFile(pidFile, text);

    const failure = await tell();

    assert.equal(failure?.reason, 'bad_pid_file', text);
    assert.ok(failure.detail.startsWith(`${pidFile}:1:1: `), failure.detail);
  }
});

test('a file that others may write, that is a link, or no file, is not believed', async (t) => {
  const { pidFile, tell } = await aTarget(t);
  await using child = await startNotified(`${pidFile}.real`);
  await symlink(`${pidFile}.real`, pidFile);
  assert.equal((await tell())?.reason, 'bad_pid_file');
  await rm(pidFile);
  assert.equal((await tell())?.reason, 'no_pid_file');

  await writeFile(pidFile, String(child.pid));
  for (const mode of [0o666, 0o664]) {
    await chmod(pidFile, mode);
    assert.equal((await tell())?.reason, 'bad_pid_file');
  }
  await chmod(pidFile, 0o644);
  assert.equal(await tell(), undefined);
  await child.line(/^hangup$/);
  assert.equal(child.lines().filter((line) => line === 'hangup').length, 1);
});

test('neither a file nor a process of another user is believed', { skip: isRoot ? false : 'needs root' }, async (t) => {
  const { pidFile, tell } = await aTarget(t);
  await using child = await startNotified(pidFile);
  await chown(pidFile, 12_345, 12_345);
  assert.equal((await tell())?.reason, 'bad_pid_file');
  await chown(pidFile, 0, 0);

  const script =
    "process.setuid(12345); process.on('SIGHUP', () => console.log('hangup')); setInterval(() => {}, 1000); console.log('ready')";
  const { startChild } = await import('../../test/support/child.ts');
  await using foreign = await startChild([process.execPath, '--eval', script]);
  await foreign.line(/^ready$/);
  await writeFile(pidFile, String(foreign.pid));

  assert.equal((await tell())?.reason, 'foreign_process');
  assert.equal(foreign.lines().includes('hangup') || child.lines().includes('hangup'), false);
});

test('a process that began after its file was written is another with the same number, and is not sent the signal', async (t) => {
  const { pidFile, tell } = await aTarget(t);
  await using child = await startNotified(pidFile);
  const earlier = new Date(Date.now() - 3_600_000);
  await utimes(pidFile, earlier, earlier);

  const failure = await tell();

  assert.equal(failure?.reason, 'no_process');
  assert.match(failure.detail, /began after the file was written/);
  assert.equal(child.lines().includes('hangup'), false);
});

test('a process that ends while it is looked at is not sent the signal, though its number may still be taken', async (t) => {
  const pidFile = join(await temporaryFolder(t), 'app.pid');
  await using child = await startNotified(pidFile);
  const target = signalTarget({
    pidFile,
    signal: 'SIGHUP',
    beforeLastLook() {
      process.kill(child.pid, 'SIGKILL');
      // Nobody has asked for its end yet: it is a zombie, which may be sent signals.
      while (!/\) Z /.test(readFileSync(`/proc/${child.pid}/stat`, 'latin1')));
    },
  });

  const failure = await target.tell(CONTEXT, new AbortController().signal);

  assert.deepEqual(failure, { reason: 'no_process', detail: `${pidFile}: process ${child.pid} has ended` });
});

test('there may be no process with that number', async (t) => {
  const { pidFile, tell } = await aTarget(t);
  {
    await using child = await startNotified(pidFile);
    await child.stop();
  }

  assert.equal((await tell())?.reason, 'no_process');
});
