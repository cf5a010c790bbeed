/**
 * The configuration language of spiffe-helper, as far as its configuration uses it: HCL 1 with assignments, blocks, lists and objects, without
 * interpolation and here-documents. Strict: what it does not know, and a key that is there twice, is a problem with its place. Pure.
 */
import { err, ok, type Result } from '../lib/result.ts';

export interface Place {
  readonly line: number;
  readonly column: number;
}

export type HclValue = Place &
  (
    | { readonly kind: 'text'; readonly value: string }
    | { readonly kind: 'number'; readonly value: number }
    | { readonly kind: 'boolean'; readonly value: boolean }
    | { readonly kind: 'list'; readonly value: readonly HclValue[] }
    | { readonly kind: 'object'; readonly value: HclObject }
  );

/** By key; the place is that of the key. */
export type HclObject = ReadonlyMap<string, HclValue & { readonly key: Place }>;

export interface HclProblem extends Place {
  /** A sentence. */
  readonly message: string;
}

/** Objects within objects: nobody writes so many. */
const MAX_DEPTH = 16;
const TOKEN =
  /(?<blank>[ \t\r\n]+|#[^\n]*|\/\/[^\n]*|\/\*[^]*?\*\/)|(?<text>"(?:[^"\\\n]|\\.)*")|(?<number>-?[0-9][0-9A-Za-z_.]*)|(?<word>[A-Za-z_][A-Za-z0-9_.-]*)|(?<sign>[={}[\],])/y;

interface Token extends Place {
  readonly kind: 'text' | 'number' | 'word' | 'sign' | 'end';
  readonly text: string;
}

class HclError extends Error {
  override name = 'HclError';
  readonly place: Place;

  constructor(place: Place, message: string) {
    super(message);
    this.place = place;
  }
}

export function parseHcl(text: string): Result<HclObject, HclProblem> {
  try {
    const reader = new Reader(tokensOf(text));
    const value = reader.members('end', 0);
    return ok(value);
  } catch (problem) {
    if (!(problem instanceof HclError)) throw problem;
    return err({ ...problem.place, message: problem.message });
  }
}

function tokensOf(text: string): readonly Token[] {
  const tokens: Token[] = [];
  let line = 1;
  let lineStart = 0;
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < text.length) {
    const at = TOKEN.lastIndex;
    const place = { line, column: at - lineStart + 1 };
    const found = TOKEN.exec(text);
    if (found === null) throw new HclError(place, `${JSON.stringify(text.slice(at, at + 20))} is not understood`);
    const [all] = found;
    const kind = (['text', 'number', 'word', 'sign'] as const).find((name) => found.groups?.[name] !== undefined);
    if (kind !== undefined) tokens.push({ ...place, kind, text: all });
    const breaks = all.split('\n').length - 1;
    if (breaks > 0) {
      line += breaks;
      lineStart = at + all.lastIndexOf('\n') + 1;
    }
  }
  tokens.push({ line, column: text.length - lineStart + 1, kind: 'end', text: 'the end of the file' });
  return tokens;
}

class Reader {
  readonly #tokens: readonly Token[];
  #at = 0;

  constructor(tokens: readonly Token[]) {
    this.#tokens = tokens;
  }

  /** `key = value` or `key { … }`, again and again, until `end`. */
  members(end: '}' | 'end', depth: number): HclObject {
    const members = new Map<string, HclValue & { readonly key: Place }>();
    for (;;) {
      const key = this.#next();
      if (end === 'end' ? key.kind === 'end' : key.text === end && key.kind === 'sign') return members;
      if (key.kind !== 'word' && key.kind !== 'text') throw new HclError(key, `${key.text} stands where a key should`);
      const name = key.kind === 'text' ? unquote(key) : key.text;
      if (members.has(name)) throw new HclError(key, `${JSON.stringify(name)} is there twice`);
      const sign = this.#peek();
      if (sign.text === '=' && sign.kind === 'sign') this.#next();
      else if (!(sign.text === '{' && sign.kind === 'sign')) throw new HclError(sign, `${sign.text} stands where "=" should`);
      const { line, column } = key;
      members.set(name, { ...this.#value(depth + 1), key: { line, column } });
      // Between members of an object written in one line.
      if (this.#peek().text === ',' && this.#peek().kind === 'sign') this.#next();
    }
  }

  #value(depth: number): HclValue {
    const token = this.#next();
    const place = { line: token.line, column: token.column };
    if (depth > MAX_DEPTH) throw new HclError(place, 'is too deep');
    if (token.kind === 'text') return { ...place, kind: 'text', value: unquote(token) };
    if (token.kind === 'number') return { ...place, kind: 'number', value: numberOf(token) };
    if (token.text === 'true' || token.text === 'false') return { ...place, kind: 'boolean', value: token.text === 'true' };
    if (token.kind === 'sign' && token.text === '{') return { ...place, kind: 'object', value: this.members('}', depth) };
    if (token.kind === 'sign' && token.text === '[') return { ...place, kind: 'list', value: this.#list(depth) };
    throw new HclError(token, `${token.text} stands where a value should`);
  }

  #list(depth: number): readonly HclValue[] {
    const values: HclValue[] = [];
    for (;;) {
      const { kind, text } = this.#peek();
      if (kind === 'sign' && text === ']') {
        this.#next();
        return values;
      }
      values.push(this.#value(depth + 1));
      const after = this.#peek();
      if (after.kind === 'sign' && after.text === ',') this.#next();
      else if (!(after.kind === 'sign' && after.text === ']')) throw new HclError(after, `${after.text} stands where "," or "]" should`);
    }
  }

  #peek(): Token {
    const token = this.#tokens[this.#at];
    if (token === undefined) throw new Error('there is nothing after the end');
    return token;
  }

  #next(): Token {
    const token = this.#peek();
    if (token.kind !== 'end') this.#at += 1;
    return token;
  }
}

function unquote(token: Token): string {
  // Interpolation is for languages on top of it; there is none here.
  return token.text.slice(1, -1).replaceAll(/\\(u[0-9a-fA-F]{4}|.)/g, (_, code: string) => {
    if (code.length === 5) return String.fromCharCode(Number.parseInt(code.slice(1), 16));
    const meant = ESCAPES[code];
    if (meant === undefined) throw new HclError(token, `\\${code} is no escape`);
    return meant;
  });
}

const ESCAPES: Readonly<Record<string, string>> = { n: '\n', t: '\t', r: '\r', '"': '"', '\\': '\\' };

/** As Go reads them: a 0 ahead means octal. */
function numberOf(token: Token): number {
  const { text } = token;
  if (/^-?0[0-7]+$/.test(text)) return Number.parseInt(text, 8);
  if (/^-?(?:0|[1-9][0-9]{0,14})$/.test(text)) return Number(text);
  if (/^0x[0-9a-fA-F]{1,12}$/.test(text)) return Number.parseInt(text, 16);
  throw new HclError(token, `${text} is not a whole number`);
}
