import type { ConfigIssue } from './issue.ts';

/** Longer than the longest SPIFFE ID, with room for a comment. */
const MAX_LINE_BYTES = 8192;
/** Problems that are told: whoever wrote a million wrong lines made one mistake. */
export const MAX_ISSUES = 20;

const BLANK = /^[ \t]*(?:#.*)?$/;
const END_MARK = /^\.\.\.(?:[ \t].*)?$/;
// oxlint-disable-next-line no-control-regex -- control characters are what is looked for
const CONTROL = /[\u0000-\u0008\u000a-\u001f\u007f]/;

/**
 * Reads a text as it comes, line by line: comments, blank lines, and at last the end mark `...`, so that a file that was cut off is not
 * taken for a whole one. What else there may be, those say who extend it. Never throws, whatever the bytes are.
 */
export abstract class LineReader {
  readonly #source: string;
  readonly #issues: ConfigIssue[] = [];
  /** What came after the last line break. */
  #rest = '';
  #line = 0;
  #isEnded = false;
  #isGivenUp = false;

  constructor(source: string) {
    this.#source = source;
  }

  /** The number of the line that is being read, from 1. */
  protected get line(): number {
    return this.#line;
  }

  /** False: there is no use in reading on. */
  push(bytes: Buffer): boolean {
    const text = this.#rest + bytes.toString('latin1');
    let from = 0;
    for (let end = text.indexOf('\n'); end !== -1 && !this.#isGivenUp; end = text.indexOf('\n', from)) {
      this.#readLine(text.slice(from, end));
      from = end + 1;
    }
    this.#rest = text.slice(from);
    if (this.#rest.length > MAX_LINE_BYTES && !this.#isGivenUp) this.#readLine(this.#rest);
    return !this.#isGivenUp;
  }

  /** There is no more. What is wrong, in the order of the lines; none: all of it was read. */
  finish(): readonly ConfigIssue[] {
    if (this.#isGivenUp) return this.#issues;
    if (this.#rest !== '') this.#readLine(this.#rest);
    if (!this.#isEnded && !this.#isGivenUp) {
      this.#line += 1;
      this.problem(0, 'the line "..." is missing, with which the file must end: it may have been cut off');
    }
    return this.#issues;
  }

  /** A line that is not blank, not a comment and not the end mark, without its line break. */
  protected abstract readContent(line: string): void;

  /** `offset` is from the beginning of the line that is being read. */
  protected problem(offset: number, message: string): void {
    this.#issues.push({ source: this.#source, line: this.#line, column: offset + 1, path: '', message });
    if (this.#issues.length >= MAX_ISSUES) this.#isGivenUp = true;
  }

  #readLine(raw: string): void {
    this.#line += 1;
    if (raw.length > MAX_LINE_BYTES) {
      this.#isGivenUp = true;
      this.problem(0, `the line is longer than ${MAX_LINE_BYTES} bytes`);
      return;
    }
    const line = raw.endsWith('\r') ? raw.slice(0, -1) : raw;
    const control = CONTROL.exec(line);
    if (control !== null) this.problem(control.index, 'a control character');
    else if (BLANK.test(line)) return;
    else if (this.#isEnded) this.problem(0, 'stands after the line "...", which must be the last');
    else if (END_MARK.test(line)) this.#readEnd(line);
    else this.readContent(line);
  }

  #readEnd(line: string): void {
    this.#isEnded = true;
    const [, after = ''] = /^\.\.\.[ \t]*(.*)$/.exec(line) ?? [];
    if (after !== '' && !after.startsWith('#')) this.problem(3, 'nothing may follow "..." on its line');
  }
}
