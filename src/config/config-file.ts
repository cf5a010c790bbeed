import { createHash } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { messageOf } from '../lib/errors.ts';
import type { Result } from '../lib/result.ts';
import type { Clock } from '../lib/clock.ts';
import { tellEach } from '../lib/watch.ts';
import type { Config } from './config.ts';
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

/**
 * Watches by looking, because a Kubernetes ConfigMap is changed by swapping a symbolic link two levels up, which change
 * notifications on the file itself do not see. A change is read once the file has looked the same twice, so that one
 * being written is not taken for a whole one, and reported only if its bytes differ from those read last.
 */
export function createConfigFile({ sources, clock, intervalMs }: ConfigFileOptions): ConfigFile {
  const listeners = new Set<(loaded: LoadedConfig) => void>();
  /** A digest of the bytes read last. */
  let readLast: string | undefined;
  /** How the file looked at the last look, and when it was last read. */
  let seen = '';
  let readAs = '';
  let asked = false;
  let wake: (() => void) | undefined;

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

  async function look(): Promise<void> {
    const forced = asked;
    asked = false;
    const looks = await appearance(sources.file);
    const settled = looks === seen;
    seen = looks;
    if (!forced && (!settled || looks === readAs)) return;
    readAs = looks;
    const { changed, loaded } = await read();
    if (!changed && !forced) return;
    const outcome = await loaded();
    tellEach(listeners, outcome);
  }

  return {
    onReload(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    async load() {
      // Looked at before it is read: a change between the two is then found by the next look.
      readAs = seen = await appearance(sources.file);
      const { loaded } = await read();
      return loaded();
    },
    reload() {
      asked = true;
      wake?.();
    },
    async watch(signal) {
      while (!signal.aborted) {
        const nap = new AbortController();
        wake = () => nap.abort();
        if (!asked) await clock.sleep(intervalMs, AbortSignal.any([signal, nap.signal]));
        if (signal.aborted) return;
        await look();
      }
    },
  };
}

/** Changes whenever the file at the end of all links is written or another takes its place. */
export async function appearance(file: string): Promise<string> {
  try {
    const { dev, ino, size, mtimeNs, ctimeNs } = await stat(file, { bigint: true });
    return [dev, ino, size, mtimeNs, ctimeNs].join(' ');
  } catch (cause) {
    return `unread: ${messageOf(cause)}`;
  }
}
