/** Writes DER for tests: what certificates need, and what they must not have. Nothing here reads. */

/** One encoded DER value. */
export type Der = Uint8Array;

/** Tag, length, and the parts one after the other. */
export function element(tag: number, ...parts: readonly Der[]): Buffer {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  return Buffer.concat([Buffer.from([tag, ...lengthOctets(length)]), ...parts]);
}

export const sequence = (...parts: readonly Der[]): Buffer => element(0x30, ...parts);
export const set = (...parts: readonly Der[]): Buffer => element(0x31, ...parts);
export const octetString = (content: Der): Buffer => element(0x04, content);
export const utf8 = (text: string): Buffer => element(0x0c, Buffer.from(text, 'utf8'));
export const boolean = (value: boolean): Buffer => element(0x01, Buffer.from([value ? 0xff : 0x00]));

/** `[number]` with the parts inside. */
export const explicit = (number: number, ...parts: readonly Der[]): Buffer => element(0xa0 | number, ...parts);

/** `[number] IMPLICIT` of a primitive type, such as a name in a subjectAltName. */
export const implicit = (number: number, content: Der): Buffer => element(0x80 | number, content);

/** A bit string that may end within a byte. */
export const bitString = (content: Der, unused = 0): Buffer => element(0x03, Buffer.from([unused]), content);

/** A bit string whose set bits are `bits`, numbered from the left, without trailing zero bits as DER wants named bits. */
export function namedBits(bits: readonly number[]): Buffer {
  if (bits.length === 0) return element(0x03, Buffer.from([0]));
  const highest = Math.max(...bits);
  const bytes = Buffer.alloc((highest >> 3) + 1);
  for (const bit of bits) bytes.writeUInt8(bytes.readUInt8(bit >> 3) | (0x80 >> (bit & 7)), bit >> 3);
  return element(0x03, Buffer.from([7 - (highest & 7)]), bytes);
}

/** A non-negative integer, from a number or from hex, whose leading zeros stay. */
export function integer(value: number | string): Buffer {
  let hex = typeof value === 'number' ? value.toString(16) : value;
  if (hex.length % 2 === 1) hex = `0${hex}`;
  const bytes = Buffer.from(hex, 'hex');
  // A set top bit would make it negative.
  return element(0x02, ...((bytes[0] ?? 0) >= 0x80 ? [Buffer.from([0])] : []), bytes);
}

/** An object identifier from its dotted form. */
export function oid(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number);
  const octets = [first * 40 + second, ...rest].flatMap((arc) => base128(arc));
  return element(0x06, Buffer.from(octets));
}

/** UTCTime until 2049, GeneralizedTime from 2050 (RFC 5280, section 4.1.2.5). Whole seconds; the rest is cut. */
export function time(atMs: number): Buffer {
  const text = new Date(atMs).toISOString().replace(/[-:T]/g, '').slice(0, 14);
  return Number(text.slice(0, 4)) >= 2050 ? element(0x18, Buffer.from(`${text}Z`)) : element(0x17, Buffer.from(`${text.slice(2)}Z`));
}

function lengthOctets(length: number): readonly number[] {
  if (length < 0x80) return [length];
  const bytes = bigEndian(length);
  return [0x80 | bytes.length, ...bytes];
}

function bigEndian(value: number): number[] {
  const bytes = [value % 256];
  for (let rest = Math.floor(value / 256); rest > 0; rest = Math.floor(rest / 256)) bytes.unshift(rest % 256);
  return bytes;
}

function base128(arc: number): number[] {
  const bytes = [arc % 128];
  for (let rest = Math.floor(arc / 128); rest > 0; rest = Math.floor(rest / 128)) bytes.unshift(0x80 | (rest % 128));
  return bytes;
}
