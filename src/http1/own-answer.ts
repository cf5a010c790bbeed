/** Scute's own answers: always whole, and but for `100` always the last of their connection. Pure. */

const REASONS = {
  400: 'Bad Request',
  401: 'Unauthorized',
  403: 'Forbidden',
  408: 'Request Timeout',
  413: 'Content Too Large',
  431: 'Request Header Fields Too Large',
  501: 'Not Implemented',
  502: 'Bad Gateway',
  503: 'Service Unavailable',
  504: 'Gateway Timeout',
} as const;
export type OwnStatus = keyof typeof REASONS;

/** The answer to `Expect: 100-continue`, before the body. */
export const CONTINUE: Buffer = Buffer.from('HTTP/1.1 100 Continue\r\n\r\n', 'latin1');

/** The end of a head whose message is the last of its connection. */
export const CLOSING: Buffer = Buffer.from('Connection: close\r\n\r\n', 'latin1');

/** The end of a head whose message would end with its connection, and is sent in chunks instead. */
export const CHUNKED_CLOSING: Buffer = Buffer.from('Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n', 'latin1');
export const LAST_CHUNK: Buffer = Buffer.from('0\r\n\r\n', 'latin1');

/** The text of an answer of ours. */
export function ownBody(detail: string): string {
  return `scute: ${detail}\n`;
}

/** Fields of an answer that not every one has. */
export interface OwnFields {
  /** In how many seconds the same may be asked again (RFC 9110, section 10.2.3). */
  readonly retryAfterS?: number | undefined;
  /** The value of `WWW-Authenticate` (section 11.6.1). */
  readonly challenge?: string | undefined;
}

/** `withBody` is false for HEAD. The detail is printable ASCII of ours, never what a client or an application sent. */
export function ownAnswer(status: OwnStatus, detail: string, withBody: boolean, { retryAfterS, challenge }: OwnFields = {}): Buffer {
  const body = ownBody(detail);
  const head =
    `HTTP/1.1 ${status} ${REASONS[status]}\r\n` +
    'Content-Type: text/plain; charset=utf-8\r\n' +
    `Content-Length: ${Buffer.byteLength(body)}\r\n` +
    'Cache-Control: no-store\r\n' +
    (retryAfterS === undefined ? '' : `Retry-After: ${retryAfterS}\r\n`) +
    (challenge === undefined ? '' : `WWW-Authenticate: ${challenge}\r\n`) +
    'Connection: close\r\n\r\n';
  return Buffer.from(withBody ? head + body : head, 'utf8');
}
