/** The program as one script that V8 can compile ahead. What makes the code cache and what uses it must compile the same text, so both come here. */
import { createHash } from 'node:crypto';
import { createRequire } from 'node:module';
import { basename, dirname } from 'node:path';
import { constants, Script } from 'node:vm';

export interface Compiled {
  readonly script: Script;
  /** Runs it, once. What it asks for by `require` comes from `file`'s folder, or from who runs it. */
  readonly run: (require?: (name: string) => unknown) => void;
}

/**
 * What stands around the program in its file, as Node puts it around any module. There, and not put there when it is loaded: the text that V8 is
 * given is then the one that was read, and not a copy.
 */
export const AROUND = ['(function(exports,require,module,__filename,__dirname){', '})'] as const;

/** Of both: the functions that are not in the cache are compiled from the text, which V8 compares by its length alone. */
export function digestOf(program: Buffer, cache: Buffer): string {
  return createHash('sha256').update(program).update(cache).digest('hex');
}

/** As Node itself would load `file`, which is `program`: CommonJS in ASCII, within `AROUND`. As one byte a character it is not decoded, and takes half the memory. */
export function compileProgram(file: string, program: Buffer, cache?: Buffer): Compiled {
  const script = new Script(program.toString('latin1'), {
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
