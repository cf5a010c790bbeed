import assert from 'node:assert/strict';
import { compilePolicy, type Policy, type PolicySpec } from '../../src/policy/policy.ts';
import type { RequestFacts } from '../../src/policy/request.ts';
import type { RuleSpec } from '../../src/policy/rule.ts';
import { requireSpiffeId, type SpiffeId } from '../../src/spiffe/spiffe-id.ts';
import type { Draws } from '../fuzz/random.ts';

/** The policy that lets whom these entries name do everything. */
export function policyOf(...allow: readonly string[]): Policy {
  return policyFrom({ allow });
}

export function policyFrom(spec: PolicySpec): Policy {
  const compiled = compilePolicy(spec);
  assert.ok(compiled.ok, compiled.ok ? '' : JSON.stringify(compiled.error));
  return compiled.value;
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
