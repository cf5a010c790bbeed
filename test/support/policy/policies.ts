import assert from 'node:assert/strict';
import { atOnce } from '../../../src/lib/at-once.ts';
import { IdListBuilder, type IdList } from '../../../src/policy/id-list.ts';
import { compilePolicy, type Policy, type PolicySpec } from '../../../src/policy/policy.ts';
import { UNKNOWN_SUBJECT, type RequestFacts } from '../../../src/policy/request.ts';
import type { RuleSpec } from '../../../src/policy/rule.ts';
import { DAYS, type WindowSpec } from '../../../src/policy/time-window.ts';
import { requireSpiffeId, type SpiffeId } from '../../../src/spiffe/spiffe-id.ts';
import type { Draws } from '../../fuzz/random.ts';

/** The policy that lets whom these entries name do everything. */
export function policyOf(...allow: readonly string[]): Policy {
  return policyFrom({ allow });
}

/** The lists are those that its rules name, by file. */
export function policyFrom(spec: PolicySpec, lists: ReadonlyMap<string, IdList> = new Map()): Policy {
  const compiled = compilePolicy(spec, { idsOf: (file) => lists.get(file) });
  assert.ok(compiled.ok, compiled.ok ? '' : JSON.stringify(compiled.error));
  return compiled.value;
}

/** A list of these SPIFFE IDs, one a line. */
export function listOf(file: string, ids: readonly string[], before?: IdList): IdList {
  const builder = new IdListBuilder();
  for (const [index, id] of ids.entries()) assert.equal(builder.add(id, index + 1), undefined);
  return atOnce(builder.build(file, ids.join(), before));
}

// Few and alike, so that rules often match, or nearly.
const IDS = ['a', 'b', 'a/b', 'a/a/b'].flatMap((path) => [`spiffe://one.test/${path}`, `spiffe://two.test/${path}`]);
const PEERS = [
  ...IDS,
  ...['*', '**', 'a/*', '*/b', 'a/**', '*/*/**', 'b/*/a'].flatMap((path) => [`spiffe://one.test/${path}`, `spiffe://two.test/${path}`]),
];
export const PATHS = ['/', '/a', '/a/', '/b', '/a/b', '/a/b/', '/a/b/c', '/b/b', '/%C3'];
const PATTERNS = ['/', '/a', '/a/', '/*', '/**', '/a/*', '/a/**', '/*/b', '/*/*/**', '/a/b/c', '/%C3'];
export const METHODS = ['GET', 'POST', 'OPTIONS'];
export const HOSTS = ['x', 'a.x', 'b.a.x', '[::1]'];
/** Whose token a request has: also nobody's, or nobody knows whose. */
export const SUBJECTS: readonly RequestFacts['subject'][] = [undefined, UNKNOWN_SUBJECT, ...IDS.map(requireSpiffeId)];

const QUARTER_MS = 15 * 60_000;
/** When clocks are changed somewhere, and a day on which none is. */
const DATES = [
  Date.UTC(2026, 2, 29, 1), // Europe/Berlin, to summer time
  Date.UTC(2026, 9, 25, 1), // and back
  Date.UTC(2026, 2, 8, 7), // America/New_York
  Date.UTC(2026, 10, 1, 6),
  Date.UTC(2026, 3, 4, 15), // Australia/Lord_Howe, by half an hour
  Date.UTC(2026, 9, 3, 15, 30),
  Date.UTC(2026, 6, 1, 12),
];
const TIME_ZONES = ['UTC', 'Europe/Berlin', 'America/New_York', 'Australia/Lord_Howe', 'Asia/Kathmandu'];
const TIMES = ['00:00', '00:30', '01:45', '02:00', '02:15', '03:00', '12:00', '23:59'];

/** At random. The times are about that of `drawQuestion` for the same `dateMs`. */
export function drawPolicy(draws: Draws, dateMs: number): PolicySpec {
  const peers = Array.from({ length: 1 + draws.below(5) }, () => draws.of(PEERS));
  return {
    allow: Array.from({ length: draws.below(6) }, () => drawRule(draws, peers, dateMs)),
    deny: Array.from({ length: draws.below(4) }, () => drawRule(draws, peers, dateMs)),
    mode: draws.once(6) ? 'audit' : 'enforce',
  };
}

/** A date about which something changes, in milliseconds since 1970. */
export function drawDate(draws: Draws): number {
  return draws.of(DATES);
}

/** At random: the policy with lists instead of the peers of some rules, and one that has a rule for each ID of these. */
export function drawLists(
  draws: Draws,
  spec: PolicySpec,
): { listed: PolicySpec; lists: ReadonlyMap<string, IdList>; expanded: PolicySpec } {
  const lists = new Map<string, IdList>();
  const drawn = (rules: readonly (string | RuleSpec)[]): readonly (readonly [string | RuleSpec, readonly (string | RuleSpec)[]])[] =>
    rules.map((rule) => {
      if (draws.once(2) || (typeof rule !== 'string' && rule.peer === undefined)) return [rule, [rule]];
      const ids = Array.from({ length: draws.below(4) }, () => draws.of(IDS));
      const idsFile = `/lists/${draws.below(2)}-${ids.join()}`;
      lists.set(idsFile, listOf(idsFile, ids));
      const { peer: _, ...rest } = typeof rule === 'string' ? { peer: rule } : rule;
      return [{ ...rest, idsFile }, ids.map((peer) => ({ ...rest, peer }))];
    });
  const [allow, deny] = [drawn(spec.allow), drawn(spec.deny ?? [])];
  return {
    listed: { allow: allow.map(([rule]) => rule), deny: deny.map(([rule]) => rule), mode: spec.mode },
    lists,
    expanded: { allow: allow.flatMap(([, rules]) => rules), deny: deny.flatMap(([, rules]) => rules), mode: spec.mode },
  };
}

/** At random, for such a policy; without a request it is about the connection. */
export function drawQuestion(draws: Draws, dateMs: number): { peer: SpiffeId; request: RequestFacts | undefined; nowMs: number } {
  const peer = requireSpiffeId(draws.of(IDS));
  const request = draws.once(4)
    ? undefined
    : { method: draws.of(METHODS), path: draws.of(PATHS), host: draws.of(HOSTS), subject: SUBJECTS[draws.below(SUBJECTS.length)] };
  if (request?.method === 'OPTIONS' && draws.once(2)) request.path = '*';
  // Just before something may change, at that moment, or at any other.
  const nowMs = drawTime(draws, dateMs) + (draws.once(2) ? draws.below(3) - 1 : draws.below(QUARTER_MS));
  return { peer, request, nowMs };
}

/** A multiple of a quarter of an hour, mostly within some hours, and else within a week. */
function drawTime(draws: Draws, dateMs: number): number {
  const quarters = draws.once(4) ? 7 * 96 : 20;
  return dateMs + (draws.below(quarters) - quarters / 2) * QUARTER_MS;
}

function drawRule(draws: Draws, peers: readonly string[], dateMs: number): RuleSpec | string {
  const peer = draws.of(peers);
  if (draws.once(3)) return peer;
  const some = <T>(choices: readonly T[]): readonly T[] => Array.from({ length: 1 + draws.below(2) }, () => draws.of(choices));
  const [first = 0, second = 0] = [drawTime(draws, dateMs), drawTime(draws, dateMs)].toSorted((a, b) => a - b);
  const subject = draws.once(3) ? draws.of(PEERS) : undefined;
  return {
    ...(subject !== undefined && draws.once(2) ? {} : { peer }),
    ...(subject !== undefined && { subject }),
    ...(draws.once(2) ? {} : { methods: some(METHODS) }),
    ...(draws.once(2) ? {} : { paths: some(PATTERNS) }),
    ...(draws.once(2) ? {} : { hosts: some([...HOSTS, '*.x', '*.a.x']) }),
    ...(draws.once(2) ? {} : { notBeforeMs: first }),
    ...(draws.once(2) ? {} : { notAfterMs: second + 1 }),
    ...(draws.once(2) ? { windows: Array.from({ length: 1 + draws.below(2) }, () => drawWindow(draws)) } : {}),
    ...(draws.once(4) ? { mode: 'audit' } : {}),
  };
}

function drawWindow(draws: Draws): WindowSpec {
  const from = draws.of(TIMES);
  const to = draws.of([...TIMES, '24:00'].filter((time) => time !== from));
  const days = DAYS.filter(() => !draws.once(3));
  return { from, to, timeZone: draws.of(TIME_ZONES), ...(days.length === 0 || draws.once(2) ? {} : { days }) };
}
