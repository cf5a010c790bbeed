/** Cutting lists into pages. Pure. */

/** A list that is told newest first, by a number that only grows. */
export interface Source<T> {
  readonly name: string;
  /** In any order; read once, and not copied. */
  items(): Iterable<T>;
  keyOf(item: T): number;
  /** Asked of each item that is before the cursor. */
  fits(item: T): boolean;
}

/** Where a page goes on: in which source, below which number. */
export interface Cursor {
  readonly source: string;
  readonly below: number;
}

export function parseCursor(text: string): Cursor | undefined {
  const [, source, below] = /^([a-z_]{1,32})\.([0-9]{1,16})$/.exec(text) ?? [];
  return source === undefined || below === undefined ? undefined : { source, below: Number(below) };
}

export function formatCursor({ source, below }: Cursor): string {
  return `${source}.${below}`;
}

/** The newest `limit` of the items below `below`: newest first. One pass with a heap of `limit`, so nothing is sorted or copied but these. */
export function newest<T>(source: Source<T>, below: number, limit: number): T[] {
  // A heap of the numbers, the least on top; each with its item.
  const heap: { readonly key: number; readonly item: T }[] = [];
  for (const item of source.items()) {
    const key = source.keyOf(item);
    if (key >= below || (heap.length === limit && key <= (heap[0]?.key ?? Infinity)) || !source.fits(item)) continue;
    const entry = { key, item };
    if (heap.length < limit) {
      heap.push(entry);
      rise(heap);
    } else {
      heap[0] = entry;
      sink(heap);
    }
  }
  return heap.toSorted((one, other) => other.key - one.key).map(({ item }) => item);
}

function rise(heap: { readonly key: number }[]): void {
  let at = heap.length - 1;
  while (at > 0) {
    const above = (at - 1) >> 1;
    if (!swapIfLess(heap, at, above)) return;
    at = above;
  }
}

function sink(heap: { readonly key: number }[]): void {
  let at = 0;
  for (;;) {
    const left = 2 * at + 1;
    const right = left + 1;
    const less = right < heap.length && keyAt(heap, right) < keyAt(heap, left) ? right : left;
    if (less >= heap.length || !swapIfLess(heap, less, at)) return;
    at = less;
  }
}

function keyAt(heap: readonly { readonly key: number }[], at: number): number {
  return heap[at]?.key ?? Infinity;
}

/** True if the entry below was the lesser, and the two have changed places. */
function swapIfLess(heap: { readonly key: number }[], below: number, above: number): boolean {
  const [one, other] = [heap[below], heap[above]];
  if (one === undefined || other === undefined || one.key >= other.key) return false;
  heap[below] = other;
  heap[above] = one;
  return true;
}
