import type { ListenerRef, RequestRecord } from './events.ts';
import { scrub } from './scrub.ts';

/** A caller chooses these. */
const MAX_PATH = 1024;
const MAX_HOST = 255;
const ESCAPED = /[^\x20\x21\x23-\x5b\x5d-\x7e]/;

/**
 * The fields of a request's line as JSON members, without braces. They are written by hand, in one go: an object for each
 * request, its general serialisation and a search through the whole line for secrets took an eighth of the time of a
 * request. What strangers choose is searched, and escaped where it needs that; all else is ours.
 */
export function requestMembers({ direction, name }: ListenerRef, record: RequestRecord): string {
  const { verdict, target, detail, peerId, status } = record;
  const query = target.indexOf('?');
  // The query is left out: it may hold secrets.
  const path = target.slice(0, query === -1 ? MAX_PATH : Math.min(query, MAX_PATH));
  return (
    `"direction":"${direction}","listener":${quote(name)},"connection":${record.connection}` +
    (peerId === undefined ? '' : `,"peer_id":${quote(peerId)}`) +
    `,"method":${quote(record.method)},"path":${quote(scrub(path))},"host":${quote(scrub(record.host.slice(0, MAX_HOST)))}` +
    `,"status":${status},"result":"${record.result}"` +
    (detail === undefined ? '' : `,"detail":${quote(scrub(detail))}`) +
    (verdict === undefined
      ? ',"verdict":"none"'
      : verdict.allowed
        ? `,"verdict":"allow","rule":${quote(verdict.rule)}`
        : `,"verdict":"deny","reason":"${verdict.reason}"`) +
    `,"bytes_from_downstream":${record.bytesFromDownstream},"bytes_to_downstream":${record.bytesToDownstream}` +
    `,"duration_ms":${Math.round(record.durationMs * 10) / 10}`
  );
}

/** JSON text of a string. */
function quote(text: string): string {
  return ESCAPED.test(text) ? JSON.stringify(text) : `"${text}"`;
}
