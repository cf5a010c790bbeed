/** Response heads of HTTP/1.1 and 1.0: status and framing, read as strictly as requests (RFC 9112, sections 4 and 6.3). Pure. */
import {
  BlockReader,
  CHUNKED,
  Fields,
  MAX_MEMBERS,
  nameBytes,
  NO_BODY,
  parseLength,
  tokenList,
  withoutSpaces,
  type Framing,
} from './fields.ts';
import { copyFields, FRAMING_FIELDS, isHopByHop, nominations } from './hop-by-hop.ts';
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
  /** What the application was asked to switch to. */
  readonly upgrade: string | undefined;
  /** The client will ask nothing more. */
  readonly close: boolean;
}

const CONNECTION = nameBytes('connection');
const CONTENT_LENGTH = nameBytes('content-length');
const TRANSFER_ENCODING = nameBytes('transfer-encoding');
const UPGRADE = nameBytes('upgrade');
const KEEP_ALIVE = nameBytes('keep-alive');
const VERSION = Buffer.from('HTTP/1.', 'latin1');
const MINOR_VERSION_AT = VERSION.length;
const EMPTY_LINE_BYTES = 2;
const UNTIL_CLOSE: Framing = { kind: 'close' };
const MORE: ResponseOutcome = { kind: 'more' };
const WHOLE: ResponseOutcome = { kind: 'whole' };
const BARE_LINE_END = bad('a line of the head ends without CR');

export class ResponseHead {
  status = 0;
  minorVersion: 0 | 1 = 1;
  framing: Framing = NO_BODY;
  /** What `Content-Length` says, also where there is no body; undefined if there is none. */
  announced: number | undefined;
  /** Nothing more is asked over the application's connection. */
  close = false;
  /** The value of `Upgrade`; undefined if there is none, or more than one. */
  upgrade: string | undefined;
  /** The value of `Keep-Alive`, which is for us: how long the application keeps its connection without requests. */
  keepAlive: string | undefined;
  /** Names of fields that the application's Connection field has, in lower case. */
  nominated: readonly string[] = NONE;
  /** It has a field that is for us, or a line that we write anew. */
  isChanged = false;
  /** `Content-Length` came more than once, and says one number. */
  #repeatedLength: number | undefined;
  #dropsEncoding = false;
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
    let upgrades = 0;
    this.close = false;
    this.upgrade = undefined;
    this.keepAlive = undefined;
    this.nominated = NONE;
    this.isChanged = this.minorVersion === 0;
    this.#repeatedLength = undefined;
    this.#dropsEncoding = false;
    for (let field = 0; field < fields.count; field++) {
      switch (fields.nameLength(field)) {
        case 2:
        case 16:
          if (isHopByHop(fields, field, NONE)) this.isChanged = true;
          break;
        case 7:
          if (!fields.readsAs(field, UPGRADE)) break;
          this.isChanged = true;
          this.upgrade = ++upgrades === 1 ? fields.value(field) : undefined;
          break;
        case 10: {
          if (fields.readsAs(field, KEEP_ALIVE)) {
            this.isChanged = true;
            this.keepAlive = this.keepAlive === undefined ? fields.value(field) : `${this.keepAlive}, ${fields.value(field)}`;
            break;
          }
          if (!fields.isNamed(field, CONNECTION)) break;
          this.isChanged = true;
          const options = tokenList(fields.value(field));
          if (options === undefined) return bad('Connection names no valid fields');
          if (options.includes('close')) this.close = true;
          if (options.includes('keep-alive')) keepsAlive = true;
          const names = nominations(options);
          if (names.length === 0) break;
          if (this.nominated.length + names.length > MAX_MEMBERS) return bad('Connection names no valid fields');
          this.nominated = [...this.nominated, ...names.filter((name) => !FRAMING_FIELDS.has(name))];
          break;
        }
        case 14: {
          if (!fields.isNamed(field, CONTENT_LENGTH)) break;
          const one = parseLength(bytes, fields.valueStart(field), fields.valueEnd(field));
          const said = one ?? repeatedLength(fields.value(field));
          if (said === undefined || (length !== undefined && length !== said)) return bad('Content-Length is not one number');
          if (one === undefined || length !== undefined) {
            this.isChanged = true;
            this.#repeatedLength = said;
          }
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
    this.announced = length;
    // Readers differ on whether such a body comes (RFC 9110, section 8.6), and on what follows an interim response that is the last.
    if ((status < 200 || status === 204) && length !== undefined && length > 0) return bad(`${status} has no Content-Length`);
    if (status < 200 && this.close) return bad(`${status} ends the connection`);
    if (encodings > 0) {
      if (length !== undefined) return bad('there are both Content-Length and Transfer-Encoding');
      if (this.minorVersion === 0 || asked.minorVersion === 0) return bad('HTTP/1.0 has no Transfer-Encoding');
      if (status < 200) return bad(`${status} has no Transfer-Encoding`);
      if (status === 204 || status === 304) {
        // Whether chunks follow, such an application knows alone: what comes next is not read for an answer (RFC 9112, section 6.1).
        this.isChanged = true;
        this.close = true;
        this.#dropsEncoding = true;
      }
    }
    if (status < 200 || status === 204 || status === 304 || asked.method === 'HEAD') this.framing = NO_BODY;
    else if (encodings > 0) this.framing = CHUNKED;
    else if (length !== undefined) this.framing = length === 0 ? NO_BODY : { kind: 'length', length };
    else this.framing = UNTIL_CLOSE;
    return undefined;
  }

  /** Valid as long as what was read: the head for the client, in one buffer. `ours` is what it ends with, the empty line included. */
  rewritten(ours: Buffer): Buffer {
    const { reader, nominated } = this;
    const fields = this.#fields;
    const length = this.#repeatedLength === undefined ? '' : `Content-Length: ${this.#repeatedLength}\r\n`;
    const end = reader.end - EMPTY_LINE_BYTES;
    const out = Buffer.allocUnsafe(end - reader.start + length.length + ours.length);
    const isDropped = (field: number): boolean =>
      isHopByHop(fields, field, nominated) ||
      (length !== '' && fields.isNamed(field, CONTENT_LENGTH)) ||
      (this.#dropsEncoding && fields.isNamed(field, TRANSFER_ENCODING));
    let at = copyFields(fields, reader.start, end, out, 0, isDropped);
    out[MINOR_VERSION_AT] = 49;
    if (length !== '') at += out.write(length, at, 'latin1');
    at += ours.copy(out, at);
    return out.subarray(0, at);
  }
}

/** Why a 101 is none: only what was asked for is switched to, which is what was sent on. */
export function switchProblem(head: ResponseHead, asked: Asked): string | undefined {
  if (head.status !== 101) return undefined;
  if (asked.upgrade === undefined) return '101 without being asked';
  return head.upgrade?.toLowerCase() === asked.upgrade.toLowerCase() ? undefined : `101 to another protocol than ${asked.upgrade}`;
}

/** The one number that a list says again and again (RFC 9110, section 8.6). */
function repeatedLength(value: string): number | undefined {
  const members = value.split(',', MAX_MEMBERS + 1).map(withoutSpaces);
  const [first = ''] = members;
  const isOne = members.length <= MAX_MEMBERS && members.every((member) => /^\d{1,15}$/.test(member) && Number(member) === Number(first));
  return isOne ? Number(first) : undefined;
}

const NONE: readonly string[] = Object.freeze([]);

function bad(detail: string): BadResponse {
  return { kind: 'bad', detail };
}
