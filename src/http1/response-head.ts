/** Response heads of HTTP/1.1 and 1.0: status and framing, read as strictly as requests (RFC 9112, sections 4 and 6.3). Pure. */
import { BlockReader, CHUNKED, Fields, nameBytes, NO_BODY, parseLength, tokenList, type Framing } from './fields.ts';
import type { HeadLimits } from './request-head.ts';

export type ResponseOutcome = { readonly kind: 'more' } | { readonly kind: 'whole' } | BadResponse;
export interface BadResponse {
  readonly kind: 'bad';
  readonly detail: string;
}

/** What the response answers: its framing depends on it. */
export interface Asked {
  readonly method: string;
  readonly minorVersion: 0 | 1;
  readonly upgradesToWebSocket: boolean;
}

const CONNECTION = nameBytes('connection');
const CONTENT_LENGTH = nameBytes('content-length');
const KEEP_ALIVE = nameBytes('keep-alive');
const TRANSFER_ENCODING = nameBytes('transfer-encoding');
const UPGRADE = nameBytes('upgrade');
const VERSION = Buffer.from('HTTP/1.', 'latin1');
const UNTIL_CLOSE: Framing = { kind: 'close' };
const MORE: ResponseOutcome = { kind: 'more' };
const WHOLE: ResponseOutcome = { kind: 'whole' };
const BARE_LINE_END = bad('a line of the head ends without CR');

export class ResponseHead {
  status = 0;
  minorVersion: 0 | 1 = 1;
  framing: Framing = NO_BODY;
  /** The application will answer nothing after this. */
  close = false;
  /** What it says in Keep-Alive; empty if nothing. */
  keepAlive = '';
  /** It says `Upgrade: websocket`, for a 101. */
  upgradesToWebSocket = false;
  readonly reader: BlockReader;
  readonly #fields: Fields;

  /** `fields` is room to work in. */
  constructor({ maxHeadBytes, maxFields }: HeadLimits, fields: Fields = new Fields(maxFields)) {
    this.reader = new BlockReader(maxHeadBytes);
    this.#fields = fields;
  }

  /** After `whole`, `reader` says where the head lies and where the chunk goes on. */
  read(chunk: Buffer, from: number, asked: Asked): ResponseOutcome {
    const { reader } = this;
    switch (reader.read(chunk, from)) {
      case 'more':
        return MORE;
      case 'bad_line_end':
        return BARE_LINE_END;
      case 'too_long':
        return bad('the head is too long');
      case 'whole': {
        const problem = this.#parse(reader.bytes, reader.start, reader.end, asked);
        if (problem === undefined) return WHOLE;
        return reader.hasBareLineEnd ? BARE_LINE_END : problem;
      }
    }
  }

  #parse(bytes: Buffer, start: number, end: number, asked: Asked): BadResponse | undefined {
    let at = start;
    for (const byte of VERSION) if (bytes[at++] !== byte) return bad('the version is not HTTP/1.1 or HTTP/1.0');
    const minor = (bytes[at++] ?? 0) - 48;
    if ((minor !== 0 && minor !== 1) || bytes[at++] !== 32) return bad('the version is not HTTP/1.1 or HTTP/1.0');
    this.minorVersion = minor;
    const status = parseLength(bytes, at, at + 3);
    at += 3;
    if (status === undefined || status < 100 || status > 599) return bad('the status is not a number from 100 to 599');
    this.status = status;
    if (bytes[at] !== 32 && bytes[at] !== 13) return bad('the status is not a number from 100 to 599');
    for (let byte = bytes[at] ?? 0; byte === 9 || (byte >= 32 && byte !== 127); byte = bytes[at] ?? 0) at++;
    if (bytes[at] !== 13 || bytes[at + 1] !== 10) return bad('the reason phrase has a byte that it may not have');
    const problem = this.#fields.parse(bytes, at + 2, end);
    return problem === undefined ? this.#frame(bytes, asked) : bad(problem.replaceAll('_', ' '));
  }

  #frame(bytes: Buffer, asked: Asked): BadResponse | undefined {
    const fields = this.#fields;
    let length: number | undefined;
    let encodings = 0;
    let keepsAlive = false;
    this.close = false;
    this.keepAlive = '';
    this.upgradesToWebSocket = false;
    for (let field = 0; field < fields.count; field++) {
      switch (fields.nameLength(field)) {
        case 7:
          if (fields.isNamed(field, UPGRADE)) this.upgradesToWebSocket = fields.value(field).toLowerCase() === 'websocket';
          break;
        case 10: {
          if (fields.isNamed(field, KEEP_ALIVE)) this.keepAlive += `,${fields.value(field)}`;
          if (!fields.isNamed(field, CONNECTION)) break;
          const options = tokenList(fields.value(field));
          if (options === undefined) return bad('Connection names no valid fields');
          if (options.includes('close')) this.close = true;
          if (options.includes('keep-alive')) keepsAlive = true;
          break;
        }
        case 14: {
          if (!fields.isNamed(field, CONTENT_LENGTH)) break;
          const said = parseLength(bytes, fields.valueStart(field), fields.valueEnd(field));
          if (length !== undefined || said === undefined) return bad('Content-Length is not one number');
          length = said;
          break;
        }
        case 17:
          if (!fields.isNamed(field, TRANSFER_ENCODING)) break;
          if (++encodings > 1 || fields.value(field).toLowerCase() !== 'chunked' || fields.hasOddSpace(field)) {
            return bad('Transfer-Encoding is not chunked alone');
          }
          break;
      }
    }
    if (this.minorVersion === 0 && !keepsAlive) this.close = true;
    const { status } = this;
    // Readers differ on whether such a body comes (RFC 9110, section 8.6), and on what follows an interim response that is the last.
    if ((status < 200 || status === 204) && length !== undefined && length > 0) return bad(`${status} has no Content-Length`);
    if (status < 200 && this.close) return bad(`${status} ends the connection`);
    if (encodings > 0) {
      if (length !== undefined) return bad('there are both Content-Length and Transfer-Encoding');
      if (this.minorVersion === 0 || asked.minorVersion === 0) return bad('HTTP/1.0 has no Transfer-Encoding');
      if (status < 200 || status === 204) return bad(`${status} has no Transfer-Encoding`);
    }
    if (status < 200 || status === 204 || status === 304 || asked.method === 'HEAD') this.framing = NO_BODY;
    else if (encodings > 0) this.framing = CHUNKED;
    else if (length !== undefined) this.framing = length === 0 ? NO_BODY : { kind: 'length', length };
    else this.framing = UNTIL_CLOSE;
    return undefined;
  }
}

function bad(detail: string): BadResponse {
  return { kind: 'bad', detail };
}
