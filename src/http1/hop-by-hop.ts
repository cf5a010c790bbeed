/** Fields that are said to the neighbour on the connection and to nobody behind it (RFC 9110, section 7.6.1). Pure. */
import { nameBytes, type Fields } from './fields.ts';

/** In either direction. `Transfer-Encoding` goes on with the chunks, and `Trailer` and `Proxy-Authenticate` are not of these. */
const OF_CONNECTION = ['connection', 'keep-alive', 'proxy-connection', 'te', 'upgrade'].map(nameBytes);

/** What `Connection` may name without naming a field that would not go anyway. */
const OPTIONS = new Set(['close', 'keep-alive', 'proxy-connection', 'te', 'upgrade']);

/** A response without its own framing would be another one: an application that nominates these does not mean it. */
export const FRAMING_FIELDS: ReadonlySet<string> = new Set(['content-length', 'transfer-encoding']);

/** Of the members of a `Connection`, those that nominate a field: most have none, and then no field's name is looked at. */
export function nominations(members: readonly string[]): readonly string[] {
  return members.every((member) => OPTIONS.has(member)) ? NONE : members.filter((member) => !OPTIONS.has(member));
}

const NONE: readonly string[] = Object.freeze([]);

/** `nominated`: what `Connection` nominates, in lower case. */
export function isHopByHop(fields: Fields, field: number, nominated: readonly string[]): boolean {
  return readsAsAny(fields, field, OF_CONNECTION) || (nominated.length > 0 && nominated.includes(fields.name(field).toLowerCase()));
}

/** Whether it reads, to an application, as one of these names. */
export function readsAsAny(fields: Fields, field: number, names: readonly Uint8Array[]): boolean {
  for (const name of names) if (fields.readsAs(field, name)) return true;
  return false;
}

/** Where the last of the fields ends, which begin at `start`. */
export function fieldsEnd(fields: Fields, start: number): number {
  return fields.count === 0 ? start : fields.lineEnd(fields.count - 1);
}

/** Copies what is between `start` and `end` to `at` in `out`, without the fields that are dropped, in runs. Answers where it ends there. */
export function copyFields(
  fields: Fields,
  start: number,
  end: number,
  out: Buffer,
  at: number,
  isDropped: (field: number) => boolean,
): number {
  let to = at;
  let run = start;
  for (let field = 0; field < fields.count; field++) {
    if (!isDropped(field)) continue;
    to += fields.bytes.copy(out, to, run, fields.lineStart(field));
    run = fields.lineEnd(field);
  }
  return to + fields.bytes.copy(out, to, run, end);
}
