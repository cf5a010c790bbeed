/** What the program loads on use, for what starts it from texts that it has checked. */
import { createRequire } from 'node:module';
import { dirname } from 'node:path';
import { compileFunction } from 'node:vm';

/** As the program asks for one of the bundles beside it. */
const BESIDE = /^\.\/(scute-[a-z0-9]+\.cjs)$/;

export interface CheckedRequire {
  (name: string): unknown;
  /** The text of a bundle, for a thread that is to run it. */
  readonly asset: (name: string) => string;
}

/**
 * A `require` for the program in `file` that knows Node's own modules, and the bundles whose texts `textOf` gives, or throws for. What is
 * compiled is that text: a file that was looked at and is then loaded by its name may be another by then.
 */
export function requireChecked(file: string, textOf: (name: string) => string): CheckedRequire {
  const ofNode = createRequire(file);
  const loaded = new Map<string, unknown>();
  function require(name: string): unknown {
    if (name.startsWith('node:')) return ofNode(name);
    const [, beside] = BESIDE.exec(name) ?? [];
    if (beside === undefined) return ofNode(`node:${name}`);
    const before = loaded.get(beside);
    if (before !== undefined) return before;
    const module = { exports: {} };
    const names = ['exports', 'require', 'module', '__filename', '__dirname'];
    const whole = compileFunction(textOf(beside), names, { filename: beside }) as (...of: readonly unknown[]) => void;
    whole(module.exports, require, module, file, dirname(file));
    loaded.set(beside, module.exports);
    return module.exports;
  }
  return Object.assign(require, { asset: textOf });
}
