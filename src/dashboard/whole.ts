/** Lists that come in pages, however short: a page that took the process too long to make ends early. */
import type { Page } from '../admin/api-types.ts';

/** Beyond it a list is for search and pages. */
const MOST_ITEMS = 5000;
const MOST_PAGES = 100;

/** All of a list, as one page, from its first one and `ask` for what follows it. What has no end, or is too long, keeps its cursor. */
export async function wholeOf<T>(first: Page<T>, ask: (cursor: string) => Promise<Page<T>>): Promise<Page<T>> {
  const items = [...first.items];
  let { nextCursor } = first;
  for (let pages = 1; nextCursor !== null && pages < MOST_PAGES && items.length < MOST_ITEMS; pages++) {
    const page = await ask(nextCursor);
    items.push(...page.items);
    if (page.nextCursor === nextCursor) throw new Error(`a page that ends where it began: ${nextCursor}`);
    ({ nextCursor } = page);
  }
  return { items, nextCursor };
}
