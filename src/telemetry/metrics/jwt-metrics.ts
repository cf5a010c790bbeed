import type { IdentitySnapshot } from '../../identity/snapshot.ts';
import { JWT_BUNDLE_PROBLEMS, TOKEN_RESULTS, type JwtBundleProblemCode, type TokenResult } from '../log/jwt-records.ts';
import type { Define } from './text-format.ts';

/** Counted in plain numbers, and read when somebody scrapes. */
export interface JwtMetrics {
  readonly updates: Record<'ok' | JwtBundleProblemCode, number>;
  /** Of the inbound listener of that name. */
  tokens(listener: string): Record<TokenResult, number>;
  /** Series of trust domains that are gone go. */
  setBundles(snapshot: IdentitySnapshot): void;
}

/** A partner's trust domains are as many as the agent federates with. */
const MOST_SERIES = 1000;

export function registerJwtMetrics(counter: Define, gauge: Define): JwtMetrics {
  const updates = Object.fromEntries(['ok', ...JWT_BUNDLE_PROBLEMS].map((name) => [name, 0])) as JwtMetrics['updates'];
  let authorities: readonly (readonly [string, number])[] = [];
  counter(
    'jwt_bundle_updates_total',
    'Answers of the Workload API with JWT bundles: taken, or rejected as unusable',
    ['result', 'reason'],
    (add) => {
      add({ result: 'ok', reason: 'ok' }, updates.ok);
      for (const reason of JWT_BUNDLE_PROBLEMS) add({ result: 'rejected', reason }, updates[reason]);
    },
  );
  gauge('jwt_authorities', 'Keys that JWT-SVIDs of a trust domain may be signed with', ['trust_domain'], (add) => {
    for (const [trust_domain, count] of authorities) add({ trust_domain }, count);
  });
  const listeners = new Map<string, Record<TokenResult, number>>();
  counter('jwt_tokens_total', 'Requests to a listener that looks at tokens, by what became of theirs', ['listener', 'result'], (add) => {
    for (const [listener, results] of listeners) for (const result of TOKEN_RESULTS) add({ listener, result }, results[result]);
  });
  return {
    updates,
    tokens(listener) {
      const known = listeners.get(listener);
      if (known !== undefined) return known;
      const made = Object.fromEntries(TOKEN_RESULTS.map((name) => [name, 0])) as Record<TokenResult, number>;
      listeners.set(listener, made);
      return made;
    },
    setBundles({ jwtBundles = new Map() }) {
      authorities = [...jwtBundles.values()].slice(0, MOST_SERIES).map((bundle) => [bundle.trustDomain, bundle.authorities.length]);
    },
  };
}
