/** Reads a set in a tight loop until its standard input ends: `CONFIG` as argument. Prints what it saw. */
import type { FileSetConfig } from '../../../src/config/file-sets.ts';
import { readSet } from './numbered-files.ts';

const config = JSON.parse(process.argv[2] ?? '') as FileSetConfig;
const seen = { reads: 0, gone: 0, mismatches: 0, last: 0 };
const over = new AbortController();
process.stdin.resume().once('end', () => over.abort());
process.stdout.write('reading\n');
while (!over.signal.aborted) {
  const numbers = await readSet(config);
  if (numbers === undefined) seen.gone += 1;
  else {
    const [certificate = 0, key = 0] = numbers;
    seen.reads += 1;
    seen.last = certificate;
    if (certificate !== key) seen.mismatches += 1;
  }
}
process.stdout.write(`${JSON.stringify(seen)}\n`);
