import { readFile, readlink } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { isIP } from 'node:net';
import { ScuteError } from '../lib/errors.ts';
import type { Endpoint } from './connection.ts';

/** A socket that was passed to us is not the one that the configuration means. */
export class PassedSocketError extends ScuteError {
  override name = 'PassedSocketError';
  readonly code = 'ERR_PASSED_SOCKET';
}

/** Where a socket listens that somebody else bound: what Node says of it, and of a Unix socket, of which it says nothing, what the system does. */
export async function endpointOfPassed(fd: number, said: AddressInfo | string | null): Promise<Endpoint | undefined> {
  if (said !== null && typeof said === 'object') return { kind: 'tcp', host: said.address, port: said.port };
  const [, inode] = /^socket:\[(\d+)\]$/.exec(await readlink(`/proc/self/fd/${fd}`).catch(() => '')) ?? [];
  if (inode === undefined) return undefined;
  // Num RefCount Protocol Flags Type St Inode Path (proc(5)).
  for (const line of (await readFile('/proc/self/net/unix', 'utf8').catch(() => '')).split('\n')) {
    const [, found, path] = /^\S+ \S+ \S+ \S+ 0001 \S+ +(\d+) (\/.*)$/.exec(line) ?? [];
    if (found === inode && path !== undefined) return { kind: 'unix', path };
  }
  return undefined;
}

/** Whether a socket listens where the configuration says, whatever port if that is 0. */
export function isSameEndpoint(bound: Endpoint, wanted: Endpoint): boolean {
  if (bound.kind === 'unix' || wanted.kind === 'unix') return bound.kind === 'unix' && wanted.kind === 'unix' && bound.path === wanted.path;
  return hostOf(bound.host) === hostOf(wanted.host) && (wanted.port === 0 || bound.port === wanted.port);
}

/** IPv6 addresses are written in several ways. */
function hostOf(host: string): string {
  return isIP(host) === 6 ? new URL(`http://[${host}]`).hostname : host;
}
