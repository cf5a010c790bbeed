import { createHash } from 'node:crypto';
import { err, ok, type Result } from '../lib/result.ts';
import type { Clock } from '../lib/clock.ts';
import { tellEach } from '../lib/watch.ts';
import type { IdList } from '../policy/id-list.ts';
import type { Config } from './config.ts';
import { appearances, FileWatch } from './file-watch.ts';
import { formatIssues, type ConfigIssue } from './issue.ts';
import { CHANGED, unread } from './whole-file.ts';
import { parseConfigWithLists, readConfigFile, type ConfigSources } from './load.ts';

export type LoadedConfig = Result<Config, readonly ConfigIssue[]>;

/** What an application needs of reloading: to be told. */
export interface ConfigReloads {
  /** Calls `listener` with each later configuration, or with what is wrong with the file; then the last good one stays. Returns the way to stop. */
  onReload(listener: (loaded: LoadedConfig) => void): () => void;
}

/** A configuration file that is read again when it changes. */
export interface ConfigFile extends ConfigReloads {
  /** Reads the file for the first time. */
  load(): Promise<LoadedConfig>;
  /** Reads the file soon, whether it changed or not, and tells the listeners. */
  reload(): void;
  /** Looks at the file until `signal` aborts. */
  watch(signal: AbortSignal): Promise<void>;
}

export interface ConfigFileOptions {
  readonly sources: ConfigSources & { readonly file: string };
  readonly clock: Clock;
  /** How often to look. */
  readonly intervalMs: number;
}

/**
 * A change is reported only if the bytes differ from those read last, or a list of SPIFFE IDs that they name was changed; as long as there is a
 * problem, also one of a policy file.
 */
export function createConfigFile({ sources, clock, intervalMs }: ConfigFileOptions): ConfigFile {
  const listeners = new Set<(loaded: LoadedConfig) => void>();
  /** A digest of the bytes read last, and how the files looked that they name. */
  let readLast: string | undefined;
  /** What was told last; undefined if that was no problem. */
  let toldLast: string | undefined;
  /** The lists of SPIFFE IDs that the configuration names, and the policy files that it waits for. */
  let namedFiles: readonly string[] = [];
  let lists: ReadonlyMap<string, IdList> = new Map();

  const watch = new FileWatch({
    look: () => appearances([sources.file, ...namedFiles]),
    clock,
    intervalMs,
    async read(asked) {
      const loaded = await read(asked);
      if (loaded === undefined) return undefined;
      const problems = loaded.ok ? undefined : formatIssues(loaded.error);
      const mayPass = !loaded.ok && loaded.error.some((issue) => issue.mayPass);
      // Tried again and again, it is told once.
      const isTold = mayPass && !asked && problems === toldLast;
      if (mayPass) readLast = undefined;
      toldLast = problems;
      if (!isTold) tellEach(listeners, loaded);
      return mayPass ? 'again' : undefined;
    },
  });

  /** Undefined: nothing changed, and nobody asked. */
  async function read(asked: boolean): Promise<LoadedConfig | undefined> {
    const looks = await appearances([sources.file]);
    const namedLooks = await appearances(namedFiles);
    const text = await readConfigFile(sources.file);
    // A failure to read is a state of its own: it is told once, and so is its end.
    const content = text.ok
      ? createHash('sha256').update(text.value).digest('hex')
      : `unread: ${text.error.map(({ message }) => message).join()}`;
    if (!asked && readLast === `${content} ${namedLooks}`) return undefined;
    readLast = `${content} ${namedLooks}`;
    if (!text.ok) return text;
    const { parsed, ...named } = await parseConfigWithLists(text.value, sources, lists);
    // As long as the text is wrong, it is not known which lists it means.
    const areNamed = parsed.ok || named.files.length > 0;
    if (areNamed) namedFiles = named.files;
    if (parsed.ok) lists = named.lists;
    const looksOfNamed = areNamed ? named.looks : namedLooks;
    readLast = `${content} ${looksOfNamed}`;
    await watch.remember([looks, ...(namedFiles.length === 0 ? [] : [looksOfNamed])].join('\n'));
    if (parsed.ok && namedFiles.length > 0 && (await appearances([sources.file])) !== looks) {
      // The lists may be those of another text. What is there now is to be read, whatever it is.
      readLast = undefined;
      return err([unread(sources.file, CHANGED)]);
    }
    return parsed.ok ? ok(parsed.value.value) : parsed;
  }

  return {
    onReload(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    async load() {
      await watch.remember();
      const loaded = await read(true);
      if (loaded === undefined) throw new Error('a configuration that was asked for was not read');
      return loaded;
    },
    reload: () => watch.ask(),
    watch: (signal) => watch.run(signal),
  };
}
