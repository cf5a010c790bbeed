import type { Clock } from '../../lib/clock.ts';
import { inTurns } from '../in-turns.ts';
import { ok } from '../../lib/result.ts';
import { tellEach } from '../../lib/watch.ts';
import type { IdList } from '../../policy/id-list.ts';
import type { Policy } from '../../policy/policy.ts';
import type { Config } from '../config.ts';
import { appearances, FileWatch } from '../file-watch.ts';
import { formatIssues } from '../issue.ts';
import { MAX_ISSUES } from '../line-reader.ts';
import { policyDifference, type PolicyDifference } from './policy-difference.ts';
import { readPolicyFile, type ReadPolicy } from './policy-file.ts';
import type { PolicyTextParser } from './policy-text.ts';
import { describeUseProblems, usesOf, type PolicyUse } from './policy-use.ts';

/** What came of reading a policy file again. */
export type PolicyReload = { readonly file: string } & (
  | ({ readonly ok: true; readonly policy: Policy; readonly entries: number } & PolicyDifference)
  /** The old policy stays. */
  | { readonly ok: false; readonly problems: readonly string[] }
);

/** A policy file as status pages show it. */
export interface PolicyFileStatus {
  readonly file: string;
  /** The lists that it names. */
  readonly lists: readonly string[];
  /** Rules, and SPIFFE IDs of its lists. */
  readonly entries: number;
  /** When what is in force was read. */
  readonly loadedAtMs: number;
  /** Why the file as it is now is not in force, a sentence each, with its place; empty if it is. */
  readonly problems: readonly string[];
}

/** What an application needs of policy files. */
export interface PolicyFilesView {
  /** A configuration comes into force: which listeners use which files. No others are looked at any more. */
  follow(config: Config): void;
  /** In force now; undefined of a file that nobody uses. */
  current(file: string): Policy | undefined;
  status(): readonly PolicyFileStatus[];
  /** Calls `listener` with each later reading that changed something, or was asked for. Returns the way to stop. */
  onReload(listener: (reload: PolicyReload) => void): () => void;
}

/** Policy files that are read again when they, or lists that they name, change. Each is read and compiled once, whoever uses it. */
export interface PolicyFiles extends PolicyFilesView {
  /** For a configuration that is about to be judged: what is in force of a file that is in use, and of others what they hold now. */
  read(file: string): Promise<ReadPolicy>;
  /** Reads all files soon, whether they changed or not, and tells the listeners. */
  reload(): void;
  /** Looks at the files until `signal` aborts. */
  watch(signal: AbortSignal): Promise<void>;
}

export interface PolicyFilesOptions {
  readonly clock: Clock;
  /** How often to look. */
  readonly intervalMs: number;
  /** Before `watch` is called; and from then on, when others are served meanwhile. */
  readonly parse: { readonly atStart: PolicyTextParser; readonly later: PolicyTextParser };
}

export function createPolicyFiles({ clock, intervalMs, parse }: PolicyFilesOptions): PolicyFiles {
  const listeners = new Set<(reload: PolicyReload) => void>();
  const followed = new Map<string, FollowedFile>();
  /** Read for a configuration that may come into force. */
  const candidates = new Map<string, FollowedFile>();
  let stop: AbortSignal | undefined;
  const watches = new Set<Promise<void>>();
  /** One after the other: each may need much memory. */
  let last: Promise<unknown> = Promise.resolve();
  const parseInTurn: PolicyTextParser = (text, file, unwanted) => {
    const parser = stop === undefined ? parse.atStart : parse.later;
    const ends = [stop, unwanted].filter((signal) => signal !== undefined);
    const parsed = last.then(() => parser(text, file, AbortSignal.any(ends)));
    last = parsed.catch(() => undefined);
    return parsed;
  };
  const options: FollowedOptions = { clock, intervalMs, parse: parseInTurn, tell: (reload) => tellEach(listeners, reload) };

  const watchOne = (file: FollowedFile): void => {
    if (stop === undefined) return;
    const watch = file.watch(stop).finally(() => watches.delete(watch));
    watches.add(watch);
  };

  return {
    async read(file) {
      const known = followed.get(file)?.lastRead();
      if (known !== undefined) return known;
      const fresh = new FollowedFile(file, options);
      const read = await fresh.load();
      if (read.result.ok) candidates.set(file, fresh);
      return read;
    },
    follow(config) {
      const uses = usesByFile(config);
      for (const [name, file] of followed) {
        if (uses.has(name)) continue;
        file.forget();
        followed.delete(name);
      }
      for (const [name, using] of uses) {
        const known = followed.get(name);
        const file = known ?? candidates.get(name);
        if (file === undefined) throw new Error(`the policy file ${name} was not read`);
        file.uses = using;
        if (known !== undefined) continue;
        followed.set(name, file);
        watchOne(file);
      }
      candidates.clear();
    },
    current: (file) => followed.get(file)?.policy,
    status: () => [...followed.values()].flatMap((file) => file.status() ?? []),
    onReload(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    reload() {
      for (const file of followed.values()) file.ask();
    },
    async watch(signal) {
      stop = signal;
      for (const file of followed.values()) watchOne(file);
      if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
      await Promise.all(watches);
    },
  };
}

interface FollowedOptions {
  readonly clock: Clock;
  readonly intervalMs: number;
  readonly parse: PolicyTextParser;
  tell(reload: PolicyReload): void;
}

class FollowedFile {
  /** Who takes a policy from the file. */
  uses: readonly PolicyUse[] = [];
  readonly #file: string;
  readonly #options: FollowedOptions;
  readonly #watch: FileWatch;
  readonly #forgotten = new AbortController();
  /** Nobody waits for a reading any more. */
  #unwanted: AbortSignal = this.#forgotten.signal;
  /** Those needed at the last reading, and those that what is in force was read from: a mend of any is to be seen. */
  #files: readonly string[];
  /** How they looked before the last reading, whatever came of it. */
  #looks = '';
  #policy: Policy | undefined;
  #loadedAtMs = 0;
  #problems: readonly string[] = [];

  constructor(file: string, options: FollowedOptions) {
    this.#file = file;
    this.#options = options;
    this.#files = [file];
    const { clock, intervalMs } = options;
    this.#watch = new FileWatch({ look: () => appearances(this.#files), clock, intervalMs, read: (asked) => this.#reread(asked) });
  }

  get policy(): Policy | undefined {
    return this.#policy;
  }

  status(): PolicyFileStatus | undefined {
    const policy = this.#policy;
    if (policy === undefined) return undefined;
    return {
      file: this.#file,
      lists: [...policy.lists.keys()],
      entries: entriesOf(policy),
      loadedAtMs: this.#loadedAtMs,
      problems: this.#problems,
    };
  }

  /** What is in force. */
  lastRead(): ReadPolicy | undefined {
    return this.#policy && { result: ok(this.#policy), files: this.#files, looks: this.#looks };
  }

  async load(): Promise<ReadPolicy> {
    const read = await this.#read();
    if (read.result.ok) this.#inForce(read.result.value);
    return read;
  }

  ask(): void {
    this.#watch.ask();
  }

  watch(signal: AbortSignal): Promise<void> {
    this.#unwanted = AbortSignal.any([signal, this.#forgotten.signal]);
    return this.#watch.run(this.#unwanted);
  }

  forget(): void {
    this.#forgotten.abort();
  }

  async #read(): Promise<ReadPolicy> {
    const { parse } = this.#options;
    const known = this.#policy?.lists ?? new Map<string, IdList>();
    const read = await readPolicyFile(this.#file, { parse, known, stop: this.#unwanted });
    const files = new Set([...read.files, ...(read.result.ok ? [] : this.#files)]);
    const others = [...files].slice(read.files.length);
    this.#files = [...files];
    this.#looks = [read.looks, ...(others.length === 0 ? [] : [await appearances(others)])].join('\n');
    await this.#watch.remember(this.#looks);
    return read;
  }

  async #reread(asked: boolean): Promise<'again' | void> {
    const { result } = await this.#read();
    if (this.#unwanted.aborted) return undefined;
    const old = this.#policy;
    if (!result.ok || old === undefined) {
      const issues = result.ok ? [] : result.error;
      const problems = issues.length === 0 ? [] : formatIssues(issues).split('\n');
      const mayPass = issues.some((issue) => issue.mayPass);
      // Tried again and again, it is told once.
      if (!mayPass || asked || problems.join() !== this.#problems.join()) this.#refuse(problems);
      return mayPass ? 'again' : undefined;
    }
    const fresh = result.value;
    const difference = await inTurns(policyDifference(old, fresh));
    if (this.#unwanted.aborted) return undefined;
    // Last of all, and of those who use it now: nothing comes between this and what is told.
    const problems = this.uses.flatMap((use) => describeUseProblems(fresh, use, this.#file));
    if (problems.length > 0) {
      this.#refuse(problems.slice(0, MAX_ISSUES));
      return undefined;
    }
    const isSame = difference.added.count === 0 && difference.removed.count === 0;
    const isHealed = this.#problems.length > 0;
    this.#inForce(fresh);
    if (!isSame || isHealed || asked)
      this.#options.tell({ file: this.#file, ok: true, policy: fresh, entries: entriesOf(fresh), ...difference });
    return undefined;
  }

  #refuse(problems: readonly string[]): void {
    this.#problems = problems;
    this.#options.tell({ file: this.#file, ok: false, problems });
  }

  #inForce(policy: Policy): void {
    this.#policy = policy;
    this.#problems = [];
    this.#loadedAtMs = this.#options.clock.now();
  }
}

function entriesOf({ spec, lists }: Policy): number {
  return spec.allow.length + (spec.deny ?? []).length + [...lists.values()].reduce((sum, { size }) => sum + size, 0);
}

/** Matchers of a listener that does not run yet use a file without being a listener. */
function usesByFile(config: Config): ReadonlyMap<string, readonly PolicyUse[]> {
  const uses: ReadonlyMap<string, readonly PolicyUse[]> = Map.groupBy(usesOf(config), ({ file }) => file);
  const others = (config.sds?.matchers ?? []).flatMap(({ policyFile }) => policyFile ?? []);
  return new Map([...others.map((file) => [file, []] as const), ...uses]);
}
