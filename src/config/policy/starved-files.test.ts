import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { temporaryFolder } from '../../../test/support/temporary-folder.ts';

test('files that cannot be read for want of descriptors are read once there are some, and that is told once', async (t) => {
  const program = new URL('../../../test/support/policy/starved-files.ts', import.meta.url).pathname;
  const command = ['ulimit -n "$0" && exec "$@"', '256', process.execPath, program, await temporaryFolder(t)];

  const { stdout } = await promisify(execFile)('/bin/sh', ['-c', ...command]);

  const told = Object.entries(JSON.parse(stdout) as Record<string, string[]>);
  assert.deepEqual(
    told.map(([what]) => what),
    ['config', 'policy', 'deny'],
  );
  for (const [what, [first, ...more]] of told) {
    assert.match(first ?? '', /cannot be read: EMFILE/, what);
    assert.deepEqual(more, ['good'], what);
  }
});
