/** Responses of an application that speaks HTTP/1.1, for a client of HTTP/2 (RFC 9113, sections 8.2.2 and 8.3.2). Pure. */
import { nameBytes, type Fields } from '../http1/fields.ts';
import { isHopByHop } from '../http1/hop-by-hop.ts';
import type { ResponseHead } from '../http1/response-head.ts';
import type { HpackField } from './hpack/field.ts';

const CONTENT_LENGTH = nameBytes('content-length');
const TRANSFER_ENCODING = nameBytes('transfer-encoding');
const TRAILER = nameBytes('trailer');
const SWITCHED = 101;
const SEC_WEBSOCKET_ACCEPT = nameBytes('sec-websocket-accept');
const HTTP2_SETTINGS = nameBytes('http2-settings');

/**
 * `:status` and the fields for the client: the application's, without those of its connection. `fields` are those of `head`. What a 101
 * agrees to is a success over HTTP/2, without the proof of HTTP/1.1 (RFC 8441, section 5).
 */
export function responseFields({ status, nominated, announced }: ResponseHead, fields: Fields): HpackField[] {
  const list: HpackField[] = [[':status', String(status === SWITCHED ? 200 : status)]];
  // Not even 0 (RFC 9110, section 8.6).
  let length = status < 200 || status === 204 ? undefined : announced;
  for (let field = 0; field < fields.count; field++) {
    switch (fields.nameLength(field)) {
      case 2:
      case 7:
      case 10:
      case 16:
        if (isHopByHop(fields, field, NONE)) continue;
        break;
      case 14:
        if (fields.readsAs(field, HTTP2_SETTINGS)) continue;
        if (!fields.isNamed(field, CONTENT_LENGTH)) break;
        // Once, also if the application says the same number again and again.
        if (length !== undefined) list.push(['content-length', String(length)]);
        length = undefined;
        continue;
      case 20:
        if (status === SWITCHED && fields.readsAs(field, SEC_WEBSOCKET_ACCEPT)) continue;
        break;
      case 17:
        if (fields.isNamed(field, TRANSFER_ENCODING)) continue;
    }
    const name = fields.name(field).toLowerCase();
    if (nominated.length > 0 && nominated.includes(name)) continue;
    list.push([name, fields.value(field)]);
  }
  return list;
}

/** What a 101 says to prove that it is an answer to our key; undefined if it says nothing, or more than one thing. */
export function acceptOf(fields: Fields): string | undefined {
  let found: string | undefined;
  for (let field = 0; field < fields.count; field++) {
    if (!fields.isNamed(field, SEC_WEBSOCKET_ACCEPT)) continue;
    if (found !== undefined) return undefined;
    found = fields.value(field);
  }
  return found;
}

/** Trailers for the client, without what the head said that is not for it. */
export function responseTrailers(nominated: readonly string[], trailers: Fields): HpackField[] {
  const list: HpackField[] = [];
  for (let field = 0; field < trailers.count; field++) {
    const isForUs = isHopByHop(trailers, field, nominated) || trailers.readsAs(field, HTTP2_SETTINGS) || trailers.readsAs(field, TRAILER);
    if (!isForUs) list.push([trailers.name(field).toLowerCase(), trailers.value(field)]);
  }
  return list;
}

const NONE: readonly string[] = Object.freeze([]);
