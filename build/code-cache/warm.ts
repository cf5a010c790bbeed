/**
 * Runs as `node --random-seed=1 warm.cjs PROGRAM CACHE CONFIGURATION`: has the program check a configuration, and writes what V8 has compiled
 * by then. Nothing from outside arrives, and no timer decides anything, so each run compiles the same functions: what reads the command
 * line and the configuration, and all that is loaded with it. (A start that went as far as its listeners would save a little more, but
 * what V8 notes of its functions depends on the moment.)
 */
import { writeFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { compileProgram, readProgram } from './program.ts';

const [node = '', , file = '', cache = '', configuration = ''] = process.argv;
/** While they run, V8's compilers note in each function what they have decided of it, which is in the cache and another thing each time. */
const TIERS = ['opt', 'maglev', 'sparkplug', 'profile-guided-optimization'];
for (const tier of TIERS) setFlagsFromString(`--no-${tier}`);
const { script, run } = compileProgram(file, readProgram(file));
process.once('exit', () => {
  // The flags are among what V8 compares.
  for (const tier of TIERS) setFlagsFromString(`--${tier}`);
  writeFileSync(cache, script.createCachedData());
});
process.argv = [node, file, 'check', '-c', configuration];
run();
