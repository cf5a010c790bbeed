/** One look at a bundle endpoint: a GET over HTTPS, with bounds on everything that the other side decides. */
import { request as httpRequest, type IncomingMessage } from 'node:http';
import type { Clock } from '../lib/clock.ts';
import { messageOf } from '../lib/errors.ts';
import { err, ok, type Result } from '../lib/result.ts';
import type { FetchProblem, RefreshProblem } from '../telemetry/federation-records.ts';
import type { EndpointTrust } from '../tls/endpoint-trust.ts';
import type { NativeStream, SecureConnection } from '../transport/connection.ts';
import { connect } from '../transport/node.ts';
import { isIpAddress } from '../config/units.ts';

/** For everything, redirects included. */
const MAX_TIME_MS = 10_000;
const MAX_BODY_BYTES = 1_048_576;
const MAX_HEAD_BYTES = 16_384;
const MAX_REDIRECTS = 5;
const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

type Answer = { readonly kind: 'body'; readonly body: Uint8Array } | { readonly kind: 'redirect'; readonly to: string };

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
  const timer = clock.after(MAX_TIME_MS, () => limit.abort());
  const either = AbortSignal.any([signal, limit.signal]);
  try {
    let at = url;
    for (let redirects = 0; redirects <= MAX_REDIRECTS; redirects += 1) {
      const connection = await open(at, trust, clock, either);
      if (!connection.ok) return connection;
      const answer = await ask(connection.value, at, either);
      if (!answer.ok) return answer;
      if (answer.value.kind === 'body') return ok(answer.value.body);
      const next = redirectTarget(answer.value.to, at);
      if (!next.ok) return next;
      at = next.value;
    }
    return problem('bad_redirect', `more than ${MAX_REDIRECTS} redirects`);
  } finally {
    timer.cancel();
  }
}

/** Where a redirect leads: SPIFFE Federation, section 5.2.1.1, as for the URL itself. */
function redirectTarget(location: string, from: URL): Result<URL, FetchProblem> {
  const to = URL.parse(location, from.href);
  if (to === null) return problem('bad_redirect', `${JSON.stringify(location)} is not a URL`);
  if (to.protocol !== 'https:' || to.username !== '' || to.password !== '')
    return problem('bad_redirect', `to ${JSON.stringify(location)}, which is not https without user info`);
  return ok(to);
}

/** A connection whose other side was judged, before a byte is sent to it. */
function open(url: URL, trust: EndpointTrust, clock: Clock, signal: AbortSignal): Promise<Result<SecureConnection, FetchProblem>> {
  const host = hostOf(url);
  return new Promise((resolve) => {
    let step: { abort(): void } | undefined;
    const onAbort = (): void => {
      step?.abort();
      finish(tooSlow());
    };
    const finish = (result: Result<SecureConnection, FetchProblem>): void => {
      signal.removeEventListener('abort', onAbort);
      resolve(result);
    };
    if (signal.aborted) return resolve(tooSlow());
    signal.addEventListener('abort', onAbort, { once: true });
    const endpoint = { kind: 'tcp', host, port: url.port === '' ? 443 : Number(url.port) } as const;
    step = connect({ endpoint, timeoutMs: MAX_TIME_MS, keepAliveMs: 0, use: 'tls' }, (outcome) => {
      if (!outcome.ok) return finish(problem('unreachable', outcome.error.message));
      const options = { context: trust.context, alpn: ['http/1.1'], serverName: isIpAddress(host) ? undefined : host };
      step = outcome.opened.openTls(options, (handshake) => {
        if (!handshake.ok) return finish(problem('tls_failed', `${handshake.code}: ${handshake.message}`));
        const { connection } = handshake;
        const why = judged(() => trust.problemOf(connection, host, clock.now()));
        if (why === undefined) return finish(ok(connection));
        connection.abort();
        finish(problem('not_authenticated', why));
      });
    });
  });
}

/** What cannot be judged is refused. */
function judged(judge: () => string | undefined): string | undefined {
  try {
    return judge();
  } catch (thrown) {
    return `the endpoint could not be judged: ${messageOf(thrown)}`;
  }
}

/** Sends the request and reads the answer; the connection is over then. */
function ask(connection: SecureConnection, url: URL, signal: AbortSignal): Promise<Result<Answer, FetchProblem>> {
  return new Promise((resolve) => {
    // A connection that is closed already says so before there is a stream.
    let handed: NativeStream | undefined;
    const onAbort = (): void => finish(tooSlow());
    const finish = (result: Result<Answer, FetchProblem>): void => {
      signal.removeEventListener('abort', onAbort);
      // What comes after the first word changes nothing.
      resolve(result);
      handed?.stream.destroy();
    };
    const broke = (cause?: unknown): void =>
      finish(problem('broken', cause === undefined ? 'the connection closed before the whole answer' : messageOf(cause)));
    handed = connection.handOver({ ended: () => undefined, closed: broke });
    if (handed === undefined) return;
    if (signal.aborted) return finish(tooSlow());
    const { stream } = handed;
    signal.addEventListener('abort', onAbort, { once: true });
    const asked = httpRequest({
      createConnection: () => stream,
      method: 'GET',
      path: `${url.pathname}${url.search}`,
      setHost: false,
      headers: { host: url.host, accept: 'application/json', 'accept-encoding': 'identity', 'user-agent': 'scute', connection: 'close' },
      maxHeaderSize: MAX_HEAD_BYTES,
      insecureHTTPParser: false,
    });
    asked.on('error', broke);
    asked.on('close', () => broke());
    asked.on('response', (response) => readAnswer(response, finish));
    asked.end();
  });
}

function readAnswer(response: IncomingMessage, finish: (result: Result<Answer, FetchProblem>) => void): void {
  const { statusCode = 0, headers } = response;
  response.on('error', () => undefined);
  if (REDIRECTS.has(statusCode) && headers.location !== undefined) return finish(ok({ kind: 'redirect', to: headers.location }));
  if (statusCode !== 200) return finish(problem('bad_status', `the endpoint answered ${statusCode}`));
  const encoding = headers['content-encoding'];
  // A few bytes of it could be a gigabyte of ours.
  if (encoding !== undefined && encoding.toLowerCase() !== 'identity')
    return finish(problem('compressed', `the body is ${JSON.stringify(encoding)}, which was not asked for`));
  const type = headers['content-type'];
  if (type !== undefined && !isJson(type)) return finish(problem('bad_content_type', `the body is ${JSON.stringify(type)}, not JSON`));
  if (Number(headers['content-length'] ?? 0) > MAX_BODY_BYTES) return finish(tooLarge());
  const chunks: Buffer[] = [];
  let length = 0;
  response.on('data', (chunk: Buffer) => {
    length += chunk.length;
    if (length > MAX_BODY_BYTES) {
      chunks.length = 0;
      finish(tooLarge());
    } else chunks.push(chunk);
  });
  // Only after the whole of it: a body that was cut short ends with an error.
  response.on('end', () => finish(ok({ kind: 'body', body: Buffer.concat(chunks) })));
}

/** `application/json`, and what is built on it, such as `application/jwk-set+json` (RFC 6839, section 3.1). */
function isJson(contentType: string): boolean {
  return /^application\/(?:json|[\w.-]+\+json)$/i.test(contentType.split(';', 1)[0]?.trim() ?? '');
}

/** Without the brackets of an IPv6 address and the dot at the end of a name. */
function hostOf(url: URL): string {
  return url.hostname.replace(/^\[(.*)\]$/, '$1').replace(/\.$/, '');
}

function tooSlow(): Result<never, FetchProblem> {
  return problem('timeout', `no whole answer within ${MAX_TIME_MS / 1000} s`);
}

function tooLarge(): Result<never, FetchProblem> {
  return problem('too_large', `the body has more than ${MAX_BODY_BYTES} bytes`);
}

function problem(reason: RefreshProblem, detail: string): Result<never, FetchProblem> {
  return err({ reason, detail });
}
