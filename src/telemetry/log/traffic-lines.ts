/**
 * The lines that traffic writes, as JSON members without braces. They are written by hand, in one go: an object for each,
 * its general serialisation and a search through the whole line for secrets took an eighth of the time of a request, and
 * a twentieth of that of a connection. What strangers choose is searched, and escaped where it needs that; all else is ours.
 */
import type { CheckRecord } from './ext-authz-records.ts';
import type { ConnectionRecord, ListenerRef, RequestRecord } from './records.ts';
import { scrubText, strangersWords } from './scrub.ts';

/** A caller chooses these. */
const MAX_PATH = 1024;
const MAX_HOST = 255;
const MAX_METHOD = 32;
const MAX_DETAIL = 2500;
const ESCAPED = /[^\x20\x21\x23-\x5b\x5d-\x7e]/;

/** `near` is asked which rule nearly allowed it, where none did. */
export function connectionMembers({ direction, name }: ListenerRef, record: ConnectionRecord, near?: () => string | undefined): string {
  return (
    `"direction":"${direction}","listener":${quote(name)},"connection":${record.id}` +
    `,"downstream_address":${quote(record.downstreamAddress)}${optional('via', record.via)}` +
    `,"upstream_address":${quote(record.upstreamAddress)}` +
    optional('peer_id', record.peerId) +
    optional('issuer_key_id', record.issuerKeyId) +
    optional('serial', record.serial) +
    optional('tls_version', record.tlsVersion) +
    optional('alpn', record.alpn) +
    `,"verdict":"${record.verdict}","reason":"${record.reason}","close_reason":"${record.closeReason}"` +
    (record.detail === undefined ? '' : `,"detail":${quote(scrubText(record.detail))}`) +
    optional('rule', record.rule) +
    (record.reason === 'not_allowed' ? optional('near', near?.()) : '') +
    optional('audit', record.audited) +
    `,"bytes_from_downstream":${record.bytesFromDownstream},"bytes_to_downstream":${record.bytesToDownstream}` +
    `,"duration_ms":${toTenths(record.durationMs)}` +
    (record.handshakeMs === undefined ? '' : `,"handshake_ms":${toTenths(record.handshakeMs)}`)
  );
}

export function requestMembers({ direction, name }: ListenerRef, record: RequestRecord, near?: () => string | undefined): string {
  const { verdict, detail, peerId, subject, status } = record;
  return (
    `"direction":"${direction}","listener":${quote(name)},"connection":${record.connection}` +
    optional('peer_id', peerId) +
    optional('subject', subject) +
    `,"http_version":"${record.version}",${askedMembers(record)}` +
    `,"status":${status},"result":"${record.result}"` +
    (detail === undefined ? '' : `,"detail":${quote(scrubText(detail))}`) +
    (verdict === undefined
      ? ',"verdict":"none"'
      : verdict.allowed
        ? `,"verdict":"allow","rule":${quote(verdict.rule)}${optional('audit', verdict.audited)}`
        : `,"verdict":"deny","reason":"${verdict.reason}"${optional('rule', verdict.rule)}${verdict.reason === 'not_allowed' ? optional('near', near?.()) : ''}`) +
    `,"bytes_from_downstream":${record.bytesFromDownstream},"bytes_to_downstream":${record.bytesToDownstream}` +
    `,"duration_ms":${toTenths(record.durationMs)}` +
    (record.retries === 0 ? '' : `,"retries":${record.retries}`)
  );
}

/** Of a check of Envoy: what it says was read by nobody before, and may be anything. */
export function checkMembers({ listener = '', request, answer, durationMs }: CheckRecord, near: () => string | undefined): string {
  return (
    `"listener":${quote(listener)}${optional('peer_id', answer.peer)}` +
    (request === undefined ? '' : `,${askedMembers(inWords(request))}`) +
    (answer.allowed
      ? `,"verdict":"allow","rule":${quote(answer.rule)}${optional('audit', answer.audited)}`
      : `,"verdict":"deny","reason":"${answer.reason}","detail":${quote(strangersWords(answer.detail, MAX_DETAIL))}` +
        `${optional('rule', answer.rule)}${answer.reason === 'not_allowed' ? optional('near', near()) : ''}`) +
    `,"duration_ms":${toTenths(durationMs)}`
  );
}

function inWords({ method, target, host }: NonNullable<CheckRecord['request']>): NonNullable<CheckRecord['request']> {
  return {
    method: strangersWords(method, MAX_METHOD),
    target: strangersWords(target, MAX_PATH),
    host: strangersWords(host, MAX_HOST),
  };
}

/** What was asked for. The query is left out: it may hold secrets. */
function askedMembers({ method, target, host }: Pick<RequestRecord, 'method' | 'target' | 'host'>): string {
  const query = target.indexOf('?');
  const path = target.slice(0, query === -1 ? MAX_PATH : Math.min(query, MAX_PATH));
  return `"method":${quote(method)},"path":${quote(scrubText(path))},"host":${quote(scrubText(host.slice(0, MAX_HOST)))}`;
}

function optional(name: string, text: string | undefined): string {
  return text === undefined ? '' : `,"${name}":${quote(text)}`;
}

function toTenths(ms: number): number {
  return Math.round(ms * 10) / 10;
}

/** JSON text of a string. */
function quote(text: string): string {
  return ESCAPED.test(text) ? JSON.stringify(text) : `"${text}"`;
}
