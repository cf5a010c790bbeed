import type { HttpLimits } from '../../config/config.ts';
import { HpackEncoder } from '../../http2/hpack/encoder.ts';
import type { HpackField } from '../../http2/hpack/field.ts';
import { foldName } from '../../http1/fields.ts';
import { oneAtATime } from '../../lib/in-turn.ts';
import { withLine } from '../../http1/identity-fields.ts';
import { isChunked, methodOverHttp1, writeRequestHead, writeTrailers } from '../../http2/http1-request.ts';
import { FieldFilter, fieldsOfLines } from '../../http2/identity.ts';
import { readRequestFields, type RequestFields, type RequestProblem } from '../../http2/request-fields.ts';
import { readResponseFields, type ResponseFields } from '../../http2/response-fields.ts';
import type { Bearer, RequestTokens } from '../bearer.ts';
import type { RequestCredential } from '../request-credential.ts';

/** A request as it was read, as it is written for the application. */
export interface ReadRequest extends Omit<RequestFields, 'fields' | 'kept'> {
  readonly block: Buffer;
  /** Over HTTP/1.1, its body is sent in chunks. */
  readonly isChunked: boolean;
  /** Whether fields that say another request were taken out. */
  readonly removesOverrides: boolean;
}

/** A head of a response as it was read, with the field block for the client. */
export interface ReadResponse extends ResponseFields {
  readonly block: Buffer;
  /** The status of the application, where the client is told another one: for the log. */
  readonly told?: number;
}

/** What an extended CONNECT may ask for besides WebSockets; undefined as long as it is not offered. What was offered stays so. */
export type Upgrades = () => readonly string[] | undefined;

const encoder = new HpackEncoder();

/** A field block that leaves the table of whoever reads it as it is, so it is the same for everybody, at any time. */
export function encodeFields(fields: readonly HpackField[]): Buffer {
  return encoder.encode(fields);
}

/** How requests are written for the application. */
export interface RequestForm {
  /** `list` is what `read` was read from; `ends`: there is no body. */
  head(list: readonly HpackField[], read: RequestFields, filter: FieldFilter, ends: boolean): Buffer;
  /** That of the request as the application gets it: what is judged, and said of it. */
  method(read: RequestFields): string;
  /** One field of ours, for `withField`. */
  field(name: string, value: string): Buffer;
  /** A head with one more field. */
  withField(head: Buffer, field: Buffer): Buffer;
  /** Requests are sent in the order in which they came (RFC 9113, section 5.1.1: no stream after one with a higher id). */
  readonly isInOrder: boolean;
  trailers(list: readonly HpackField[]): Buffer;
}

/** As a field block. `scheme`: what requests say instead of their own; undefined: theirs. */
export function asBlock(scheme?: string): RequestForm {
  return {
    head: (_, { fields }) =>
      encodeFields(scheme === undefined ? fields : fields.map((field) => (field[0] === ':scheme' ? [':scheme', scheme] : field))),
    method: ({ method }) => method,
    field: (name, value) => encodeFields([[name.toLowerCase(), value]]),
    withField: (head, field) => Buffer.concat([head, field]),
    isInOrder: true,
    trailers: encodeFields,
  };
}

/** As HTTP/1.1 has it. */
export const AS_HTTP1: RequestForm = {
  head: writeRequestHead,
  method: methodOverHttp1,
  field: (name, value) => Buffer.from(`${name}: ${value}\r\n`, 'latin1'),
  withField: withLine,
  isInOrder: false,
  trailers: writeTrailers,
};

/**
 * Reads heads, and remembers by the very list that HPACK gave what came of it: most clients say the same again and again. The
 * verdict is not among that.
 */
export class Heads {
  readonly #filter: FieldFilter;
  readonly #limits: HttpLimits;
  readonly form: RequestForm;
  readonly #upgrades: Upgrades;
  /** Of those with a body, and of those without. */
  readonly #begun = new WeakMap<readonly HpackField[], ReadRequest>();
  readonly #whole = new WeakMap<readonly HpackField[], ReadRequest>();
  readonly #responses = new WeakMap<readonly HpackField[], ReadResponse>();

  constructor(filter: FieldFilter, limits: HttpLimits, form: RequestForm, upgrades: Upgrades) {
    this.#filter = filter;
    this.#limits = limits;
    this.form = form;
    this.#upgrades = upgrades;
  }

  /** Or why it is refused. `ends`: there is no body. */
  request(list: readonly HpackField[], ends: boolean): ReadRequest | RequestProblem {
    const filter = this.#filter;
    const { removesOverrides } = filter;
    const requests = ends ? this.#whole : this.#begun;
    const known = requests.get(list);
    if (known?.removesOverrides === removesOverrides) return known;
    const read = readRequestFields(list, filter, this.#limits, this.#upgrades());
    if ('detail' in read) return read;
    const { target, host, protocol, announced, isGrpc, expectsContinue, size } = read;
    const isKept = Object.isFrozen(list);
    const block = ownIf(isKept, this.form.head(list, read, filter, ends));
    const chunked = isChunked(read, ends);
    const method = this.form.method(read);
    const made = { method, target, host, protocol, announced, isGrpc, expectsContinue, size, block, isChunked: chunked, removesOverrides };
    // Others are not given again.
    if (isKept) requests.set(list, made);
    return made;
  }

  /** Or why it may not be said. */
  response(list: readonly HpackField[]): ReadResponse | string {
    const known = this.#responses.get(list);
    if (known !== undefined) return known;
    const read = readResponseFields(list, this.#limits.maxFields);
    if (typeof read === 'string') return read;
    const isKept = Object.isFrozen(list);
    const made = { ...read, block: ownIf(isKept, encodeFields(list)) };
    if (isKept) this.#responses.set(list, made);
    return made;
  }
}

/** Requests with a token. */
export class TokenHeads {
  /** What of the fields of such a request goes to the application. */
  readonly filter: FieldFilter;
  readonly problemOf: RequestTokens['problemOf'];
  /** Without the token, unless the application gets that. */
  readonly heads: Heads;
  readonly #tokens: RequestTokens;
  readonly #form: RequestForm;
  /** As names are folded. */
  readonly #header: string;
  /** Most requests of a connection bring the token of one. */
  #subject: { readonly name: string; readonly field: Buffer } | undefined;
  /** Whose tokens are being verified, or that came after such a one. */
  #waiting = 0;
  readonly #inTurn = oneAtATime();

  constructor(tokens: RequestTokens, limits: HttpLimits, form: RequestForm, upgrades: Upgrades) {
    this.filter = new FieldFilter(tokens.identity);
    this.problemOf = (bearer) => tokens.problemOf(bearer);
    this.#tokens = tokens;
    this.heads = new Heads(this.filter, limits, form, upgrades);
    this.#form = form;
    this.#header = Buffer.from(tokens.header).toString('latin1');
  }

  /** Those of the field that has tokens, each time it is there. */
  valuesIn(list: readonly HpackField[]): string[] {
    const header = this.#header;
    const values: string[] = [];
    for (const [name, value] of list) if (name.length === header.length && foldName(name) === header) values.push(value);
    return values;
  }

  /** `values` are those of `valuesIn`. What may be asked is told in the order of the calls, if the application has to be asked in that. */
  read(values: readonly string[]): Bearer | Promise<Bearer> {
    const bearer = this.#tokens.read(values);
    const isKnown = !(bearer instanceof Promise);
    // A refusal is for the client alone.
    if (isKnown && (this.#waiting === 0 || bearer.kind === 'refused')) return bearer;
    if (!this.#form.isInOrder) return bearer;
    this.#waiting++;
    return this.#inTurn(async () => {
      const read = await bearer;
      this.#waiting--;
      return read;
    });
  }

  /** With the field that names the subject, which nobody else may send: no client's is left. `read` is by `heads`. */
  withSubject(read: ReadRequest, subject: string): ReadRequest {
    if (this.#subject?.name !== subject) this.#subject = { name: subject, field: this.#form.field(this.#tokens.subjectHeader, subject) };
    return { ...read, block: this.#form.withField(read.block, this.#subject.field) };
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
function ownIf(isKept: boolean, block: Buffer): Buffer {
  if (!isKept) return block;
  const own = Buffer.allocUnsafeSlow(block.length);
  block.copy(own);
  return own;
}
