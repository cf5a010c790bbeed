/** Request heads of HTTP/1.1 and 1.0, read strictly: what two readers could take differently is refused (RFC 9112). Pure. */
import { BlockReader, CHUNKED, Fields, MAX_MEMBERS, nameBytes, NO_BODY, parseLength, tokenList, type Framing } from './fields.ts';

export interface HeadLimits {
  /** Of the request line and all fields, with the empty line. */
  readonly maxHeadBytes: number;
  readonly maxFields: number;
}

/** Why a head is refused, with the status to answer. The detail never repeats what the client sent. */
export interface HeadProblem {
  readonly status: 400 | 431;
  readonly detail: string;
}

export type HeadOutcome = { readonly kind: 'more' } | { readonly kind: 'whole'; readonly next: number } | BadHead;
export interface BadHead {
  readonly kind: 'bad';
  readonly problem: HeadProblem;
}

/** Those that other parsers know, too. CONNECT would make a tunnel; TRACE would send the fields that we add back to the client. */
const METHODS = new Set(
  'GET POST PUT DELETE HEAD OPTIONS PATCH QUERY ACL BIND CHECKOUT COPY LINK LOCK M-SEARCH MERGE MKACTIVITY MKCALENDAR MKCOL MOVE NOTIFY PROPFIND PROPPATCH PURGE REBIND REPORT SEARCH SOURCE SUBSCRIBE UNBIND UNLINK UNLOCK UNSUBSCRIBE'.split(
    ' ',
  ),
);
const LONGEST_METHOD = 11;
const HOST = nameBytes('host');
const CONNECTION = nameBytes('connection');
const CONTENT_LENGTH = nameBytes('content-length');
const TRANSFER_ENCODING = nameBytes('transfer-encoding');
const UPGRADE = nameBytes('upgrade');
const EXPECT = nameBytes('expect');
/** A client that had its own framing removed would say something else than it says. */
const NEVER_NOMINATED = new Set(['host', 'content-length', 'transfer-encoding', 'content_length', 'transfer_encoding']);
/** `host [ ":" port ]` with the characters of RFC 3986, section 3.2.2. */
const AUTHORITY = /^(?:\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+)(?::[0-9]{0,5})?$/;
/** `HTTP/1.` */
const VERSION = Buffer.from('HTTP/1.', 'latin1');
const MORE: HeadOutcome = { kind: 'more' };

/** Reads one head after the other. What `read` found is valid until its next call. */
export class RequestHead {
  method = '';
  target = '';
  host = '';
  minorVersion: 0 | 1 = 1;
  framing: Framing = NO_BODY;
  /** The client will send no further request. */
  close = false;
  /** A GET without a body that asks for `websocket` alone. */
  upgradesToWebSocket = false;
  /** The client waits for a `100` before it sends the body. */
  expectsContinue = false;
  /** Names in the client's Connection field, in lower case. */
  nominated: readonly string[] = NONE;
  readonly fields: Fields;
  /** Where the request line ends and the fields begin in `fields.bytes`. */
  fieldsStart = 0;
  lineStart = 0;
  readonly #reader: BlockReader;

  /** `fields` is room to work in: its contents are valid until anybody uses it again. */
  constructor({ maxHeadBytes, maxFields }: HeadLimits, fields: Fields = new Fields(maxFields)) {
    this.#reader = new BlockReader(maxHeadBytes);
    this.fields = fields;
  }

  /** Whether a part of a head has come. */
  get begun(): boolean {
    return this.#reader.begun;
  }

  /** Of the head that was read last. */
  get length(): number {
    return this.#reader.end - this.#reader.start;
  }

  read(chunk: Buffer, from: number): HeadOutcome {
    const reader = this.#reader;
    const outcome = reader.read(chunk, from);
    switch (outcome) {
      case 'more':
        return MORE;
      case 'bad_line_end':
        return BARE_LINE_END;
      case 'too_long':
        return { kind: 'bad', problem: { status: 431, detail: 'the head is too long' } };
      case 'whole': {
        const problem = this.#parse(reader.bytes, reader.start, reader.end);
        if (problem === undefined) return { kind: 'whole', next: reader.next };
        return reader.hasBareLineEnd ? BARE_LINE_END : problem;
      }
    }
  }

  #parse(bytes: Buffer, start: number, end: number): BadHead | undefined {
    return this.#parseLine(bytes, start) ?? this.#parseFields(bytes, end);
  }

  #parseLine(bytes: Buffer, start: number): BadHead | undefined {
    this.lineStart = start;
    let at = start;
    while (at - start <= LONGEST_METHOD && bytes[at] !== 32) at++;
    this.method = bytes.toString('latin1', start, at);
    if (bytes[at] !== 32 || !METHODS.has(this.method)) return bad('the method is not one that is forwarded');
    const targetStart = ++at;
    // Visible ASCII but `#`: a fragment is never sent.
    for (let byte = bytes[at] ?? 0; byte > 32 && byte < 127 && byte !== 35; byte = bytes[at] ?? 0) at++;
    if (bytes[at] !== 32) return bad('the request target has a byte that it may not have');
    this.target = bytes.toString('latin1', targetStart, at);
    if (bytes[targetStart] !== 47 && !(this.target === '*' && this.method === 'OPTIONS')) {
      return bad('the request target is not a path');
    }
    at++;
    for (const byte of VERSION) if (bytes[at++] !== byte) return bad('the version is not HTTP/1.1 or HTTP/1.0');
    const minor = (bytes[at] ?? 0) - 48;
    if ((minor !== 0 && minor !== 1) || bytes[at + 1] !== 13 || bytes[at + 2] !== 10) {
      return bad('the version is not HTTP/1.1 or HTTP/1.0');
    }
    this.minorVersion = minor;
    this.fieldsStart = at + 3;
    return undefined;
  }

  #parseFields(bytes: Buffer, end: number): BadHead | undefined {
    const { fields } = this;
    const problem = fields.parse(bytes, this.fieldsStart, end);
    if (problem === 'too_many_fields') return { kind: 'bad', problem: { status: 431, detail: 'the head has too many fields' } };
    if (problem === 'bad_field_name') return bad('a field has no valid name');
    if (problem === 'bad_field_value') return bad('a field has a value with a byte that it may not have');

    this.close = this.minorVersion === 0;
    this.framing = NO_BODY;
    this.nominated = NONE;
    this.upgradesToWebSocket = false;
    this.expectsContinue = false;
    let hosts = 0;
    let lengths = 0;
    let encodings = 0;
    let upgrades = 0;
    let asksWebSocket = false;
    for (let field = 0; field < fields.count; field++) {
      switch (fields.nameLength(field)) {
        case 4:
          if (!fields.isNamed(field, HOST)) break;
          hosts++;
          this.host = fields.value(field);
          break;
        case 6:
          if (!fields.isNamed(field, EXPECT)) break;
          // An application that answered before the body, and then took the body for a request, would read one that nobody
          // judged. So it is never asked: the 100 is ours.
          if (fields.value(field).toLowerCase() !== '100-continue') return bad('Expect asks for something else than 100-continue');
          this.expectsContinue = this.minorVersion === 1;
          break;
        case 7:
          if (!fields.isNamed(field, UPGRADE)) break;
          upgrades++;
          asksWebSocket = fields.value(field).toLowerCase() === 'websocket';
          break;
        case 10:
          if (!fields.isNamed(field, CONNECTION)) break;
          if (!this.#nominate(fields.value(field))) return bad('Connection names no valid fields');
          break;
        case 14: {
          if (!fields.readsAs(field, CONTENT_LENGTH)) break;
          if (!fields.isNamed(field, CONTENT_LENGTH)) return bad('a field reads as Content-Length and is none');
          const length = parseLength(bytes, fields.valueStart(field), fields.valueEnd(field));
          if (++lengths > 1 || length === undefined || fields.hasOddSpace(field)) return bad('Content-Length is not one number');
          this.framing = length === 0 ? NO_BODY : { kind: 'length', length };
          break;
        }
        case 17:
          if (!fields.readsAs(field, TRANSFER_ENCODING)) break;
          if (!fields.isNamed(field, TRANSFER_ENCODING)) return bad('a field reads as Transfer-Encoding and is none');
          if (++encodings > 1 || fields.value(field).toLowerCase() !== 'chunked' || fields.hasOddSpace(field)) {
            return bad('Transfer-Encoding is not chunked alone');
          }
          this.framing = CHUNKED;
          break;
      }
    }
    if (hosts !== 1 || !AUTHORITY.test(this.host)) return bad('there is not one valid Host');
    if (encodings > 0 && lengths > 0) return bad('there are both Content-Length and Transfer-Encoding');
    if (encodings > 0 && this.minorVersion === 0) return bad('HTTP/1.0 has no Transfer-Encoding');
    this.upgradesToWebSocket =
      asksWebSocket &&
      upgrades === 1 &&
      this.nominated.includes('upgrade') &&
      this.method === 'GET' &&
      this.minorVersion === 1 &&
      encodings === 0 &&
      lengths === 0 &&
      !this.close;
    return undefined;
  }

  #nominate(value: string): boolean {
    const names = tokenList(value);
    if (names === undefined || names.some((name) => NEVER_NOMINATED.has(name))) return false;
    if (this.nominated.length + names.length > MAX_MEMBERS) return false;
    if (names.includes('close')) this.close = true;
    this.nominated = this.nominated.length === 0 ? names : [...this.nominated, ...names];
    return true;
  }
}

const NONE: readonly string[] = Object.freeze([]);
const BARE_LINE_END = bad('a line ends without CR');

function bad(detail: string): BadHead {
  return { kind: 'bad', problem: { status: 400, detail } };
}
