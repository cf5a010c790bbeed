/** Which authorities vouch for servers of the public web: those of Node, or those of files, which are read again when they change. */
import { X509Certificate } from 'node:crypto';
import { appearances, FileWatch } from '../config/file-watch.ts';
import { formatIssues } from '../config/issue.ts';
import { readText } from '../config/whole-file.ts';
import type { Clock } from '../lib/clock.ts';
import { messageOf, ScuteError } from '../lib/errors.ts';
import { err, ok, type Result } from '../lib/result.ts';
import type { Service } from '../lib/service.ts';
import { tellEach } from '../lib/watch.ts';
import { fromPem } from '../spiffe/x509/pem.ts';
import type { TlsContext } from '../transport/connection.ts';
import { createTlsContext } from '../transport/node.ts';

/** A file of authorities cannot be used. */
export class AuthoritiesFileError extends ScuteError {
  override name = 'AuthoritiesFileError';
  readonly code = 'ERR_AUTHORITIES_FILE';
}

export interface WebAuthoritiesOptions {
  /** Absolute or as the process sees them; each once. */
  readonly files: readonly string[];
  readonly clock: Clock;
  /** A file changed: so many authorities of it are in force, or what is wrong with it, and those before stay. */
  readonly reloaded: (file: string, outcome: Result<number, string>) => void;
}

export interface WebAuthorities extends Service {
  /** In force now. Undefined: those of Node, which are the web's. */
  pemOf(file: string | undefined): readonly string[] | 'web';
  /** For who shows no certificate: the same object for as long as the authorities are the same. */
  contextOf(file: string | undefined): TlsContext;
  /** Calls `listener` when the authorities of `file` are others. */
  onChange(file: string, listener: () => void): () => void;
}

const MAX_FILE_BYTES = 4_194_304;
const LOOK_MS = 1000;

/** `start` fails if a file cannot be used. */
export function createWebAuthorities({ files, clock, reloaded }: WebAuthoritiesOptions): WebAuthorities {
  const stopping = new AbortController();
  const held = new Map<string, readonly string[]>();
  const contexts = new Map<string | undefined, TlsContext>();
  const listeners = new Map(files.map((file) => [file, new Set<(change: undefined) => void>()]));
  let running: Promise<unknown> = Promise.resolve();

  const pemOf = (file: string | undefined): readonly string[] | 'web' => {
    if (file === undefined) return 'web';
    const pem = held.get(file);
    if (pem === undefined) throw new Error(`the authorities of ${file} were not read`);
    return pem;
  };
  const take = (file: string, pem: readonly string[]): void => {
    held.set(file, pem);
    contexts.delete(file);
  };
  const watchFile = async (file: string): Promise<FileWatch> => {
    const watch = new FileWatch({
      look: () => appearances([file]),
      clock,
      intervalMs: LOOK_MS,
      async read() {
        const found = await readAuthoritiesPem(file);
        if (found.ok) take(file, found.value);
        reloaded(file, found.ok ? ok(found.value.length) : found);
        if (found.ok) tellEach<undefined>(listeners.get(file) ?? new Set(), undefined);
      },
    });
    await watch.remember();
    const found = await readAuthoritiesPem(file);
    if (!found.ok) throw new AuthoritiesFileError(found.error);
    take(file, found.value);
    return watch;
  };

  return {
    name: 'authorities of the web',
    pemOf,
    contextOf(file) {
      const context = contexts.get(file) ?? createTlsContext({ own: undefined, authoritiesPem: pemOf(file) });
      contexts.set(file, context);
      return context;
    },
    onChange(file, listener) {
      const own = listeners.get(file);
      if (own === undefined) throw new Error(`nobody looks at ${file}`);
      own.add(listener);
      return () => own.delete(listener);
    },
    async start(signal) {
      signal.throwIfAborted();
      const watches = await Promise.all(files.map(watchFile));
      running = Promise.all(watches.map((watch) => watch.run(stopping.signal)));
    },
    async stop() {
      stopping.abort();
      await running;
    },
  };
}

/** The certificates of a PEM file, at least one, each as PEM again; or a sentence that names the file. */
export async function readAuthoritiesPem(file: string): Promise<Result<readonly string[], string>> {
  const text = await readText(file, MAX_FILE_BYTES);
  if (!text.ok) return err(formatIssues([text.error]));
  const pem: string[] = [];
  for (const [index, der] of fromPem(text.value).entries()) {
    const read = der === undefined ? err('not base64') : pemOf(der);
    if (!read.ok) return err(`${file}: certificate ${index + 1}: ${read.error}`);
    pem.push(read.value);
  }
  return pem.length === 0 ? err(`${file} has no certificate in PEM`) : ok(pem);
}

function pemOf(der: Uint8Array): Result<string, string> {
  try {
    return ok(new X509Certificate(der).toString());
  } catch (cause) {
    return err(messageOf(cause));
  }
}
