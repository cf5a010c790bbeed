import assert from 'node:assert/strict';
import { atOnce } from '../../src/lib/at-once.ts';
import { IdListBuilder, type IdList } from '../../src/policy/id-list.ts';
import { compilePolicy, type Policy, type PolicySpec } from '../../src/policy/policy.ts';
import type { RequestFacts } from '../../src/policy/request.ts';
import type { RuleSpec } from '../../src/policy/rule.ts';
import { requireSpiffeId, type SpiffeId } from '../../src/spiffe/spiffe-id.ts';
import type { Draws } from '../fuzz/random.ts';

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
const IDS = ['a', 'b', 'a/a', 'a/b', 'b/a/a', 'a/b/a/b'].flatMap((path) => [`spiffe://one.test/${path}`, `spiffe://two.test/${path}`]);
const PEERS = [
  ...IDS,
  ...['*', '**', 'a/*', '*/b', 'a/**', '*/*/**', 'b/*/a'].flatMap((path) => [`spiffe://one.test/${path}`, `spiffe://two.test/${path}`]),
];
const PATHS = ['/', '/a', '/a/', '/b', '/a/b', '/a/b/', '/a/b/c', '/b/b'];
const PATTERNS = ['/', '/a', '/a/', '/*', '/**', '/a/*', '/a/**', '/*/b', '/*/*/**', '/a/b/c'];
const METHODS = ['GET', 'POST'];
const HOSTS = ['x', 'a.x', 'b.a.x'];

/** At random; the times are 0 to 6. */
export function drawPolicy(draws: Draws): PolicySpec {
  return {
    allow: Array.from({ length: draws.below(6) }, () => drawRule(draws)),
    deny: Array.from({ length: draws.below(4) }, () => drawRule(draws)),
    mode: draws.once(6) ? 'audit' : 'enforce',
  };
}

/** At random: the policy with lists instead of the peers of some rules, and one that has a rule for each ID of these. */
export function drawLists(
  draws: Draws,
  spec: PolicySpec,
): { listed: PolicySpec; lists: ReadonlyMap<string, IdList>; expanded: PolicySpec } {
  const lists = new Map<string, IdList>();
  const drawn = (rules: readonly (string | RuleSpec)[]): readonly (readonly [string | RuleSpec, readonly (string | RuleSpec)[]])[] =>
    rules.map((rule) => {
      if (draws.once(2)) return [rule, [rule]];
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
export function drawQuestion(draws: Draws): { peer: SpiffeId; request: RequestFacts | undefined; nowMs: number } {
  const [peer, nowMs] = [requireSpiffeId(draws.of(IDS)), draws.below(7)];
  const request = draws.once(4) ? undefined : { method: draws.of(METHODS), path: draws.of(PATHS), host: draws.of(HOSTS) };
  return { peer, request, nowMs };
}

function drawRule(draws: Draws): RuleSpec | string {
  const peer = draws.of(PEERS);
  if (draws.once(3)) return peer;
  const some = <T>(choices: readonly T[]): readonly T[] => Array.from({ length: 1 + draws.below(2) }, () => draws.of(choices));
  return {
    peer,
    ...(draws.once(2) ? {} : { methods: some(METHODS) }),
    ...(draws.once(2) ? {} : { paths: some(PATTERNS) }),
    ...(draws.once(2) ? {} : { hosts: some([...HOSTS, '*.x', '*.a.x']) }),
    ...(draws.once(2) ? {} : { notBeforeMs: draws.below(3) }),
    ...(draws.once(2) ? {} : { notAfterMs: 3 + draws.below(3) }),
    ...(draws.once(4) ? { mode: 'audit' } : {}),
  };
}
