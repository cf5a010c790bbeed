/** Lines for a terminal, or for whatever else standard output is. */
import type { Environment } from '../config/policy/precedence.ts';
import type { CommandEnvironment } from './environment.ts';
import { visible } from './text.ts';

/** `warn`: somebody should look. `bad`: somebody must act now. Nothing else has a colour. */
export type Tone = 'plain' | 'strong' | 'soft' | 'warn' | 'bad';

export interface Span {
  readonly text: string;
  readonly tone: Tone;
}

export type Line = readonly Span[];

export interface Screen {
  /** Columns; undefined if lines may be as long as they are. */
  readonly width: number | undefined;
  readonly height: number | undefined;
  /**
   * The text of lines, of which nothing that somebody else chose commands the terminal. What is too long goes on below, or is cut. Where
   * the locale is not UTF-8 it is ASCII.
   */
  render(lines: readonly Line[], tooLong?: 'wrap' | 'cut'): string;
}

const COLOURS: Readonly<Record<Tone, string>> = { plain: '', strong: '1', soft: '2', warn: '33', bad: '31;1' };
/** For what we draw with ourselves. */
const ASCII: Readonly<Record<string, string>> = { '·': '-', '…': '>', '━': '#', '─': '-', '╂': '|', '→': '>' };
/** What goes on below is set in by this. */
const INDENT = 4;
/** Narrower than this, nothing can be drawn. */
const NARROWEST = 20;

export function span(text: string, tone: Tone = 'plain'): Span {
  return { text, tone };
}

/** How wide a line is, in columns. */
export function widthOf(line: Line): number {
  let width = 0;
  for (const { text } of line) for (const letter of text) width += columnsOf(letter);
  return width;
}

/** Whether colours are wanted: https://no-color.org, and terminals that have none. */
function hasColours(env: Environment): boolean {
  return (env['NO_COLOR'] ?? '') === '' && env['TERM'] !== 'dumb';
}

/** As it is at this moment: a terminal may be made wider. */
export function screenOf({ env, isTerminal, terminalSize }: CommandEnvironment): Screen {
  const size = isTerminal ? terminalSize?.() : undefined;
  const width = size && Math.max(size.columns, NARROWEST);
  const isColoured = isTerminal && hasColours(env);
  const locale = [env['LC_ALL'], env['LC_CTYPE'], env['LANG']].find((each) => each !== undefined && each !== '');
  const isAscii = !/utf-?8/i.test(locale ?? '');
  return {
    width,
    height: size?.rows,
    render: (lines, tooLong = 'wrap') =>
      lines
        .flatMap((line) => fit(line, width, tooLong))
        .map((line) => `${line.map((part) => paint(part, isColoured, isAscii)).join('')}\n`)
        .join(''),
  };
}

function paint({ text, tone }: Span, isColoured: boolean, isAscii: boolean): string {
  const shown = isAscii ? visible(text).replaceAll(/[^\u0020-\u007e]/gu, (letter) => ASCII[letter] ?? '?') : visible(text);
  return isColoured && COLOURS[tone] !== '' && shown !== '' ? `\u001b[${COLOURS[tone]}m${shown}\u001b[0m` : shown;
}

function fit(line: Line, width: number | undefined, tooLong: 'wrap' | 'cut'): readonly Line[] {
  if (width === undefined || widthOf(line) <= width) return [line];
  const lines: Span[][] = [[]];
  const room = tooLong === 'cut' ? width - 1 : width;
  let column = 0;
  for (const { text, tone } of line) {
    let part = '';
    const flush = (): void => void (part !== '' && lines.at(-1)?.push({ text: part, tone }));
    for (const letter of text) {
      const columns = columnsOf(letter);
      if (column + columns > room) {
        flush();
        if (tooLong === 'cut') return [[...(lines[0] ?? []), { text: '…', tone: 'soft' }]];
        lines.push([{ text: ' '.repeat(INDENT), tone: 'plain' }]);
        column = INDENT;
        part = '';
      }
      part += letter;
      column += columns;
    }
    flush();
  }
  return lines;
}

/** From here on letters of East Asia, and pictures, take two columns. Marks that take none are counted as one: a line is then cut early. */
const FIRST_WIDE = 0x11_00;

function columnsOf(letter: string): number {
  return (letter.codePointAt(0) ?? 0) >= FIRST_WIDE && !isDrawing(letter) ? 2 : 1;
}

/** General punctuation to geometric shapes: the dashes and bars that we draw with, and the sign for what is not shown. */
function isDrawing(letter: string): boolean {
  return /^[\u2000-\u25ff\ufffd]$/.test(letter);
}
