import type { Clock } from '../../lib/clock.ts';
import { inTurns } from '../in-turns.ts';
import { err, ok, type Result } from '../../lib/result.ts';
import type { Difference } from '../../lib/text-table.ts';
import { tellEach } from '../../lib/watch.ts';
import { EMPTY_DENY_LIST, type DenyList } from '../../policy/deny-list.ts';
import { DenyLineReader } from './deny-lines.ts';
import { appearance, FileWatch } from '../file-watch.ts';
import { readWhole } from '../whole-file.ts';
import { formatIssues, type ConfigIssue } from '../issue.ts';

/** Why there is no list. Without `line` the file could not be read. */
export type DenyFileProblem = readonly [ConfigIssue, ...ConfigIssue[]];

/** What came of reading the file again. */
export type DenyListReload =
  | { readonly ok: true; readonly entries: number; readonly added: Difference; readonly removed: Difference }
  /** The old list stays. */
  | { readonly ok: false; readonly problems: DenyFileProblem };

/** What is in force, and what became of the file since. */
export interface DenyListStatus {
  readonly file: string;
  readonly entries: number;
  /** When what is in force was read; wall time, milliseconds since 1970. */
  readonly readAtMs: number;
  /** Why the file is not what is in force, and when that was seen; undefined if it is. */
  readonly failure: { readonly atMs: number; readonly problems: DenyFileProblem } | undefined;
}

/** What an application needs of the deny list. */
export interface DenyListView {
  /** In force now. */
  current(): DenyList;
  /** Undefined: there is no file. */
  status(): DenyListStatus | undefined;
  /** Calls `listener` with each later reading that changed something, or was asked for. Returns the way to stop. */
  onReload(listener: (reload: DenyListReload) => void): () => void;
}

/** Where there is no file. */
export const NO_DENY_FILE: DenyListView = {
  current: () => EMPTY_DENY_LIST,
  status: () => undefined,
  onReload: () => () => undefined,
};

/** A deny list in a file that is read again when it changes. */
export interface DenyFile extends DenyListView {
  /** Reads the file for the first time; how many entries it has. */
  load(): Promise<Result<number, DenyFileProblem>>;
  /** Reads the file soon, whether it changed or not, and tells the listeners. */
  reload(): void;
  /** Looks at the file until `signal` aborts. */
  watch(signal: AbortSignal): Promise<void>;
}

export interface DenyFileOptions {
  readonly file: string;
  readonly clock: Clock;
  /** How often to look. */
  readonly intervalMs: number;
}

/** Entries that are told of each difference. */
const MAX_TOLD = 20;

export function createDenyFile({ file, clock, intervalMs }: DenyFileOptions): DenyFile {
  const listeners = new Set<(reload: DenyListReload) => void>();
  let list = EMPTY_DENY_LIST;
  let readAtMs = 0;
  let failure: DenyListStatus['failure'];

  const watch = new FileWatch({
    look: () => appearance(file),
    clock,
    intervalMs,
    async read(asked) {
      const atMs = clock.now();
      const loaded = await readDenyFile(file);
      if (!loaded.ok) {
        const { error: problems } = loaded;
        const mayPass = problems.some((problem) => problem.mayPass);
        // Tried again and again, it is told once.
        const isTold = mayPass && !asked && failure !== undefined && formatIssues(failure.problems) === formatIssues(problems);
        if (!isTold) {
          failure = { atMs, problems };
          tellEach(listeners, { ok: false, problems });
        }
        return mayPass ? 'again' : undefined;
      }
      const added = await inTurns(loaded.value.notIn(list, MAX_TOLD));
      const removed = await inTurns(list.notIn(loaded.value, MAX_TOLD));
      const isSame = added.count === 0 && removed.count === 0;
      const isHealed = failure !== undefined;
      failure = undefined;
      // The same entries may stand on other lines.
      list = loaded.value;
      readAtMs = atMs;
      if (!isSame || isHealed || asked) tellEach(listeners, { ok: true, entries: list.size, added, removed });
      return undefined;
    },
  });

  return {
    current: () => list,
    status: () => ({ file, entries: list.size, readAtMs, failure }),
    onReload(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    async load() {
      await watch.remember();
      const atMs = clock.now();
      const loaded = await readDenyFile(file);
      if (!loaded.ok) return loaded;
      list = loaded.value;
      readAtMs = atMs;
      return ok(list.size);
    },
    reload: () => watch.ask(),
    watch: (signal) => watch.run(signal),
  };
}

/** Reads and compiles a deny list, a part at a time: a million lines stop nobody else. */
export async function readDenyFile(file: string): Promise<Result<DenyList, DenyFileProblem>> {
  const reader = new DenyLineReader(file);
  const unread = await readWhole(file, (bytes) => reader.push(bytes));
  const [issue, ...more] = reader.finish();
  // The lines of one that was changed meanwhile are nobody's.
  if (unread !== undefined) return err([unread]);
  return issue === undefined ? ok(await inTurns(reader.builder.build(file))) : err([issue, ...more]);
}
