import { DENY_KINDS, DenyListBuilder, type DenyKind } from '../policy/deny-list.ts';
import type { ConfigIssue } from './issue.ts';

/** Longer than the longest SPIFFE ID, with room for a comment. */
const MAX_LINE_BYTES = 8192;
/** Problems that are told: whoever wrote a million wrong lines made one mistake. */
const MAX_ISSUES = 20;

const BLANK = /^[ \t]*(?:#.*)?$/;
const END_MARK = /^\.\.\.(?:[ \t].*)?$/;
const BEGIN_MARK = /^---[ \t]*(?:[ \t]#.*)?$/;
const BLOCK = /^([A-Za-z]+):(?:[ \t]+(\[\]))?[ \t]*(?:[ \t]#.*)?$/;
/** Plain, or in quotes of either kind, in which nothing here needs an escape. */
const ITEM = /^( *)-( +)(?:"([^"\\]*)"|'([^']*)'|([^\s"'#]\S*))[ \t]*(?:[ \t]#.*)?$/;
// oxlint-disable-next-line no-control-regex -- control characters are what is looked for
const CONTROL = /[\u0000-\u0008\u000a-\u001f\u007f]/;

/**
 * Reads a deny list as it comes, line by line, in a strict part of YAML: `ids:`, `certificates:` and `serials:`, each once and each with
 * `- value` lines, comments, and at last the end mark `...`, so that a file that was cut off is not taken for a whole one. Never throws,
 * whatever the bytes are.
 */
export class DenyLineReader {
  readonly builder = new DenyListBuilder();
  readonly #source: string;
  readonly #issues: ConfigIssue[] = [];
  readonly #seen = new Set<DenyKind>();
  /** What came after the last line break. */
  #rest = '';
  #line = 0;
  #block: DenyKind | undefined;
  /** Of the block's items. */
  #indent: number | undefined;
  #isBegun = false;
  #isEnded = false;
  #isGivenUp = false;

  constructor(source: string) {
    this.#source = source;
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

  /** There is no more. What is wrong, in the order of the lines; none: the builder has all of the list. */
  finish(): readonly ConfigIssue[] {
    if (this.#isGivenUp) return this.#issues;
    if (this.#rest !== '') this.#readLine(this.#rest);
    if (!this.#isEnded && !this.#isGivenUp) {
      this.#line += 1;
      this.#problem(0, 'the line "..." is missing, with which the file must end: it may have been cut off');
    }
    return this.#issues;
  }

  #readLine(raw: string): void {
    this.#line += 1;
    if (raw.length > MAX_LINE_BYTES) {
      this.#isGivenUp = true;
      this.#problem(0, `the line is longer than ${MAX_LINE_BYTES} bytes`);
      return;
    }
    const line = raw.endsWith('\r') ? raw.slice(0, -1) : raw;
    const control = CONTROL.exec(line);
    if (control !== null) {
      this.#problem(control.index, 'a control character');
      return;
    }
    const item = ITEM.exec(line);
    if (item !== null && this.#block !== undefined && !this.#isEnded) {
      const [, indent = '', gap = '', double, single, plain] = item;
      this.#indent ??= indent.length;
      if (this.#indent !== indent.length) {
        this.#problem(indent.length, `stands ${indent.length} spaces in, and the entries above ${this.#indent}`);
        return;
      }
      const value = double ?? single ?? plain ?? '';
      const problem = this.builder.add(this.#block, value, this.#line);
      if (problem !== undefined) this.#problem(indent.length + 1 + gap.length, `${JSON.stringify(value.slice(0, 200))}: ${problem}`);
      return;
    }
    if (!BLANK.test(line)) this.#readOther(line);
  }

  #readOther(line: string): void {
    if (this.#isEnded) {
      this.#problem(0, 'stands after the line "...", which must be the last');
    } else if (END_MARK.test(line)) {
      this.#isEnded = true;
      const [, after = ''] = /^\.\.\.[ \t]*(.*)$/.exec(line) ?? [];
      if (after !== '' && !after.startsWith('#')) this.#problem(3, 'nothing may follow "..." on its line');
    } else if (BEGIN_MARK.test(line) && !this.#isBegun) {
      this.#isBegun = true;
    } else {
      this.#isBegun = true;
      this.#beginBlock(line);
    }
  }

  #beginBlock(line: string): void {
    const [, key = '', isEmpty] = BLOCK.exec(line) ?? [];
    const kind = DENY_KINDS.find((known) => known === key);
    if (kind === undefined) {
      const what = key === '' ? 'is not what can stand here' : `${JSON.stringify(key)} is not known`;
      this.#problem(
        Math.max(line.search(/[^ \t]/), 0),
        `${what}: there are ${DENY_KINDS.map((known) => `"${known}:"`).join(', ')}, "- " with a value, and "..."`,
      );
      return;
    }
    if (this.#seen.has(kind)) this.#problem(0, `"${kind}:" is there twice`);
    this.#seen.add(kind);
    this.#block = isEmpty === undefined ? kind : undefined;
    this.#indent = undefined;
  }

  #problem(offset: number, message: string): void {
    this.#issues.push({ source: this.#source, line: this.#line, column: offset + 1, path: '', message });
    if (this.#issues.length >= MAX_ISSUES) this.#isGivenUp = true;
  }
}
