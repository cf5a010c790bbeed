import { changeSince } from '../policy/id-list.ts';
import type { Policy } from '../policy/policy.ts';
import { asksOfRequests } from '../policy/refusal.ts';
import { ruleText, type Effect, type RuleSpec } from '../policy/rule.ts';
import type { Config, InboundConfig, Limits, OutboundConfig, SdsConfig, SdsMatchers } from './config.ts';
import { LIVE_RULES, type LiveRules } from './policy/live-rules.ts';
import { formatAddress, formatDuration, formatTarget } from './units.ts';

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
 * Compares two configurations. Policies, what becomes of open connections, limits, the log level and the drain time change while running;
 * addresses and everything else need a restart. A listener is the same if it listens and forwards as before, whatever its name or
 * place: a policy never goes to a listener before another application.
 */
export function planReload(current: Config, wanted: Config): Reload {
  const differences: string[] = [];
  const needRestart: string[] = [];

  const running = new Map<string, string>();
  const inbound = matchListeners('inbound', current.inbound, wanted.inbound, needRestart, (old, fresh) => {
    running.set(fresh.name, old.name);
    const policy = policyFor(`inbound ${old.name}`, 'allow', old, fresh, differences, needRestart);
    differences.push(...limitDifferences(`inbound ${old.name}`, old.limits, fresh.limits));
    return { ...old, ...liveRules(`inbound ${old.name}`, old, fresh, differences), ...policy, limits: fresh.limits };
  });
  const outbound = matchListeners('outbound', current.outbound, wanted.outbound, needRestart, (old, fresh) => {
    const policy = policyFor(`outbound ${old.name}`, 'expect', old, fresh, differences, needRestart);
    differences.push(...limitDifferences(`outbound ${old.name}`, old.limits, fresh.limits));
    const { limits, unsafeAllowAnyInTrustDomain, identityWaitMs } = fresh;
    if (old.identityWaitMs !== identityWaitMs)
      differences.push(`outbound ${old.name}: identityWait ${formatDuration(old.identityWaitMs)} to ${formatDuration(identityWaitMs)}`);
    // What replaces `expect` goes where that goes.
    const replaced = policy.policyFile === fresh.policyFile ? unsafeAllowAnyInTrustDomain : old.unsafeAllowAnyInTrustDomain;
    const live = liveRules(`outbound ${old.name}`, old, fresh, differences);
    return { ...old, ...live, ...policy, limits, identityWaitMs, unsafeAllowAnyInTrustDomain: replaced };
  });

  if (current.log.level !== wanted.log.level) differences.push(`log.level: ${current.log.level} to ${wanted.log.level}`);
  if (current.drainTimeoutMs !== wanted.drainTimeoutMs) {
    differences.push(`drainTimeout: ${formatDuration(current.drainTimeoutMs)} to ${formatDuration(wanted.drainTimeoutMs)}`);
  }
  if (current.workloadApi.endpoint !== wanted.workloadApi.endpoint) needRestart.push('workloadApi.endpoint');
  if (current.log.format !== wanted.log.format) needRestart.push('log.format');
  for (const key of ['metrics', 'admin', 'federation', 'bundleEndpoint', 'files', 'credentials', 'revocations', 'exec'] as const)
    if (!same(current[key], wanted[key])) needRestart.push(key);

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
    if (changed.length > 0) needRestart.push(`${direction} ${old.name}: ${changed.map(keyName).join(', ')}`);
    return Object.freeze(merge(old, fresh));
  });
  for (const fresh of left) needRestart.push(`${direction} ${fresh.name}: ${describe(fresh)} is new`);
  return Object.freeze(next);
}

/**
 * Matchers of a listener by the name that it runs under: the name means one of the new file, and may have been another's in the old one. Of a
 * listener that does not run yet they have its policy as the new file has it.
 */
function resolveMatchers(entry: SdsMatchers, inbound: readonly InboundConfig[], running: ReadonlyMap<string, string>): SdsMatchers {
  if (entry.listener === undefined) return entry;
  const listener = running.get(entry.listener);
  if (listener !== undefined) return Object.freeze({ ...entry, listener });
  const wanted = inbound.find(({ name }) => name === entry.listener);
  if (wanted === undefined) throw new Error(`matchers of ${JSON.stringify(entry.listener)}, which is no listener`);
  return Object.freeze({ ...entry, listener: undefined, policy: wanted.policy, policyFile: wanted.policyFile });
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

const LIVE_KEYS: ReadonlySet<string> = new Set([
  ...LIVE_RULES,
  'policy',
  'policyFile',
  'unsafeAllowAnyInTrustDomain',
  'limits',
  'identityWaitMs',
]);

function fixedKeys(listener: Listener): string[] {
  return Object.keys(listener).filter((key) => !LIVE_KEYS.has(key));
}

/** As the file has it. */
function keyName(key: string): string {
  return key === 'attach' ? 'jwt or credential' : key;
}

function describe({ listen, to }: Listener): string {
  return `${formatAddress(listen)} to ${formatTarget(to)}`;
}

/**
 * The policy from now on, and where it comes from. One that does not change is the same object, so that whoever compares by reference sees
 * only real changes. `list` is the key of the rules that allow.
 */
function policyFor(
  what: string,
  list: string,
  old: Listener,
  fresh: Listener,
  differences: string[],
  needRestart: string[],
): Pick<Listener, 'policy' | 'policyFile'> {
  const { policy, policyFile, protocol } = old;
  const kept = { policy, policyFile };
  // What is in force of a file is not for a configuration to say.
  if (policyFile === fresh.policyFile && (policyFile !== undefined || isSamePolicy(policy, fresh.policy))) return kept;
  // It becomes one for http: until then, who is allowed some requests would be let do anything.
  // Likewise for whose token a request has, until somebody looks for one.
  const asksUnseen = fresh.policy.asksForSubject && !('jwt' in old && old.jwt !== undefined);
  if ((protocol === 'tcp' && asksOfRequests(fresh.policy)) || asksUnseen) {
    needRestart.push(`${what}: its rules for requests, and with them all that changed in its policy`);
    return kept;
  }
  if (policyFile === fresh.policyFile) differences.push(...policyDifferences(`${what}:`, list, policy, fresh.policy));
  else differences.push(`${what}: policyFile: ${policyFile ?? 'none'} to ${fresh.policyFile ?? 'none'}`);
  return { policy: fresh.policy, policyFile: fresh.policyFile };
}

function isSamePolicy(a: Policy, b: Policy): boolean {
  return same(a.spec, b.spec) && [...b.lists].every(([file, { digest }]) => a.lists.get(file)?.digest === digest);
}

/** What becomes of open connections, from now on. */
function liveRules(what: string, old: Listener, fresh: Listener, differences: string[]): LiveRules {
  const { onPolicyChange, onAuthorityRemoved } = fresh;
  // What these are if nobody says depends on the protocol, which stays.
  const { onPeerExpiry, onOwnExpiry } = old.protocol === fresh.protocol ? fresh : old;
  const next: LiveRules = { onPolicyChange, onAuthorityRemoved, onPeerExpiry, onOwnExpiry };
  for (const key of LIVE_RULES) if (old[key] !== next[key]) differences.push(`${what}: ${key} ${old[key]} to ${next[key]}`);
  return next;
}

/** Rule by rule, whatever their order. */
function policyDifferences(what: string, list: string, old: Policy, fresh: Policy): string[] {
  return [
    ...listDifferences(`${what} ${list}`, 'allow', old.spec.allow, fresh.spec.allow),
    ...listDifferences(`${what} deny`, 'deny', old.spec.deny ?? [], fresh.spec.deny ?? []),
    ...(old.mode === fresh.mode ? [] : [`${what} policyMode: ${old.mode} to ${fresh.mode}`]),
    ...[...fresh.lists].flatMap(([file, list]) => {
      const change = changeSince(old.lists.get(file), list);
      if (change === undefined || change.added.count + change.removed.count === 0) return [];
      const { added, removed } = change;
      return [
        `${what} idsFile ${file}: ${added.count} added, ${removed.count} removed`,
        ...added.first.map((id) => `${what} idsFile ${file} + ${id}`),
        ...removed.first.map((id) => `${what} idsFile ${file} - ${id}`),
      ];
    }),
  ];
}

function listDifferences(
  what: string,
  effect: Effect,
  old: readonly (string | RuleSpec)[],
  fresh: readonly (string | RuleSpec)[],
): string[] {
  const textsOf = (specs: readonly (string | RuleSpec)[]): ReadonlyMap<string, string> =>
    new Map(specs.map((spec) => [JSON.stringify(spec), ruleText(spec, effect)]));
  const before = textsOf(old);
  const after = textsOf(fresh);
  const only = (of: ReadonlyMap<string, string>, other: ReadonlyMap<string, string>): string[] =>
    [...of].flatMap(([key, text]) => (other.has(key) ? [] : [text.replace(/^deny /, '')]));
  return [...only(after, before).map((text) => `${what} + ${text}`), ...only(before, after).map((text) => `${what} - ${text}`)];
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

/** Configurations are plain data but for policies, of which JSON has what they were compiled from. */
function same(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

/** The configuration with another policy wherever that comes from this file. */
export function withPolicyOf(config: Config, file: string, policy: Policy): Config {
  const anew = <T extends { readonly policyFile?: string | undefined }>(entry: T): T =>
    entry.policyFile === file ? Object.freeze({ ...entry, policy }) : entry;
  const { inbound, outbound, sds } = config;
  return Object.freeze({
    ...config,
    inbound: Object.freeze(inbound.map(anew)),
    outbound: Object.freeze(outbound.map(anew)),
    sds: sds && Object.freeze({ ...sds, matchers: Object.freeze(sds.matchers.map(anew)) }),
  });
}
