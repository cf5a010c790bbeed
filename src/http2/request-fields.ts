/**
 * The fields of a request over HTTP/2 for an application that speaks it, too (RFC 9113, section 8). What `Http2Head` takes is taken
 * here, and nothing else: a rule judges the same request whatever the application speaks. Pure.
 */
import { foldName } from '../http1/fields.ts';
import { AUTHORITY, METHODS, type HeadLimits } from '../http1/request-head.ts';
import { findUpgrade } from '../http1/upgrades.ts';
import type { HpackField } from './hpack/field.ts';
import type { FieldFilter } from './identity.ts';
import { isName, isValue, NOT_OVER_HTTP2, READS_AS_FRAMING } from './field-rules.ts';

export interface RequestFields {
  readonly method: string;
  readonly target: string;
  /** Of `:authority`, or of Host. */
  readonly host: string;
  /** What an extended CONNECT asks to be switched to, as it is written to the other side; undefined for any other request. */
  readonly protocol: string | undefined;
  /** For the application: the client's, without what it may not say, and ours. */
  readonly fields: readonly HpackField[];
  /** Of these, the client's own, without pseudo-header fields. */
  readonly kept: readonly HpackField[];
  /** It waits for a `100` before it sends the body. */
  readonly expectsContinue: boolean;
  /** Octets of the body, if the head says how many. */
  readonly announced: number | undefined;
  /** It is answered as gRPC wants it. */
  readonly isGrpc: boolean;
  /** Octets of the head, about as HTTP/1.1 has it. */
  readonly size: number;
}

/** The detail never repeats what the client sent. */
export interface RequestProblem {
  /** What to answer. */
  readonly status: 400 | 431 | 501;
  readonly detail: string;
  /** Such a request is no request at all: its stream is reset (RFC 9113, section 8.1.1). */
  readonly isMalformed: boolean;
}

/** A request target without a byte that would end it in a request line. */
const TARGET = /^[\x21-\x7e\x80-\xff]+$/;
const VISIBLE_TARGET = /^[\x21\x22\x24-\x7e]+$/;
const METHOD = /^[A-Za-z0-9!#$%&'*+.^_`|~-]+$/;
const SCHEME = /^[A-Za-z][A-Za-z0-9+.-]*$/;
const LENGTH = /^[0-9]{1,15}$/;
/** RFC 9110, section 7.8: a name, and a version. */
const PROTOCOL = /^[A-Za-z0-9!#$%&'*+.^_`|~-]+(?:\/[A-Za-z0-9!#$%&'*+.^_`|~-]+)?$/;
const GRPC = /^application\/grpc(?:[+;]|$)/i;
/** Of a head in HTTP/1.1, beside what is said. */
const LINE_BYTES = 4;
/** Those that are no field of HTTP/1.1; `:protocol` is one more. */
const PSEUDO_FIELDS = 3;
const HEAD_BYTES = '  HTTP/1.1\r\nhost: \r\n\r\n'.length;

/**
 * `upgrades`: what an extended CONNECT (RFC 8441, section 4) may ask for besides WebSockets; undefined where it was not offered, and
 * whoever asks all the same sends a field that means nothing.
 */
export function readRequestFields(
  list: readonly HpackField[],
  filter: FieldFilter,
  limits: HeadLimits,
  upgrades?: readonly string[],
): RequestFields | RequestProblem {
  let method: string | undefined;
  let protocol: string | undefined;
  let scheme: string | undefined;
  let authority: string | undefined;
  let path: string | undefined;
  let at = 0;
  for (; at < list.length; at++) {
    const [name = '', value = ''] = list[at] ?? [];
    if (name.charCodeAt(0) !== 0x3a) break;
    if (name === ':method' && method === undefined) method = value;
    else if (name === ':scheme' && scheme === undefined) scheme = value;
    else if (name === ':authority' && authority === undefined) authority = value;
    else if (name === ':path' && path === undefined) path = value;
    else if (name === ':protocol' && protocol === undefined && upgrades !== undefined) protocol = value;
    else return malformed('there is a pseudo-header field that is unknown, or twice');
  }
  filter.renew();
  const kept: HpackField[] = [];
  let host: string | undefined;
  let announced: number | undefined;
  let isGrpc = false;
  let expectsContinue = false;
  let size = 0;
  // The first that is no rule of HTTP/2, but one of ours: what is malformed is said of the whole of it.
  let refused: RequestProblem | undefined;
  for (; at < list.length; at++) {
    const field = list[at];
    if (field === undefined) break;
    const [name, value] = field;
    if (!isName(name)) return malformed('a field has no valid name');
    if (!isValue(value)) return malformed('a field has a value with a byte that it may not have');
    size += name.length + value.length + LINE_BYTES;
    switch (name.length) {
      case 2:
        if (name === 'te' && value !== 'trailers') return malformed('a field is for the connection alone');
        break;
      case 4:
        if (name !== 'host') break;
        if (host !== undefined) return malformed('there is not one valid Host');
        host = value;
        continue;
      case 6:
        if (name !== 'expect') break;
        expectsContinue = true;
        if (value.toLowerCase() !== '100-continue') refused ??= refusal('Expect asks for something else than 100-continue');
        break;
      case 12:
        if (name === 'content-type') isGrpc = GRPC.test(value);
        break;
      case 14:
      case 17:
        if (name === 'content-length') {
          if (announced !== undefined || !LENGTH.test(value)) return malformed('Content-Length is not one number');
          announced = Number(value);
        } else if (!NOT_OVER_HTTP2.has(name) && READS_AS_FRAMING.has(foldName(name))) {
          refused ??= refusal(`a field reads as ${name.length === 14 ? 'Content-Length' : 'Transfer-Encoding'} and is none`);
        }
    }
    if (NOT_OVER_HTTP2.has(name)) return malformed('a field is for the connection alone');
    if (name === 'http2-settings' || (filter.isOurs(name) && !filter.keeps(name))) continue;
    kept.push(field);
  }
  if (method === undefined || !METHOD.test(method)) return malformed('the method is not one that is forwarded');
  if (protocol !== undefined) {
    if (method !== 'CONNECT') return malformed('there is a :protocol, and the method is not CONNECT');
    if (authority === undefined) return malformed('an extended CONNECT without :authority');
    if (!PROTOCOL.test(protocol)) return malformed('the :protocol is no name of a protocol');
  } else if (method === 'CONNECT') {
    // One that is well formed has neither (section 8.5).
    const isWellFormed = scheme === undefined && path === undefined && authority !== undefined;
    return isWellFormed ? refusal('the method is not one that is forwarded') : malformed('the method is not one that is forwarded');
  }
  if (scheme === undefined || !SCHEME.test(scheme)) return malformed('the scheme is neither https nor http');
  if (path === undefined || !TARGET.test(path)) return malformed('the request target has a byte that it may not have');
  // The form of HTTP/1.1 that has an authority of its own, which is elsewhere here.
  if (path[0] !== '/' && !(path === '*' && method === 'OPTIONS')) return malformed('the request target is not a path');
  const target = authority ?? host ?? '';
  if (!AUTHORITY.test(target)) return malformed('there is not one valid Host');
  if (authority !== undefined && host !== undefined && authority.toLowerCase() !== host.toLowerCase()) {
    return refusal(':authority and Host are not the same');
  }
  if (protocol === undefined && !METHODS.has(method)) return refusal('the method is not one that is forwarded');
  if (scheme !== 'https' && scheme !== 'http') return refusal('the scheme is neither https nor http');
  if (!VISIBLE_TARGET.test(path)) return refusal('the request target has a byte that it may not have');
  if (refused !== undefined) return refused;
  let switchesTo: string | undefined;
  if (protocol !== undefined) {
    // What follows is no content (RFC 9110, section 9.3.6).
    if (announced !== undefined) return refusal('a CONNECT has no Content-Length');
    switchesTo = findUpgrade(protocol, upgrades ?? []);
    if (switchesTo === undefined) return { status: 501, detail: 'the protocol is not one that may be asked for', isMalformed: false };
    // What is answered as gRPC wants it has the status of a success.
    isGrpc = false;
  }
  size += method.length + path.length + target.length + HEAD_BYTES;
  if (size > limits.maxHeadBytes) return { status: 431, detail: 'the head is too long', isMalformed: false };
  const pseudoFields = switchesTo === undefined ? PSEUDO_FIELDS : PSEUDO_FIELDS + 1;
  if (list.length - pseudoFields > limits.maxFields) return { status: 431, detail: 'the head has too many fields', isMalformed: false };
  const fields: HpackField[] = [
    [':method', method],
    ...(switchesTo === undefined ? [] : [[':protocol', switchesTo] as const]),
    [':scheme', scheme],
    [':path', path],
    [':authority', filter.authority ?? target],
    ...filter.ours(list),
    ...kept,
  ];
  return { method, target: path, host: target, protocol: switchesTo, fields, kept, expectsContinue, announced, isGrpc, size };
}

/** Trailers for the application; or why the request is refused. */
export function readRequestTrailers(
  list: readonly HpackField[],
  filter: FieldFilter,
  limits: HeadLimits,
): readonly HpackField[] | RequestProblem {
  filter.renew();
  const kept: HpackField[] = [];
  let size = 0;
  let framesAnew = false;
  for (const field of list) {
    const [name, value] = field;
    if (!isName(name) || !isValue(value) || NOT_OVER_HTTP2.has(name)) return malformed('the trailers are malformed');
    size += name.length + value.length + LINE_BYTES;
    const folded = foldName(name);
    framesAnew ||= READS_AS_FRAMING.has(folded) || NEVER_IN_TRAILERS.has(folded);
    if (!FOR_US.has(folded) && !filter.isOurs(name)) kept.push(field);
  }
  if (framesAnew) return refusal('the trailers are malformed');
  if (size > limits.maxHeadBytes) return { status: 431, detail: 'the trailers are too long', isMalformed: false };
  if (list.length > limits.maxFields) return { status: 431, detail: 'there are too many trailers', isMalformed: false };
  return kept;
}

/** As names are folded. */
const NEVER_IN_TRAILERS = new Set(['host', 'connection', 'upgrade']);
const FOR_US = new Set(['expect', 'http2-settings', 'keep-alive', 'proxy-connection', 'te']);

function malformed(detail: string): RequestProblem {
  return { status: 400, detail, isMalformed: true };
}

function refusal(detail: string): RequestProblem {
  return { status: 400, detail, isMalformed: false };
}
