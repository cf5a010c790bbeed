import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as documents from './documents.ts';

const root = join(import.meta.dirname, '..', '..');

/** The pages of the reference that is split by subject. */
export const REFERENCE_PAGES: readonly string[] = globSync('docs/reference/*.md', { cwd: root }).toSorted();

/** The page of the reference that has this heading: exactly one does, so that what is said twice does not drift apart. */
export function pageOf(heading: string): string {
  const of = (page: string): boolean => new RegExp(`^#+ ${RegExp.escape(heading)}$`, 'm').test(readFileSync(join(root, page), 'utf8'));
  const [page, ...others] = REFERENCE_PAGES.filter(of);
  if (page === undefined || others.length > 0)
    throw new Error(`one page has the heading ${JSON.stringify(heading)}: ${others.length + Number(page !== undefined)}`);
  return page;
}

/** The text of the reference from a heading to the next one. */
export function below(heading: string): string {
  return documents.below(pageOf(heading), heading);
}

/** The rows of the tables of the reference below a heading: see `tableUnder` of documents.ts. */
export function tableUnder(heading: string): ReturnType<typeof documents.tableUnder> {
  return documents.tableUnder(pageOf(heading), heading);
}

/** The names in the first column of those tables. */
export function namesUnder(heading: string): readonly string[] {
  return documents.namesUnder(pageOf(heading), heading);
}
