/** One look at a bundle endpoint: a GET over HTTPS, with bounds on everything that the other side decides. */
import type { Clock } from '../lib/clock.ts';
import { callHttps, isJson, MAX_TIME_MS, type AnswerHead } from '../https/call.ts';
import { err, ok, type Result } from '../lib/result.ts';
import type { FetchProblem, RefreshProblem } from '../telemetry/log/federation-records.ts';
import type { EndpointTrust } from '../tls/endpoint-trust.ts';

const MAX_REDIRECTS = 5;
const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

/**
 * The body that the endpoint answers with. Each redirect is followed under the same trust, to https alone, and not remembered (SPIFFE
 * Federation, section 5.2). Never rejects.
 */
export async function fetchDocument(
  url: URL,
  trust: EndpointTrust,
  clock: Clock,
  signal: AbortSignal,
): Promise<Result<Uint8Array, FetchProblem>> {
  const limit = new AbortController();
  // For everything, redirects included.
  const timer = clock.after(MAX_TIME_MS, () => limit.abort());
  const options = { trust, clock, signal: AbortSignal.any([signal, limit.signal]), look };
  try {
    let at = url;
    for (let redirects = 0; redirects <= MAX_REDIRECTS; redirects += 1) {
      const answer = await callHttps({ url: at, method: 'GET', headers: {} }, options);
      if (answer.ok) return ok(answer.value.body);
      const failure = answer.error;
      if ('reason' in failure) return err(failure);
      const next = redirectTarget(failure.redirectsTo, at);
      if (!next.ok) return next;
      at = next.value;
    }
    return problem('bad_redirect', `more than ${MAX_REDIRECTS} redirects`);
  } finally {
    timer.cancel();
  }
}

function look({ status, headers }: AnswerHead): FetchProblem | { readonly redirectsTo: string } | undefined {
  if (REDIRECTS.has(status) && headers.location !== undefined) return { redirectsTo: headers.location };
  if (status !== 200) return { reason: 'bad_status', detail: `the endpoint answered ${status}` };
  const type = headers['content-type'];
  if (type !== undefined && !isJson(type)) return { reason: 'bad_content_type', detail: `the body is ${JSON.stringify(type)}, not JSON` };
  return undefined;
}

/** Where a redirect leads: SPIFFE Federation, section 5.2.1.1, as for the URL itself. */
function redirectTarget(location: string, from: URL): Result<URL, FetchProblem> {
  const to = URL.parse(location, from.href);
  if (to === null) return problem('bad_redirect', `${JSON.stringify(location)} is not a URL`);
  if (to.protocol !== 'https:' || to.username !== '' || to.password !== '')
    return problem('bad_redirect', `to ${JSON.stringify(location)}, which is not https without user info`);
  return ok(to);
}

function problem(reason: RefreshProblem, detail: string): Result<never, FetchProblem> {
  return err({ reason, detail });
}
