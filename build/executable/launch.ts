/** What the executable starts: the program, from V8's code cache, both within it. So is what the program loads from beside it elsewhere. */
import { createRequire } from 'node:module';
import { dirname } from 'node:path';
import { getAsset, getRawAsset } from 'node:sea';
import { compileFunction } from 'node:vm';
import { compileProgram } from '../code-cache/program.ts';

/** A name of one of the bundles beside the program. */
const BESIDE = /^\.\/(scute-[a-z0-9]+\.cjs)$/;

const file = process.execPath;
const ofNode = createRequire(file);
const loaded = new Map<string, unknown>();

/** Node's own modules, and bundles that are within; never a file, since whoever can write beside the executable is not who made it. */
function requireWithin(name: string): unknown {
  if (name.startsWith('node:')) return ofNode(name);
  const [, beside] = BESIDE.exec(name) ?? [];
  if (beside === undefined) return ofNode(`node:${name}`);
  const before = loaded.get(beside);
  if (before !== undefined) return before;
  const module = { exports: {} };
  const names = ['exports', 'require', 'module', '__filename', '__dirname'];
  const whole = compileFunction(getAsset(beside, 'utf8'), names, { filename: beside }) as (...of: readonly unknown[]) => void;
  whole(module.exports, requireWithin, module, file, dirname(file));
  loaded.set(beside, module.exports);
  return module.exports;
}

const { script, run } = compileProgram(file, Buffer.from(getRawAsset('scute.cjs')), Buffer.from(getRawAsset('scute.cache')));
// Slower, and no less right: the text is compiled.
if (script.cachedDataRejected === true) process.stderr.write('scute: the code cache of this executable is not for its V8\n');
run(Object.assign(requireWithin, { asset: (name: string) => getAsset(name, 'utf8') }));
