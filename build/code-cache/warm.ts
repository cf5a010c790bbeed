/**
 * Runs as `node --random-seed=1 warm.cjs PROGRAM CACHE CONFIGURATION AHEAD`: has the program check a configuration, compiles what lies in the
 * places of AHEAD, and writes what V8 has compiled by then. Nothing from outside arrives, and no timer decides anything, so each run compiles
 * the same functions in the same order: what reads the command line and the configuration, what is loaded with it, and what serving will call. (A start
 * that serves compiles the latter too, but in an order that depends on the moment, and V8 numbers functions by it.)
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { Session, type Debugger } from 'node:inspector';
import { setFlagsFromString } from 'node:v8';
import { compileProgram } from './program.ts';
import type { Place } from './places.ts';

const [node = '', , file = '', cache = '', configuration = '', ahead = ''] = process.argv;
/** While they run, V8's compilers note in each function what they have decided of it, which is in the cache and another thing each time. */
const TIERS = ['opt', 'maglev', 'sparkplug', 'profile-guided-optimization'];
for (const tier of TIERS) setFlagsFromString(`--no-${tier}`);
const { script, run } = compileProgram(file, readFileSync(file));
process.once('exit', () => {
  compile(JSON.parse(readFileSync(ahead, 'utf8')) as readonly Place[]);
  // The flags are among what V8 compares.
  for (const tier of TIERS) setFlagsFromString(`--${tier}`);
  writeFileSync(cache, script.createCachedData());
});
process.argv = [node, file, 'check', '-c', configuration];
run();

/** Without calling it. V8 compiles all functions of a place to find where a debugger could stop in them; what it answers is of no use here. */
function compile(places: readonly Place[]): void {
  const session = new Session();
  session.connect();
  const scripts: Debugger.ScriptParsedEventDataType[] = [];
  session.on('Debugger.scriptParsed', ({ params }) => scripts.push(params));
  session.post('Debugger.enable');
  const scriptId = scripts.find(({ url }) => file.endsWith(`/${url}`))?.scriptId;
  if (scriptId === undefined) throw new Error(`V8 knows no script of ${file}`);
  for (const { from, to } of places) {
    session.post('Debugger.getPossibleBreakpoints', { start: { scriptId, ...from }, end: { scriptId, ...to } }, (error) => {
      if (error !== null) throw error;
    });
  }
  session.disconnect();
}
