import { parseDuration, type Address } from '../../config/units.ts';
import { systemClock } from '../../lib/clock.ts';
import { err, ok, type Result } from '../../lib/result.ts';
import { requireAdmin, type AdminOptions } from '../admin-address.ts';
import { askAdmin, isListening, tellAdmin, UNKNOWN_FORM } from '../admin-client.ts';
import { overviewSchema } from '../api-answers.ts';
import { EXIT_FAILED, EXIT_OK, EXIT_UNAVAILABLE, EXIT_USAGE, type CommandEnvironment } from '../environment.ts';
import { visible } from '../text.ts';
import { lookUntil, LONGEST_WAIT_MS, type Look } from './wait.ts';

export interface StopOptions extends AdminOptions {
  /** A duration, such as `60s`: how long its end is waited for. */
  readonly timeout?: string | undefined;
}

/** More than a drain takes by default. */
const TIMEOUT_MS = 60_000;
const LIMITS = { timeoutMs: 5000, maxBytes: 1024 * 1024 };

/** `scute stop`: the Scute that runs drains and ends, as after SIGTERM, and its end is waited for. For a job whose main program is done. */
export async function stop(options: StopOptions, environment: CommandEnvironment, stopped: AbortSignal): Promise<number> {
  const { stderr } = environment;
  const timeout = parseDuration(options.timeout ?? `${TIMEOUT_MS}ms`, LONGEST_WAIT_MS);
  if (!timeout.ok) {
    stderr(`scute: --timeout ${timeout.error}\n`);
    return EXIT_USAGE;
  }
  const found = await requireAdmin(options, environment);
  if (found === undefined) return EXIT_USAGE;
  const { address } = found;
  // Another one may be started in its place before it is seen to be gone.
  const startedAt = await startOf(address, stopped);
  const told = startedAt.ok ? await tellAdmin(address, '/shutdown', 202, stopped, LIMITS) : startedAt;
  if (!told.ok) {
    stderr(`scute: ${visible(told.error)}\n`);
    return EXIT_UNAVAILABLE;
  }
  if (timeout.value === 0) return EXIT_OK;
  const isGone = async (): Promise<Look> => {
    const now = await startOf(address, stopped);
    const isAnother = now.ok && startedAt.ok && now.value !== startedAt.value;
    if (isAnother || !(await isListening(address, stopped, LIMITS))) return { is: 'there' };
    return { is: 'not_yet', why: 'it drains, and has not ended yet' };
  };
  const gone = await lookUntil(isGone, timeout.value, systemClock, stopped);
  if (gone.is === 'there') return EXIT_OK;
  if (!stopped.aborted) stderr(`scute: ${gone.why}\n`);
  return EXIT_FAILED;
}

/** When the Scute that listens there was started, as it says. */
async function startOf(address: Address, stopped: AbortSignal): Promise<Result<string | null, string>> {
  const answer = await askAdmin(address, '/api/v1/overview', stopped, LIMITS);
  if (!answer.ok) return answer;
  const overview = overviewSchema.safeParse(answer.value);
  return overview.success ? ok(overview.data.startedAt) : err(UNKNOWN_FORM);
}
