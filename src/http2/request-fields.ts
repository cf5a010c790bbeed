/**
 * The fields of a request over HTTP/2 for an application that speaks it, too (RFC 9113, section 8). What `Http2Head` takes is taken
 * here, and nothing else: a rule judges the same request whatever the application speaks. Pure.
 */
import { foldName } from '../http1/fields.ts';
import { AUTHORITY, METHODS, type HeadLimits, type HeadProblem } from '../http1/request-head.ts';
import type { HpackField } from './hpack/field.ts';
import type { FieldFilter } from './identity.ts';
import { isName, isValue, NOT_OVER_HTTP2, READS_AS_FRAMING } from './field-rules.ts';

export interface RequestFields {
  readonly method: string;
  readonly target: string;
  /** Of `:authority`, or of Host. */
  readonly host: string;
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

export interface RequestProblem extends HeadProblem {
  /** Such a request is no request at all: its stream is reset (RFC 9113, section 8.1.1). */
  readonly isMalformed: boolean;
}

/** A request target without a byte that would end it in a request line. */
const TARGET = /^[\x21-\x7e\x80-\xff]+$/;
const VISIBLE_TARGET = /^[\x21\x22\x24-\x7e]+$/;
const METHOD = /^[A-Za-z0-9!#$%&'*+.^_`|~-]+$/;
const SCHEME = /^[A-Za-z][A-Za-z0-9+.-]*$/;
const LENGTH = /^[0-9]{1,15}$/;
const GRPC = /^application\/grpc(?:[+;]|$)/i;
/** Of a head in HTTP/1.1, beside what is said. */
const LINE_BYTES = 4;
/** Those that are no field of HTTP/1.1. */
const PSEUDO_FIELDS = 3;
const HEAD_BYTES = '  HTTP/1.1\r\nhost: \r\n\r\n'.length;

/** `hasBody`: the stream goes on after the head. */
export function readRequestFields(list: readonly HpackField[], filter: FieldFilter, limits: HeadLimits): RequestFields | RequestProblem {
  let method: string | undefined;
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
  if (method === 'CONNECT') {
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
  if (!METHODS.has(method)) return refusal('the method is not one that is forwarded');
  if (scheme !== 'https' && scheme !== 'http') return refusal('the scheme is neither https nor http');
  if (!VISIBLE_TARGET.test(path)) return refusal('the request target has a byte that it may not have');
  if (refused !== undefined) return refused;
  size += method.length + path.length + target.length + HEAD_BYTES;
  if (size > limits.maxHeadBytes) return { status: 431, detail: 'the head is too long', isMalformed: false };
  if (list.length - PSEUDO_FIELDS > limits.maxFields) return { status: 431, detail: 'the head has too many fields', isMalformed: false };
  const fields: HpackField[] = [
    [':method', method],
    [':scheme', scheme],
    [':path', path],
    [':authority', target],
    ...filter.ours(list),
    ...kept,
  ];
  return { method, target: path, host: target, fields, kept, expectsContinue, announced, isGrpc, size };
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
