/** Node's own HTTP parser, strict as it comes, as a second opinion on where a request ends and what it says. */
import { createRequire } from 'node:module';

interface Parser {
  initialize(kind: number, resource: object): void;
  execute(bytes: Buffer): unknown;
  [callback: number]: (...values: never[]) => unknown;
}

interface ParserClass {
  new (): Parser;
  readonly REQUEST: number;
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

export interface ReadRequest {
  method: string;
  target: string;
  minorVersion: number;
  /** Names and values by turns, trailers after the rest. */
  fields: string[];
  body: string;
}

/** The requests that it finds whole, and its error if it stopped at one. */
export function readWithLlhttp(bytes: Buffer): { readonly requests: readonly ReadRequest[]; readonly problem: string | undefined } {
  const requests: ReadRequest[] = [];
  let request = emptyRequest();
  const parser = new HTTPParser();
  parser.initialize(HTTPParser.REQUEST, {});
  parser[HTTPParser.kOnHeaders] = (fields: string[] | string[][], target: string): void => {
    request.fields.push(...fields.flat());
    request.target ||= target;
  };
  parser[HTTPParser.kOnHeadersComplete] = (
    _major: number,
    minor: number,
    fields: string[] | undefined,
    method: number,
    target: string | undefined,
  ): number => {
    request.fields.push(...(fields ?? []));
    request.method = methods[method] ?? '';
    request.minorVersion = minor;
    request.target ||= target ?? '';
    return 0;
  };
  parser[HTTPParser.kOnBody] = (chunk: Buffer): void => {
    request.body += chunk.toString('latin1');
  };
  parser[HTTPParser.kOnMessageComplete] = (): void => {
    requests.push(request);
    request = emptyRequest();
  };
  const outcome = parser.execute(bytes);
  return { requests, problem: outcome instanceof Error ? String(Reflect.get(outcome, 'code')) : undefined };
}

function emptyRequest(): ReadRequest {
  return { method: '', target: '', minorVersion: 0, fields: [], body: '' };
}
