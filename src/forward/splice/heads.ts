import type { HttpLimits } from '../../config/config.ts';
import { HpackEncoder } from '../../http2/hpack/encoder.ts';
import type { HpackField } from '../../http2/hpack/field.ts';
import { foldName } from '../../http1/fields.ts';
import { FieldFilter, fieldsOfLines } from '../../http2/identity.ts';
import { readRequestFields, type RequestFields, type RequestProblem } from '../../http2/request-fields.ts';
import { readResponseFields, type ResponseFields } from '../../http2/response-fields.ts';
import type { Bearer, RequestTokens } from '../bearer.ts';
import type { RequestCredential } from '../request-credential.ts';

/** A request as it was read, with the field block for the application. */
export interface ReadRequest extends Omit<RequestFields, 'fields'> {
  readonly block: Buffer;
  /** Whether fields that say another request were taken out. */
  readonly removesOverrides: boolean;
}

/** A head of a response as it was read, with the field block for the client. */
export interface ReadResponse extends ResponseFields {
  readonly block: Buffer;
}

/** What an extended CONNECT may ask for besides WebSockets; undefined as long as it is not offered. What was offered stays so. */
export type Upgrades = () => readonly string[] | undefined;

const encoder = new HpackEncoder();

/** A field block that leaves the table of whoever reads it as it is, so it is the same for everybody, at any time. */
export function encodeFields(fields: readonly HpackField[]): Buffer {
  return encoder.encode(fields);
}

/**
 * Reads heads, and remembers by the very list that HPACK gave what came of it: most clients say the same again and again. The
 * verdict is not among that.
 */
export class Heads {
  readonly #filter: FieldFilter;
  readonly #limits: HttpLimits;
  readonly #scheme: string | undefined;
  readonly #upgrades: Upgrades;
  readonly #requests = new WeakMap<readonly HpackField[], ReadRequest>();
  readonly #responses = new WeakMap<readonly HpackField[], ReadResponse>();

  /** `scheme`: what requests say instead of their own; undefined: theirs. */
  constructor(filter: FieldFilter, limits: HttpLimits, upgrades: Upgrades, scheme?: string) {
    this.#filter = filter;
    this.#limits = limits;
    this.#upgrades = upgrades;
    this.#scheme = scheme;
  }

  /** Or why it is refused. */
  request(list: readonly HpackField[]): ReadRequest | RequestProblem {
    const filter = this.#filter;
    const { removesOverrides } = filter;
    const known = this.#requests.get(list);
    if (known?.removesOverrides === removesOverrides) return known;
    const read = readRequestFields(list, filter, this.#limits, this.#upgrades());
    if ('detail' in read) return read;
    const { method, target, host, protocol, announced, isGrpc, size } = read;
    const isKept = Object.isFrozen(list);
    const block = blockOf(this.#withScheme(read.fields), isKept);
    const made = { method, target, host, protocol, announced, isGrpc, size, block, removesOverrides };
    // Others are not given again.
    if (isKept) this.#requests.set(list, made);
    return made;
  }

  #withScheme(fields: readonly HpackField[]): readonly HpackField[] {
    const scheme = this.#scheme;
    return scheme === undefined ? fields : fields.map((field) => (field[0] === ':scheme' ? [':scheme', scheme] : field));
  }

  /** Or why it may not be said. */
  response(list: readonly HpackField[]): ReadResponse | string {
    const known = this.#responses.get(list);
    if (known !== undefined) return known;
    const read = readResponseFields(list, this.#limits.maxFields);
    if (typeof read === 'string') return read;
    const isKept = Object.isFrozen(list);
    const made = { ...read, block: blockOf(list, isKept) };
    if (isKept) this.#responses.set(list, made);
    return made;
  }
}

/** Requests with a token. */
export class TokenHeads {
  /** What of the fields of such a request goes to the application. */
  readonly filter: FieldFilter;
  readonly problemOf: RequestTokens['problemOf'];
  readonly #tokens: RequestTokens;
  readonly #heads: Heads;
  /** As names are folded. */
  readonly #header: string;
  /** Whose tokens are being verified, or that came after such a one. */
  #waiting = 0;
  #last: Promise<unknown> = Promise.resolve();

  constructor(tokens: RequestTokens, limits: HttpLimits, upgrades: Upgrades) {
    this.filter = new FieldFilter(tokens.identity);
    this.problemOf = (bearer) => tokens.problemOf(bearer);
    this.#tokens = tokens;
    this.#heads = new Heads(this.filter, limits, upgrades);
    this.#header = Buffer.from(tokens.header).toString('latin1');
  }

  /** In the order of the calls: the application takes no stream after one with a higher id (RFC 9113, section 5.1.1). */
  read(list: readonly HpackField[]): Bearer | Promise<Bearer> {
    const header = this.#header;
    const values: string[] = [];
    for (const [name, value] of list) if (name.length === header.length && foldName(name) === header) values.push(value);
    const bearer = this.#tokens.read(values);
    if (this.#waiting === 0 && !(bearer instanceof Promise)) return bearer;
    this.#waiting++;
    const mine = this.#last.then(async () => {
      const read = await bearer;
      this.#waiting--;
      return read;
    });
    this.#last = mine;
    return mine;
  }

  /** With the field that names the subject, which nobody else may send: no client's is left. */
  request(list: readonly HpackField[], subject: string): ReadRequest | RequestProblem {
    const read = this.#heads.request(list);
    if ('detail' in read) return read;
    const ours = encodeFields([[this.#tokens.subjectHeader.toLowerCase(), subject]]);
    return { ...read, block: Buffer.concat([read.block, ours]) };
  }
}

/** A token of ours on requests to a server. */
export class AttachedToken {
  readonly wait: RequestCredential['wait'];
  readonly #credential: RequestCredential;
  /** As names are folded. */
  readonly #name: string;
  /** What `#block` was made of. */
  #line: Buffer | undefined;
  #block: Buffer = Buffer.alloc(0);

  constructor(credential: RequestCredential) {
    this.#credential = credential;
    this.#name = Buffer.from(credential.name).toString('latin1');
    this.wait = (done) => credential.wait(done);
  }

  /** Whether a request goes with it, or with one of its own. */
  isFor(list: readonly HpackField[]): boolean {
    const name = this.#name;
    return this.#credential.replaces || !list.some(([each]) => each.length === name.length && foldName(each) === name);
  }

  /** The field block of one that is valid now; undefined if there is none. No table of anybody's gets it (RFC 7541, section 7.1.3). */
  block(): Buffer | undefined {
    const line = this.#credential.line();
    if (line === undefined) return undefined;
    if (line !== this.#line) {
      this.#line = line;
      this.#block = encodeFields(fieldsOfLines(line).map(([name, value]) => [name, value, true]));
    }
    return this.#block;
  }
}

/** What is kept has memory of its own: it would hold all of the pool that it is a small piece of. */
function blockOf(fields: readonly HpackField[], isKept: boolean): Buffer {
  const block = encodeFields(fields);
  if (!isKept) return block;
  const own = Buffer.allocUnsafeSlow(block.length);
  block.copy(own);
  return own;
}
