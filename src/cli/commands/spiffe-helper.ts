import { realpath } from 'node:fs/promises';
import type { Config } from '../../config/config.ts';
import { formatIssues } from '../../config/issue.ts';
import { parseConfig, readConfigFile } from '../../config/load.ts';
import { directoryProblem, lookAtDirectory } from '../../config/target-directory.ts';
import { childTarget } from '../../files/notify-child.ts';
import { readHelperConfig, type HelperConfig } from '../../helper/helper-config.ts';
import { systemClock } from '../../lib/clock.ts';
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
  const { createApp, runApp } = await import('../../app.ts');
  const alsoTell = helper.child === undefined ? [] : [childTarget({ ...helper.child, env })];
  if (helper.daemonMode) return runApp(config, { version: VERSION, stderr, alsoTell }, signal);

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
async function configOf({ endpoint, set }: HelperConfig, file: string): Promise<Config | string> {
  const parsed = await parseConfig(undefined, {
    file: undefined,
    flags: { workloadApi: { endpoint }, files: [{ directory: '/set' }] },
    env: {},
  });
  if (!parsed.ok) return parsed.error.map(({ message }) => `${file}: agent_address: ${message}`).join('\n');
  // It may be a link, which spiffe-helper follows.
  const directory = await realpath(set.directory).catch(() => set.directory);
  return { ...parsed.value, files: [{ ...set, directory }] };
}

/** What Scute refuses in a configuration of its own. */
async function warningsAbout({ files }: Config): Promise<readonly string[]> {
  const problems = await Promise.all(
    files.map(async ({ directory }) =>
      directoryProblem(directory, await lookAtDirectory(directory), { uid: process.getuid?.() ?? 0, unsafeDisk: false }),
    ),
  );
  return problems.filter((problem) => problem !== undefined).map((problem) => problem.replace(/, or set unsafeDisk$/, ''));
}
