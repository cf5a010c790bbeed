import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { eventually } from '../../test/support/eventually.ts';
import { temporaryFolder } from '../../test/support/temporary-folder.ts';
import { childTarget } from './notify-child.ts';
import type { NotifyTarget } from './notify-target.ts';

const CONTEXT = { set: 'spiffe-helper', directory: '/run/web', spiffeId: 'spiffe://example.org/web', replacedAtMs: 0 };
const [OURS, THEIRS] = [12_345, 54_321];

/** What a program does that `sudo` starts: it becomes another user, and says so, and each signal, in a file. */
const PROGRAM = `
  const { openSync, writeSync } = require('node:fs');
  const file = openSync(process.env.SAYS, 'a');
  if (process.env.BECOMES !== undefined) process.setuid(Number(process.env.BECOMES));
  process.on('SIGHUP', () => writeSync(file, 'hangup\\n'));
  const { ppid } = process;
  setInterval(() => process.ppid === ppid || process.exit(), 50);
  writeSync(file, process.pid + '\\n');`;

async function aChild(t: TestContext, env: Record<string, string> = {}) {
  const says = join(await temporaryFolder(t), 'says');
  const target: NotifyTarget = childTarget({
    command: [process.execPath, '--eval', PROGRAM],
    signal: 'SIGHUP',
    env: { PATH: process.env['PATH'], SAYS: says, ...env },
  });
  const tell = () => target.tell(CONTEXT, new AbortController().signal);
  const lines = async (count: number): Promise<readonly string[]> =>
    eventually(async () => {
      const found = (await readFile(says, 'utf8')).split('\n').slice(0, -1);
      assert.equal(found.length, count);
      return found;
    });
  assert.equal(await tell(), undefined);
  const [pid = ''] = await lines(1);
  assert.match(pid, /^[0-9]+$/);
  t.after(() => {
    try {
      process.kill(Number(pid), 'SIGKILL');
    } catch {
      // It has ended.
    }
  });
  return { tell, lines, pid: Number(pid) };
}

test('a child is started by the first replacement, told of the next, and started anew once it has ended', async (t) => {
  const { tell, lines, pid } = await aChild(t);

  assert.equal(await tell(), undefined);
  assert.deepEqual(await lines(2), [String(pid), 'hangup']);

  process.kill(pid, 'SIGKILL');
  // Who is told of its end knows it by then.
  await eventually(() => Promise.resolve(assert.throws(() => process.kill(pid, 0), { code: 'ESRCH' })));
  assert.equal(await tell(), undefined);
  const [, , another] = await lines(3);
  assert.match(another ?? '', /^[0-9]+$/);
  t.after(() => process.kill(Number(another), 'SIGKILL'));
  assert.notEqual(another, String(pid));
});

test(
  'a child that has become another user, whom we may send nothing, is a failure that says so, and no error',
  { skip: process.getuid?.() === 0 ? false : 'needs root' },
  async (t) => {
    const { tell, lines, pid } = await aChild(t, { BECOMES: String(THEIRS) });

    // Root may send anybody anything, so for this one call we are not.
    process.seteuid?.(OURS);
    const told = tell();
    process.seteuid?.(0);

    assert.deepEqual(await told, { reason: 'foreign_process', detail: `${process.execPath} cannot be sent SIGHUP` });
    assert.deepEqual(await lines(1), [String(pid)]);
    assert.equal(await tell(), undefined, 'it is told as soon as that works');
    await lines(2);
  },
);
