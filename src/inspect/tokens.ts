import type { Address } from '../config/units.ts';
import { createBackoff } from '../lib/backoff.ts';
import type { Clock } from '../lib/clock.ts';
import { err, ok, type Result } from '../lib/result.ts';
import type { TokenProblem } from '../jwt/token.ts';
import { verifyToken, type VerifiedToken } from '../jwt/verify.ts';
import type { JwtBundles } from '../spiffe/jwt-bundle.ts';
import { createWorkloadApiClient } from '../workload-api/client.ts';
import { JwtBundleStream } from '../workload-api/jwt-bundles.ts';
import { FirstAnswer, type Patience } from './first-answer.ts';
import { createJwtSource, type JwtRequest, type JwtSvid } from '../workload-api/jwt-source.ts';

export interface WorkloadApiPlace extends Patience {
  readonly endpoint: Address;
  readonly clock: Clock;
}

/** A JWT-SVID of whoever asks, verified. The error says in a sentence why there is none. */
export async function fetchToken(place: WorkloadApiPlace, request: JwtRequest): Promise<Result<JwtSvid, string>> {
  const bundles = await fetchJwtBundles(place);
  if (!bundles.ok) return bundles;
  const { endpoint, clock, stopped, timeoutMs } = place;
  const client = createWorkloadApiClient({ endpoint, clock });
  const source = createJwtSource({ client, clock, bundles: () => bundles.value });
  const late = new AbortController();
  const timer = clock.after(timeoutMs, () => late.abort());
  const fetched = await source.fetch(request, AbortSignal.any([late.signal, stopped]));
  timer.cancel();
  if (fetched.ok) return fetched;
  if (late.signal.aborted) return err(`the Workload API at ${client.endpoint} gave no token within ${timeoutMs} ms`);
  return err(fetched.error.message);
}

/** Whether a token is a JWT-SVID for one of `audiences`, by the JWT bundles of whoever asks. The outer error says why that cannot be told. */
export async function validateToken(
  place: WorkloadApiPlace,
  token: string,
  audiences: readonly string[],
): Promise<Result<Result<VerifiedToken, TokenProblem>, string>> {
  const bundles = await fetchJwtBundles(place);
  return bundles.ok ? ok(await verifyToken(token, { audiences, nowMs: place.clock.now() }, bundles.value)) : bundles;
}

async function fetchJwtBundles({ endpoint, clock, timeoutMs, stopped }: WorkloadApiPlace): Promise<Result<JwtBundles, string>> {
  const client = createWorkloadApiClient({ endpoint, clock });
  const first = new FirstAnswer();
  const bundles = new JwtBundleStream({
    client,
    clock,
    backoff: createBackoff({ initialMs: timeoutMs, maxMs: timeoutMs, random: () => 0 }),
    changed: () => first.came(),
    events: {
      bundlesRejected: ({ message }) => first.failed(`the Workload API gives JWT bundles that cannot be used: ${message}`),
      streamFailed: ({ message }) => first.failed(`${client.endpoint}: ${message}`),
    },
  });
  const running = bundles.run(first.over);
  const told = await first.wait({ clock, timeoutMs, stopped }, () => running);
  if (!told.ok) return told;
  return bundles.current === undefined
    ? err(`the Workload API at ${client.endpoint} gave no JWT bundles within ${timeoutMs} ms`)
    : ok(bundles.current);
}
