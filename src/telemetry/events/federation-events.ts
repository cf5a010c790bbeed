/** What happens between bundle endpoints, and how it is told. */
import type { Clock } from '../../lib/clock.ts';
import type { FederationMetrics } from '../metrics/federation-metrics.ts';
import type { EndpointResult, FetchProblem, RefreshProblem, TakenBundle } from '../log/federation-records.ts';
import type { Logger } from '../log/logger.ts';

export interface FederationEvents {
  /** A relation of the configuration: its series are there from the start. */
  relation(trustDomain: string): void;
  /** A bundle came, and is another than before or the first. */
  bundleTaken(trustDomain: string, taken: TakenBundle, nextInMs: number): void;
  /** What came is what is held. */
  bundleUnchanged(trustDomain: string, nextInMs: number): void;
  /** Told once, until there is another reason or a success. */
  refreshFailed(trustDomain: string, problem: FetchProblem, nextInMs: number): void;
  /** Our own endpoint serves another document. */
  documentChanged(trustDomain: string, sequence: bigint, authorities: number): void;
  /** A connection to our own endpoint is over. */
  endpointAsked(result: EndpointResult): void;
  /** The files of our endpoint changed and are used, or cannot be: then the old ones stay. */
  endpointFiles(problem: string | undefined): void;
}

export interface FederationEventsOptions {
  readonly logger: Logger;
  readonly metrics: FederationMetrics;
  readonly clock: Clock;
}

export function createFederationEvents({ logger, metrics, clock }: FederationEventsOptions): FederationEvents {
  /** By trust domain, the reason that was told last and still holds. */
  const failing = new Map<string, RefreshProblem>();
  const planned = (trustDomain: string, nextInMs: number): void => {
    metrics.relation(trustDomain).nextRefresh = (clock.now() + nextInMs) / 1000;
  };
  const succeeded = (trustDomain: string, nextInMs: number): void => {
    metrics.relation(trustDomain).lastSuccess = clock.now() / 1000;
    planned(trustDomain, nextInMs);
    if (failing.delete(trustDomain)) logger.info({ trust_domain: trustDomain }, 'bundle endpoint answers again');
  };
  return {
    relation: (trustDomain) => void metrics.relation(trustDomain),
    bundleTaken(trustDomain, { sequence, authorities, jwtAuthorities }, nextInMs) {
      metrics.relation(trustDomain).results.updated += 1;
      succeeded(trustDomain, nextInMs);
      const fields = { trust_domain: trustDomain, sequence: sequence?.toString(), authorities, jwt_authorities: jwtAuthorities };
      logger.info({ ...fields, refresh_in_ms: Math.round(nextInMs) }, 'bundle fetched');
    },
    bundleUnchanged(trustDomain, nextInMs) {
      metrics.relation(trustDomain).results.unchanged += 1;
      succeeded(trustDomain, nextInMs);
    },
    refreshFailed(trustDomain, { reason, detail }, nextInMs) {
      metrics.relation(trustDomain).results[reason] += 1;
      planned(trustDomain, nextInMs);
      if (failing.get(trustDomain) === reason) return;
      failing.set(trustDomain, reason);
      const fields = { trust_domain: trustDomain, reason, detail, refresh_in_ms: Math.round(nextInMs) };
      logger.warn(fields, 'bundle not fetched; the last good one stays in force');
    },
    documentChanged(trustDomain, sequence, authorities) {
      metrics.endpointSequence = Number(sequence);
      logger.info({ trust_domain: trustDomain, sequence: sequence.toString(), authorities }, 'bundle endpoint serves another bundle');
    },
    endpointAsked(result) {
      metrics.endpoint[result] += 1;
    },
    endpointFiles(problem) {
      if (problem === undefined) logger.info({}, 'certificate of the bundle endpoint reloaded');
      else logger.error({ detail: problem }, 'certificate of the bundle endpoint not reloaded; the old one stays in force');
    },
  };
}
