import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..', '..');

/** Every document, by its path from the root. */
export const DOCUMENTS: readonly string[] = globSync(['{*,docs/**/*,deploy/**/*}.md', 'build/npm/README.md'], { cwd: root }).toSorted();

export interface CodeBlock {
  /** What stands after the opening fence: the language, and what the block is for. */
  readonly info: string;
  readonly text: string;
}

/** The fenced blocks of a document, in their order. */
export function codeBlocks(document: string): readonly CodeBlock[] {
  return [...read(document).matchAll(/^```(.*)\n([\s\S]*?)^```$/gm)].map(([, info = '', text = '']) => ({ info, text }));
}

/** The rows of the tables below a heading and above the next: for each cell the names in it, which are in backquotes. */
export function tableUnder(document: string, heading: string): readonly (readonly (readonly string[])[])[] {
  return below(document, heading)
    .split('\n')
    .filter((line) => line.startsWith('|') && !/^\|[-|]+\|$/.test(line))
    .map((line) =>
      line
        .split('|')
        .slice(1, -1)
        .map((cell) => [...cell.matchAll(/`([^`]+)`/g)].map(([, name = '']) => name)),
    )
    .filter(([first]) => first !== undefined && first.length > 0);
}

/** The names in the first column of those tables. */
export function namesUnder(document: string, heading: string): readonly string[] {
  return tableUnder(document, heading).flatMap(([first]) => first ?? []);
}

/** The text from a heading to the next one. */
export function below(document: string, heading: string): string {
  const [, text] = new RegExp(`^#+ ${RegExp.escape(heading)}\n([\\s\\S]*?)(?=^#+ |(?![\\s\\S]))`, 'm').exec(read(document)) ?? [];
  if (text === undefined) throw new Error(`${document} has no heading ${JSON.stringify(heading)}`);
  return text;
}

function read(document: string): string {
  return readFileSync(join(root, document), 'utf8');
}
