/**
 * Replaces a set of files in a process of its own, to be ended in the midst of it or given little room: `CONFIG COUNT [END_AFTER_STEP]` as
 * arguments. Each replacement has files whose whole text says which one it is. Prints what became of each.
 */
import { createSetWriter } from '../../../src/files/writer.ts';
import { SetWriteError } from '../../../src/files/folder.ts';
import type { FileSetConfig } from '../../../src/config/file-sets.ts';
import { numberedFiles } from './numbered-files.ts';

const [config = '', count = '1', endAfter = '', bytes = '2000', first = '1'] = process.argv.slice(2);
const set = JSON.parse(config) as FileSetConfig;
let steps = 0;
const writer = createSetWriter({
  config: set,
  afterStep() {
    steps += 1;
    // What SIGKILL does, no handler sees.
    if (steps === Number(endAfter || -1)) process.kill(process.pid, 'SIGKILL');
  },
});
const results: string[] = [];
for (let number = Number(first); number < Number(first) + Number(count); number += 1) {
  try {
    await writer.replace(numberedFiles(set, number, Number(bytes)));
    results.push('replaced');
  } catch (cause) {
    results.push(cause instanceof SetWriteError ? cause.reason : String(cause));
  }
}
process.stdout.write(`${JSON.stringify({ results, steps })}\n`);
