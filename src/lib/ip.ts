/** IP addresses and ranges of them as bytes. Pure: no resolver, and no text that only a C library would read. */

/** 4 bytes, or 16. An IPv4 address mapped into IPv6 (RFC 4291, section 2.5.5.2) is the IPv4 address. */
export type IpBytes = readonly number[];

/** All addresses whose first `bits` bits are those of `address`. */
export interface IpRange {
  /** As written. */
  readonly text: string;
  readonly address: IpBytes;
  readonly bits: number;
}

/** Reads `192.0.2.7` or `2001:db8::7`; a zone (`%eth0`) is left off. Undefined if it is neither, or an IPv4 number has a leading zero. */
export function parseIp(text: string): IpBytes | undefined {
  if (!text.includes(':')) return parseIpv4(text);
  const bytes = parseIpv6(text.split('%', 1)[0] ?? '');
  return bytes !== undefined && isMapped(bytes) ? bytes.slice(12) : bytes;
}

/** The address of `bytes` that came over a wire: 4 or 16. */
export function ipOf(bytes: Uint8Array): IpBytes {
  const all = [...bytes];
  return all.length === 16 && isMapped(all) ? all.slice(12) : all;
}

/** The shortest text (RFC 5952). */
export function formatIp(address: IpBytes): string {
  if (address.length === 4) return address.join('.');
  const groups = Array.from({ length: 8 }, (_, index) => ((address[2 * index] ?? 0) << 8) | (address[2 * index + 1] ?? 0));
  const { start, length } = longestZeros(groups);
  const hex = groups.map((group) => group.toString(16));
  if (length < 2) return hex.join(':');
  return `${hex.slice(0, start).join(':')}::${hex.slice(start + length).join(':')}`;
}

/** The 16 bytes of an address: IPv4 mapped. */
export function asIpv6(address: IpBytes): IpBytes {
  return address.length === 16 ? address : [...MAPPED_PREFIX, ...address];
}

/** Reads `10.0.0.0/8`, `2001:db8::/32` or one address. Undefined if it is none, or bits beyond the prefix are set. */
export function parseIpRange(text: string): IpRange | undefined {
  const [addressText = '', bitsText, ...rest] = text.split('/');
  if (rest.length > 0 || addressText.includes('%')) return undefined;
  const address = parseIp(addressText);
  if (address === undefined) return undefined;
  const width = address.length * 8;
  if (bitsText === undefined) return { text, address, bits: width };
  if (!/^(?:0|[1-9]\d{0,2})$/.test(bitsText)) return undefined;
  // What is written as IPv6 counts the bits of IPv6, mapped or not.
  const bits = Number(bitsText) - (addressText.includes(':') && width === 32 ? 96 : 0);
  if (bits < 0 || bits > width) return undefined;
  const isPrefix = address.every((byte, index) => (byte & ~maskByte(bits, index) & 0xff) === 0);
  return isPrefix ? { text, address, bits } : undefined;
}

export function rangeHas({ address: prefix, bits }: IpRange, address: IpBytes): boolean {
  return prefix.length === address.length && address.every((byte, index) => (byte & maskByte(bits, index)) === prefix[index]);
}

const MAPPED_PREFIX: IpBytes = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

function isMapped(bytes: IpBytes): boolean {
  return MAPPED_PREFIX.every((byte, index) => bytes[index] === byte);
}

function maskByte(bits: number, index: number): number {
  const within = Math.min(Math.max(bits - 8 * index, 0), 8);
  return (0xff << (8 - within)) & 0xff;
}

function parseIpv4(text: string): IpBytes | undefined {
  const parts = text.split('.');
  if (parts.length !== 4 || !parts.every((part) => /^(?:0|[1-9]\d{0,2})$/.test(part))) return undefined;
  const bytes = parts.map(Number);
  return bytes.every((byte) => byte <= 255) ? bytes : undefined;
}

function parseIpv6(text: string): IpBytes | undefined {
  const halves = text.split('::');
  if (halves.length > 2) return undefined;
  const [head, tail] = halves.map((half, index) => groupBytes(half, index === halves.length - 1));
  if (head === undefined) return undefined;
  if (halves.length === 1) return head.length === 16 ? head : undefined;
  if (tail === undefined || head.length + tail.length > 14) return undefined;
  return [...head, ...Array.from({ length: 16 - head.length - tail.length }, () => 0), ...tail];
}

/** Groups between colons. The last may be an IPv4 address, if these are the last of the address. */
function groupBytes(text: string, isLast: boolean): number[] | undefined {
  if (text === '') return [];
  const groups = text.split(':');
  const bytes: number[] = [];
  for (const [index, group] of groups.entries()) {
    if (/^[0-9a-fA-F]{1,4}$/.test(group)) {
      const value = Number.parseInt(group, 16);
      bytes.push(value >> 8, value & 0xff);
      continue;
    }
    const ipv4 = isLast && index === groups.length - 1 ? parseIpv4(group) : undefined;
    if (ipv4 === undefined) return undefined;
    bytes.push(...ipv4);
  }
  return bytes;
}

function longestZeros(groups: readonly number[]): { readonly start: number; readonly length: number } {
  let longest = { start: 0, length: 0 };
  for (let start = 0; start < groups.length; start += 1) {
    let length = 0;
    while (groups[start + length] === 0) length += 1;
    if (length > longest.length) longest = { start, length };
  }
  return longest;
}
