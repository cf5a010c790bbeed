/** What the application is told of the caller, and what a client may not tell it. Pure. */
import { foldName, framesAnew, nameBytes, type Fields } from './fields.ts';
import type { RequestHead } from './request-head.ts';

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
  /** Folded, as `Fields.readsAs` compares. */
  readonly names: readonly Uint8Array[];
  /** What becomes of the client's own XFCC, in heads: only of a field that has this very name, not of one that reads like it. */
  readonly clientXfcc: 'removed' | 'kept' | { readonly appended: Buffer };
  /** Field lines, each with its CRLF, and the empty line. */
  readonly lines: Buffer;
}

/**
 * Fields between the client and us (RFC 9110, section 7.6.1; `Expect` is answered by us), and those that would make the
 * application leave HTTP/1.1.
 */
const HOP_BY_HOP = ['connection', 'keep-alive', 'proxy-connection', 'te', 'upgrade', 'http2-settings', 'expect'].map(nameBytes);
const XFCC_NAME = nameBytes(XFCC.toLowerCase());
const XFCC_COLON = Buffer.from(`${XFCC}: `, 'latin1');
const COMMA = Buffer.from(',', 'latin1');
const CRLF = Buffer.from('\r\n', 'latin1');
const CLOSE = Buffer.from('Connection: close\r\n', 'latin1');
const WEBSOCKET = Buffer.from('Connection: Upgrade\r\nUpgrade: websocket\r\n', 'latin1');

/** Throws if a value would have to be quoted, which no SPIFFE ID needs. */
export function buildIdentityFields({ xfcc, spiffeIdHeader }: IdentityOptions, { peerId, ownId, leafSha256 }: Caller): IdentityFields {
  for (const id of [peerId, ownId])
    if (!/^spiffe:\/\/[A-Za-z0-9._/-]+$/.test(id)) throw new Error(`${JSON.stringify(id)} cannot stand in a field`);
  if (!/^[0-9a-f]{64}$/.test(leafSha256)) throw new Error(`${JSON.stringify(leafSha256)} is not a SHA-256 in hex`);
  // Envoy's order and spelling; no value here has one of the characters that it leaves unquoted.
  const ours = `By=${ownId};Hash=${leafSha256};URI=${peerId}`;
  const lines = xfcc === 'sanitize-set' ? `${XFCC}: ${ours}\r\n` : '';
  const fields = fieldsOf(lines + (spiffeIdHeader === undefined ? '' : `${spiffeIdHeader}: ${peerId}\r\n`), spiffeIdHeader);
  if (xfcc === 'unsafe-forward') return { ...fields, clientXfcc: 'kept' };
  return xfcc === 'unsafe-append' ? { ...fields, clientXfcc: { appended: Buffer.from(ours, 'latin1') } } : fields;
}

/** Of a connection away from the application, which has nobody to tell the server of. */
export function buildOutboundFields(xfcc: OutboundXfccMode): IdentityFields {
  const fields = fieldsOf('', undefined);
  return xfcc === 'unsafe-forward' ? { ...fields, clientXfcc: 'kept' } : fields;
}

function fieldsOf(lines: string, spiffeIdHeader: string | undefined): IdentityFields {
  const names = spiffeIdHeader === undefined ? [XFCC] : [XFCC, spiffeIdHeader];
  return {
    names: names.map((name) => nameBytes(foldName(name))),
    clientXfcc: 'removed',
    lines: Buffer.from(`${lines}\r\n`, 'latin1'),
  };
}

/** The head for the application, in one buffer: the client's request line and fields, without what it may not say, and ours. */
export function rewriteHead(head: RequestHead, identity: IdentityFields): Buffer {
  const { fields, lineStart, fieldsStart, nominated } = head;
  const end = fields.count === 0 ? fieldsStart : fields.lineEnd(fields.count - 1);
  const { names, clientXfcc, lines } = identity;
  const appended = typeof clientXfcc === 'string' ? undefined : xfccAfterClients(fields, clientXfcc.appended);
  const out = Buffer.allocUnsafe(end - lineStart + WEBSOCKET.length + lines.length + (appended?.length ?? 0));
  let at = copyFields(fields, lineStart, out, names, nominated, clientXfcc === 'kept');
  // After the client's nominations, so that these cannot take ours away.
  if (head.upgradesToWebSocket) at += WEBSOCKET.copy(out, at);
  else if (head.close) at += CLOSE.copy(out, at);
  if (appended !== undefined) at += appended.copy(out, at);
  at += lines.copy(out, at);
  return out.subarray(0, at);
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
  const end = fields.count === 0 ? start : fields.lineEnd(fields.count - 1);
  const out = Buffer.allocUnsafe(end - start + CRLF.length);
  const at = copyFields(fields, start, out, identity.names, nominated, false);
  CRLF.copy(out, at);
  return out.subarray(0, at + CRLF.length);
}

/** Copies from `start` what stays, in runs. Answers how much. */
function copyFields(
  fields: Fields,
  start: number,
  out: Buffer,
  names: readonly Uint8Array[],
  nominated: readonly string[],
  keepsXfcc: boolean,
): number {
  let at = 0;
  let run = start;
  for (let field = 0; field < fields.count; field++) {
    const isOurs = reads(fields, field, names) && !(keepsXfcc && fields.isNamed(field, XFCC_NAME));
    if (!isOurs && !reads(fields, field, HOP_BY_HOP) && !isNominated(fields, field, nominated)) continue;
    at += fields.bytes.copy(out, at, run, fields.lineStart(field));
    run = fields.lineEnd(field);
  }
  if (fields.count > 0) return at + fields.bytes.copy(out, at, run, fields.lineEnd(fields.count - 1));
  return at;
}

function reads(fields: Fields, field: number, names: readonly Uint8Array[]): boolean {
  for (const name of names) if (fields.readsAs(field, name)) return true;
  return false;
}

function isNominated(fields: Fields, field: number, nominated: readonly string[]): boolean {
  return nominated.length > 0 && nominated.includes(fields.name(field).toLowerCase());
}
