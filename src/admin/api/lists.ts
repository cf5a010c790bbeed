/** Lists of the API: what may be asked of them, and how they are cut into pages. */
import { parseDuration } from '../../config/units.ts';
import type { Clock } from '../../lib/clock.ts';
import type * as api from '../api-types.ts';
import { formatCursor, newest, parseCursor, type Cursor, type Source } from './page.ts';

const DEFAULT_LIMIT = 50;
const MAX_LIMIT = 500;
/** A page is cut short when it took so long to make: to read a certificate anew takes a tenth of a millisecond, or several if its issuer wants that. */
const PAGE_MS = 3;
/** A hundred years: of no authority in use is more left. */
const LONGEST_LIFE_MS = 36_500 * 86_400_000;

/** A parameter that is not understood: whoever asks learns which, instead of getting something else than it asked for. */
export class BadParameter extends Error {}

/** A list that can be cut into pages. */
export interface List<A> {
  readonly name: string;
  /** The newest `limit` below `below`; fewer once `isLate` says so, but one is looked at. `next` is where to go on. */
  take(below: number, limit: number, isLate: () => boolean): { readonly items: readonly A[]; readonly next: number | undefined };
  isEmpty(): boolean;
}

/** `describe` may say undefined: then it is passed over. */
export function listOf<T, A>(source: Source<T> & { describe(item: T): A | undefined }): List<A> {
  return {
    name: source.name,
    isEmpty: () => newest(source, Infinity, 1).length === 0,
    take(below, limit, isLate) {
      const chosen = newest(source, below, limit + 1);
      const items: A[] = [];
      for (const [index, item] of chosen.entries()) {
        const before = chosen[index - 1];
        if (before !== undefined && (index === limit || isLate())) return { items, next: source.keyOf(before) };
        const described = source.describe(item);
        if (described !== undefined) items.push(described);
      }
      return { items, next: undefined };
    },
  };
}

/** One page of several lists, one after the other. */
export function page<A>(
  { clock }: { readonly clock: Pick<Clock, 'monotonic'> },
  search: URLSearchParams,
  lists: readonly List<A>[],
): api.Page<A> {
  const limit = limitOf(search);
  const cursor = cursorOf(search, lists);
  const untilMs = clock.monotonic() + PAGE_MS;
  const isLate = (): boolean => clock.monotonic() > untilMs;
  const items: A[] = [];
  let below = cursor?.below ?? Infinity;
  const from = cursor === undefined ? 0 : lists.findIndex(({ name }) => name === cursor.source);
  for (const list of lists.slice(from)) {
    if (items.length >= limit || (items.length > 0 && isLate())) {
      if (list.isEmpty()) continue;
      return { items, nextCursor: formatCursor({ source: list.name, below: Number.MAX_SAFE_INTEGER }) };
    }
    const taken = list.take(below, limit - items.length, isLate);
    items.push(...taken.items);
    if (taken.next !== undefined) return { items, nextCursor: formatCursor({ source: list.name, below: taken.next }) };
    below = Infinity;
  }
  return { items, nextCursor: null };
}

function limitOf(search: URLSearchParams): number {
  const text = search.get('limit');
  if (text === null) return DEFAULT_LIMIT;
  const limit = /^[0-9]{1,4}$/.test(text) ? Number(text) : 0;
  if (limit < 1 || limit > MAX_LIMIT) throw new BadParameter(`limit must be a whole number from 1 to ${MAX_LIMIT}`);
  return limit;
}

function cursorOf(search: URLSearchParams, lists: readonly { readonly name: string }[]): Cursor | undefined {
  const text = search.get('cursor');
  if (text === null) return undefined;
  const cursor = parseCursor(text);
  if (cursor === undefined || !lists.some(({ name }) => name === cursor.source))
    throw new BadParameter('cursor is not one that this list gave');
  return cursor;
}

/** The moment before which something has to expire: `expiringIn` is such as `5m`. */
export function durationOf(search: URLSearchParams, nowMs: number): number | undefined {
  const text = search.get('expiringIn');
  if (text === null) return undefined;
  const duration = parseDuration(text, LONGEST_LIFE_MS);
  if (!duration.ok) throw new BadParameter(`expiringIn: ${duration.error}`);
  return nowMs + duration.value;
}
