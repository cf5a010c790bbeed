import type { App } from '../../app.ts';
import type { BesideEnd } from '../../run-app.ts';
import { untoldOfSets, unwrittenSets } from '../../admin/checks/file-sets.ts';
import type { Config } from '../../config/config.ts';
import { parseDuration } from '../../config/units.ts';
import { systemClock } from '../../lib/clock.ts';
import { EXIT_FAILED, EXIT_OK, EXIT_USAGE, type CommandEnvironment } from '../environment.ts';
import { run } from './run.ts';
import { visible } from '../text.ts';
import { lookUntil, LONGEST_WAIT_MS, type Look } from './wait.ts';

export interface OnceOptions {
  readonly config: string;
  /** A duration, such as `60s`. */
  readonly timeout?: string | undefined;
}

const TIMEOUT_MS = 60_000;

/**
 * `scute once`: has an identity, writes what `files` says, tells whom that says, and ends: for jobs and cron. Nobody is served meanwhile, and what
 * is written stays.
 */
export async function once({ config, timeout }: OnceOptions, environment: CommandEnvironment, signal: AbortSignal): Promise<number> {
  const limit = parseDuration(timeout ?? `${TIMEOUT_MS}ms`, LONGEST_WAIT_MS);
  if (!limit.ok) {
    environment.stderr(`scute: --timeout ${limit.error}\n`);
    return EXIT_USAGE;
  }
  let why: string | undefined;
  const beside = async (app: App): Promise<BesideEnd> => {
    const found = await lookUntil(() => Promise.resolve(lookAt(app)), limit.value, systemClock, signal);
    if (found.is === 'there') return { exitCode: EXIT_OK, reason: 'all is written' };
    why = found.why;
    return { exitCode: EXIT_FAILED, reason: 'not all could be written' };
  };
  const code = await run({ file: config, flags: {}, only: withoutListeners }, environment, signal, beside);
  if (why !== undefined && !signal.aborted) environment.stderr(`scute: ${visible(why)}\n`);
  return code;
}

function withoutListeners(config: Config): Config {
  return Object.freeze({
    ...config,
    inbound: [],
    outbound: [],
    metrics: undefined,
    admin: undefined,
    sds: undefined,
    bundleEndpoint: undefined,
    files: config.files.map((set) => Object.freeze({ ...set, cleanUpOnStop: false })),
  });
}

function lookAt(app: App): Look {
  const identity = app.identity();
  const missing = [
    ...(identity?.kind === 'held' ? [] : [identity?.reason ?? 'no SVID has come from the Workload API yet']),
    ...unwrittenSets(app.fileSets(), identity),
    ...untoldOfSets(app.fileSets()),
    ...app.notReady(),
  ];
  return missing.length === 0 ? { is: 'there' } : { is: 'not_yet', why: missing.join('; ') };
}
