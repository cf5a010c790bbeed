/** The program as one script that V8 can compile ahead. What makes the code cache and what uses it must compile the same text, so both come here. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, dirname } from 'node:path';
import { constants, Script } from 'node:vm';

export interface Compiled {
  readonly script: Script;
  /** Runs it, once. What it asks for by `require` comes from `file`'s folder, or from who runs it. */
  readonly run: (require?: (name: string) => unknown) => void;
}

/** `file` is a CommonJS bundle in ASCII. As one byte a character it is not decoded, and takes half the memory. */
export function readProgram(file: string): string {
  return readFileSync(file, 'latin1');
}

/** Of both: the functions that are not in the cache are compiled from the text, which V8 compares by its length alone. */
export function digestOf(text: string, cache: Buffer): string {
  return createHash('sha256').update(text, 'latin1').update(cache).digest('hex');
}

/** As Node itself would load `file`. */
export function compileProgram(file: string, text: string, cache?: Buffer): Compiled {
  const script = new Script(`(function(exports,require,module,__filename,__dirname){${text}\n})`, {
    // Without its folder, which would be in the cache.
    filename: basename(file),
    cachedData: cache,
    importModuleDynamically: constants.USE_MAIN_CONTEXT_DEFAULT_LOADER,
  });
  return {
    script,
    run(require = createRequire(file)) {
      const module = { exports: {} };
      const whole = script.runInThisContext() as (...of: readonly unknown[]) => void;
      whole(module.exports, require, module, file, dirname(file));
    },
  };
}
