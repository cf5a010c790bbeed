/**
 * The PROXY protocol (HAProxy's proxy-protocol.txt, sections 2.1 and 2.2): what a proxy says about a connection, ahead of
 * its bytes. Written in version 2, read in 1 and 2. Pure.
 */
import { asIpv6, formatIp, ipOf, parseIp, type IpBytes } from '../lib/ip.ts';

export interface IpEndpoint {
  readonly kind: 'ip';
  readonly address: IpBytes;
  readonly port: number;
}

/** A Unix socket; the path is empty where there is none, as on a connecting side. */
export interface UnixEndpoint {
  readonly kind: 'unix';
  readonly path: string;
}

export type ProxyEndpoint = IpEndpoint | UnixEndpoint;

/** What is told of a TLS connection that ends here. */
export interface TlsFacts {
  /** As OpenSSL writes it, such as `TLSv1.3`. */
  readonly version: string;
  readonly alpn: string | undefined;
  /** As the client indicated it. */
  readonly serverName: string | undefined;
  /** Of the client, verified. */
  readonly spiffeId: string;
  /** The TLV for it. */
  readonly spiffeIdType: number;
  /** Undefined: nothing is told of the client's certificate but the SPIFFE ID. */
  readonly certificate: { readonly der: Uint8Array; readonly commonName: string | undefined } | undefined;
}

export interface ProxyConnection {
  readonly source: ProxyEndpoint;
  readonly destination: ProxyEndpoint;
}

/** Longest header of version 2 that is taken: what fits the first segment on any path (section 2.2). */
export const MAX_V2_BYTES = 536;
/** Longest line of version 1, with its end (section 2.1). */
export const MAX_V1_BYTES = 107;

const SIGNATURE = Uint8Array.of(0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a);
const FIXED_BYTES = 16;
const VERSION_2_LOCAL = 0x20;
const VERSION_2_PROXY = 0x21;
const UNSPECIFIED = 0x00;
const TCP_IPV4 = 0x11;
const TCP_IPV6 = 0x21;
const UNIX_STREAM = 0x31;
const ADDRESS_BYTES: ReadonlyMap<number, number> = new Map([
  [UNSPECIFIED, 0],
  [TCP_IPV4, 12],
  [TCP_IPV6, 36],
  [UNIX_STREAM, 216],
]);
const UNIX_PATH_BYTES = 108;

const Tlv = { alpn: 0x01, authority: 0x02, crc32c: 0x03, ssl: 0x20, sslVersion: 0x21, sslCommonName: 0x22, sslCertificate: 0x28 } as const;
const SslFlag = { tls: 0x01, certificateOnConnection: 0x02, certificateOnSession: 0x04 } as const;
/** ub-common-name (RFC 5280, appendix A.1). Longer ones name nobody, and could outgrow the header. */
const MAX_COMMON_NAME = 64;

/** The header, version 2, command PROXY. Throws a RangeError if it would be longer than its length field can say. */
export function encodeProxyHeader({ source, destination }: ProxyConnection, tls: TlsFacts | undefined): Uint8Array {
  const { family, block } = encodeAddresses(source, destination);
  const rest = Buffer.concat([block, ...(tls === undefined ? [] : encodeTlvs(tls))]);
  if (rest.length > 0xffff) throw new RangeError(`a PROXY header of ${rest.length} bytes`);
  const fixed = Buffer.alloc(FIXED_BYTES);
  fixed.set(SIGNATURE);
  fixed[12] = VERSION_2_PROXY;
  fixed[13] = family;
  fixed.writeUInt16BE(rest.length, 14);
  return Buffer.concat([fixed, rest]);
}

function encodeAddresses(source: ProxyEndpoint, destination: ProxyEndpoint): { readonly family: number; readonly block: Buffer } {
  if (source.kind === 'unix' || destination.kind === 'unix') {
    const block = Buffer.alloc(2 * UNIX_PATH_BYTES);
    // A side that is no Unix socket has no name in this family.
    if (source.kind === 'unix') block.write(source.path, 0, UNIX_PATH_BYTES);
    if (destination.kind === 'unix') block.write(destination.path, UNIX_PATH_BYTES, UNIX_PATH_BYTES);
    return { family: UNIX_STREAM, block };
  }
  const isIpv4 = source.address.length === 4 && destination.address.length === 4;
  const [from, to] = isIpv4 ? [source.address, destination.address] : [asIpv6(source.address), asIpv6(destination.address)];
  const ports = [source.port >> 8, source.port, destination.port >> 8, destination.port];
  return { family: isIpv4 ? TCP_IPV4 : TCP_IPV6, block: Buffer.from([...from, ...to, ...ports]) };
}

function encodeTlvs({ version, alpn, serverName, spiffeId, spiffeIdType, certificate }: TlsFacts): Buffer[] {
  // `verify` is 0: whoever is not verified has no connection to the application.
  const ssl = [Buffer.from([SslFlag.tls, 0, 0, 0, 0]), encodeTlv(Tlv.sslVersion, version)];
  if (certificate !== undefined) {
    const { der, commonName } = certificate;
    ssl[0]?.writeUInt8(SslFlag.tls | SslFlag.certificateOnConnection | SslFlag.certificateOnSession);
    if (commonName !== undefined && commonName.length <= MAX_COMMON_NAME) ssl.push(encodeTlv(Tlv.sslCommonName, commonName));
    ssl.push(encodeTlv(Tlv.sslCertificate, der));
  }
  return [
    ...(alpn === undefined ? [] : [encodeTlv(Tlv.alpn, alpn)]),
    ...(serverName === undefined ? [] : [encodeTlv(Tlv.authority, serverName)]),
    encodeTlv(Tlv.ssl, Buffer.concat(ssl)),
    encodeTlv(spiffeIdType, spiffeId),
  ];
}

function encodeTlv(type: number, value: string | Uint8Array): Buffer {
  const bytes = typeof value === 'string' ? Buffer.from(value) : value;
  if (bytes.length > 0xffff) throw new RangeError(`a TLV of ${bytes.length} bytes`);
  return Buffer.concat([Buffer.from([type, bytes.length >> 8, bytes.length & 0xff]), bytes]);
}

/** What the front of a connection says. */
export type ParsedProxyHeader =
  /** A header so far: say more. */
  | { readonly kind: 'more' }
  /** `length` bytes are the header. Without `connection` the real addresses hold: a health check (LOCAL), or nothing known. */
  | { readonly kind: 'header'; readonly length: number; readonly isLocal: boolean; readonly connection: ProxyConnection | undefined }
  | { readonly kind: 'bad'; readonly detail: string };

/** Reads the header at the front of `bytes`, which are all that has come so far. TLVs are checked for shape and checksum, and dropped. */
export function parseProxyHeader(bytes: Uint8Array): ParsedProxyHeader {
  const first = bytes[0];
  if (first === undefined) return { kind: 'more' };
  if (first === SIGNATURE[0]) return parseV2(bytes);
  return parseV1(bytes);
}

function parseV2(bytes: Uint8Array): ParsedProxyHeader {
  const compared = Math.min(bytes.length, SIGNATURE.length);
  for (let index = 0; index < compared; index += 1) {
    if (bytes[index] !== SIGNATURE[index]) return bad('what was sent does not begin with a PROXY header');
  }
  const [versionAndCommand, familyAndProtocol] = [bytes[12], bytes[13]];
  if (versionAndCommand === undefined) return { kind: 'more' };
  const isLocal = versionAndCommand === VERSION_2_LOCAL;
  if (!isLocal && versionAndCommand !== VERSION_2_PROXY) return bad(`PROXY header of version and command ${hex(versionAndCommand)}`);
  if (familyAndProtocol === undefined) return { kind: 'more' };
  // Whatever family a health check names, its block is skipped.
  const addressBytes = isLocal ? 0 : ADDRESS_BYTES.get(familyAndProtocol);
  if (addressBytes === undefined) return bad(`PROXY header of family and protocol ${hex(familyAndProtocol)}`);
  if (bytes.length < FIXED_BYTES) return { kind: 'more' };
  const length = FIXED_BYTES + (((bytes[14] ?? 0) << 8) | (bytes[15] ?? 0));
  if (length > MAX_V2_BYTES) return bad(`PROXY header of ${length} bytes, more than ${MAX_V2_BYTES}`);
  if (length < FIXED_BYTES + addressBytes) return bad(`PROXY header of ${length} bytes, too short for its addresses`);
  if (bytes.length < length) return { kind: 'more' };
  if (isLocal) return { kind: 'header', length, isLocal, connection: undefined };
  const header = bytes.subarray(0, length);
  const problem = problemOfTlvs(header, FIXED_BYTES + addressBytes);
  if (problem !== undefined) return bad(problem);
  return { kind: 'header', length, isLocal, connection: decodeAddresses(familyAndProtocol, header.subarray(FIXED_BYTES)) };
}

function decodeAddresses(family: number, block: Uint8Array): ProxyConnection | undefined {
  const ip = (width: number): ProxyConnection => {
    const port = (at: number): number => ((block[at] ?? 0) << 8) | (block[at + 1] ?? 0);
    return {
      source: { kind: 'ip', address: ipOf(block.subarray(0, width)), port: port(2 * width) },
      destination: { kind: 'ip', address: ipOf(block.subarray(width, 2 * width)), port: port(2 * width + 2) },
    };
  };
  switch (family) {
    case TCP_IPV4:
      return ip(4);
    case TCP_IPV6:
      return ip(16);
    case UNIX_STREAM:
      // The paths are names on another machine, of bytes that need not be text.
      return { source: { kind: 'unix', path: '' }, destination: { kind: 'unix', path: '' } };
    default:
      return undefined;
  }
}

function problemOfTlvs(header: Uint8Array, start: number): string | undefined {
  let checksumAt: number | undefined;
  for (let at = start; at < header.length;) {
    const length = ((header[at + 1] ?? 0) << 8) | (header[at + 2] ?? 0);
    const end = at + 3 + length;
    if (end > header.length) return 'PROXY header with a TLV that goes beyond its end';
    if (header[at] === Tlv.crc32c) {
      if (length !== 4 || checksumAt !== undefined) return 'PROXY header with a malformed checksum';
      checksumAt = at + 3;
    }
    at = end;
  }
  if (checksumAt === undefined) return undefined;
  const zeroed = Uint8Array.from(header).fill(0, checksumAt, checksumAt + 4);
  const sent = header.subarray(checksumAt, checksumAt + 4).reduce((value, byte) => ((value << 8) | byte) >>> 0, 0);
  return crc32c(zeroed) === sent ? undefined : 'PROXY header with a wrong checksum';
}

/** RFC 4960, appendix B. Headers are short: a table would take longer to build. */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return (crc ^ 0xffffffff) >>> 0;
}

const V1_START = 'PROXY ';

function parseV1(bytes: Uint8Array): ParsedProxyHeader {
  const compared = Math.min(bytes.length, V1_START.length);
  for (let index = 0; index < compared; index += 1) {
    if (bytes[index] !== V1_START.charCodeAt(index)) return bad('what was sent does not begin with a PROXY header');
  }
  const window = Buffer.from(bytes.subarray(0, MAX_V1_BYTES)).toString('latin1');
  const end = window.indexOf('\r');
  if (end === -1 || end + 1 === window.length) {
    return window.length < MAX_V1_BYTES ? { kind: 'more' } : bad(`PROXY line without an end in ${MAX_V1_BYTES} bytes`);
  }
  if (window[end + 1] !== '\n') return bad('PROXY line with a carriage return in it');
  const line = window.slice(V1_START.length, end);
  const length = end + 2;
  // What follows UNKNOWN is to be ignored.
  if (line === 'UNKNOWN' || line.startsWith('UNKNOWN ')) return { kind: 'header', length, isLocal: false, connection: undefined };
  const connection = parseV1Addresses(line);
  return connection === undefined ? bad('malformed PROXY line') : { kind: 'header', length, isLocal: false, connection };
}

function parseV1Addresses(line: string): ProxyConnection | undefined {
  const [family, ...fields] = line.split(' ');
  const [sourceText = '', destinationText = '', sourcePort = '', destinationPort = ''] = fields;
  if (fields.length !== 4 || (family !== 'TCP4' && family !== 'TCP6')) return undefined;
  if ([sourceText, destinationText].some((text) => text.includes('%') || text.includes(':') !== (family === 'TCP6'))) return undefined;
  const source = v1Endpoint(sourceText, sourcePort);
  const destination = v1Endpoint(destinationText, destinationPort);
  return source === undefined || destination === undefined ? undefined : { source, destination };
}

function v1Endpoint(text: string, portText: string): ProxyEndpoint | undefined {
  const address = parseIp(text);
  const port = /^(?:0|[1-9]\d{0,4})$/.test(portText) ? Number(portText) : Infinity;
  return address === undefined || port > 0xffff ? undefined : { kind: 'ip', address, port };
}

/** `192.0.2.7:40112`, `[2001:db8::7]:40112`, or `unix`. */
export function formatEndpoint(endpoint: ProxyEndpoint): string {
  if (endpoint.kind === 'unix') return 'unix';
  const text = formatIp(endpoint.address);
  return endpoint.address.length === 16 ? `[${text}]:${endpoint.port}` : `${text}:${endpoint.port}`;
}

/** Reads what `formatEndpoint` writes, and the addresses that connections have. Anything else is taken for a Unix socket. */
export function endpointOf(text: string): ProxyEndpoint {
  const [, bracketed, plain, port] = /^(?:\[([^\]]*)\]|([^:]*)):(\d+)$/.exec(text) ?? [];
  const address = parseIp(bracketed ?? plain ?? '');
  return address === undefined ? { kind: 'unix', path: '' } : { kind: 'ip', address, port: Number(port) };
}

function bad(detail: string): ParsedProxyHeader {
  return { kind: 'bad', detail };
}

function hex(byte: number): string {
  return `0x${byte.toString(16).padStart(2, '0')}`;
}
