import { CREDENTIAL_RESULTS, type CredentialResult } from '../log/credential-records.ts';
import type { Define } from './text-format.ts';

/** Counted in plain numbers, and read when somebody scrapes. Sources are those of the configuration. */
export interface CredentialMetrics {
  source(name: string): TokenMetrics;
}

export interface TokenMetrics {
  readonly results: Record<CredentialResult, number>;
  /** Of the newest; seconds since 1970, 0 before the first. */
  expiry: number;
}

export function registerCredentialMetrics(counter: Define, gauge: Define): CredentialMetrics {
  const sources = new Map<string, TokenMetrics>();
  counter(
    'token_fetches_total',
    'Fetches of tokens that are put on requests or written to files, by how they went',
    ['source', 'result'],
    (add) => {
      for (const [source, { results }] of sources) for (const result of CREDENTIAL_RESULTS) add({ source, result }, results[result]);
    },
  );
  gauge(
    'token_expiration_timestamp_seconds',
    'When the newest token of each source expires, valid or not; 0 before the first',
    ['source'],
    (add) => {
      for (const [source, { expiry }] of sources) add({ source }, expiry);
    },
  );
  return {
    source(name) {
      const known = sources.get(name);
      if (known !== undefined) return known;
      const results = Object.fromEntries(CREDENTIAL_RESULTS.map((result) => [result, 0])) as TokenMetrics['results'];
      const made = { results, expiry: 0 };
      sources.set(name, made);
      return made;
    },
  };
}
