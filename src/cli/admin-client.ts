/** How commands reach the Scute that runs: its admin listener, on this machine. */
import { request } from 'node:http';
import { formatAddress, isLocal, parseListenAddress, type Address } from '../config/units.ts';
import { systemClock } from '../lib/clock.ts';
import { codeOf, messageOf } from '../lib/errors.ts';
import { err, ok, type Result } from '../lib/result.ts';
import { pageSchema } from './api-answers.ts';

export interface AdminLimits {
  /** From the first step to the last byte. */
  readonly timeoutMs: number;
  /** Of the answer. */
  readonly maxBytes: number;
}

const LIMITS: AdminLimits = { timeoutMs: 15_000, maxBytes: 32 * 1024 * 1024 };

/** An address as `--admin` takes it: where an admin listener can be. The error is a sentence. */
export function parseAdminAddress(text: string): Result<Address, string> {
  const parsed = parseListenAddress(text);
  if (!parsed.ok) return parsed;
  if (!isLocal(parsed.value))
    return err(`${JSON.stringify(text)} is on another machine: the admin listener is on a Unix socket or loopback`);
  if (parsed.value.kind === 'tcp' && parsed.value.port === 0) return err(`${JSON.stringify(text)} has port 0`);
  return parsed;
}

interface Answer {
  readonly status: number;
  readonly text: string;
}

/** The JSON value that `GET path` answers. The error says in one line why there is none. */
export async function askAdmin(
  address: Address,
  path: string,
  stopped: AbortSignal,
  limits: AdminLimits = LIMITS,
): Promise<Result<unknown, string>> {
  const answer = await textOf(address, path, stopped, limits);
  return answer.ok ? parsed(address, answer.value) : answer;
}

/** Has `POST path` done, without a body. The error says in one line why it is not, such as that the answer has not that `status`. */
export async function tellAdmin(
  address: Address,
  path: string,
  status: number,
  stopped: AbortSignal,
  limits: AdminLimits = LIMITS,
): Promise<Result<void, string>> {
  const answer = await textOf(address, path, stopped, limits, { method: 'POST', status });
  return answer.ok ? ok(undefined) : answer;
}

/** Whether anybody listens there: not, once the process has ended. */
export async function isListening(address: Address, stopped: AbortSignal, { timeoutMs, maxBytes }: AdminLimits = LIMITS): Promise<boolean> {
  try {
    await send(address, 'GET', '/livez', maxBytes, AbortSignal.any([stopped, AbortSignal.timeout(timeoutMs)]));
    return true;
  } catch (cause) {
    return !NOBODY_LISTENS.has(codeOf(cause) ?? '');
  }
}

const NOBODY_LISTENS: ReadonlySet<string> = new Set(['ENOENT', 'ECONNREFUSED']);

/** What of a list is read at most. */
export interface ListLimits extends AdminLimits {
  readonly maxItems: number;
  readonly maxPages: number;
}

const LIST_LIMITS: ListLimits = { timeoutMs: 60_000, maxBytes: 128 * 1024 * 1024, maxItems: 50_000, maxPages: 20_000 };

/** A list, as far as it was read. */
export interface ReadList {
  readonly items: readonly unknown[];
  /** There is more than `maxItems`. */
  readonly isCut: boolean;
}

/** All pages of a list of the API, by their cursors; `path` has a query. The limits are for all pages together. */
export async function askList(
  address: Address,
  path: string,
  stopped: AbortSignal,
  { timeoutMs, maxBytes, maxItems, maxPages }: ListLimits = LIST_LIMITS,
): Promise<Result<ReadList, string>> {
  const items: unknown[] = [];
  const untilMs = systemClock.monotonic() + timeoutMs;
  let bytes = 0;
  let cursor = '';
  for (let pages = 0; pages < maxPages; pages += 1) {
    const leftMs = Math.ceil(untilMs - systemClock.monotonic());
    if (leftMs <= 0) return err(`the admin listener at ${formatAddress(address)} did not answer within ${timeoutMs} ms`);
    const limits = { timeoutMs: Math.min(leftMs, LIMITS.timeoutMs), maxBytes: LIMITS.maxBytes };
    const answer = await textOf(address, `${path}${cursor}`, stopped, limits);
    if (!answer.ok) return answer;
    bytes += Buffer.byteLength(answer.value);
    if (bytes > maxBytes) return tooLong(formatAddress(address), maxBytes);
    const page = parsed(address, answer.value);
    if (!page.ok) return page;
    const list = pageSchema.safeParse(page.value);
    if (!list.success) return err(UNKNOWN_FORM);
    items.push(...list.data.items.slice(0, maxItems - items.length));
    if (list.data.nextCursor === null) return ok({ items, isCut: false });
    if (items.length === maxItems) return ok({ items, isCut: true });
    cursor = `&cursor=${encodeURIComponent(list.data.nextCursor)}`;
  }
  return err(`what listens at ${formatAddress(address)} answers with more than ${maxPages} pages`);
}

/** What answers may be a newer version of Scute, or something else. */
export const UNKNOWN_FORM = 'the answer has a form that this version of Scute does not know';

function parsed(address: Address, text: string): Result<unknown, string> {
  try {
    return ok(JSON.parse(text));
  } catch {
    return err(`what listens at ${formatAddress(address)} does not answer in JSON`);
  }
}

function tooLong(where: string, maxBytes: number): Result<never, string> {
  return err(`what listens at ${where} answers with more than ${maxBytes} bytes`);
}

/** The body of an answer with that status. */
async function textOf(
  address: Address,
  path: string,
  stopped: AbortSignal,
  { timeoutMs, maxBytes }: AdminLimits,
  { method, status }: { readonly method: 'GET' | 'POST'; readonly status: number } = { method: 'GET', status: 200 },
): Promise<Result<string, string>> {
  const where = formatAddress(address);
  const timeout = AbortSignal.timeout(timeoutMs);
  let answer: Answer | undefined;
  try {
    answer = await send(address, method, path, maxBytes, AbortSignal.any([stopped, timeout]));
  } catch (cause) {
    if (stopped.aborted) return err('stopped');
    if (timeout.aborted) return err(`the admin listener at ${where} did not answer within ${timeoutMs} ms`);
    switch (codeOf(cause)) {
      case 'ENOENT':
      case 'ECONNREFUSED':
        return err(`Scute does not run, or its admin listener is elsewhere: ${where}: ${messageOf(cause)}`);
      case 'EACCES':
      case 'EPERM':
        return err(`the admin listener at ${where} is for other users: ${messageOf(cause)}`);
      default:
        return err(`there is no answer of an admin listener at ${where}: ${messageOf(cause)}`);
    }
  }
  if (answer === undefined) return tooLong(where, maxBytes);
  if (answer.status !== status)
    return err(`what listens at ${where} answers ${answer.status}: it is no admin listener, or that of another version of Scute`);
  return ok(answer.text);
}

/** Undefined if the answer is longer than it may be. */
function send(address: Address, method: 'GET' | 'POST', path: string, maxBytes: number, signal: AbortSignal): Promise<Answer | undefined> {
  return new Promise((resolve, reject) => {
    const sent = request(
      {
        ...(address.kind === 'unix' ? { socketPath: address.path } : { host: address.host, port: address.port }),
        method,
        path,
        // The one name that is served whatever `allowedHosts` says. What changes something must say that it has JSON.
        headers: { host: 'localhost', ...(method === 'POST' && { 'content-type': 'application/json' }) },
        agent: false,
        signal,
      },
      (response) => {
        const chunks: Buffer[] = [];
        let length = 0;
        response.on('data', (chunk: Buffer) => {
          length += chunk.length;
          chunks.push(chunk);
          if (length <= maxBytes) return;
          resolve(undefined);
          response.destroy();
        });
        response.on('error', reject);
        response.on('end', () => resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString('utf8') }));
      },
    );
    sent.on('error', reject);
    // With nobody to take it, Node would drop the connection, and tell nobody: not of the deadline either.
    sent.on('upgrade', (response, socket) => {
      resolve({ status: response.statusCode ?? 0, text: '' });
      socket.destroy();
    });
    sent.end();
  });
}
