/** The fields of a response over HTTP/2 for the client: the application's, if they are what they must be (RFC 9113, section 8). Pure. */
import { isName, isValue, NOT_OVER_HTTP2 } from './field-rules.ts';
import type { HpackField } from './hpack/field.ts';

export interface ResponseFields {
  readonly status: number;
  /** Octets of the body, if the head says how many. */
  readonly announced: number | undefined;
  /** Octets of the head, about as HTTP/1.1 has it. */
  readonly size: number;
}

const STATUS = /^[1-5][0-9]{2}$/;
const LENGTH = /^[0-9]{1,15}$/;
const LINE_BYTES = 4;

/** Answers a text that says why an application may not say this. */
export function readResponseFields(list: readonly HpackField[], maxFields: number): ResponseFields | string {
  const [first, ...rest] = list;
  if (first?.[0] !== ':status' || !STATUS.test(first[1])) return 'the status is not a number from 100 to 599';
  const status = Number(first[1]);
  // Nobody may switch to another protocol over HTTP/2 (section 8.6).
  if (status === 101) return '101 over HTTP/2';
  let announced: number | undefined;
  let size = 2 * LINE_BYTES;
  for (const [name, value] of rest) {
    const problem = fieldProblem(name, value);
    if (problem !== undefined) return problem;
    size += name.length + value.length + LINE_BYTES;
    if (name !== 'content-length') continue;
    if (announced !== undefined || !LENGTH.test(value)) return 'Content-Length is not one number';
    announced = Number(value);
  }
  if (list.length > maxFields) return 'too many fields';
  if ((status < 200 || status === 204) && announced !== undefined && announced > 0) return `${status} has no Content-Length`;
  return { status, announced, size };
}

/** Answers a text that says why an application may not say this after a body. */
export function responseTrailersProblem(list: readonly HpackField[], maxFields: number): string | undefined {
  for (const [name, value] of list) {
    const problem = fieldProblem(name, value);
    if (problem !== undefined) return problem;
    if (name === 'content-length' || name === 'host') return 'a trailer that would frame the message anew';
  }
  return list.length > maxFields ? 'too many fields' : undefined;
}

function fieldProblem(name: string, value: string): string | undefined {
  if (!isName(name)) return 'a field has no valid name';
  if (!isValue(value)) return 'a field has a value with a byte that it may not have';
  return NOT_OVER_HTTP2.has(name) || name === 'te' ? 'a field is for the connection alone' : undefined;
}
