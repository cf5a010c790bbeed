/**
 * Requests and responses of HTTP/2 as HTTP/1.1 has them, and back (RFC 9113, section 8). A request becomes the bytes of a
 * head, which `RequestHead` then reads as it reads everybody's: an application gets nothing over HTTP/2 that a client could
 * not have sent over HTTP/1.1. Pure.
 */
import { rewriteHead, rewriteTrailers, valuesOf, type IdentityFields } from '../http1/identity-fields.ts';
import { Fields, foldName, MAX_MEMBERS, tokenList, type Framing } from '../http1/fields.ts';
import { FRAMING_FIELDS } from '../http1/hop-by-hop.ts';
import { RequestHead, type HeadLimits, type HeadProblem } from '../http1/request-head.ts';

/** Names and values in turn, as they were sent: `:method`, `GET`, `:path`, `/`, … */
export type FieldList = readonly string[];

/** Of lower-case letters, digits and the signs of a token (RFC 9113, section 8.2.1; RFC 9110, section 5.6.2). */
const NAME = /^[a-z0-9!#$%&'*+.^_`|~-]+$/;
/** Bytes of a value, with no white space around them. */
// oxlint-disable-next-line no-control-regex
const VALUE = /^(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?$/;
/** A request target without a byte that would end it in a request line. */
const TARGET = /^[\x21-\x7e]+$/;
const METHOD = /^[A-Z-]+$/;
/** Without a body, they say so (RFC 9110, section 8.6). */
const WITH_LENGTH = new Set(['POST', 'PUT', 'PATCH']);
/** Nobody may send them over HTTP/2 (RFC 9113, section 8.2.2); a TE of `trailers` is for us. */
const REFUSED = new Set(['connection', 'keep-alive', 'proxy-connection', 'transfer-encoding', 'upgrade']);
/** What an application says to its own connection. */
const OF_CONNECTION = new Set([...REFUSED, 'te', 'http2-settings']);
/** Readers that took these from a trailer would frame the message anew, or find another one. As names are folded. */
const FRAMING = new Set([...OF_CONNECTION, 'host', 'content-length', 'trailer']);

/** Reads one request after the other. What `read` found is valid until its next call. */
export class Http2Head {
  readonly #head: RequestHead;
  readonly #fields: Fields;
  readonly #trailers: Fields;
  readonly #limits: HeadLimits;

  constructor(limits: HeadLimits) {
    this.#limits = limits;
    this.#head = new RequestHead(limits);
    // Ours come on top of the client's.
    this.#fields = new Fields(limits.maxFields + 2);
    this.#trailers = new Fields(limits.maxFields);
  }

  get method(): string {
    return this.#head.method;
  }

  get target(): string {
    return this.#head.target;
  }

  get host(): string {
    return this.#head.host;
  }

  /** Bytes of the body, if the head says how many; undefined if it is sent in chunks. */
  get announced(): number | undefined {
    const { framing } = this.#head;
    return framing.kind === 'length' ? framing.length : framing.kind === 'none' ? 0 : undefined;
  }

  /** The client waits for a `100` before it sends the body. */
  get expectsContinue(): boolean {
    return this.#head.expectsContinue;
  }

  /** Bytes of the head in HTTP/1.1. */
  get length(): number {
    return this.#head.length;
  }

  /** Of the head that was read. `name` is folded. */
  valuesOf(name: Uint8Array): readonly string[] {
    return valuesOf(this.#head, name);
  }

  /** `hasBody`: the stream goes on after the head. Answers why the request is refused. */
  read(list: FieldList, hasBody: boolean): HeadProblem | undefined {
    const composed = compose(list, hasBody);
    if (typeof composed !== 'string') return composed;
    const bytes = Buffer.from(composed, 'latin1');
    // Whatever went before leaves no rest: a head of ours is always whole, or refused.
    const outcome = this.#head.read(bytes, 0);
    if (outcome.kind === 'bad') return outcome.problem;
    if (outcome.kind !== 'whole' || outcome.next !== bytes.length) throw new Error('a composed head is not one head');
    if (!hasBody && this.#head.framing.kind !== 'none') return bad('there is a Content-Length and no body');
    return undefined;
  }

  /** The fields for the application: the client's, without what it may not say, and ours. */
  forApplication(identity: IdentityFields): string[] {
    const bytes = rewriteHead(this.#head, identity);
    return listOf(this.#fields, bytes, this.#head.fieldsStart - this.#head.lineStart);
  }

  /** Trailers for the application; or why the request is refused. */
  trailersForApplication(list: FieldList, identity: IdentityFields): readonly string[] | HeadProblem {
    let text = '';
    for (let at = 0; at < list.length; at += 2) {
      const name = list[at] ?? '';
      const value = list[at + 1] ?? '';
      if (!NAME.test(name) || !VALUE.test(value) || REFUSED.has(name)) return bad('the trailers are malformed');
      text += `${name}: ${value}\r\n`;
    }
    const bytes = Buffer.from(`${text}\r\n`, 'latin1');
    if (bytes.length > this.#limits.maxHeadBytes) return { status: 431, detail: 'the trailers are too long' };
    const fields = this.#trailers;
    const problem = fields.parse(bytes, 0, bytes.length);
    if (problem === 'too_many_fields') return { status: 431, detail: 'there are too many trailers' };
    const rewritten = problem === undefined ? rewriteTrailers(fields, 0, identity, []) : undefined;
    return rewritten === undefined ? bad('the trailers are malformed') : listOf(fields, rewritten, 0);
  }
}

/** The head of HTTP/1.1 that says the same, in characters that are bytes. No more is checked than that each part is one part: `RequestHead` has the rest. */
function compose(list: FieldList, hasBody: boolean): string | HeadProblem {
  let method: string | undefined;
  let scheme: string | undefined;
  let authority: string | undefined;
  let path: string | undefined;
  let host: string | undefined;
  let cookie: string | undefined;
  let length: string | undefined;
  let trailer: string | undefined;
  let lines = '';
  let at = 0;
  for (; at < list.length; at += 2) {
    const name = list[at] ?? '';
    if (name[0] !== ':') break;
    const value = list[at + 1] ?? '';
    if (name === ':method' && method === undefined) method = value;
    else if (name === ':scheme' && scheme === undefined) scheme = value;
    else if (name === ':authority' && authority === undefined) authority = value;
    else if (name === ':path' && path === undefined) path = value;
    else return bad('there is a pseudo-header field that is unknown, or twice');
  }
  for (; at < list.length; at += 2) {
    const name = list[at] ?? '';
    const value = list[at + 1] ?? '';
    if (!NAME.test(name)) return bad('a field has no valid name');
    if (!VALUE.test(value)) return bad('a field has a value with a byte that it may not have');
    switch (name) {
      case 'host':
        if (host !== undefined) return bad('there is not one valid Host');
        host = value;
        break;
      case 'cookie':
        // RFC 9113, section 8.2.3.
        cookie = cookie === undefined ? value : `${cookie}; ${value}`;
        break;
      case 'content-length':
        if (length !== undefined) return bad('Content-Length is not one number');
        length = value;
        break;
      case 'trailer':
        trailer = trailer === undefined ? value : `${trailer}, ${value}`;
        break;
      case 'te':
        if (value !== 'trailers') return bad('a field is for the connection alone');
        break;
      default:
        if (REFUSED.has(name)) return bad('a field is for the connection alone');
        lines += `${name}: ${value}\r\n`;
    }
  }
  if (method === undefined || !METHOD.test(method) || method === 'CONNECT') return bad('the method is not one that is forwarded');
  if (scheme !== 'https' && scheme !== 'http') return bad('the scheme is neither https nor http');
  if (path === undefined || !TARGET.test(path)) return bad('the request target has a byte that it may not have');
  // The form of HTTP/1.1 that has an authority of its own, which is elsewhere here.
  if (path[0] !== '/' && path !== '*') return bad('the request target is not a path');
  if (authority !== undefined && host !== undefined && authority.toLowerCase() !== host.toLowerCase()) {
    return bad(':authority and Host are not the same');
  }
  const target = authority ?? host ?? '';
  // RFC 9113, section 8.3.1: there is one, and it is not empty.
  if (target === '' || !VALUE.test(target)) return bad('there is not one valid Host');
  let text = `${method} ${path} HTTP/1.1\r\nhost: ${target}\r\n${lines}`;
  if (cookie !== undefined) text += `cookie: ${cookie}\r\n`;
  // Nothing else says where trailers are. The framing comes last: Node takes a Content-Disposition after it for another encoding.
  if (length === undefined && hasBody) text += `${trailer === undefined ? '' : `trailer: ${trailer}\r\n`}transfer-encoding: chunked\r\n`;
  else if (length !== undefined) text += `content-length: ${length}\r\n`;
  else if (WITH_LENGTH.has(method)) text += 'content-length: 0\r\n';
  return `${text}\r\n`;
}

function listOf(fields: Fields, bytes: Buffer, from: number): string[] {
  // The same strict reading again, of what is sent in the end.
  if (fields.parse(bytes, from, bytes.length) !== undefined) throw new Error('rewritten fields cannot be read');
  const list: string[] = [];
  for (let field = 0; field < fields.count; field++) list.push(fields.name(field), fields.value(field));
  return list;
}

export interface Http2Response {
  /** `:status` and the fields for the client. */
  readonly fields: string[];
  readonly framing: Framing['kind'];
  /** Of the body, if it is announced. */
  readonly length: number | undefined;
  /** The value of Keep-Alive. */
  readonly keepAlive: string | undefined;
  /** What may come after it on the application's connection is not read for an answer. */
  readonly isLast: boolean;
  /** Names that are not for the client in trailers either. */
  readonly nominated: ReadonlySet<string>;
}

/**
 * The head of a response for the client: the application's, without the fields of its connection (RFC 9113, section
 * 8.2.2). Node has read it from the bytes; here is what it takes and nobody may send. Answers a text that says why not.
 */
export function readResponse(method: string, status: number, raw: FieldList, maxFields: number): Http2Response | string {
  if (status < 100 || status > 599) return 'the status is not a number from 100 to 599';
  if (raw.length > maxFields * 2) return 'too many fields';
  const nominated = nominatedBy(raw);
  if (nominated === undefined) return 'Connection names no valid fields';
  const fields = [':status', String(status)];
  let framing: Framing['kind'] = 'close';
  let length: number | undefined;
  let keepAlive: string | undefined;
  let isLast = false;
  for (let at = 0; at < raw.length; at += 2) {
    const name = (raw[at] ?? '').toLowerCase();
    const value = raw[at + 1] ?? '';
    if (name === 'transfer-encoding') {
      if (framing === 'chunked' || value.toLowerCase() !== 'chunked') return 'Transfer-Encoding is not chunked alone';
      framing = 'chunked';
    }
    if (name === 'content-length') {
      const said = /^\d{1,15}$/.test(value) ? Number(value) : undefined;
      if (length !== undefined || said === undefined) return 'Content-Length is not one number';
      length = said;
    }
    if (name === 'keep-alive') keepAlive = value;
    if (OF_CONNECTION.has(name) || nominated.has(name)) continue;
    if (name === 'content-length') {
      // Not even 0 (RFC 9110, section 8.6).
      if (status < 200 || status === 204) continue;
    }
    fields.push(name, value);
  }
  if (framing === 'chunked' && length !== undefined) return 'there are both Content-Length and Transfer-Encoding';
  // Whether chunks follow, such an application knows alone (RFC 9112, section 6.1).
  if (status === 204 || status === 304) isLast = framing === 'chunked';
  if (status < 200 || status === 204) {
    if (framing === 'chunked' && status < 200) return `${status} has no Transfer-Encoding`;
    if (length !== undefined && length > 0) return `${status} has no Content-Length`;
    if (status < 200 && nominated.has('close')) return `${status} ends the connection`;
  }
  if (framing === 'close' && length !== undefined) framing = length === 0 ? 'none' : 'length';
  // 205 says that there is no content (RFC 9110, section 15.3.6), and Node ends the stream at it; a body may come all the same.
  if (method === 'HEAD' || status < 200 || status === 204 || status === 205 || status === 304) framing = 'none';
  return { fields, framing, length: framing === 'length' ? length : undefined, keepAlive, isLast: isLast || status === 205, nominated };
}

/** The trailers of a response for the client, without those that its head nominated. */
export function responseTrailers(raw: FieldList, nominated: ReadonlySet<string>): string[] {
  const list: string[] = [];
  for (let at = 0; at < raw.length; at += 2) {
    const name = (raw[at] ?? '').toLowerCase();
    if (!FRAMING.has(foldName(name)) && !nominated.has(name)) list.push(name, raw[at + 1] ?? '');
  }
  return list;
}

/** As Node takes interim heads and trailers: a name that comes several times has an array. */
export function fieldObject(list: FieldList): Record<string, string | string[]> {
  const object = Object.create(null) as Record<string, string | string[]>;
  for (let at = 0; at < list.length; at += 2) {
    const name = list[at] ?? '';
    const value = list[at + 1] ?? '';
    const before = object[name];
    if (before === undefined) object[name] = value;
    else if (Array.isArray(before)) before.push(value);
    else object[name] = [before, value];
  }
  return object;
}

function nominatedBy(raw: FieldList): ReadonlySet<string> | undefined {
  let nominated = NONE;
  for (let at = 0; at < raw.length; at += 2) {
    if ((raw[at] ?? '').toLowerCase() !== 'connection') continue;
    const names = tokenList(raw[at + 1] ?? '');
    if (names === undefined || nominated.size + names.length > MAX_MEMBERS) return undefined;
    nominated = new Set([...nominated, ...names.filter((each) => !FRAMING_FIELDS.has(each))]);
  }
  return nominated;
}

const NONE: ReadonlySet<string> = new Set();

function bad(detail: string): HeadProblem {
  return { status: 400, detail };
}
