import { ENDPOINT_RESULTS, REFRESH_RESULTS, type EndpointResult, type RefreshResult } from '../log/federation-records.ts';
import type { Define } from './text-format.ts';
import { zeroes } from './zeroes.ts';

/** Counted in plain numbers, and read when somebody scrapes. Trust domains are those of the configuration. */
export interface FederationMetrics {
  relation(trustDomain: string): RelationMetrics;
  readonly endpoint: Record<EndpointResult, number>;
  endpointSequence: number;
}

export interface RelationMetrics {
  readonly results: Record<RefreshResult, number>;
  /** Seconds since 1970; 0 before the first. */
  lastSuccess: number;
  nextRefresh: number;
}

export function registerFederationMetrics(counter: Define, gauge: Define): FederationMetrics {
  const relations = new Map<string, RelationMetrics>();
  const metrics: FederationMetrics = {
    relation(trustDomain) {
      const known = relations.get(trustDomain);
      if (known !== undefined) return known;
      const made = { results: zeroes(REFRESH_RESULTS), lastSuccess: 0, nextRefresh: 0 };
      relations.set(trustDomain, made);
      return made;
    },
    endpoint: zeroes(ENDPOINT_RESULTS),
    endpointSequence: 0,
  };
  counter(
    'federation_refreshes_total',
    'Refreshes of bundles from bundle endpoints, by how they went',
    ['trust_domain', 'result'],
    (add) => {
      for (const [trust_domain, { results }] of relations)
        for (const result of REFRESH_RESULTS) add({ trust_domain, result }, results[result]);
    },
  );
  gauge(
    'federation_last_success_timestamp_seconds',
    'When a bundle endpoint last gave a bundle that was taken or is held; 0 before the first',
    ['trust_domain'],
    (add) => {
      for (const [trust_domain, { lastSuccess }] of relations) add({ trust_domain }, lastSuccess);
    },
  );
  gauge('federation_next_refresh_timestamp_seconds', 'When a bundle endpoint is asked next', ['trust_domain'], (add) => {
    for (const [trust_domain, { nextRefresh }] of relations) add({ trust_domain }, nextRefresh);
  });
  counter('bundle_endpoint_requests_total', 'What became of connections to our bundle endpoint', ['result'], (add) => {
    for (const result of ENDPOINT_RESULTS) add({ result }, metrics.endpoint[result]);
  });
  gauge('bundle_endpoint_sequence', 'The sequence number of the bundle that we serve; 0 before the first', [], (add) =>
    add({}, metrics.endpointSequence),
  );
  return metrics;
}
