import type { App, AppDeps } from '../../app.ts';
import type { BesideEnd } from '../../run-app.ts';
import type { Config } from '../../config/config.ts';
import { createConfigFile, type ConfigReloads, type LoadedConfig } from '../../config/config-file.ts';
import { createDenyFile, type DenyFile } from '../../config/policy/deny-file.ts';
import { formatIssues } from '../../config/issue.ts';
import { loadConfig, parsePolicyNow } from '../../config/load.ts';
import { parsePolicyApart } from '../../config/policy/policy-apart.ts';
import { createPolicyFiles } from '../../config/policy/policy-files.ts';
import { systemClock } from '../../lib/clock.ts';
import { activationProblem, passedSockets } from '../../systemd/activation.ts';
import type { Manager } from '../../systemd/manager.ts';
import { EXIT_FAILED, EXIT_USAGE, type CommandEnvironment } from '../environment.ts';
import { visible } from '../text.ts';
import { VERSION } from './version.ts';

/** How often the file is looked at. A change is in force after at most two looks. */
const LOOK_EVERY_MS = 1000;
/** The same of the deny list and of policy files: somebody may be to be shut out. */
const LOOK_FOR_REVOKED_EVERY_MS = 250;

export interface RunOptions {
  readonly file: string | undefined;
  /** In the shape of a file. */
  readonly flags: Readonly<Record<string, unknown>>;
  /** What of the configuration is run; all of it if left out. */
  readonly only?: ((config: Config) => Config) | undefined;
  /** Where the log goes; standard output if left out. */
  readonly logStream?: AppDeps['logStream'];
  /** That is beside us; none if left out. */
  readonly application?: AppDeps['application'];
}

/**
 * `scute run`: loads the configuration, runs the proxy on it, and reads the file again when it changes. With `beside`, that says when it ends,
 * and with which exit code.
 */
export async function run(
  { file, flags, only, logStream, application }: RunOptions,
  environment: CommandEnvironment,
  signal: AbortSignal,
  beside?: (app: App) => Promise<BesideEnd>,
): Promise<number> {
  const { env, stderr } = environment;
  const policyFiles = createPolicyFiles({
    clock: systemClock,
    intervalMs: LOOK_FOR_REVOKED_EVERY_MS,
    parse: { atStart: parsePolicyNow, later: parsePolicyApart },
  });
  const sources = {
    flags,
    env,
    readPolicy: (named: string) => policyFiles.read(named),
    writesAs: process.getuid?.(),
    runsApplication: application !== undefined,
  };
  const configFile =
    file === undefined ? undefined : createConfigFile({ sources: { ...sources, file }, clock: systemClock, intervalMs: LOOK_EVERY_MS });
  let denyFile: DenyFile | undefined;
  const passed = passedSockets(env, process.pid);
  if (!passed.ok) {
    stderr(`scute: ${visible(passed.error)}\n`);
    return EXIT_USAGE;
  }
  let manager: Manager | undefined;
  // From here on, a SIGHUP must not end the process; without a file there is nothing to read again.
  const stopListening = environment.onHangup(() => {
    manager?.reloading(process.hrtime.bigint() / 1000n);
    if (configFile === undefined) manager?.reloaded();
    configFile?.reload();
    policyFiles.reload();
    denyFile?.reload();
  });
  const watching = new AbortController();
  const watches: Promise<void>[] = [];
  try {
    const loaded: LoadedConfig = configFile === undefined ? await loadConfig({ ...sources, file }) : await configFile.load();
    if (!loaded.ok) {
      stderr(`${formatIssues(loaded.error)}\n`);
      return EXIT_USAGE;
    }
    const { revocations } = loaded.value;
    if (revocations !== undefined) {
      denyFile = createDenyFile({ file: revocations.file, clock: systemClock, intervalMs: LOOK_FOR_REVOKED_EVERY_MS });
      const revoked = await denyFile.load();
      if (!revoked.ok) {
        stderr(`${formatIssues(revoked.error)}\n`);
        // What is missing may come; what is wrong must be mended.
        return revoked.error[0].line === undefined ? EXIT_FAILED : EXIT_USAGE;
      }
    }
    const misplaced = activationProblem(
      passed.value,
      [...loaded.value.inbound, ...loaded.value.outbound].map(({ name }) => name),
    );
    if (misplaced !== undefined) {
      stderr(`scute: ${visible(misplaced)}\n`);
      return EXIT_USAGE;
    }
    const { runApp } = await import('../../run-app.ts');
    const reloads: ConfigReloads = configFile ?? { onReload: () => () => {} };
    const { NOTIFY_SOCKET: notifySocket } = env;
    const managed = notifySocket === undefined || notifySocket === '' ? undefined : await import('../service-manager.ts');
    const above =
      managed &&
      ((app: App): Manager => {
        manager = managed.managerOf(app, notifySocket ?? '', env);
        manager.started();
        // After the proxy itself has taken it over.
        reloads.onReload(() => manager?.reloaded());
        return manager;
      });
    for (const watched of [configFile, policyFiles, denyFile]) if (watched !== undefined) watches.push(watched.watch(watching.signal));
    return await runApp(
      only?.(loaded.value) ?? loaded.value,
      {
        beside,
        logStream,
        application,
        above,
        passedSockets: passed.value,
        reloads,
        policyFiles,
        denyList: denyFile,
        onOurEnd(listener) {
          process.once('exit', listener);
          return () => process.off('exit', listener);
        },
        version: VERSION,
        stderr,
      },
      signal,
    );
  } finally {
    watching.abort();
    await Promise.all(watches);
    stopListening();
  }
}
