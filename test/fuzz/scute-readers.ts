/** What Scute's readers make of bytes, in the terms of llhttp. */
import { buildIdentityFields, rewriteHead } from '../../src/http1/identity-fields.ts';
import { Fields, type Framing } from '../../src/http1/fields.ts';
import { RequestReader, type RequestSink } from '../../src/http1/request-reader.ts';
import { ResponseReader, type ResponseSink } from '../../src/http1/response-reader.ts';
import type { ReadRequest, ReadResponse } from '../support/http/llhttp.ts';

const LIMITS = {
  maxHeadBytes: 32_768,
  maxFields: 1000,
  maxBodyBytes: undefined,
  headTimeoutMs: 1000,
  minBodyBytesPerSecond: undefined,
  responseTimeoutMs: undefined,
};
const identity = buildIdentityFields(
  { xfcc: 'sanitize-set', spiffeIdHeader: 'X-Peer' },
  { peerId: 'spiffe://example.org/web', ownId: 'spiffe://example.org/api', leafSha256: '0'.repeat(64) },
  () => false,
);

/** What may be asked for by `Upgrade`, besides WebSockets. */
const UPGRADES = ['tcp', 'SPDY/3.1'];

/** Names and values by turns of the fields that Scute adds. */
export const OUR_FIELDS: readonly string[] = identity.lines
  .toString('latin1')
  .trimEnd()
  .split(/: |\r\n/);

export interface RequestRead {
  readonly request: ReadRequest;
  /** Where it ends in the bytes. */
  readonly end: number;
  readonly forwarded: Buffer;
  readonly close: boolean;
  /** What the application was asked to switch to. */
  readonly upgrade: string | undefined;
}

export interface RequestsRead {
  readonly whole: readonly RequestRead[];
  /** The head of one that is not whole yet, how much of its content has come, and where what was looked at ends. Undefined between requests and within a head. */
  readonly begun: { readonly request: ReadRequest; readonly contentBytes: number; readonly end: number } | undefined;
  readonly isRefused: boolean;
}

/** Reads requests as a connection does, up to the last of the connection. */
export function readRequests(pieces: readonly Buffer[]): RequestsRead {
  const sink = new Requests();
  for (const piece of pieces) sink.read(piece);
  return sink;
}

class Requests implements RequestSink {
  readonly whole: RequestRead[] = [];
  isRefused = false;
  readonly #fields = new Fields(LIMITS.maxFields);
  readonly #reader = new RequestReader(this, LIMITS, identity, this.#fields, UPGRADES);
  #end = 0;
  #request: ReadRequest | undefined;
  #forwarded: Buffer[] = [];
  #body: Buffer[] = [];

  read(piece: Buffer): void {
    this.#reader.read(piece);
  }

  get begun(): RequestsRead['begun'] {
    const request = this.#request;
    if (request === undefined || this.isRefused) return undefined;
    const { body, bytes } = this.#reader;
    return { request, contentBytes: body.contentBytes, end: this.#end + bytes };
  }

  headRead(): void {
    const { head } = this.#reader;
    const { method, target, minorVersion, fields } = head;
    this.#request = { method, target, minorVersion, fields: pairsOf(fields), body: '' };
    this.#forwarded = [rewriteHead(head, identity)];
    this.#body = [];
    this.#reader.beginBody();
  }

  headRefused(): void {
    this.#refuse();
  }

  headBegun(): void {
    // Time does not pass here.
  }

  bodyRead(chunk: Buffer, start: number, end: number): void {
    const bytes = Buffer.from(chunk.subarray(start, end));
    this.#forwarded.push(bytes);
    // What is read out then is no longer what came.
    if (this.#reader.part === 'trailers') this.#request?.fields.push(...pairsOf(this.#fields));
    else this.#body.push(bytes);
  }

  requestEnded(): void {
    const reader = this.#reader;
    const { head, bytes } = reader;
    this.#end += bytes;
    const body = Buffer.concat(this.#body).toString('latin1');
    if (this.#request === undefined) throw new Error('a request ended that had not begun');
    const request = { ...this.#request, body: contentOf(body, head.framing) };
    this.whole.push({ request, end: this.#end, forwarded: Buffer.concat(this.#forwarded), close: head.close, upgrade: head.upgrade });
    this.#request = undefined;
    reader.part = head.close ? 'over' : 'head';
  }

  requestRefused(): void {
    this.#refuse();
  }

  #refuse(): void {
    this.isRefused = true;
    this.#reader.part = 'over';
  }
}

/** A final one, with the statuses of the interim ones before. */
export interface ResponseRead {
  readonly interim: readonly number[];
  readonly response: ReadResponse;
  /** Where it ends in the bytes. */
  end: number;
  /** What the client is sent, interim ones included. */
  readonly forwarded: Buffer;
}

export interface ResponsesRead {
  readonly whole: readonly ResponseRead[];
  readonly isRefused: boolean;
}

/** Reads responses to requests with these methods as a connection does, up to the last of the connection, which is over then. */
export function readResponses(pieces: readonly Buffer[], asked: readonly string[]): ResponsesRead {
  const sink = new Responses(asked);
  for (const piece of pieces) sink.read(piece);
  sink.finish();
  return sink;
}

class Responses implements ResponseSink {
  readonly whole: ResponseRead[] = [];
  isRefused = false;
  readonly #asked: string[];
  readonly #fields = new Fields(LIMITS.maxFields);
  readonly #reader = new ResponseReader(this, LIMITS, this.#fields, false, UPGRADES);
  #isOver = false;
  #taken = 0;
  #response: ReadResponse | undefined;
  #said: Buffer[] = [];

  constructor(asked: readonly string[]) {
    this.#asked = [...asked];
    this.#next();
  }

  read(piece: Buffer): void {
    for (let at = 0; at < piece.length && !this.#isOver;) {
      const before = this.whole.length;
      // It may write over what it is given. It takes nothing after the end of a response: here that is the next one.
      const taken = this.#reader.read(Buffer.from(piece.subarray(at)));
      at += taken;
      this.#taken += taken;
      const last = this.whole.at(-1);
      if (last !== undefined && this.whole.length > before) last.end = this.#taken;
    }
  }

  finish(): void {
    if (this.#isOver || this.#reader.part !== 'body' || this.#reader.head.framing.kind !== 'close') return;
    this.responseWhole();
    const last = this.whole.at(-1);
    if (last !== undefined) last.end = this.#taken;
  }

  responseRead(chunk: Buffer, start: number, end: number): void {
    this.#said.push(Buffer.from(chunk.subarray(start, end)));
  }

  finalHead(): void {
    const { head, part } = this.#reader;
    this.#response = { status: head.status, minorVersion: head.minorVersion, fields: pairsOf(this.#fields), body: '' };
    // A tunnel is no message.
    if (part === 'tunnel') this.#isOver = true;
  }

  responseWhole(): void {
    if (this.#response === undefined) throw new Error('a response ended that had not begun');
    const { head } = this.#reader;
    const interim: number[] = [];
    const forwarded = Buffer.concat(this.#said);
    let said = forwarded.toString('latin1');
    for (;;) {
      const status = Number(said.slice(9, 12));
      said = said.slice(said.indexOf('\r\n\r\n') + 4);
      if (status >= 200) break;
      interim.push(status);
    }
    if (head.framing.kind === 'chunked') this.#response.fields.push(...pairsOf(this.#fields));
    this.whole.push({ interim, response: { ...this.#response, body: contentOf(said, head.framing) }, end: 0, forwarded });
    this.#isOver = head.close || head.framing.kind === 'close';
    this.#next();
  }

  unasked(): void {
    // As `read` says.
  }

  responseRefused(): void {
    this.isRefused = true;
    this.#isOver = true;
  }

  #next(): void {
    this.#said = [];
    this.#response = undefined;
    const method = this.#asked.shift();
    if (method === undefined) this.#isOver = true;
    else this.#reader.expect({ method, minorVersion: 1, upgrade: method === 'GET' ? 'websocket' : undefined, close: false }, false);
  }
}

function pairsOf(fields: Fields): string[] {
  const pairs: string[] = [];
  for (let field = 0; field < fields.count; field++) pairs.push(fields.name(field), fields.value(field));
  return pairs;
}

/** The content of a body that was found to be well formed. */
function contentOf(body: string, framing: Framing): string {
  if (framing.kind !== 'chunked') return body;
  let content = '';
  for (let at = 0; ;) {
    const lineEnd = body.indexOf('\r\n', at);
    const size = Number.parseInt(body.slice(at, lineEnd), 16);
    if (Number.isNaN(size)) throw new Error(`a chunk without a size was taken: ${JSON.stringify(body)}`);
    if (size === 0) return content;
    content += body.slice(lineEnd + 2, lineEnd + 2 + size);
    at = lineEnd + 2 + size + 2;
  }
}
