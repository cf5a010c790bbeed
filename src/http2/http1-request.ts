/** Requests of HTTP/2 for an application that speaks HTTP/1.1 (RFC 9113, section 8; RFC 9112). Pure. */
import { foldName } from '../http1/fields.ts';
import { upgradeLines } from '../http1/upgrades.ts';
import type { HpackField } from './hpack/field.ts';
import type { FieldFilter } from './identity.ts';
import type { RequestFields } from './request-fields.ts';

/** Without a body, they say so (RFC 9110, section 8.6). */
const WITH_LENGTH: ReadonlySet<string> = new Set(['POST', 'PUT', 'PATCH']);
/** What is said to us, or reads so to an application, as names are folded. */
const FOR_US: ReadonlySet<string> = new Set(['te', 'expect', 'upgrade', 'keep-alive', 'http2-settings', 'proxy-connection']);
const FOR_US_LENGTHS: ReadonlySet<number> = new Set([...FOR_US].map(({ length }) => length));

/** Whether the body of such a request is sent in chunks. `ends`: it has none. */
export function isChunked({ announced, protocol }: Pick<RequestFields, 'announced' | 'protocol'>, ends: boolean): boolean {
  return announced === undefined && protocol === undefined && !ends;
}

/** The method of the request that it becomes: HTTP/1.1 asks for another protocol by a GET. */
export function methodOverHttp1({ method, protocol }: Pick<RequestFields, 'method' | 'protocol'>): string {
  return protocol === undefined ? method : 'GET';
}

/**
 * The head of HTTP/1.1 that says the same, with the empty line. `list` is what `read` was read from. Ours come first, as in
 * `rewriteHead`; the framing comes last: Node takes a Content-Disposition after it for another encoding.
 */
export function writeRequestHead(list: readonly HpackField[], read: RequestFields, filter: FieldFilter, ends: boolean): Buffer {
  const { target, host, kept, announced, protocol } = read;
  const method = methodOverHttp1(read);
  const chunked = isChunked(read, ends);
  let text = `${method} ${target} HTTP/1.1\r\n${filter.lines(list)}host: ${host}\r\n`;
  let cookie: string | undefined;
  let trailer: string | undefined;
  for (const [name, value] of kept) {
    switch (name) {
      case 'cookie':
        // RFC 9113, section 8.2.3.
        cookie = cookie === undefined ? value : `${cookie}; ${value}`;
        break;
      case 'trailer':
        trailer = trailer === undefined ? value : `${trailer}, ${value}`;
        break;
      case 'content-length':
        break;
      case 'sec-websocket-key':
        // Nobody proves anything by it over HTTP/2 (RFC 8441, section 5.1): ours is put there when it is sent.
        if (protocol === undefined) text += `${name}: ${value}\r\n`;
        break;
      default:
        if (!FOR_US_LENGTHS.has(name.length) || !FOR_US.has(foldName(name))) text += `${name}: ${value}\r\n`;
    }
  }
  if (cookie !== undefined) text += `cookie: ${cookie}\r\n`;
  // Nothing else than chunks has a place for trailers.
  if (chunked) text += `${trailer === undefined ? '' : `trailer: ${trailer}\r\n`}transfer-encoding: chunked\r\n`;
  else if (announced !== undefined) text += `content-length: ${announced}\r\n`;
  else if (WITH_LENGTH.has(method)) text += 'content-length: 0\r\n';
  if (protocol !== undefined) text += upgradeLines([protocol], false);
  return Buffer.from(`${text}\r\n`, 'latin1');
}

/** Field lines, without the empty one. */
export function writeTrailers(list: readonly HpackField[]): Buffer {
  return Buffer.from(list.map(([name, value]) => `${name}: ${value}\r\n`).join(''), 'latin1');
}
