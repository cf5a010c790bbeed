import type { TokenStatus } from '../../telemetry/log/credential-records.ts';
import { strangersWords } from '../../telemetry/log/scrub.ts';
import type * as api from '../api-types.ts';
import { isoTime } from '../iso-time.ts';
import type { CheckResult } from './readiness.ts';

/** A warning while there is no valid token: requests of its listeners are a 503, sets of files stay as they are, and everything else goes on. */
export function tokensCheck(tokens: readonly TokenStatus[]): CheckResult {
  const lines = tokens.flatMap(({ source, expiresAtMs, problem }) => {
    if (expiresAtMs !== undefined) return [];
    return [`${source}: ${problem === undefined ? 'none has come yet' : `${problem.reason}: ${problem.detail}`}`];
  });
  return lines.length === 0 ? { ok: true } : { ok: false, detail: lines.join('; ') };
}

/** The tokens that are put on requests or written to files as plain JSON values: what is known of each, and nothing of its text. */
export function describeTokens(tokens: readonly TokenStatus[]): object[] {
  return tokens.map(({ source, kind, audience, spiffeId, sets, expiresAtMs, nextFetchAtMs, problem }) => ({
    source,
    kind,
    audience: audience ?? null,
    spiffe_id: spiffeId ?? null,
    files: sets,
    expires_at: expiresAtMs === undefined ? null : isoTime(expiresAtMs),
    next_fetch_at: nextFetchAtMs === undefined ? null : isoTime(nextFetchAtMs),
    problem: problem ?? null,
  }));
}

const MAX_DETAIL = 500;

/** As `describeTokens`, for the API. */
export function tokenList(tokens: readonly TokenStatus[]): api.TokenList {
  return {
    items: tokens.map(({ source, kind, audience, spiffeId, listeners, sets, expiresAtMs, nextFetchAtMs, problem }) => ({
      source,
      kind,
      audience: audience ?? null,
      spiffeId: spiffeId ?? null,
      listeners: listeners.map((name) => ({ name, direction: 'outbound' })),
      files: sets,
      expiresAt: expiresAtMs === undefined ? null : isoTime(expiresAtMs),
      nextFetchAt: nextFetchAtMs === undefined ? null : isoTime(nextFetchAtMs),
      problem: problem === undefined ? null : { reason: problem.reason, detail: strangersWords(problem.detail, MAX_DETAIL) },
    })),
  };
}
