/** What every field of HTTP/2 must be, in requests, responses and trailers (RFC 9113, section 8.2). Pure. */

/** Bytes of a name: lower-case letters, digits and the signs of a token: 1. */
const NAME = new Uint8Array(256);
/** Bytes of a value: visible ASCII and obs-text: 1; SP and HTAB, which stand at neither end: 2. */
const VALUE = new Uint8Array(256);
for (let byte = 0; byte < 256; byte++) {
  if (/[a-z0-9!#$%&'*+.^_`|~-]/.test(String.fromCharCode(byte))) NAME[byte] = 1;
  if (byte >= 0x21 && byte !== 0x7f) VALUE[byte] = 1;
}
VALUE[0x20] = 2;
VALUE[0x09] = 2;

/** Whether it is a name of a field that is no pseudo-header field. A character is a byte. */
export function isName(name: string): boolean {
  for (let at = 0; at < name.length; at++) if (NAME[name.charCodeAt(at)] !== 1) return false;
  return name.length > 0;
}

/** Whether it is a value, with no white space around it. */
export function isValue(value: string): boolean {
  const last = value.length - 1;
  if (last < 0) return true;
  for (let at = 0; at <= last; at++) if ((VALUE[value.charCodeAt(at)] ?? 0) === 0) return false;
  return VALUE[value.charCodeAt(0)] === 1 && VALUE[value.charCodeAt(last)] === 1;
}

/** Nobody may send them over HTTP/2 (section 8.2.2). */
export const NOT_OVER_HTTP2: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'transfer-encoding',
  'upgrade',
]);

/** As names are folded: an application may take one of these for what frames the message. */
export const READS_AS_FRAMING: ReadonlySet<string> = new Set(['content-length', 'transfer-encoding']);
