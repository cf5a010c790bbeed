import { createHash } from 'node:crypto';
import type { Result } from '../lib/result.ts';
import type { Clock } from '../lib/clock.ts';
import { tellEach } from '../lib/watch.ts';
import type { Config } from './config.ts';
import { FileWatch } from './file-watch.ts';
import type { ConfigIssue } from './issue.ts';
import { parseConfig, readConfigFile, type ConfigSources } from './load.ts';

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

/** A change is reported only if the bytes differ from those read last. */
export function createConfigFile({ sources, clock, intervalMs }: ConfigFileOptions): ConfigFile {
  const listeners = new Set<(loaded: LoadedConfig) => void>();
  /** A digest of the bytes read last. */
  let readLast: string | undefined;

  async function read(): Promise<{ readonly changed: boolean; readonly loaded: () => Promise<LoadedConfig> }> {
    const text = await readConfigFile(sources.file);
    // A failure to read is a state of its own: it is told once, and so is its end.
    const content = text.ok
      ? createHash('sha256').update(text.value).digest('hex')
      : `unread: ${text.error.map(({ message }) => message).join()}`;
    const changed = content !== readLast;
    readLast = content;
    return { changed, loaded: () => (text.ok ? parseConfig(text.value, sources) : Promise.resolve(text)) };
  }

  const watch = new FileWatch({
    file: sources.file,
    clock,
    intervalMs,
    async read(asked) {
      const { changed, loaded } = await read();
      if (changed || asked) tellEach(listeners, await loaded());
    },
  });

  return {
    onReload(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    async load() {
      await watch.remember();
      const { loaded } = await read();
      return loaded();
    },
    reload: () => watch.ask(),
    watch: (signal) => watch.run(signal),
  };
}
