import type { Config } from './config/config.ts';
import type { ConfigReloads, LoadedConfig } from './config/config-file.ts';
import { formatIssues } from './config/issue.ts';
import type { PolicyFilesView, PolicyReload } from './config/policy/policy-files.ts';
import { describeUseProblems, usesOf } from './config/policy/policy-use.ts';
import { planReload, withPolicyOf } from './config/reload.ts';
import type { ReloadStatus } from './admin/inventory.ts';
import type { Clock } from './lib/clock.ts';
import type { Events } from './telemetry/events/events.ts';
import type { Log } from './telemetry/log/logger.ts';

export interface LiveConfigDeps {
  /** Those that the configuration names; they must be loaded. */
  readonly policyFiles: PolicyFilesView | undefined;
  readonly log: Pick<Log, 'level' | 'setLevel'>;
  readonly events: Pick<Events, 'configReloadFailed' | 'configReloaded' | 'policyFileReloadFailed' | 'policyFileReloaded'>;
  readonly clock: Pick<Clock, 'now'>;
}

/** The configuration in force, of which this is the only writer: its file and the files of policies are read again while it runs. */
export class LiveConfig {
  readonly #deps: LiveConfigDeps;
  #current: Config;
  #lastReload: ReloadStatus | undefined;

  /** Throws if nobody watches policy files that the configuration names. */
  constructor(config: Config, deps: LiveConfigDeps) {
    this.#current = config;
    this.#deps = deps;
    if (deps.policyFiles !== undefined) deps.policyFiles.follow(config);
    else if ([...config.inbound, ...config.outbound].some(({ policyFile }) => policyFile !== undefined))
      throw new Error('nobody watches the policy files of the configuration');
  }

  get current(): Config {
    return this.#current;
  }

  /** What became of the newest reading of its file; undefined before the first. */
  get lastReload(): ReloadStatus | undefined {
    return this.#lastReload;
  }

  /** Calls `takeOver` with each later one: all that can change while running. Returns the way to stop. */
  follow(reloads: ConfigReloads | undefined, takeOver: (next: Config) => void): () => void {
    const change = (next: Config): void => {
      this.#current = next;
      takeOver(next);
    };
    const stopReloading = reloads?.onReload((loaded) => this.#reloaded(loaded, change));
    const stopFollowing = this.#deps.policyFiles?.onReload((reread) => this.#policyReloaded(reread, change));
    return () => {
      stopReloading?.();
      stopFollowing?.();
    };
  }

  #reloaded(loaded: LoadedConfig, change: (next: Config) => void): void {
    const { policyFiles, log, events, clock } = this.#deps;
    if (!loaded.ok) {
      this.#refuse(formatIssues(loaded.error).split('\n'));
      return;
    }
    const { next: planned, differences, needRestart } = planReload(this.#current, loaded.value);
    const next = withCurrentPolicies(planned, policyFiles);
    // A file may say something else by now than it did when the configuration was judged.
    const problems = usesOf(next).flatMap((use) => describeUseProblems(use.policy, use, use.file));
    if (problems.length > 0) {
      this.#refuse(problems);
      return;
    }
    policyFiles?.follow(next);
    change(next);
    if (log.level() !== next.log.level && differences.some((difference) => difference.startsWith('log.level')))
      log.setLevel(next.log.level);
    this.#lastReload = { atMs: clock.now(), ok: true, differences, needRestart, problems: [] };
    events.configReloaded(differences, needRestart);
  }

  #refuse(problems: readonly string[]): void {
    const { events, clock } = this.#deps;
    this.#lastReload = { atMs: clock.now(), ok: false, differences: [], needRestart: [], problems };
    events.configReloadFailed(problems);
  }

  #policyReloaded(reread: PolicyReload, change: (next: Config) => void): void {
    const { events } = this.#deps;
    if (!reread.ok) {
      events.policyFileReloadFailed(reread.file, reread.problems);
      return;
    }
    change(withPolicyOf(this.#current, reread.file, reread.policy));
    events.policyFileReloaded(reread);
  }
}

/** A policy file may have been read again while the configuration was. */
function withCurrentPolicies(config: Config, files: PolicyFilesView | undefined): Config {
  const names = [...config.inbound, ...config.outbound, ...(config.sds?.matchers ?? [])].map(({ policyFile }) => policyFile);
  return [...new Set(names)].reduce((next, file) => {
    const policy = file === undefined ? undefined : files?.current(file);
    return file === undefined || policy === undefined ? next : withPolicyOf(next, file, policy);
  }, config);
}
