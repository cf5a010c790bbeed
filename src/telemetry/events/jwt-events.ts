import type { IdentitySnapshot } from '../../identity/snapshot.ts';
import type { JwtMetrics } from '../metrics/jwt-metrics.ts';
import type { JwtBundleProblemCode, TokenResult } from '../log/jwt-records.ts';
import type { Logger } from '../log/logger.ts';
import type { Tally } from '../metrics/tally.ts';

/** What happens with JWT bundles and tokens. */
export interface JwtEvents {
  /** Counts what became of the tokens of an inbound listener; of each, the line of its request tells more. */
  countTokens(listener: string): (result: TokenResult) => void;
  /** The same identity with other JWT bundles. */
  bundlesUpdated(snapshot: IdentitySnapshot): void;
  bundlesRejected(problem: { readonly code: JwtBundleProblemCode; readonly message: string }): void;
  /** Of their stream, which says nothing of the identity. `code` is the gRPC status name, or `TRANSPORT`. */
  streamFailed(error: { readonly code: string; readonly message: string }, retryInMs: number): void;
}

export interface JwtEventsOptions {
  readonly logger: Logger;
  readonly metrics: JwtMetrics;
  readonly streamErrors: Tally;
  /** What is measured of a snapshot, its JWT bundles among it. */
  readonly setIdentity: (snapshot: IdentitySnapshot) => void;
  /** Writes what the agent could repeat at will once in a while. */
  readonly repeated: (kind: string, log: (count: number) => void) => void;
}

/** A partner decides how many there are. */
const MAX_NOTES = 20;

export function createJwtEvents({ logger, metrics, streamErrors, setIdentity, repeated }: JwtEventsOptions): JwtEvents {
  return {
    countTokens(listener) {
      const results = metrics.tokens(listener);
      return (result) => void (results[result] += 1);
    },
    bundlesUpdated(snapshot) {
      const { generation, jwtBundles = new Map() } = snapshot;
      metrics.updates.ok += 1;
      setIdentity(snapshot);
      const notes = [...jwtBundles.values()].flatMap((bundle) => bundle.notes);
      const kids = [...jwtBundles.values()].map(({ trustDomain, authorities }) => ({
        trust_domain: trustDomain,
        keys: authorities.length,
      }));
      logger.info({ generation, jwt_bundles: kids }, 'JWT bundles updated');
      if (notes.length > 0)
        logger.warn({ notes: notes.slice(0, MAX_NOTES), count: notes.length }, 'not everything in the JWT bundles is used');
    },
    bundlesRejected({ code, message }) {
      metrics.updates[code] += 1;
      repeated(`jwt bundles ${code}`, (count) =>
        logger.warn({ code, detail: message, count }, 'JWT bundles rejected; the last good ones stay in force'),
      );
    },
    streamFailed({ code, message }, retryInMs) {
      streamErrors.add(code);
      repeated(`jwt stream ${code}`, (count) =>
        logger.warn({ code, detail: message, retry_in_ms: Math.round(retryInMs), count }, 'Workload API stream of JWT bundles failed'),
      );
    },
  };
}
