/** What happens with tokens that are put on requests, and how it is told. A token itself is in none of it. */
import type { Result } from '../../lib/result.ts';
import type { CredentialMetrics } from '../metrics/credential-metrics.ts';
import type { CredentialProblem, CredentialProblemCode } from '../log/credential-records.ts';
import type { Logger } from '../log/logger.ts';
import { strangersWords } from '../log/scrub.ts';

export interface CredentialEvents {
  /** A source of the configuration: its series are there from the start. */
  tokenSource(source: string): void;
  /** A fetch is over. A failure is told once, until there is another reason or a success. */
  tokenFetched(source: string, outcome: Result<{ readonly expiresAtMs: number }, CredentialProblem>, nextInMs: number): void;
}

export interface CredentialEventsOptions {
  readonly logger: Logger;
  readonly metrics: CredentialMetrics;
}

const MAX_DETAIL = 500;

export function createCredentialEvents({ logger, metrics }: CredentialEventsOptions): CredentialEvents {
  /** By source, the reason that was told last and still holds. */
  const failing = new Map<string, CredentialProblemCode>();
  /** Those of which it is worth a line that the next fetch goes well. */
  const isNews = new Set<string>();
  return {
    tokenSource(source) {
      metrics.source(source);
      isNews.add(source);
    },
    tokenFetched(source, outcome, nextInMs) {
      const numbers = metrics.source(source);
      const next_in_ms = Math.round(nextInMs);
      if (outcome.ok) {
        const { expiresAtMs } = outcome.value;
        numbers.results.ok += 1;
        numbers.expiry = expiresAtMs / 1000;
        const fields = { source, expires_at: isoTime(expiresAtMs), next_in_ms };
        if (isNews.delete(source)) logger.info(fields, 'token fetched');
        else logger.debug(fields, 'token fetched');
        failing.delete(source);
        return;
      }
      const { reason, detail } = outcome.error;
      numbers.results[reason] += 1;
      if (failing.get(source) === reason) return;
      failing.set(source, reason);
      isNews.add(source);
      const fields = { source, reason, detail: strangersWords(detail, MAX_DETAIL), next_in_ms };
      logger.warn(fields, 'token not fetched');
    },
  };
}

function isoTime(ms: number): string {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? 'unknown' : date.toISOString();
}
