/** What the application is told of the caller, and what a client may not tell it. Pure. */
import { foldName, framesAnew, nameBytes, type Fields } from './fields.ts';
import { copyFields, fieldsEnd, isHopByHop, readsAsAny } from './hop-by-hop.ts';
import type { RequestHead } from './request-head.ts';
import { upgradeLines } from './upgrades.ts';

export const XFCC = 'X-Forwarded-Client-Cert';

/** What becomes of XFCC towards the application, and towards a server. */
export const XFCC_MODES = ['sanitize-set', 'sanitize', 'unsafe-forward', 'unsafe-append'] as const;
export type XfccMode = (typeof XFCC_MODES)[number];
export const OUTBOUND_XFCC_MODES = ['sanitize', 'unsafe-forward'] as const;
export type OutboundXfccMode = (typeof OUTBOUND_XFCC_MODES)[number];

export interface IdentityOptions {
  /** `sanitize-set`: ours instead of the client's; `sanitize`: none; `unsafe-forward`: the client's; `unsafe-append`: the client's, then ours. */
  readonly xfcc: XfccMode;
  /** Name of a field that has the SPIFFE ID alone; undefined for none. */
  readonly spiffeIdHeader: string | undefined;
}

export interface Caller {
  readonly peerId: string;
  readonly ownId: string;
  /** SHA-256 of the leaf's DER, lower-case hex. */
  readonly leafSha256: string;
}

/** Of one connection: the fields that no client may send, and ours. */
export interface IdentityFields {
  /** Folded, as `Fields.readsAs` compares. Asked for each head, for the policy may change. */
  readonly names: readonly Uint8Array[];
  /** Whether those of `OVERRIDES` are among them. */
  readonly removesOverrides: boolean;
  /** What becomes of the client's own XFCC, in heads: only of a field that has this very name, not of one that reads like it. */
  readonly clientXfcc: 'removed' | 'kept' | { readonly appended: Buffer };
  /** Field lines, each with its CRLF. */
  readonly lines: Buffer;
  /** The `Host` line, where whom is asked is not for the client to say. */
  readonly host: Buffer | undefined;
}

/**
 * Fields by which some applications take a request for another one than the request line says: rules that look at methods and
 * paths would have judged the wrong one.
 */
export const OVERRIDES = ['X-HTTP-Method-Override', 'X-HTTP-Method', 'X-Method-Override', 'X-Original-URL', 'X-Rewrite-URL'] as const;
const OVERRIDE_NAMES: ReadonlySet<string> = new Set(OVERRIDES.map(foldName));
const FOLDED_OVERRIDES = [...OVERRIDE_NAMES].map(nameBytes);
/** `Expect` is answered by us, and the other is a part of leaving HTTP/1.1. */
const FOR_US = ['expect', 'http2-settings'].map(nameBytes);
const HOST = nameBytes('host');
const XFCC_NAME = nameBytes(XFCC.toLowerCase());
const XFCC_COLON = Buffer.from(`${XFCC}: `, 'latin1');
const COMMA = Buffer.from(',', 'latin1');
const CRLF = Buffer.from('\r\n', 'latin1');
const NOTHING: Buffer = Buffer.alloc(0);
const CLOSE = Buffer.from('Connection: close\r\n', 'latin1');

/**
 * `removesOverrides` says, at each head, whether rules look at requests; `others` are names that no client may send, besides. Throws if a value would have to be quoted, which no
 * SPIFFE ID needs.
 */
export function buildIdentityFields(
  { xfcc, spiffeIdHeader }: IdentityOptions,
  { peerId, ownId, leafSha256 }: Caller,
  removesOverrides: () => boolean,
  others: readonly string[] = [],
): IdentityFields {
  for (const id of [peerId, ownId])
    if (!/^spiffe:\/\/[A-Za-z0-9._/-]+$/.test(id)) throw new Error(`${JSON.stringify(id)} cannot stand in a field`);
  if (!/^[0-9a-f]{64}$/.test(leafSha256)) throw new Error(`${JSON.stringify(leafSha256)} is not a SHA-256 in hex`);
  // Envoy's order and spelling; no value here has one of the characters that it leaves unquoted.
  const ours = `By=${ownId};Hash=${leafSha256};URI=${peerId}`;
  const lines = xfcc === 'sanitize-set' ? `${XFCC}: ${ours}\r\n` : '';
  const all = lines + (spiffeIdHeader === undefined ? '' : `${spiffeIdHeader}: ${peerId}\r\n`);
  const clientXfcc = xfcc === 'unsafe-forward' ? 'kept' : xfcc === 'unsafe-append' ? { appended: Buffer.from(ours, 'latin1') } : 'removed';
  const names = spiffeIdHeader === undefined ? others : [spiffeIdHeader, ...others];
  return fieldsOf(all, names, clientXfcc, removesOverrides);
}

export interface OutboundOptions {
  /** Of the server, if it has a name of its own. */
  readonly authority?: string | undefined;
  /** Name of a field that is not the application's to set. */
  readonly replaced?: string | undefined;
}

/** Of a connection away from the application, which has nobody to tell the server of. */
export function buildOutboundFields(
  xfcc: OutboundXfccMode,
  removesOverrides: () => boolean,
  { authority, replaced }: OutboundOptions = {},
): IdentityFields {
  const host = authority === undefined ? undefined : hostLine(authority);
  return fieldsOf('', replaced === undefined ? [] : [replaced], xfcc === 'unsafe-forward' ? 'kept' : 'removed', removesOverrides, host);
}

function hostLine(authority: string): Buffer {
  return Buffer.from(`Host: ${authority}\r\n`, 'latin1');
}

/** `names`: of further fields that no client may send. */
function fieldsOf(
  lines: string,
  names: readonly string[],
  clientXfcc: IdentityFields['clientXfcc'],
  removesOverrides: () => boolean,
  host?: Buffer,
): IdentityFields {
  const own = [XFCC, ...names].map((name) => nameBytes(foldName(name)));
  const all = [...own, ...FOLDED_OVERRIDES];
  return {
    get names() {
      return removesOverrides() ? all : own;
    },
    get removesOverrides() {
      return removesOverrides();
    },
    clientXfcc,
    lines: Buffer.from(lines, 'latin1'),
    host,
  };
}

/**
 * The head for the application, in one buffer: the client's request line, who it is, and its fields without what it may not
 * say. Ours come first, because some readers drop what is too much for them and say nothing (Node 20 what comes after a
 * thousand fields): no client can have ours dropped by saying much. A target in absolute form goes on as a path, with its
 * authority for `Host` (RFC 9112, section 3.2.2). `more` are further lines of ours, each with its CRLF.
 */
export function rewriteHead(head: RequestHead, identity: IdentityFields, more: Buffer = NOTHING): Buffer {
  const { fields, lineStart, fieldsStart, nominated, absolute } = head;
  const end = fieldsEnd(fields, fieldsStart);
  const { names, clientXfcc, lines } = identity;
  const appended = typeof clientXfcc === 'string' ? NOTHING : xfccAfterClients(fields, clientXfcc.appended);
  const line = absolute === undefined ? fields.bytes.subarray(lineStart, fieldsStart) : originLine(head);
  const host = identity.host ?? (absolute === undefined ? NOTHING : hostLine(absolute.authority));
  const connection = head.upgrade !== undefined ? Buffer.from(upgradeLines([head.upgrade], false), 'latin1') : head.close ? CLOSE : NOTHING;
  const ours = line.length + appended.length + lines.length + more.length + host.length + connection.length + CRLF.length;
  const out = Buffer.allocUnsafe(ours + end - fieldsStart);
  const keepsXfcc = clientXfcc === 'kept';
  let at = 0;
  for (const part of [line, appended, lines, more, host]) at += part.copy(out, at);
  at = copyFields(
    fields,
    fieldsStart,
    end,
    out,
    at,
    (field) => endsHere(fields, field, names, nominated, keepsXfcc) || (host.length > 0 && fields.isNamed(field, HOST)),
  );
  for (const part of [connection, CRLF]) at += part.copy(out, at);
  return out.subarray(0, at);
}

/** A head as `rewriteHead` left it, with one more line of ours, with its CRLF, which comes first as they do. */
export function withLine(head: Buffer, line: Buffer): Buffer {
  const start = head.indexOf(CRLF) + CRLF.length;
  return Buffer.concat([head.subarray(0, start), line, head.subarray(start)]);
}

/** The values of a field of the client's, each time that it is there, however its name is spelt. `name` is folded. */
export function valuesOf({ fields }: RequestHead, name: Uint8Array): readonly string[] {
  const values: string[] = [];
  for (let field = 0; field < fields.count; field++) if (fields.readsAs(field, name)) values.push(fields.value(field));
  return values;
}

/** A head as `rewriteHead` left it when no rule looked at requests, now that one does. `fields` is room to work in. */
export function withoutOverrides(head: Buffer, fields: Fields): Buffer {
  const start = head.indexOf(CRLF) + CRLF.length;
  if (fields.parse(head, start, head.length) !== undefined) throw new Error('a head that was rewritten cannot be read');
  const end = fieldsEnd(fields, start);
  const out = Buffer.allocUnsafe(head.length);
  head.copy(out, 0, 0, start);
  const at = copyFields(fields, start, end, out, start, (field) => readsAsAny(fields, field, FOLDED_OVERRIDES));
  return out.subarray(0, at + head.copy(out, at, end));
}

/** Whether a field's name reads as one of `OVERRIDES`. */
export function isOverride(name: string): boolean {
  return OVERRIDE_NAMES.has(foldName(name));
}

/** Instead of one with a target in absolute form. */
function originLine({ method, target, minorVersion }: RequestHead): Buffer {
  return Buffer.from(`${method} ${target} HTTP/1.${minorVersion}\r\n`, 'latin1');
}

/** One field line: the client's elements, then ours, as Envoy's `APPEND_FORWARD`. */
function xfccAfterClients(fields: Fields, ours: Buffer): Buffer {
  const parts: Buffer[] = [];
  for (let field = 0; field < fields.count; field++) {
    if (!fields.isNamed(field, XFCC_NAME)) continue;
    const value = fields.bytes.subarray(fields.valueStart(field), fields.valueEnd(field));
    if (value.length > 0) parts.push(value, COMMA);
  }
  return Buffer.concat([XFCC_COLON, ...parts, ours, CRLF]);
}

/** Trailers for the application, with the empty line; undefined if one of them would frame the message anew. */
export function rewriteTrailers(fields: Fields, start: number, identity: IdentityFields, nominated: readonly string[]): Buffer | undefined {
  if (framesAnew(fields)) return undefined;
  const end = fieldsEnd(fields, start);
  const out = Buffer.allocUnsafe(end - start + CRLF.length);
  const at = copyFields(fields, start, end, out, 0, (field) => endsHere(fields, field, identity.names, nominated, false));
  CRLF.copy(out, at);
  return out.subarray(0, at + CRLF.length);
}

/** Whether a field of the client's goes no further. */
function endsHere(fields: Fields, field: number, names: readonly Uint8Array[], nominated: readonly string[], keepsXfcc: boolean): boolean {
  const isOurs = readsAsAny(fields, field, names) && !(keepsXfcc && fields.isNamed(field, XFCC_NAME));
  return isOurs || readsAsAny(fields, field, FOR_US) || isHopByHop(fields, field, nominated);
}
