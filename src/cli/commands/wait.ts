import { parseDuration, type Address } from '../../config/units.ts';
import { systemClock, type Clock } from '../../lib/clock.ts';
import { err, ok, type Result } from '../../lib/result.ts';
import { chooseEndpoint, ENDPOINT_VARIABLE } from '../../workload-api/endpoint.ts';
import { findAdmin, type AdminOptions } from '../admin-address.ts';
import { askAdmin, UNKNOWN_FORM } from '../admin-client.ts';
import { listenersSchema, readinessSchema } from '../api-answers.ts';
import { EXIT_FAILED, EXIT_OK, EXIT_UNAVAILABLE, EXIT_USAGE, type CommandEnvironment } from '../environment.ts';
import { visible } from '../text.ts';

export interface WaitOptions extends AdminOptions {
  readonly workloadApi?: string | undefined;
  /** `identity`, `ready`, or `listener` and its name. */
  readonly for?: readonly string[] | undefined;
  /** A duration, such as `60s`. */
  readonly timeout?: string | undefined;
}

type Condition = { readonly kind: 'identity' | 'ready' } | { readonly kind: 'listener'; readonly name: string };

/** What one look found. `not_yet`: somebody answers; `nobody`: nobody does; `never`: waiting is of no use. */
export type Look = { readonly is: 'there' } | { readonly is: 'not_yet' | 'nobody' | 'never'; readonly why: string };

const TIMEOUT_MS = 60_000;
export const LONGEST_WAIT_MS = 24 * 3_600_000;
const LOOK_EVERY_MS = 200;
/** The last look may take so long, however little time is left. */
const SHORTEST_LOOK_MS = 1000;
/** Of each look at the admin listener. */
const LIMITS = { timeoutMs: 5000, maxBytes: 4 * 1024 * 1024 };

/** `scute wait`: for scripts and init containers, until the Scute that runs, or the Workload API itself, has what is waited for. */
export async function wait(options: WaitOptions, environment: CommandEnvironment, stopped: AbortSignal): Promise<number> {
  const { stderr } = environment;
  const asked = await askedOf(options, environment, stopped);
  if (!asked.ok) {
    stderr(asked.error);
    return EXIT_USAGE;
  }
  const { look, timeoutMs } = asked.value;
  const found = await lookUntil(look, timeoutMs, systemClock, stopped);
  if (found.is === 'there') return EXIT_OK;
  if (!stopped.aborted) stderr(`scute: ${visible(found.why)}\n`);
  if (found.is === 'never') return EXIT_USAGE;
  return found.is === 'nobody' ? EXIT_UNAVAILABLE : EXIT_FAILED;
}

/**
 * Looks again and again, once at least, for `timeoutMs`: what the last look found. Each is told how long it may take, in milliseconds.
 */
export async function lookUntil(
  look: (leftMs: number) => Promise<Look>,
  timeoutMs: number,
  clock: Clock,
  stopped: AbortSignal,
): Promise<Look> {
  const untilMs = clock.monotonic() + timeoutMs;
  for (;;) {
    const found = await look(Math.max(Math.ceil(untilMs - clock.monotonic()), SHORTEST_LOOK_MS));
    const leftMs = untilMs - clock.monotonic();
    if (found.is === 'there' || found.is === 'never' || leftMs <= 0 || stopped.aborted) return found;
    await clock.sleep(Math.min(LOOK_EVERY_MS, leftMs), stopped);
  }
}

interface Asked {
  readonly look: (leftMs: number) => Promise<Look>;
  readonly timeoutMs: number;
}

/** The error is what standard error is to be told. */
async function askedOf(options: WaitOptions, environment: CommandEnvironment, stopped: AbortSignal): Promise<Result<Asked, string>> {
  const wrong = (problem: string): Result<never, string> => err(`scute: ${problem}\n`);
  const { admin, config, workloadApi } = options;
  const timeout = parseDuration(options.timeout ?? `${TIMEOUT_MS}ms`, LONGEST_WAIT_MS);
  if (!timeout.ok) return wrong(`--timeout ${timeout.error}`);
  const asksAgent =
    workloadApi !== undefined || (admin === undefined && config === undefined && environment.env[ENDPOINT_VARIABLE] !== undefined);
  const condition = conditionOf(options.for ?? [asksAgent ? 'identity' : 'ready']);
  if (!condition.ok) return wrong(condition.error);
  if (!asksAgent) {
    const found = await findAdmin(options, environment);
    if (!found.ok) return found;
    const { address } = found.value;
    return ok({ timeoutMs: timeout.value, look: (leftMs) => askScute(address, condition.value, leftMs, stopped) });
  }
  if (admin !== undefined || config !== undefined)
    return wrong('a Scute that runs (-c, --admin) or the Workload API (--workload-api) is asked, not both');
  if (condition.value.kind !== 'identity') return wrong('the Workload API knows of an identity alone: --for identity, or -c or --admin');
  const endpoint = chooseEndpoint(workloadApi, environment.env[ENDPOINT_VARIABLE]);
  if (!endpoint.ok) return wrong(endpoint.error);
  return ok({ timeoutMs: timeout.value, look: (leftMs) => askAgent(endpoint.value, leftMs, stopped) });
}

function conditionOf([kind, name, ...more]: readonly string[]): Result<Condition, string> {
  if (kind === 'listener' && name !== undefined && more.length === 0) return ok({ kind, name });
  if ((kind === 'identity' || kind === 'ready') && name === undefined) return ok({ kind });
  return err('--for is identity, ready, or listener NAME');
}

async function askScute(address: Address, condition: Condition, leftMs: number, stopped: AbortSignal): Promise<Look> {
  const limits = { ...LIMITS, timeoutMs: Math.min(leftMs, LIMITS.timeoutMs) };
  const answer = await askAdmin(address, condition.kind === 'listener' ? '/api/v1/listeners' : '/api/v1/readiness', stopped, limits);
  if (!answer.ok) return { is: 'nobody', why: answer.error };
  if (condition.kind === 'listener') {
    const listeners = listenersSchema.safeParse(answer.value);
    return listeners.success ? lookAtListener(listeners.data.items, condition.name) : { is: 'nobody', why: UNKNOWN_FORM };
  }
  const readiness = readinessSchema.safeParse(answer.value);
  if (!readiness.success) return { is: 'nobody', why: UNKNOWN_FORM };
  const failing = readiness.data.checks.filter(
    ({ name, ok: holds, blocks }) => blocks && !holds && (condition.kind === 'ready' || name === 'identity' || name === 'identity_valid'),
  );
  if (failing.length === 0) return { is: 'there' };
  return { is: 'not_yet', why: failing.map(({ name, detail }) => (detail === null ? name : `${name}: ${detail}`)).join('; ') };
}

function lookAtListener(
  listeners: readonly { readonly name: string; readonly address: string | null; readonly presents: string | null }[],
  name: string,
): Look {
  const listener = listeners.find((each) => each.name === name);
  if (listener === undefined) {
    const names = listeners.map((each) => each.name).join(', ');
    return { is: 'never', why: `there is no listener ${JSON.stringify(name)}; there ${names === '' ? 'are none' : `is ${names}`}` };
  }
  if (listener.address === null) return { is: 'not_yet', why: `the listener ${name} is not bound` };
  if (listener.presents === null) return { is: 'not_yet', why: `the listener ${name} has no SVID to present` };
  return { is: 'there' };
}

async function askAgent(endpoint: Address, leftMs: number, stopped: AbortSignal): Promise<Look> {
  const { fetchOwnIdentity } = await import('../../inspect/own-identity.ts');
  const own = await fetchOwnIdentity({ endpoint, choice: { by: 'default' }, clock: systemClock, timeoutMs: leftMs, stopped });
  return own.ok ? { is: 'there' } : { is: 'nobody', why: own.error };
}
