/** Asks Prometheus over HTTP, with bounds on everything that it decides. */
import { request as requestHttp, type ClientRequest, type IncomingMessage, type RequestOptions } from 'node:http';
import { request as requestHttps } from 'node:https';
import { readText } from '../config/whole-file.ts';
import type { Clock } from '../lib/clock.ts';
import { codeOf, messageOf } from '../lib/errors.ts';
import { err, ok, type Result } from '../lib/result.ts';
import { strangersWords } from '../telemetry/log/scrub.ts';
import { webAuthoritiesPem } from '../transport/node.ts';
import type { FleetProblem, FleetProblemReason } from './api-types.ts';
import { hostOf } from './url.ts';
import { parseVector, type Vector } from './vector.ts';

export interface PrometheusOptions {
  readonly url: URL;
  /** PEM: instead of the authorities of the public web. */
  readonly caFile: string | undefined;
  /** Sent as a bearer token. Both files are read anew for each question. */
  readonly tokenFile: string | undefined;
  readonly clock: Pick<Clock, 'after'>;
  /** Those of `LIMITS` that are left out. */
  readonly limits?: Partial<PrometheusLimits> | undefined;
}

export interface PrometheusLimits {
  /** From the first step to the last byte of one answer. */
  readonly timeoutMs: number;
  /** Of one answer. */
  readonly maxBytes: number;
  readonly maxSeries: number;
}

export interface Prometheus {
  /** What an instant query gives, at `atSeconds`, or now by the clock of Prometheus. Never rejects. */
  query(promql: string, atSeconds?: number): Promise<Result<Vector, FleetProblem>>;
  /** Breaks off what is under way, and asks no more. */
  stop(): void;
}

const LIMITS: PrometheusLimits = { timeoutMs: 10_000, maxBytes: 4 * 1024 * 1024, maxSeries: 2000 };
const MAX_HEAD_BYTES = 16_384;
const MAX_TOKEN_BYTES = 16_384;
const MAX_CA_BYTES = 1_048_576;
const MAX_DETAIL = 300;
/** Prometheus works on so many questions of ours at once, and so many wait for that. */
const AT_ONCE = 4;
const MOST_WAITING = 256;

export function createPrometheus(options: PrometheusOptions): Prometheus {
  const limits = { ...LIMITS, ...options.limits };
  const stopping = new AbortController();
  const waiting: (() => void)[] = [];
  let running = 0;
  const place = (): Promise<void> => new Promise((resolve) => waiting.push(resolve));
  return {
    async query(promql, atSeconds) {
      if (waiting.length >= MOST_WAITING) return problem('busy', `${MOST_WAITING} questions wait already`);
      if (running >= AT_ONCE) await place();
      else running += 1;
      try {
        return await ask(options, limits, bodyOf(promql, atSeconds, limits), stopping.signal);
      } finally {
        // The place goes to who has waited longest.
        const next = waiting.shift();
        if (next === undefined) running -= 1;
        else next();
      }
    },
    stop: () => stopping.abort(),
  };
}

function bodyOf(promql: string, atSeconds: number | undefined, { timeoutMs, maxSeries }: PrometheusLimits): string {
  const body = new URLSearchParams({ query: promql, timeout: `${Math.ceil(timeoutMs / 1000)}s`, limit: String(maxSeries) });
  if (atSeconds !== undefined) body.set('time', String(atSeconds));
  return body.toString();
}

async function ask(
  { url, caFile, tokenFile, clock }: PrometheusOptions,
  { timeoutMs, maxBytes, maxSeries }: PrometheusLimits,
  body: string,
  stopped: AbortSignal,
): Promise<Result<Vector, FleetProblem>> {
  const files = await readFiles(caFile, tokenFile);
  if (!files.ok) return files;
  const slow = new AbortController();
  const timer = clock.after(timeoutMs, () => slow.abort());
  try {
    const options: RequestOptions = {
      host: hostOf(url),
      port: url.port === '' ? undefined : Number(url.port),
      path: `${url.pathname.replace(/\/$/, '')}/api/v1/query`,
      method: 'POST',
      headers: {
        accept: 'application/json',
        'content-type': 'application/x-www-form-urlencoded',
        'content-length': Buffer.byteLength(body),
        ...(files.value.token === undefined ? {} : { authorization: `Bearer ${files.value.token}` }),
      },
      agent: false,
      maxHeaderSize: MAX_HEAD_BYTES,
      signal: AbortSignal.any([stopped, slow.signal]),
    };
    const sent =
      url.protocol === 'https:'
        ? // Left out, it would be whom Node trusts under its options: in the image and the executable, whom OpenSSL finds on the machine.
          requestHttps({ ...options, ca: files.value.ca ?? webAuthoritiesPem(), minVersion: 'TLSv1.2' })
        : requestHttp(options);
    const answer = await answerOf(sent, body, maxBytes);
    return answer.ok ? parseVector(answer.value, maxSeries) : answer;
  } catch (cause) {
    if (stopped.aborted) return problem('unreachable', 'this process stops');
    if (slow.signal.aborted) return problem('timeout', `no whole answer within ${timeoutMs} ms`);
    const said = strangersWords(messageOf(cause), MAX_DETAIL);
    return problem(isOfTls(codeOf(cause)) ? 'tls_failed' : 'unreachable', said === '' ? (codeOf(cause) ?? 'no connection') : said);
  } finally {
    timer.cancel();
  }
}

/** Rejects if there is no whole answer. */
function answerOf(sent: ClientRequest, body: string, maxBytes: number): Promise<Result<string, FleetProblem>> {
  return new Promise((resolve, reject) => {
    sent.on('error', reject);
    // With nobody to take it, Node would drop the connection, and tell nobody: not of the deadline either.
    sent.on('upgrade', ({ statusCode: status }, socket) => {
      resolve(problem('bad_status', `it answers ${status}`));
      socket.destroy();
    });
    sent.on('response', (response) => {
      response.on('error', reject);
      const refused = judge(response);
      if (refused !== undefined) {
        resolve(err(refused));
        response.destroy();
        return;
      }
      const chunks: Buffer[] = [];
      let length = 0;
      response.on('data', (chunk: Buffer) => {
        length += chunk.length;
        if (length > maxBytes) {
          resolve(problem('too_large', `the answer has more than ${maxBytes} bytes`));
          response.destroy();
          return;
        }
        chunks.push(chunk);
      });
      response.on('end', () => resolve(ok(Buffer.concat(chunks).toString('utf8'))));
    });
    sent.end(body);
  });
}

/** By its head alone. Prometheus tells what is wrong with a question as JSON, with a 400, 422 or 503. */
function judge({ statusCode: status = 0, headers }: IncomingMessage): FleetProblem | undefined {
  const isJson = /^application\/json\b/i.test(headers['content-type'] ?? '');
  if (status === 401 || status === 403) return { reason: 'unauthorized', detail: `it answers ${status}: it wants another token` };
  // What it leads to is not what we were told to trust, and a token is not for it.
  if (status >= 300 && status < 400)
    return { reason: 'redirected', detail: `it answers ${status} to ${quote(headers.location)}, which is not followed` };
  if (status !== 200 && !(isJson && [400, 422, 503].includes(status))) return { reason: 'bad_status', detail: `it answers ${status}` };
  if (!isJson) return { reason: 'not_json', detail: `it answers in ${quote(headers['content-type'])}` };
  return undefined;
}

async function readFiles(
  caFile: string | undefined,
  tokenFile: string | undefined,
): Promise<Result<{ readonly ca: string | undefined; readonly token: string | undefined }, FleetProblem>> {
  const ca = caFile === undefined ? ok(undefined) : await readText(caFile, MAX_CA_BYTES);
  if (!ca.ok) return problem('bad_file', `${caFile} ${ca.error.message}`);
  if (ca.value !== undefined && !ca.value.includes('-----BEGIN CERTIFICATE-----'))
    return problem('bad_file', `${caFile} has no certificate in PEM`);
  const token = tokenFile === undefined ? ok(undefined) : await readText(tokenFile, MAX_TOKEN_BYTES);
  if (!token.ok) return problem('bad_file', `${tokenFile} ${token.error.message}`);
  const word = token.value?.trim();
  // RFC 6750, section 2.1. What it is instead may be a secret, too.
  if (word !== undefined && !/^[A-Za-z0-9._~+/-]+=*$/.test(word)) return problem('bad_file', `${tokenFile} holds no bearer token`);
  return ok({ ca: ca.value, token: word });
}

function isOfTls(code: string | undefined): boolean {
  return code !== undefined && /^ERR_(?:TLS|SSL|OSSL)|CERT|SIGNATURE|^EPROTO$/.test(code);
}

function quote(text: string | undefined): string {
  return text === undefined ? 'nothing' : JSON.stringify(strangersWords(text, 100));
}

function problem(reason: FleetProblemReason, detail: string): Result<never, FleetProblem> {
  return err({ reason, detail });
}
