import type { EndpointStatus, RelationStatus } from '../../telemetry/log/federation-records.ts';
import { isoTime } from '../iso-time.ts';
import type { CheckResult } from './readiness.ts';

/** A warning while an endpoint cannot be used: what was fetched before stays in force, and our own trust domain goes on. */
export function federationCheck(relations: readonly RelationStatus[]): CheckResult {
  const lines = relations.flatMap(({ trustDomain, problem, inForce }) => {
    if (problem === undefined) return [];
    const state = inForce === undefined ? 'nobody of it is trusted' : `its bundle of the ${inForce.replace('_', ' ')} stays in force`;
    return [`${trustDomain}: ${problem.reason}: ${problem.detail} (${state})`];
  });
  return lines.length === 0 ? { ok: true } : { ok: false, detail: lines.join('; ') };
}

/** The relations to other trust domains as plain JSON values. */
export function describeFederation(relations: readonly RelationStatus[]): object[] {
  return relations.map((relation) => ({
    trust_domain: relation.trustDomain,
    url: relation.url,
    in_force: relation.inForce ?? null,
    sequence: relation.sequence?.toString() ?? null,
    jwt_authorities: relation.jwtAuthorities,
    last_success_at: relation.lastSuccessMs === undefined ? null : isoTime(relation.lastSuccessMs),
    next_refresh_at: relation.nextRefreshMs === undefined ? null : isoTime(relation.nextRefreshMs),
    problem: relation.problem ?? null,
  }));
}

/** Our own bundle endpoint, or null if it is not served. */
export function describeEndpoint(endpoint: EndpointStatus | undefined): object | null {
  if (endpoint === undefined) return null;
  const { trustDomain, sequence, authorities } = endpoint;
  return { trust_domain: trustDomain ?? null, sequence: sequence?.toString() ?? null, authorities };
}
