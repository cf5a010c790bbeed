/**
 * Runs as `node --random-seed=1 warm.cjs PROGRAM CACHE CONFIGURATION`: starts the program, stops it in the same turn, and writes what V8
 * has compiled by then. It stops before anything from outside arrives, so that each run compiles the same functions: all that a start
 * needs, and nothing that a peer or a clock decides.
 */
import { writeFileSync } from 'node:fs';
import { compileProgram, readProgram } from './program.ts';

const [node = '', , file = '', cache = '', configuration = ''] = process.argv;
const { script, run } = compileProgram(file, readProgram(file));
process.once('exit', () => writeFileSync(cache, script.createCachedData()));
process.argv = [node, file, 'run', '-c', configuration];
run();
process.emit('SIGTERM', 'SIGTERM');
