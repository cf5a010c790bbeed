/** One HTTPS request to a server that was judged before a byte was sent to it, with bounds on everything that it decides. */
import { request as httpRequest, type IncomingHttpHeaders, type IncomingMessage } from 'node:http';
import { isIpAddress } from '../config/units.ts';
import type { Clock } from '../lib/clock.ts';
import { messageOf } from '../lib/errors.ts';
import { limitInterim } from '../lib/interim.ts';
import { err, ok, type Result } from '../lib/result.ts';
import type { EndpointTrust } from '../tls/endpoint-trust.ts';
import type { NativeStream, SecureConnection } from '../transport/connection.ts';
import { connect } from '../transport/node.ts';

/** Of a caller that gives no time of its own, and of connecting in any case. */
export const MAX_TIME_MS = 10_000;
const MAX_BODY_BYTES = 1_048_576;
const MAX_HEAD_BYTES = 16_384;

export type CallProblem =
  | 'unreachable' // no connection
  | 'tls_failed'
  | 'not_authenticated' // the server is not who it must be
  | 'broken' // the connection broke, or what came is not HTTP
  | 'timeout'
  | 'compressed'
  | 'too_large';

export interface CallFailure<Problem = CallProblem> {
  readonly reason: Problem;
  /** A sentence; may quote what the server said in its head. */
  readonly detail: string;
}

export interface HttpsCall {
  readonly url: URL;
  readonly method: 'GET' | 'POST';
  /** Names in lower case. `host`, `user-agent` and what is said of the connection are added. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string | undefined;
}

export interface AnswerHead {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
}

export interface HttpsAnswer extends AnswerHead {
  readonly body: Buffer;
}

export interface CallOptions<E> {
  readonly trust: EndpointTrust;
  readonly clock: Clock;
  /** Once it aborts, it took too long. */
  readonly signal: AbortSignal;
  readonly maxBodyBytes?: number;
  /** Called with the head: what it gives ends the call, and nothing of the body is read. */
  readonly look: (head: AnswerHead) => E | undefined;
}

/** Connects, judges, asks and reads the answer; the connection is over then. Redirects are answers like others. Never rejects. */
export async function callHttps<E>(call: HttpsCall, options: CallOptions<E>): Promise<Result<HttpsAnswer, CallFailure | E>> {
  const connection = await open(call.url, options.trust, options.clock, options.signal);
  return connection.ok ? ask(connection.value, call, options) : connection;
}

/** A connection whose other side was judged. */
function open(url: URL, trust: EndpointTrust, clock: Clock, signal: AbortSignal): Promise<Result<SecureConnection, CallFailure>> {
  const host = hostOf(url);
  return new Promise((resolve) => {
    let step: { abort(): void } | undefined;
    const onAbort = (): void => {
      step?.abort();
      finish(tooSlow());
    };
    const finish = (result: Result<SecureConnection, CallFailure>): void => {
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

function ask<E>(
  connection: SecureConnection,
  { url, method, headers, body }: HttpsCall,
  { signal, maxBodyBytes = MAX_BODY_BYTES, look }: CallOptions<E>,
): Promise<Result<HttpsAnswer, CallFailure | E>> {
  return new Promise((resolve) => {
    // A connection that is closed already says so before there is a stream.
    let handed: NativeStream | undefined;
    const onAbort = (): void => finish(tooSlow());
    const finish = (result: Result<HttpsAnswer, CallFailure | E>): void => {
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
      method,
      path: `${url.pathname}${url.search}`,
      setHost: false,
      headers: {
        host: url.host,
        accept: 'application/json',
        'accept-encoding': 'identity',
        'user-agent': 'scute',
        connection: 'close',
        ...headers,
        ...(body === undefined ? {} : { 'content-length': String(Buffer.byteLength(body)) }),
      },
      maxHeaderSize: MAX_HEAD_BYTES,
      insecureHTTPParser: false,
    });
    asked.on('error', broke);
    asked.on('close', () => broke());
    limitInterim(asked, broke);
    asked.on('response', (response) => readAnswer(response, maxBodyBytes, look, finish));
    asked.end(body);
  });
}

function readAnswer<E>(
  response: IncomingMessage,
  maxBodyBytes: number,
  look: CallOptions<E>['look'],
  finish: (result: Result<HttpsAnswer, CallFailure | E>) => void,
): void {
  const { statusCode: status = 0, headers } = response;
  response.on('error', () => undefined);
  const seen = look({ status, headers });
  if (seen !== undefined) return finish(err(seen));
  const encoding = headers['content-encoding'];
  // A few bytes of it could be a gigabyte of ours.
  if (encoding !== undefined && encoding.toLowerCase() !== 'identity')
    return finish(problem('compressed', `the body is ${JSON.stringify(encoding)}, which was not asked for`));
  const tooLarge = problem('too_large', `the body has more than ${maxBodyBytes} bytes`);
  if (Number(headers['content-length'] ?? 0) > maxBodyBytes) return finish(tooLarge);
  const chunks: Buffer[] = [];
  let length = 0;
  response.on('data', (chunk: Buffer) => {
    length += chunk.length;
    if (length > maxBodyBytes) {
      chunks.length = 0;
      finish(tooLarge);
    } else chunks.push(chunk);
  });
  // Only after the whole of it: a body that was cut short ends with an error.
  response.on('end', () => finish(ok({ status, headers, body: Buffer.concat(chunks) })));
}

/** `application/json`, and what is built on it, such as `application/jwk-set+json` (RFC 6839, section 3.1). */
export function isJson(contentType: string): boolean {
  return /^application\/(?:json|[\w.-]+\+json)$/i.test(contentType.split(';', 1)[0]?.trim() ?? '');
}

/** Without the brackets of an IPv6 address and the dot at the end of a name. */
function hostOf(url: URL): string {
  return url.hostname.replace(/^\[(.*)\]$/, '$1').replace(/\.$/, '');
}

function tooSlow(): Result<never, CallFailure> {
  return problem('timeout', `no whole answer within ${MAX_TIME_MS / 1000} s`);
}

function problem(reason: CallProblem, detail: string): Result<never, CallFailure> {
  return err({ reason, detail });
}
