/** Request heads of HTTP/1.1 and 1.0, read strictly: what two readers could take differently is refused (RFC 9112). Pure. */
import { BlockReader, CHUNKED, Fields, MAX_MEMBERS, nameBytes, NO_BODY, parseLength, tokenList, type Framing } from './fields.ts';
import { nominations } from './hop-by-hop.ts';
import { findUpgrade, WEBSOCKET } from './upgrades.ts';

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
export const METHODS: ReadonlySet<string> = new Set(
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
export const AUTHORITY = /^(?:\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+)(?::[0-9]{0,5})?$/;
/** A target in absolute form, of which the authority is still to be looked at (RFC 9112, section 3.2.2). */
const ABSOLUTE = /^(https?):\/\/([^/?]+)([/?].*)?$/i;
/** What the authority of one may leave out. */
const DEFAULT_PORTS = { http: 80, https: 443 } as const;
/** An empty line, and nothing else. */
const EMPTY_LINE_BYTES = 2;
/** `HTTP/1.` */
const VERSION = Buffer.from('HTTP/1.', 'latin1');
const MORE: HeadOutcome = { kind: 'more' };

/** Reads one head after the other. What `read` found is valid until its next call. */
export class RequestHead {
  method = '';
  /** A path, with its query, or `*`. */
  target = '';
  /** Of `Host`, or of a target in absolute form; empty if there is none, or an empty one. */
  host = '';
  /** Undefined unless the target came in absolute form. */
  absolute: { readonly scheme: keyof typeof DEFAULT_PORTS; readonly authority: string } | undefined;
  minorVersion: 0 | 1 = 1;
  framing: Framing = NO_BODY;
  /** The client will send no further request. */
  close = false;
  /** What a request without a body asks to switch to, if that is allowed. */
  upgrade: string | undefined;
  /** The client waits for a `100` before it sends the body. */
  expectsContinue = false;
  /** Names of fields that the client's Connection field has, in lower case. */
  nominated: readonly string[] = NONE;
  readonly fields: Fields;
  /** Where the request line ends and the fields begin in `fields.bytes`. */
  fieldsStart = 0;
  lineStart = 0;
  /** With an empty line ahead of it, of the head that was read last. */
  length = 0;
  readonly #reader: BlockReader;
  readonly #upgrades: readonly string[];
  /** `Connection` says so, without which `Upgrade` is nothing. */
  #asksUpgrade = false;
  /** Of an empty line ahead of the head that is read: 0 if none has come. */
  #emptyBytes = 0;

  /**
   * `fields` is room to work in: its contents are valid until anybody uses it again. `upgrades`: what may be asked for
   * besides WebSockets.
   */
  constructor({ maxHeadBytes, maxFields }: HeadLimits, fields: Fields = new Fields(maxFields), upgrades: readonly string[] = NONE) {
    this.#reader = new BlockReader(maxHeadBytes);
    this.fields = fields;
    this.#upgrades = upgrades;
  }

  /** Whether a part of a head has come. An empty line is none: some clients end a body with one. */
  get begun(): boolean {
    return this.#reader.begun;
  }

  /** Takes one empty line ahead of each head (RFC 9112, section 2.2), and no second one. */
  read(chunk: Buffer, from: number): HeadOutcome {
    const reader = this.#reader;
    let outcome = reader.read(chunk, from);
    if (outcome === 'whole' && reader.end - reader.start === EMPTY_LINE_BYTES && this.#emptyBytes === 0) {
      this.#emptyBytes = EMPTY_LINE_BYTES;
      outcome = reader.read(chunk, reader.next);
    }
    switch (outcome) {
      case 'more':
        return MORE;
      case 'bad_line_end':
        return BARE_LINE_END;
      case 'too_long':
        return { kind: 'bad', problem: { status: 431, detail: 'the head is too long' } };
      case 'whole': {
        this.length = this.#emptyBytes + reader.end - reader.start;
        this.#emptyBytes = 0;
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
    this.absolute = undefined;
    if (bytes[targetStart] !== 47 && !(this.target === '*' && this.method === 'OPTIONS') && !this.#takeAbsolute()) {
      return bad('the request target is neither a path nor a valid URI of http or https');
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

  /** Whether the target is in absolute form; then it is a path from here on. */
  #takeAbsolute(): boolean {
    const [, scheme = '', authority = '', rest = ''] = ABSOLUTE.exec(this.target) ?? [];
    if (!AUTHORITY.test(authority)) return false;
    this.absolute = { scheme: scheme.length === 4 ? 'http' : 'https', authority };
    // RFC 9112, section 3.2.4, for OPTIONS.
    if (rest === '') this.target = this.method === 'OPTIONS' ? '*' : '/';
    else this.target = rest.startsWith('?') ? `/${rest}` : rest;
    return true;
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
    this.upgrade = undefined;
    this.#asksUpgrade = false;
    this.expectsContinue = false;
    this.host = '';
    let hosts = 0;
    let lengths = 0;
    let encodings = 0;
    let upgrades = 0;
    let wanted = '';
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
          wanted = fields.value(field);
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
    // Without one, health checks of HTTP/1.0; with an empty one, who asks for something that has no authority.
    if (hosts > 1 || (hosts === 0 && this.minorVersion === 1) || (this.host !== '' && !AUTHORITY.test(this.host))) {
      return bad('there is not one valid Host');
    }
    if (this.absolute !== undefined) {
      // Stricter than RFC 9112, section 3.2.2: who disagrees with itself on whom it asks is up to something.
      if (hosts === 1 && !isSameAuthority(this.host, this.absolute)) return bad('Host is not the authority of the request target');
      this.host = this.absolute.authority;
    }
    if (encodings > 0 && lengths > 0) return bad('there are both Content-Length and Transfer-Encoding');
    if (encodings > 0 && this.minorVersion === 0) return bad('HTTP/1.0 has no Transfer-Encoding');
    if (upgrades === 1 && this.#asksUpgrade && this.minorVersion === 1 && !this.close) {
      const protocol = findUpgrade(wanted, this.#upgrades);
      const mayAsk = protocol === WEBSOCKET ? this.method === 'GET' && lengths === 0 : this.method === 'GET' || this.method === 'POST';
      if (mayAsk && this.framing.kind === 'none') this.upgrade = protocol;
    }
    return undefined;
  }

  #nominate(value: string): boolean {
    const options = tokenList(value);
    if (options === undefined) return false;
    if (options.includes('close')) this.close = true;
    if (options.includes('upgrade')) this.#asksUpgrade = true;
    const names = nominations(options);
    if (names.length === 0) return true;
    if (names.some((name) => NEVER_NOMINATED.has(name)) || this.nominated.length + names.length > MAX_MEMBERS) return false;
    this.nominated = this.nominated.length === 0 ? names : [...this.nominated, ...names];
    return true;
  }
}

/** Whether `Host` names the same, in any case, and with or without the port that is understood. */
function isSameAuthority(host: string, { scheme, authority }: NonNullable<RequestHead['absolute']>): boolean {
  const plain = (text: string): string =>
    text.toLowerCase().replace(/:(\d*)$/, (_, port: string) => {
      const number = port === '' ? DEFAULT_PORTS[scheme] : Number(port);
      return number === DEFAULT_PORTS[scheme] ? '' : `:${number}`;
    });
  return plain(host) === plain(authority);
}

const NONE: readonly string[] = Object.freeze([]);
const BARE_LINE_END = bad('a line ends without CR');

function bad(detail: string): BadHead {
  return { kind: 'bad', problem: { status: 400, detail } };
}
