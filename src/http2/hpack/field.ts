/** A field of HTTP/2 as it was sent, and the table of those that everybody knows (RFC 7541, appendix A). Pure. */

/**
 * Name and value, a character for each byte (latin1), in the spelling that was sent: nothing says that they are valid.
 * The third is there if no one on the way may put the field into a table (RFC 7541, section 7.1.3).
 */
export type HpackField = readonly [name: string, value: string, neverIndexed?: true];

/** What a field counts for, in tables and in the size of a field section, beyond its name and value (RFC 7541, section 4.1; RFC 9113, section 6.5.2). */
const OVERHEAD_BYTES = 32;

/** In bytes, as tables and limits count it. */
export function fieldSize(field: HpackField): number {
  return field[0].length + field[1].length + OVERHEAD_BYTES;
}

/** By index: the first is 1. */
export const STATIC_TABLE: readonly (HpackField | undefined)[] = [
  undefined,
  [':authority', ''],
  [':method', 'GET'],
  [':method', 'POST'],
  [':path', '/'],
  [':path', '/index.html'],
  [':scheme', 'http'],
  [':scheme', 'https'],
  [':status', '200'],
  [':status', '204'],
  [':status', '206'],
  [':status', '304'],
  [':status', '400'],
  [':status', '404'],
  [':status', '500'],
  ['accept-charset', ''],
  ['accept-encoding', 'gzip, deflate'],
  ['accept-language', ''],
  ['accept-ranges', ''],
  ['accept', ''],
  ['access-control-allow-origin', ''],
  ['age', ''],
  ['allow', ''],
  ['authorization', ''],
  ['cache-control', ''],
  ['content-disposition', ''],
  ['content-encoding', ''],
  ['content-language', ''],
  ['content-length', ''],
  ['content-location', ''],
  ['content-range', ''],
  ['content-type', ''],
  ['cookie', ''],
  ['date', ''],
  ['etag', ''],
  ['expect', ''],
  ['expires', ''],
  ['from', ''],
  ['host', ''],
  ['if-match', ''],
  ['if-modified-since', ''],
  ['if-none-match', ''],
  ['if-range', ''],
  ['if-unmodified-since', ''],
  ['last-modified', ''],
  ['link', ''],
  ['location', ''],
  ['max-forwards', ''],
  ['proxy-authenticate', ''],
  ['proxy-authorization', ''],
  ['range', ''],
  ['referer', ''],
  ['refresh', ''],
  ['retry-after', ''],
  ['server', ''],
  ['set-cookie', ''],
  ['strict-transport-security', ''],
  ['transfer-encoding', ''],
  ['user-agent', ''],
  ['vary', ''],
  ['via', ''],
  ['www-authenticate', ''],
];
for (const field of STATIC_TABLE) Object.freeze(field);
