/** What the executable starts: the program, from V8's code cache, both within it. So is what the program loads from beside it elsewhere. */
import { getAsset, getRawAsset } from 'node:sea';
import { requireChecked } from '../code-cache/beside.ts';
import { compileProgram } from '../code-cache/program.ts';
import { keepEndingSignals } from '../code-cache/signals.ts';

keepEndingSignals();
const file = process.execPath;

const { script, run } = compileProgram(file, Buffer.from(getRawAsset('scute.cjs')), Buffer.from(getRawAsset('scute.cache')));
// Slower, and no less right: the text is compiled.
if (script.cachedDataRejected === true) process.stderr.write('scute: the code cache of this executable is not for its V8\n');
// Never a file: whoever can write beside the executable is not who made it.
run(requireChecked(file, (name) => getAsset(name, 'utf8')));
