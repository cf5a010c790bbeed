/** What the image starts: the program, from V8's code cache beside it. Each file that is code is compared, when it is read, with what was built. */
import { hash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { requireChecked } from '../code-cache/beside.ts';
import { compileProgram, digestOf } from '../code-cache/program.ts';
import { keepEndingSignals } from '../code-cache/signals.ts';

/** Of the program with its code cache; put in when the image is built, as the next. */
declare const SCUTE_DIGEST: string;
/** SHA-256 of each other file that is code, by its name. */
declare const SCUTE_BESIDE: Readonly<Record<string, string>>;

const file = join(__dirname, 'scute.cjs');
const cacheFile = join(__dirname, 'scute.cache');

/** What `read` gives, if its digest is the one that was built. Undefined, and said why, when it is not, or cannot be read. */
function checked<T>(what: string, expected: string | undefined, read: () => { readonly digest: string; readonly value: T }): T | undefined {
  try {
    const { digest, value } = read();
    if (digest !== expected) throw new Error('not what was built with this image');
    return value;
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    process.stderr.write(`scute: will not run ${what}: ${why}; pull the image again, by its digest\n`);
    return undefined;
  }
}

/** A cache is code, as the program is. */
function readBoth(): { readonly program: Buffer; readonly cache: Buffer } | undefined {
  return checked(`${file} or ${cacheFile}`, SCUTE_DIGEST, () => {
    const program = readFileSync(file);
    const cache = readFileSync(cacheFile);
    return { digest: digestOf(program, cache), value: { program, cache } };
  });
}

function textOf(name: string): string | undefined {
  const path = join(__dirname, name);
  return checked(path, SCUTE_BESIDE[name], () => {
    const bytes = readFileSync(path);
    return { digest: hash('sha256', bytes), value: bytes.toString() };
  });
}

keepEndingSignals();
if (process.getuid?.() === 0)
  process.stderr.write('scute: running as root, which it never needs: run the image as its own user, 65532, or as any other\n');
// OpenSSL has read its settings, by which it may load code, before any of ours: this finds what was changed by mistake.
const settings = textOf('openssl.cnf');
const both = readBoth();
if (settings === undefined || both === undefined) process.exitCode = 1;
else {
  const require = requireChecked(file, (name) => {
    const text = textOf(name);
    if (text === undefined) throw new Error(`${name} was changed`);
    return text;
  });
  compileProgram(file, both.program, both.cache).run(require);
}
