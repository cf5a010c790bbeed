/** The writer of DER that Scute has, and beside it what it never writes, so that tests can make certificates that break any rule. */
import { encode } from '../../src/spiffe/der-writer.ts';

export {
  boolean,
  context as explicit,
  contextPrimitive as implicit,
  encode as element,
  namedBits,
  objectId as oid,
  octetString,
  sequence,
  set,
  time,
  utf8String as utf8,
} from '../../src/spiffe/der-writer.ts';

/** A bit string that may end within a byte. */
export const bitString = (content: Uint8Array, unused = 0): Buffer => encode(0x03, Buffer.from([unused]), content);

/** A non-negative integer, from a number or from hex, whose leading zeros stay. */
export function integer(value: number | string): Buffer {
  let hex = typeof value === 'number' ? value.toString(16) : value;
  if (hex.length % 2 === 1) hex = `0${hex}`;
  const bytes = Buffer.from(hex, 'hex');
  return encode(0x02, ...((bytes[0] ?? 0) >= 0x80 ? [Buffer.from([0])] : []), bytes);
}
