import { BlockList, isIPv4, isIPv6, SocketAddress } from 'node:net';
import { err, ok, type Result } from '../lib/result.ts';

/** Where to listen or what to dial. `host` is an IP address in its shortest form, without brackets, or a DNS name in lower case. */
export type Address = TcpAddress | UnixAddress;

export interface TcpAddress {
  readonly kind: 'tcp';
  readonly host: string;
  readonly port: number;
}

/** A server of the public web: it has to prove that it is `host`. */
export interface WebAddress extends TcpAddress {
  readonly scheme: 'https';
}

export interface UnixAddress {
  readonly kind: 'unix';
  /** Absolute. */
  readonly path: string;
}

/** What a parser of this file has against a text: a sentence that names it. */
export type UnitProblem = string;

/** `sun_path` holds 108 bytes with its terminating zero. */
const MAX_UNIX_PATH_BYTES = 107;
/** A timer beyond 24.8 days fires at once, so nothing may be asked to last longer. */
export const LONGEST_DURATION_MS = 24 * 86_400_000;

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
export const DURATION_PATTERN = /^(?:\d+(?:ms|s|m|h|d))+$/;

/**
 * Parses `5s`, `100ms`, `1h30m` to milliseconds. A bare number is not a duration: whoever wrote it had some unit in mind. `longestMs` is what
 * a timer can be set to, unless no timer is.
 */
export function parseDuration(text: string, longestMs = LONGEST_DURATION_MS): Result<number, UnitProblem> {
  if (!DURATION_PATTERN.test(text)) return err(`${quote(text)} is not a duration: write a number with a unit, such as 5s, 100ms or 1h30m`);
  let totalMs = 0;
  for (const [, digits, unit] of text.matchAll(/(\d+)(ms|s|m|h|d)/g)) totalMs += Number(digits) * (UNIT_MS[unit ?? ''] ?? Number.NaN);
  if (!(totalMs <= longestMs)) return err(`${quote(text)} is too long: the longest duration is ${longestMs / 86_400_000}d`);
  return ok(totalMs);
}

/** The shortest text that `parseDuration` reads back to `ms`. */
export function formatDuration(ms: number): string {
  if (ms === 0) return '0s';
  const parts: string[] = [];
  let rest = ms;
  for (const unit of ['d', 'h', 'm', 's', 'ms']) {
    const size = UNIT_MS[unit] ?? 1;
    const count = Math.floor(rest / size);
    if (count > 0) parts.push(`${count}${unit}`);
    rest -= count * size;
  }
  return parts.join('');
}

/** Parses `HOST:PORT`, `[IPV6]:PORT` or `unix:///absolute/path`, where HOST is an IP address or a DNS name. Port 0 is left to the caller to judge. */
export function parseAddress(text: string): Result<Address, UnitProblem> {
  if (text.startsWith('unix:')) return parseUnix(text);
  if (text.includes('://')) return err(`${quote(text)} has a scheme: write HOST:PORT or unix:///absolute/path`);
  const parts = /^(?:\[([^\]]*)\]|([^:[\]]*)):(\d{1,5})$/.exec(text);
  if (parts === null) {
    if (isIPv6(text) || /^[0-9a-f]*:[0-9a-f:.]*:\d+$/i.test(text))
      return err(`${quote(text)} is ambiguous: write an IPv6 address as [ADDRESS]:PORT`);
    return err(`${quote(text)} is not an address: write HOST:PORT, [IPV6]:PORT or unix:///absolute/path`);
  }
  const [, bracketed, plain, digits] = parts;
  const port = Number(digits);
  if (port > 65_535) return err(`${quote(text)} has a port above 65535`);
  const host = bracketed === undefined ? parseHost(plain ?? '') : parseBracketed(bracketed);
  if (!host.ok) return err(`${quote(text)} ${host.error}`);
  return ok({ kind: 'tcp', host: host.value, port });
}

/** As `parseAddress`, but TCP hosts must be IP addresses, or `localhost`, which is 127.0.0.1: a listener is bound to an interface, not to a name. */
export function parseListenAddress(text: string): Result<Address, UnitProblem> {
  const parsed = parseAddress(text);
  if (!parsed.ok || parsed.value.kind === 'unix' || isIpAddress(parsed.value.host)) return parsed;
  if (parsed.value.host === 'localhost') return ok({ ...parsed.value, host: '127.0.0.1' });
  return err(`${quote(text)} names a host: a listener needs an IP address, such as 127.0.0.1:8443, or a Unix socket`);
}

/**
 * Checks a Workload API address (SPIFFE Workload Endpoint, section 4): `unix:///absolute/path` or `unix:/absolute/path`,
 * or `tcp://IP:PORT`. Returns it as an address; no host names, user info, query or fragment.
 */
export function parseEndpoint(text: string): Result<Address, UnitProblem> {
  if (text.startsWith('unix:')) {
    if (/[?#]/.test(text)) return err(`${quote(text)} has a query or a fragment`);
    return parseUnix(text);
  }
  if (!text.startsWith('tcp://')) return err(`${quote(text)} is not a Workload API address: write unix:///absolute/path or tcp://IP:PORT`);
  const parsed = parseAddress(text.slice('tcp://'.length));
  if (!parsed.ok || parsed.value.kind === 'unix') return err(`${quote(text)} is not of the form tcp://IP:PORT`);
  if (!isIpAddress(parsed.value.host)) return err(`${quote(text)} names a host: a Workload API address over TCP needs an IP address`);
  if (parsed.value.port === 0) return err(`${quote(text)} has port 0`);
  return parsed;
}

/** The text that `parseAddress` reads back to `address`. */
export function formatAddress(address: Address): string {
  if (address.kind === 'unix') return `unix://${address.path}`;
  return address.host.includes(':') ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`;
}

const loopback = new BlockList();
loopback.addSubnet('127.0.0.0', 8);
loopback.addAddress('::1', 'ipv6');

/**
 * Parses `https://HOST[:PORT]`, where HOST is an IP address or a DNS name (RFC 9110, section 4.2.2). Nothing may follow but one slash: what is
 * asked there, the requests say.
 */
export function parseWebAddress(text: string): Result<WebAddress, UnitProblem> {
  const [, authority] = /^https:\/\/([^/?#@\s]+)\/?$/.exec(text) ?? [];
  if (authority === undefined) return err(`${quote(text)} is not of the form https://HOST or https://HOST:PORT`);
  const parsed = parseAddress(/:\d*$/.test(authority.replace(/^\[[^\]]*\]/, '')) ? authority : `${authority}:${HTTPS_PORT}`);
  if (!parsed.ok || parsed.value.kind === 'unix') return parsed.ok ? err(`${quote(text)} has no host`) : parsed;
  return ok({ ...parsed.value, scheme: 'https' });
}

const HTTPS_PORT = 443;

export function isWebAddress(address: Address): address is WebAddress {
  return 'scheme' in address;
}

/** As `formatAddress`, with the scheme where there is one. */
export function formatTarget(address: Address): string {
  return isWebAddress(address) ? `https://${authorityOf(address)}` : formatAddress(address);
}

/** What a request to the server has in `Host` (RFC 9110, section 7.2). */
export function authorityOf({ host, port }: WebAddress): string {
  const text = formatAddress({ kind: 'tcp', host, port });
  return port === HTTPS_PORT ? text.slice(0, -`:${HTTPS_PORT}`.length) : text;
}

/** True for Unix sockets, 127.0.0.0/8, ::1 and the name `localhost`: what cannot leave this machine. */
export function isLocal(address: Address): boolean {
  if (address.kind === 'unix' || address.host === 'localhost') return true;
  if (!isIpAddress(address.host)) return false;
  return loopback.check(address.host, isIPv4(address.host) ? 'ipv4' : 'ipv6');
}

/** True if one bind would take the other's place, or a connection to one may arrive at the other. Port 0 meets nothing: the system picks a free one. */
export function addressesOverlap(a: Address, b: Address): boolean {
  if (a.kind === 'unix' || b.kind === 'unix') return a.kind === 'unix' && b.kind === 'unix' && a.path === b.path;
  if (a.port !== b.port || a.port === 0) return false;
  const [one, other] = [unmapped(a.host), unmapped(b.host)];
  if (one === other) return true;
  // `localhost` is 127.0.0.1 or ::1; the wildcard of IPv6 takes IPv4 as well.
  return isWildcardFor(one, other) || isWildcardFor(other, one) || (isLocalhost(one) && isLocalhost(other));
}

/** IPv4 where it is written as IPv6 (RFC 4291, section 2.5.5.2), which the system takes for the same. */
function unmapped(host: string): string {
  const [, ipv4] = /^::ffff:([\d.]+)$/.exec(host) ?? [];
  return ipv4 ?? host;
}

export function isIpAddress(host: string): boolean {
  return isIPv4(host) || isIPv6(host);
}

function isWildcardFor(wildcard: string, host: string): boolean {
  if (wildcard === '::') return isIpAddress(host) || host === 'localhost';
  return wildcard === '0.0.0.0' && (isIPv4(host) || host === 'localhost');
}

function isLocalhost(host: string): boolean {
  return host === 'localhost' || host === '127.0.0.1' || host === '::1';
}

/** A DNS name in lower case (letters, digits, hyphen, underscore), without the last dot. */
export function parseDnsName(text: string): Result<string, UnitProblem> {
  const name = text.toLowerCase().replace(/\.$/, '');
  const labels = name.split('.');
  const wellFormed = name.length <= 253 && labels.every((label) => /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/.test(label));
  if (!wellFormed) return err('is not a DNS name');
  // The system's resolver reads 0177.0.0.1, 2130706433 and 0x7f.1 as IPv4 addresses, past every check made on the text.
  if (/^(?:\d+|0x[0-9a-f]*)$/.test(labels.at(-1) ?? '')) return err('is neither an IP address nor a DNS name');
  return ok(name);
}

function parseHost(host: string): Result<string, UnitProblem> {
  if (host === '') return err('has no host: write 0.0.0.0 or [::] for every interface');
  return isIPv4(host) ? ok(host) : parseDnsName(host);
}

function parseBracketed(host: string): Result<string, UnitProblem> {
  if (host.includes('%')) return err('has an IPv6 zone, which is not supported');
  if (!isIPv6(host)) return err('has no IPv6 address between the brackets');
  return ok(new SocketAddress({ address: host, family: 'ipv6' }).address);
}

function parseUnix(text: string): Result<UnixAddress, UnitProblem> {
  const path = text.startsWith('unix://') ? text.slice('unix://'.length) : text.slice('unix:'.length);
  if (!path.startsWith('/')) return err(`${quote(text)} has no absolute path: write unix:///absolute/path`);
  // oxlint-disable-next-line no-control-regex -- a zero byte would end the path early in the kernel
  if (/[\u0000-\u001f\u007f]/.test(path)) return err(`${quote(text)} has a control character in its path`);
  if (/\/\/|\/\.{1,2}(?:\/|$)|\/$/.test(path))
    return err(`${quote(text)} is not a plain path: no "//", "." or ".." and no slash at the end`);
  const bytes = Buffer.byteLength(path);
  if (bytes > MAX_UNIX_PATH_BYTES)
    return err(`${quote(text)} has a path of ${bytes} bytes: a socket path has at most ${MAX_UNIX_PATH_BYTES}`);
  return ok({ kind: 'unix', path });
}

function quote(text: string): string {
  return JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}…` : text);
}
