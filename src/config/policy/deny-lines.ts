import { DENY_KINDS, DenyListBuilder, type DenyKind } from '../../policy/deny-list.ts';
import { LineReader } from '../line-reader.ts';

const BEGIN_MARK = /^---[ \t]*(?:[ \t]#.*)?$/;
const BLOCK = /^([A-Za-z]+):(?:[ \t]+(\[\]))?[ \t]*(?:[ \t]#.*)?$/;
/** Plain, or in quotes of either kind, in which nothing here needs an escape. */
const ITEM = /^( *)-( +)(?:"([^"\\]*)"|'([^']*)'|([^\s"'#]\S*))[ \t]*(?:[ \t]#.*)?$/;

/**
 * Reads a deny list as it comes, line by line, in a strict part of YAML: `ids:`, `certificates:` and `serials:`, each once and each with
 * `- value` lines, comments, and at last the end mark.
 */
export class DenyLineReader extends LineReader {
  /** After `finish` without a problem it has all of the list. */
  readonly builder = new DenyListBuilder();
  readonly #seen = new Set<DenyKind>();
  #block: DenyKind | undefined;
  /** Of the block's items. */
  #indent: number | undefined;
  #isBegun = false;

  protected override readContent(line: string): void {
    const item = ITEM.exec(line);
    if (item === null || this.#block === undefined) {
      this.#readOther(line);
      return;
    }
    const [, indent = '', gap = '', double, single, plain] = item;
    this.#indent ??= indent.length;
    if (this.#indent !== indent.length) {
      this.problem(indent.length, `stands ${indent.length} spaces in, and the entries above ${this.#indent}`);
      return;
    }
    const value = double ?? single ?? plain ?? '';
    const problem = this.builder.add(this.#block, value, this.line);
    if (problem !== undefined) this.problem(indent.length + 1 + gap.length, `${JSON.stringify(value.slice(0, 200))}: ${problem}`);
  }

  #readOther(line: string): void {
    const mayBegin = !this.#isBegun;
    this.#isBegun = true;
    if (mayBegin && BEGIN_MARK.test(line)) return;
    this.#beginBlock(line);
  }

  #beginBlock(line: string): void {
    const [, key = '', isEmpty] = BLOCK.exec(line) ?? [];
    const kind = DENY_KINDS.find((known) => known === key);
    if (kind === undefined) {
      const what = key === '' ? 'is not what can stand here' : `${JSON.stringify(key)} is not known`;
      this.problem(
        Math.max(line.search(/[^ \t]/), 0),
        `${what}: there are ${DENY_KINDS.map((known) => `"${known}:"`).join(', ')}, "- " with a value, and "..."`,
      );
      return;
    }
    if (this.#seen.has(kind)) this.problem(0, `"${kind}:" is there twice`);
    this.#seen.add(kind);
    this.#block = isEmpty === undefined ? kind : undefined;
    this.#indent = undefined;
  }
}
