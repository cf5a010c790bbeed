import type { AllowList } from '../policy/rules.ts';
import type { Config, InboundConfig, Limits, OutboundConfig, SdsConfig, SdsMatchers } from './config.ts';
import { formatAddress, formatDuration } from './units.ts';

/** What a new configuration means for a running process. */
export interface Reload {
  /** What to run from now on: the old configuration with what can change while running taken from the new one. */
  readonly next: Config;
  /** What changes now, a sentence each. */
  readonly differences: readonly string[];
  /** What stays as it was until a restart, a sentence each. */
  readonly needRestart: readonly string[];
}

type Listener = InboundConfig | OutboundConfig;

/**
 * Compares two configurations. Allow lists, limits, the log level and the drain time change while running; addresses and
 * everything else need a restart. A listener is the same if it listens and forwards as before, whatever its name or
 * place: an allow list never goes to a listener before another application.
 */
export function planReload(current: Config, wanted: Config): Reload {
  const differences: string[] = [];
  const needRestart: string[] = [];

  const running = new Map<string, string>();
  const inbound = matchListeners('inbound', current.inbound, wanted.inbound, needRestart, (old, fresh) => {
    running.set(fresh.name, old.name);
    differences.push(...listDifferences(`inbound ${old.name}: allow`, old.allow, fresh.allow));
    differences.push(...limitDifferences(`inbound ${old.name}`, old.limits, fresh.limits));
    return { ...old, allow: keptIfSame(old.allow, fresh.allow), limits: fresh.limits };
  });
  const outbound = matchListeners('outbound', current.outbound, wanted.outbound, needRestart, (old, fresh) => {
    differences.push(...listDifferences(`outbound ${old.name}: expect`, old.expect, fresh.expect));
    differences.push(...limitDifferences(`outbound ${old.name}`, old.limits, fresh.limits));
    const { limits, unsafeAllowAnyInTrustDomain } = fresh;
    return { ...old, expect: keptIfSame(old.expect, fresh.expect), limits, unsafeAllowAnyInTrustDomain };
  });

  if (current.log.level !== wanted.log.level) differences.push(`log.level: ${current.log.level} to ${wanted.log.level}`);
  if (current.drainTimeoutMs !== wanted.drainTimeoutMs) {
    differences.push(`drainTimeout: ${formatDuration(current.drainTimeoutMs)} to ${formatDuration(wanted.drainTimeoutMs)}`);
  }
  if (current.workloadApi.endpoint !== wanted.workloadApi.endpoint) needRestart.push('workloadApi.endpoint');
  if (current.log.format !== wanted.log.format) needRestart.push('log.format');
  for (const key of ['metrics', 'admin', 'revocations'] as const) if (!same(current[key], wanted[key])) needRestart.push(key);

  const matchers = (wanted.sds?.matchers ?? []).map((entry) => resolveMatchers(entry, wanted.inbound, running));
  const sds = reloadSds(current.sds, wanted.sds && { ...wanted.sds, matchers }, differences, needRestart);

  const next: Config = Object.freeze({
    ...current,
    inbound,
    outbound,
    sds,
    log: Object.freeze({ ...current.log, level: wanted.log.level }),
    drainTimeoutMs: wanted.drainTimeoutMs,
  });
  return { next, differences, needRestart };
}

/** Pairs the listeners that are the same, in the old order; the others stay as they are and are reported. */
function matchListeners<L extends Listener>(
  direction: string,
  current: readonly L[],
  wanted: readonly L[],
  needRestart: string[],
  merge: (old: L, fresh: L) => L,
): readonly L[] {
  const left = new Set(wanted);
  const next = current.map((old) => {
    const alike = [...left].filter((fresh) => same([fresh.listen, fresh.to], [old.listen, old.to]));
    // Several can be alike where the system picks the port.
    const fresh = alike.find(({ name }) => name === old.name) ?? alike[0];
    if (fresh === undefined) {
      needRestart.push(`${direction} ${old.name}: ${describe(old)} is gone, or changed its addresses`);
      return old;
    }
    left.delete(fresh);
    const changed = fixedKeys(old).filter((key) => !same(Reflect.get(old, key), Reflect.get(fresh, key)));
    if (changed.length > 0) needRestart.push(`${direction} ${old.name}: ${changed.join(', ')}`);
    return Object.freeze(merge(old, fresh));
  });
  for (const fresh of left) needRestart.push(`${direction} ${fresh.name}: ${describe(fresh)} is new`);
  return Object.freeze(next);
}

/**
 * Matchers of a listener by the name that it runs under: the name means one of the new file, and may have been another's in the old one. Of a
 * listener that does not run yet they have its list as the new file has it.
 */
function resolveMatchers(entry: SdsMatchers, inbound: readonly InboundConfig[], running: ReadonlyMap<string, string>): SdsMatchers {
  if (entry.listener === undefined) return entry;
  const listener = running.get(entry.listener);
  if (listener !== undefined) return Object.freeze({ ...entry, listener });
  const allow = inbound.find(({ name }) => name === entry.listener)?.allow;
  if (allow === undefined) throw new Error(`matchers of ${JSON.stringify(entry.listener)}, which is no listener`);
  return Object.freeze({ ...entry, listener: undefined, allow });
}

/** Matchers change while running; everything else of SDS needs a restart. */
function reloadSds(
  old: SdsConfig | undefined,
  fresh: SdsConfig | undefined,
  differences: string[],
  needRestart: string[],
): SdsConfig | undefined {
  if (old === undefined || fresh === undefined || !same({ ...old, matchers: [] }, { ...fresh, matchers: [] })) {
    if (!same(old, fresh)) needRestart.push('sds');
    return old;
  }
  if (same(old.matchers, fresh.matchers)) return old;
  differences.push(`sds: matchers of ${fresh.matchers.map(({ secret }) => secret).join(', ') || 'nothing'}`);
  return Object.freeze({ ...old, matchers: Object.freeze(fresh.matchers) });
}

const LIVE_KEYS: ReadonlySet<string> = new Set(['allow', 'expect', 'unsafeAllowAnyInTrustDomain', 'limits']);

function fixedKeys(listener: Listener): string[] {
  return Object.keys(listener).filter((key) => !LIVE_KEYS.has(key));
}

function describe({ listen, to }: Listener): string {
  return `${formatAddress(listen)} to ${formatAddress(to)}`;
}

function listDifferences(what: string, old: AllowList, fresh: AllowList): string[] {
  const before = new Set(old.entries);
  const after = new Set(fresh.entries);
  return [
    ...[...after.difference(before)].map((entry) => `${what} + ${entry}`),
    ...[...before.difference(after)].map((entry) => `${what} - ${entry}`),
  ];
}

/** Whoever compares lists by reference then sees only real changes. */
function keptIfSame(old: AllowList, fresh: AllowList): AllowList {
  return same(old.entries, fresh.entries) ? old : fresh;
}

function limitDifferences(what: string, old: Limits, fresh: Limits): string[] {
  return (Object.keys(old) as (keyof Limits)[])
    .filter((key) => old[key] !== fresh[key])
    .map((key) => `${what}: limits.${key.replace(/Ms$/, '')} ${formatLimit(key, old[key])} to ${formatLimit(key, fresh[key])}`);
}

function formatLimit(key: string, value: number | undefined): string {
  if (value === undefined) return 'off';
  return key.endsWith('Ms') ? formatDuration(value) : String(value);
}

/** Configurations are plain data but for the allow lists, which are compared by themselves. */
function same(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}
