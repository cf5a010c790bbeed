/** Whatever Scute takes, llhttp must take, with the same fields and the same end; and so must who is sent it. */
import assert from 'node:assert/strict';
import { readResponsesWithLlhttp, readWithLlhttp, type ReadRequest, type ReadResponse } from '../support/http/llhttp.ts';
import { generateRequests, generateResponses } from './generate.ts';
import { Draws } from './random.ts';
import { OUR_FIELDS, readRequests, readResponses, type ResponsesRead } from './scute-readers.ts';

/** Where the two differ on purpose: nowhere else. */
export const DIFFERENCES = {
  absolute_form: 'a target in absolute form is one to llhttp, and a path to Scute, with its authority for Host',
  upgrade: 'llhttp takes what follows a request with Upgrade for no message, whatever it asks for',
  proxy_connection: 'llhttp ends the connection with Proxy-Connection: close, which Scute takes away',
  repeated_length: 'llhttp refuses a response that says one Content-Length several times; Scute says it once',
} as const;
export type Difference = keyof typeof DIFFERENCES;

/** Those that were met. */
export const met = new Set<Difference>();

/** How many messages of a case were taken. */
export type Taken = number;

const NEXT = Buffer.from('GET /next HTTP/1.1\r\nHost: next\r\n\r\n', 'latin1');

/** One case: the same for the same number. Throws with the bytes if the readers differ. */
export function checkCase(number: number): Taken {
  const draws = new Draws(number);
  if (draws.once(3)) {
    const { bytes, asked } = generateResponses(draws);
    return checkResponses(Buffer.from(bytes, 'latin1'), asked, draws);
  }
  return checkRequests(Buffer.from(generateRequests(draws), 'latin1'), draws);
}

export function checkRequests(bytes: Buffer, draws: Draws): Taken {
  const text = JSON.stringify(bytes.toString('latin1'));
  const read = readRequests([bytes]);
  if (draws.once(4)) assert.deepEqual(readRequests(cut(bytes, draws)), read, text);
  const { whole, begun } = read;

  // What came, message by message.
  const authorities: (string | undefined)[] = [];
  let start = 0;
  for (const { request, end } of whole) {
    const seen = readWithLlhttp(bytes.subarray(start, end));
    authorities.push(authorityOf(seen.messages[0] ?? seen.begun));
    if (names(request.fields).includes('upgrade')) met.add('upgrade');
    else {
      const messages = seen.messages.map(inOriginForm);
      assert.deepEqual({ ...seen, messages }, { messages: [request], begun: undefined, problem: undefined }, text);
    }
    start = end;
  }
  // All of it at once: neither more nor fewer, and nothing is taken that llhttp would refuse.
  const isLast = whole.at(-1)?.close === true;
  const taken = bytes.subarray(0, begun?.end ?? start);
  const seenNames = [...whole.map(({ request }) => request), ...(begun === undefined ? [] : [begun.request])].flatMap(({ fields }) =>
    names(fields),
  );
  if (seenNames.includes('proxy-connection')) met.add('proxy_connection');
  else if (!seenNames.includes('upgrade')) {
    const raw = readWithLlhttp(taken);
    assert.equal(raw.problem, undefined, text);
    assert.deepEqual(
      raw.messages.map(inOriginForm),
      whole.map(({ request }) => request),
      text,
    );
    if (begun !== undefined) {
      assert.ok(raw.begun !== undefined, text);
      assert.deepEqual({ ...inOriginForm(raw.begun), body: '' }, { ...begun.request, body: '' }, text);
      assert.equal(raw.begun.body.length, begun.contentBytes, text);
    }
  }

  // What the application is sent.
  const switches = whole.findIndex(({ upgrade }) => upgrade !== undefined);
  const sent = switches === -1 ? whole : whole.slice(0, switches + 1);
  const goesOn = switches === -1 && !isLast;
  const seen = readWithLlhttp(Buffer.concat([...sent.map(({ forwarded }) => forwarded), ...(goesOn ? [NEXT] : [])]));
  assert.equal(seen.problem, undefined, text);
  assert.equal(seen.messages.length, sent.length + (goesOn ? 1 : 0), text);
  for (const [index, { request, upgrade, close }] of sent.entries()) {
    const message = seen.messages[index];
    assert.ok(message !== undefined, text);
    assert.equal(message.method, request.method, text);
    assert.equal(message.target, request.target, text);
    assert.equal(message.body, request.body, text);
    assert.deepEqual(identityIn(message.fields), OUR_FIELDS, text);
    const authority = authorities[index];
    assert.deepEqual(valuesOf(message.fields, 'host'), authority === undefined ? valuesOf(request.fields, 'host') : [authority], text);
    const connection = upgrade === undefined ? (close ? ['close'] : []) : ['Upgrade'];
    assert.deepEqual(valuesOf(message.fields, 'connection'), connection, text);
    assert.deepEqual(valuesOf(message.fields, 'upgrade'), upgrade === undefined ? [] : [upgrade], text);
    assert.deepEqual(hopByHopIn(message.fields), [], text);
  }
  if (goesOn) assert.equal(seen.messages.at(-1)?.target, '/next', text);
  return whole.length;
}

export function checkResponses(bytes: Buffer, asked: readonly string[], draws: Draws): Taken {
  const text = JSON.stringify([bytes.toString('latin1'), asked]);
  const read = readResponses([bytes], asked);
  if (draws.once(4)) assert.deepEqual(messagesOf(readResponses(cut(bytes, draws), asked)), messagesOf(read), text);
  const { whole } = read;

  // What came.
  let start = 0;
  const pieces = whole.map(({ end }) => {
    const piece = asLlhttpTakesIt(bytes.subarray(start, end));
    start = end;
    return piece;
  });
  const raw = readResponsesWithLlhttp(Buffer.concat(pieces), asked, { ended: true });
  assert.equal(raw.problem, undefined, text);
  assert.deepEqual(
    raw.messages.filter(({ status }) => status >= 200),
    whole.map(({ response }) => ({ ...response, fields: pairsAsLlhttpTakesThem(response.fields) })),
    text,
  );
  const interim = raw.messages.filter(({ status }) => status < 200);
  assert.deepEqual(
    interim.map(({ status }) => status),
    whole.flatMap((each) => each.interim),
    text,
  );
  assert.ok(
    interim.every(({ body }) => body === ''),
    text,
  );

  // What the client is sent.
  for (const [index, { response, forwarded }] of whole.entries()) {
    const seen = readResponsesWithLlhttp(forwarded, asked.slice(index), { ended: true });
    assert.equal(seen.problem, undefined, text);
    const final = seen.messages.at(-1);
    assert.deepEqual([final?.status, final?.minorVersion, final?.body], [response.status, 1, response.body], text);
    for (const message of seen.messages) checkSentResponse(message, text);
    const nominated = valuesOf(response.fields, 'connection').flatMap((value) => value.toLowerCase().split(/[ \t]*,[ \t]*/));
    const left = names(final?.fields ?? []).filter((name) => nominated.includes(name));
    assert.deepEqual(
      left.filter((name) => !['content-length', 'transfer-encoding', 'connection', 'upgrade'].includes(name)),
      [],
      text,
    );
  }
  return whole.length;
}

function checkSentResponse({ status, fields }: ReadResponse, text: string): void {
  assert.deepEqual(hopByHopIn(fields), [], text);
  const connection = valuesOf(fields, 'connection');
  const upgrade = valuesOf(fields, 'upgrade');
  assert.ok(connection.length <= 1 && ['close', 'Upgrade', 'close, Upgrade', undefined].includes(connection[0]), text);
  assert.ok(upgrade.length === 0 || (status === 426 && connection[0]?.endsWith('Upgrade')), text);
  assert.ok(valuesOf(fields, 'content-length').length <= 1, text);
  if (status === 204 || status === 304) assert.deepEqual(valuesOf(fields, 'transfer-encoding'), [], text);
}

/** Where the cuts lie makes no difference to what is said, only to how much was looked at. */
function messagesOf({ whole, isRefused }: ResponsesRead): unknown {
  return { whole: whole.map(({ forwarded, ...rest }) => ({ ...rest, forwarded: forwarded.toString('latin1') })), isRefused };
}

const ABSOLUTE = /^https?:\/\/([^/?]*)(.*)$/is;

function inOriginForm(request: ReadRequest): ReadRequest {
  const rest = ABSOLUTE.exec(request.target)?.[2];
  if (rest === undefined) return request;
  met.add('absolute_form');
  const nothing = request.method === 'OPTIONS' ? '*' : '/';
  return { ...request, target: rest === '' ? nothing : rest.startsWith('?') ? `/${rest}` : rest };
}

function authorityOf(request: ReadRequest | undefined): string | undefined {
  return ABSOLUTE.exec(request?.target ?? '')?.[1];
}

/** A final response and interim ones before it, without what differs on purpose. */
function asLlhttpTakesIt(message: Buffer): Buffer {
  let rest = message.toString('latin1');
  let said = '';
  for (;;) {
    const end = rest.indexOf('\r\n\r\n') + 2;
    const [line = '', ...lines] = rest.slice(0, end).split('\r\n').slice(0, -1);
    const pairs = lines.flatMap((each) => [
      each.slice(0, each.indexOf(':')),
      each.slice(each.indexOf(':') + 1).replace(/^[ \t]+|[ \t]+$/g, ''),
    ]);
    const one = pairsAsLlhttpTakesThem(pairs);
    // Else as it came, to the last space.
    if (one === pairs) said += rest.slice(0, end);
    else said += [line, ...one.flatMap((name, index) => (index % 2 === 0 ? [`${name}: ${one[index + 1]}`] : [])), ''].join('\r\n');
    rest = rest.slice(end);
    if (!/^HTTP\/1\.[01] 1/.test(line)) return Buffer.from(said + rest, 'latin1');
    said += rest.slice(0, 2);
    rest = rest.slice(2);
  }
}

/** The very same pairs if there is nothing to take out. */
function pairsAsLlhttpTakesThem(pairs: string[]): string[] {
  const lengths = valuesOf(pairs, 'content-length');
  const isRepeated = lengths.length > 1 || lengths[0]?.includes(',') === true;
  const namesProxy = names(pairs).includes('proxy-connection');
  if (!isRepeated && !namesProxy) return pairs;
  if (isRepeated) met.add('repeated_length');
  if (namesProxy) met.add('proxy_connection');
  let isFirst = true;
  return pairs.flatMap((name, index) => {
    if (index % 2 === 1) return [];
    const value = pairs[index + 1] ?? '';
    if (name.toLowerCase() === 'proxy-connection') return [];
    if (name.toLowerCase() !== 'content-length') return [name, value];
    const one = isFirst ? [name, value.replace(/[ \t]*,.*/, '')] : [];
    isFirst = false;
    return one;
  });
}

function cut(bytes: Buffer, draws: Draws): Buffer[] {
  if (draws.once(8)) return [...bytes].map((byte) => Buffer.of(byte));
  const pieces: Buffer[] = [];
  let from = 0;
  for (let left = 1 + draws.below(3); left > 0 && from < bytes.length; left--) {
    const to = from + draws.below(bytes.length - from + 1);
    pieces.push(bytes.subarray(from, to));
    from = to;
  }
  pieces.push(bytes.subarray(from));
  return pieces;
}

function names(fields: readonly string[]): string[] {
  return fields.filter((_, index) => index % 2 === 0).map((name) => name.toLowerCase());
}

/** Names and values by turns of all fields that an application could take for ours. */
function identityIn(fields: readonly string[]): string[] {
  return fields.flatMap((name, index) => {
    if (index % 2 === 1) return [];
    const folded = name.toLowerCase().replace(/[^a-z0-9]/g, '-');
    return folded === 'x-forwarded-client-cert' || folded === 'x-peer' ? [name, fields[index + 1] ?? ''] : [];
  });
}

function valuesOf(fields: readonly string[], name: string): string[] {
  return fields.flatMap((each, index) => (index % 2 === 0 && each.toLowerCase() === name ? [fields[index + 1] ?? ''] : []));
}

/** Those that go no further, but for `Connection` and `Upgrade`, of which there may be ours. */
function hopByHopIn(fields: readonly string[]): string[] {
  return names(fields).filter((name) => ['keep-alive', 'proxy-connection', 'te'].includes(name));
}
