import { createConfigFile, type ConfigReloads, type LoadedConfig } from '../config/config-file.ts';
import { formatIssues } from '../config/issue.ts';
import { loadConfig } from '../config/load.ts';
import { systemClock } from '../lib/clock.ts';
import { EXIT_USAGE, type CommandEnvironment } from './environment.ts';
import { VERSION } from './version.ts';

/** How often the file is looked at. A change is in force after at most two looks. */
const LOOK_EVERY_MS = 1000;

export interface RunOptions {
  readonly file: string | undefined;
  /** In the shape of a file. */
  readonly flags: Readonly<Record<string, unknown>>;
}

/** `scute run`: loads the configuration, runs the application on it, and reads the file again when it changes. */
export async function run({ file, flags }: RunOptions, environment: CommandEnvironment, signal: AbortSignal): Promise<number> {
  const { env, stderr } = environment;
  const configFile =
    file === undefined ? undefined : createConfigFile({ sources: { file, flags, env }, clock: systemClock, intervalMs: LOOK_EVERY_MS });
  // From here on, a SIGHUP must not end the process; without a file there is nothing to read again.
  const stopListening = environment.onHangup(() => configFile?.reload());
  const loaded: LoadedConfig = configFile === undefined ? await loadConfig({ file, flags, env }) : await configFile.load();
  if (!loaded.ok) {
    stderr(`${formatIssues(loaded.error)}\n`);
    stopListening();
    return EXIT_USAGE;
  }
  const { runApp } = await import('../app.ts');
  const watching = new AbortController();
  const reloads: ConfigReloads = configFile ?? { onReload: () => () => {} };
  const watch = configFile?.watch(watching.signal);
  try {
    return await runApp(loaded.value, { reloads, version: VERSION, stderr }, signal);
  } finally {
    watching.abort();
    await watch;
    stopListening();
  }
}
