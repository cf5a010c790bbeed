/** Node's own HTTP parser, strict as it comes, as a second opinion on where a message ends and what it says. */
import { createRequire } from 'node:module';

interface Parser {
  initialize(kind: number, resource: object): void;
  execute(bytes: Buffer): unknown;
  finish(): unknown;
  /** Frees it: nothing else does. */
  close(): void;
  [callback: number]: (...values: never[]) => unknown;
}

interface ParserClass {
  new (): Parser;
  readonly REQUEST: number;
  readonly RESPONSE: number;
  readonly kOnHeaders: number;
  readonly kOnHeadersComplete: number;
  readonly kOnBody: number;
  readonly kOnMessageComplete: number;
}

// No public module has it.
const { HTTPParser, methods } = createRequire(import.meta.url)('_http_common') as {
  readonly HTTPParser: ParserClass;
  readonly methods: readonly string[];
};

/** The list leaves out those of RTSP, whose numbers lie before that of QUERY. */
const QUERY = 46;
/** What its answer to the end of a head makes of the rest. */
const WITH_BODY = 0;
const WITHOUT_BODY = 1;
const NO_FURTHER_MESSAGE = 2;

export interface ReadRequest {
  method: string;
  target: string;
  minorVersion: number;
  /** Names and values by turns, trailers after the rest. */
  fields: string[];
  /** Latin-1. */
  body: string;
}

export interface ReadResponse {
  status: number;
  minorVersion: number;
  fields: string[];
  body: string;
}

export interface WithLlhttp<Message> {
  /** Those that are whole. */
  readonly messages: readonly Message[];
  /** The one whose head is whole, and which is not; without the names of fields that came late. */
  readonly begun: Message | undefined;
  /** Its error, if it stopped at one. */
  readonly problem: string | undefined;
}

type HeadersComplete = (
  major: number,
  minor: number,
  fields: string[] | undefined,
  method: number,
  target: string | undefined,
  status: number,
) => number;

/** The requests that it finds in bytes that come in these pieces. */
export function readWithLlhttp(...pieces: readonly Buffer[]): WithLlhttp<ReadRequest> {
  const messages: ReadRequest[] = [];
  let request = emptyRequest();
  let hasHead = false;
  const parser = createParser(HTTPParser.REQUEST, {
    fields(fields, target) {
      request.fields.push(...fields);
      request.target ||= target;
    },
    head(_major, minor, fields, method, target) {
      request.fields.push(...(fields ?? []));
      request.method = method === QUERY ? 'QUERY' : (methods[method] ?? '');
      request.minorVersion = minor;
      request.target ||= target ?? '';
      hasHead = true;
      return WITH_BODY;
    },
    body(text) {
      request.body += text;
    },
    end() {
      messages.push(request);
      request = emptyRequest();
      hasHead = false;
    },
  });
  const problem = execute(parser, pieces, false);
  return { messages, begun: hasHead ? request : undefined, problem };
}

/**
 * The responses that it finds, final and interim, to requests with these methods. `ended`: the connection is over, which
 * ends a response without a length. After a 101 it reads no further.
 */
export function readResponsesWithLlhttp(
  bytes: Buffer,
  asked: readonly string[],
  { ended = false }: { readonly ended?: boolean } = {},
): WithLlhttp<ReadResponse> {
  const messages: ReadResponse[] = [];
  let response = emptyResponse();
  let finals = 0;
  let hasHead = false;
  const parser = createParser(HTTPParser.RESPONSE, {
    fields(fields) {
      response.fields.push(...fields);
    },
    head(_major, minor, fields, _method, _target, status) {
      response.fields.push(...(fields ?? []));
      response.minorVersion = minor;
      response.status = status;
      hasHead = true;
      if (status === 101) return NO_FURTHER_MESSAGE;
      // As Node's client does it.
      return status >= 200 && asked[finals++] === 'HEAD' ? WITHOUT_BODY : WITH_BODY;
    },
    body(text) {
      response.body += text;
    },
    end() {
      messages.push(response);
      response = emptyResponse();
      hasHead = false;
    },
  });
  const problem = execute(parser, [bytes], ended);
  return { messages, begun: hasHead ? response : undefined, problem };
}

interface Callbacks {
  fields(fields: readonly string[], target: string): void;
  head: HeadersComplete;
  body(text: string): void;
  end(): void;
}

function createParser(kind: number, callbacks: Callbacks): Parser {
  const parser = new HTTPParser();
  parser.initialize(kind, {});
  parser[HTTPParser.kOnHeaders] = (fields: string[] | string[][], target: string): void => callbacks.fields(fields.flat(), target);
  parser[HTTPParser.kOnHeadersComplete] = callbacks.head;
  parser[HTTPParser.kOnBody] = (chunk: Buffer): void => callbacks.body(chunk.toString('latin1'));
  parser[HTTPParser.kOnMessageComplete] = (): void => callbacks.end();
  return parser;
}

function execute(parser: Parser, pieces: readonly Buffer[], ended: boolean): string | undefined {
  let problem: string | undefined;
  for (const piece of pieces) problem ??= problemOf(parser.execute(piece));
  if (ended) problem ??= problemOf(parser.finish());
  parser.close();
  return problem;
}

function problemOf(outcome: unknown): string | undefined {
  return outcome instanceof Error ? String(Reflect.get(outcome, 'code')) : undefined;
}

function emptyRequest(): ReadRequest {
  return { method: '', target: '', minorVersion: 0, fields: [], body: '' };
}

function emptyResponse(): ReadResponse {
  return { status: 0, minorVersion: 0, fields: [], body: '' };
}
