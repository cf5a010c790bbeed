/** How commands reach the Scute that runs: its admin listener, on this machine. */
import { request } from 'node:http';
import { formatAddress, isLocal, parseListenAddress, type Address } from '../config/units.ts';
import { codeOf, messageOf } from '../lib/errors.ts';
import { err, ok, type Result } from '../lib/result.ts';

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

/** The JSON value that `GET path` answers. The error says in one line why there is none. */
export async function askAdmin(
  address: Address,
  path: string,
  stopped: AbortSignal,
  { timeoutMs, maxBytes }: AdminLimits = LIMITS,
): Promise<Result<unknown, string>> {
  const where = formatAddress(address);
  const timeout = AbortSignal.timeout(timeoutMs);
  let answer: { readonly status: number; readonly text: string } | undefined;
  try {
    answer = await get(address, path, maxBytes, AbortSignal.any([stopped, timeout]));
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
  if (answer === undefined) return err(`what listens at ${where} answers with more than ${maxBytes} bytes`);
  if (answer.status !== 200)
    return err(`what listens at ${where} answers ${answer.status}: it is no admin listener, or that of another version of Scute`);
  try {
    return ok(JSON.parse(answer.text));
  } catch {
    return err(`what listens at ${where} does not answer in JSON`);
  }
}

/** Undefined if the answer is longer than it may be. */
function get(
  address: Address,
  path: string,
  maxBytes: number,
  signal: AbortSignal,
): Promise<{ readonly status: number; readonly text: string } | undefined> {
  return new Promise((resolve, reject) => {
    const sent = request(
      {
        ...(address.kind === 'unix' ? { socketPath: address.path } : { host: address.host, port: address.port }),
        path,
        // The one name that is served whatever `allowedHosts` says.
        headers: { host: 'localhost' },
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
    sent.end();
  });
}
