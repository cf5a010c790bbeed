import { stat } from 'node:fs/promises';
import type { Clock } from '../lib/clock.ts';
import { messageOf } from '../lib/errors.ts';

export interface FileWatchOptions {
  /** How the files look now: see `appearances`. */
  look(): Promise<string>;
  readonly clock: Clock;
  /** How often to look. A change is read after at most two looks. */
  readonly intervalMs: number;
  /**
   * The files are to be read: one has changed, or, with `asked`, somebody said so. `again`: they could not be for a reason that may pass, and
   * are to be read once more though none of them changes.
   */
  read(asked: boolean): Promise<'again' | void>;
}

/**
 * Notices that a file, or one of several, has changed. It watches by looking, because a Kubernetes ConfigMap is changed by swapping a symbolic link two levels
 * up, which change notifications on the file itself do not see. A change is read once the file has looked the same twice, so that one
 * being written is not taken for a whole one.
 */
export class FileWatch {
  readonly #options: FileWatchOptions;
  /** How the file looked at the last look, and when it was last read. */
  #seen = '';
  #readAs = '';
  #asked = false;
  #wake: (() => void) | undefined;

  constructor(options: FileWatchOptions) {
    this.#options = options;
  }

  /** The files are about to be read, or were when they looked like this. A change between the two is found by the next look. */
  async remember(looks?: string): Promise<void> {
    this.#readAs = this.#seen = looks ?? (await this.#options.look());
  }

  /** Reads the file soon, whether it changed or not. */
  ask(): void {
    this.#asked = true;
    this.#wake?.();
  }

  /** Looks at the file until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, intervalMs } = this.#options;
    while (!signal.aborted) {
      const nap = new AbortController();
      this.#wake = () => nap.abort();
      if (!this.#asked) await clock.sleep(intervalMs, AbortSignal.any([signal, nap.signal]));
      if (signal.aborted) return;
      await this.#look();
    }
  }

  async #look(): Promise<void> {
    const asked = this.#asked;
    this.#asked = false;
    const looks = await this.#options.look();
    const settled = looks === this.#seen;
    this.#seen = looks;
    if (!asked && (!settled || looks === this.#readAs)) return;
    this.#readAs = looks;
    // No files look like nothing.
    if ((await this.#options.read(asked)) === 'again') this.#readAs = '';
  }
}

/** Changes whenever that of one of the files does. */
export async function appearances(files: readonly string[]): Promise<string> {
  return (await Promise.all(files.map(appearance))).join('\n');
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
