/** What the image starts: the program, from V8's code cache beside it. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { compileProgram, digestOf } from '../code-cache/program.ts';

/** Of the program with its code cache; put in when the image is built. */
declare const SCUTE_DIGEST: string;

const file = join(__dirname, 'scute.cjs');
const cacheFile = join(__dirname, 'scute.cache');

/** A cache is code: what somebody has changed does not run. Undefined, and said why, then or when one of the two cannot be read. */
function verified(): { readonly program: Buffer; readonly cache: Buffer } | undefined {
  try {
    const program = readFileSync(file);
    const cache = readFileSync(cacheFile);
    if (digestOf(program, cache) !== SCUTE_DIGEST) throw new Error('not what was built with this image');
    return { program, cache };
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    process.stderr.write(`scute: will not start: ${file} or ${cacheFile}: ${why}; pull the image again, by its digest\n`);
    process.exitCode = 1;
    return undefined;
  }
}

if (process.getuid?.() === 0)
  process.stderr.write('scute: running as root, which it never needs: run the image as its own user, 65532, or as any other\n');
const found = verified();
if (found !== undefined) compileProgram(file, found.program, found.cache).run();
