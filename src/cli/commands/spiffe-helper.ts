import { realpath } from 'node:fs/promises';
import type { App } from '../../app.ts';
import type { HttpService } from '../../admin/http.ts';
import type { Config } from '../../config/config.ts';
import { formatIssues } from '../../config/issue.ts';
import { parseConfig, readConfigFile } from '../../config/load.ts';
import { directoryProblem, lookAtDirectory } from '../../config/target-directory.ts';
import { childTarget } from '../../files/notify-child.ts';
import { readHelperConfig, X509_SET, type HelperConfig } from '../../helper/helper-config.ts';
import { systemClock } from '../../lib/clock.ts';
import { messageOf } from '../../lib/errors.ts';
import { EXIT_FAILED, EXIT_OK, EXIT_USAGE, type CommandEnvironment } from '../environment.ts';
import { VERSION } from './version.ts';

export interface SpiffeHelperFlags {
  readonly file: string;
  /** Undefined: as the file says. */
  readonly daemonMode: boolean | undefined;
}

/** How often it is looked whether the files are there, where that is all there is to do. */
const LOOK_EVERY_MS = 20;

/** `scute spiffe-helper`: what spiffe-helper does with a configuration of its own. */
export async function spiffeHelper(
  { file, daemonMode }: SpiffeHelperFlags,
  environment: CommandEnvironment,
  signal: AbortSignal,
): Promise<number> {
  const { env, stderr } = environment;
  const text = await readConfigFile(file);
  const read = text.ok
    ? // spiffe-helper takes paths from where it was started.
      readHelperConfig(text.value, { source: file, folder: process.cwd(), endpointSocket: env['SPIFFE_ENDPOINT_SOCKET'], daemonMode })
    : text;
  if (!read.ok) {
    stderr(`${formatIssues(read.error)}\n`);
    return EXIT_USAGE;
  }
  const helper = read.value;
  const config = await configOf(helper, file);
  if (typeof config === 'string') {
    stderr(`${config}\n`);
    return EXIT_USAGE;
  }
  for (const warning of [...helper.warnings, ...(await warningsAbout(config))]) stderr(`warning: ${warning}\n`);
  const [{ createApp }, { runApp }] = await Promise.all([import('../../app.ts'), import('../../run-app.ts')]);
  if (helper.daemonMode) {
    let app: App | undefined;
    let health: HttpService | undefined;
    try {
      if (helper.health !== undefined) {
        const { serveHealth } = await import('./helper-health.ts');
        health = await serveHealth(helper.health, helper, () => app?.fileSets() ?? []);
      }
    } catch (cause) {
      stderr(`scute: health_checks: ${messageOf(cause)}\n`);
      return EXIT_FAILED;
    }
    const alsoTell = new Map(helper.child === undefined ? [] : [[X509_SET, [childTarget({ ...helper.child, env })]]]);
    const above = (made: App) => {
      app = made;
      return { stopping: () => {}, stopped: () => Promise.resolve() };
    };
    try {
      return await runApp(config, { version: VERSION, stderr, alsoTell, above }, signal);
    } finally {
      await health?.stop(AbortSignal.abort());
    }
  }

  const app = await createApp(config, { version: VERSION });
  try {
    await app.start(signal);
    while (!signal.aborted && app.notReady().length > 0) await systemClock.sleep(LOOK_EVERY_MS, signal);
  } finally {
    await app.stop(signal.aborted ? String(signal.reason) : 'the files are written', AbortSignal.abort());
  }
  return signal.aborted ? EXIT_FAILED : EXIT_OK;
}

/** A configuration of Scute; or what is wrong with the address of the agent. */
async function configOf({ endpoint, sets }: HelperConfig, file: string): Promise<Config | string> {
  const parsed = await parseConfig(undefined, {
    file: undefined,
    flags: { workloadApi: { endpoint }, files: [{ directory: '/set' }] },
    env: {},
  });
  if (!parsed.ok) return parsed.error.map(({ message }) => `${file}: agent_address: ${message}`).join('\n');
  const [{ directory: written }] = sets;
  // It may be a link, which spiffe-helper follows.
  const directory = await realpath(written).catch(() => written);
  return { ...parsed.value, files: sets.map((set) => ({ ...set, directory })) };
}

/** What Scute refuses in a configuration of its own. */
async function warningsAbout({ files: [set] }: Config): Promise<readonly string[]> {
  if (set === undefined) return [];
  const look = await lookAtDirectory(set.directory);
  const problem = directoryProblem(set.directory, look, { uid: process.getuid?.() ?? 0, unsafeDisk: false });
  return problem === undefined ? [] : [problem.replace(/, or set unsafeDisk$/, '')];
}
