/**
 * The second net. Keys and tokens never reach a log call by design; should a mistake put one there, it is replaced in the
 * finished line, however deep it lay. Every line pays for the first look, so that is made of plain searches only.
 */
export function scrub(line: string): string {
  if (!TRACES.some((trace) => line.includes(trace))) return line;
  return line.replaceAll(SECRET_FIELDS, `$1"${REDACTED}"`).replaceAll(SECRET_TEXT, REDACTED);
}

/** The same for a text that strangers choose and that is no line yet: it costs no more than its length. */
export function scrubText(text: string): string {
  return TEXT_TRACES.some((trace) => text.includes(trace)) ? text.replaceAll(SECRET_TEXT, REDACTED) : text;
}

/**
 * A stranger's words, for a line or a page that people read: at most `length` letters of them, no key, and nothing that JSON leaves as it is though
 * terminals obey it, it turns what follows around, or some readers take it for the end of a line.
 */
export function strangersWords(text: string, length: number): string {
  // Of a key in PEM, only the first line could be told for what it is: nothing of such a text is shown.
  if (text.includes('PRIVATE KEY')) return REDACTED;
  const shown = text.length > length ? `${text.slice(0, length)}…` : text;
  return scrubText(shown).replaceAll(UNSEEN, '\ufffd');
}

const REDACTED = '[redacted]';
const UNSEEN = /[\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/** What every match of the patterns below contains: PEM; the base64 of PKCS#8 for EC, RSA and Ed25519; JWTs; the ends of field names. */
const TEXT_TRACES = ['PRIVATE KEY', 'AgEAMB', 'IBADANBgkqhkiG9w0B', 'CAQAwBQYDK2Vw', 'eyJ'];
const TRACES = [...TEXT_TRACES, 'ey":', 'ecret":', 'oken":', 'assword":'];
const TEXT = String.raw`"(?:[^"\\]|\\.)*"`;
const SECRET_FIELDS = new RegExp(
  String.raw`("(?:[a-z0-9]*_)*(?:[a-z0-9]*key|[a-z0-9]*secret|[a-z0-9]*token|[a-z0-9]*password)":)` +
    String.raw`(?:${TEXT}|\[(?:[^"\]]|${TEXT})*\]|\{(?:[^"}]|${TEXT})*\})`,
  'gi',
);
const SECRET_TEXT = new RegExp(
  [
    // To the end of its field, and no further: half of an escaped quote would be the end of it.
    String.raw`-----BEGIN [A-Z ]*PRIVATE KEY-----[^"\\]*(?:\\[^][^"\\]*)*`,
    'M[A-Za-z0-9+/]{2,7}(?:AgEAMB|IBADANBgkqhkiG9w0B|CAQAwBQYDK2Vw)[A-Za-z0-9+/=_-]*',
    String.raw`(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*`,
  ].join('|'),
  'g',
);
