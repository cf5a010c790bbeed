/** Whatever Scute takes, llhttp must take, with the same fields and the same end; and so must who is sent it. */
import assert from 'node:assert/strict';
import { readResponsesWithLlhttp, readWithLlhttp } from '../support/llhttp.ts';
import { generateRequests, generateResponses } from './generate.ts';
import { Draws } from './random.ts';
import { OUR_FIELDS, readRequests, readResponses } from './scute-readers.ts';

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

  // What came, message by message: after an Upgrade llhttp takes the rest for no message at all.
  let start = 0;
  for (const { request, end } of whole) {
    if (!names(request.fields).includes('upgrade')) {
      assert.deepEqual(readWithLlhttp(bytes.subarray(start, end)), { messages: [request], begun: undefined, problem: undefined }, text);
    }
    start = end;
  }
  // All of it at once: neither more nor fewer, and nothing is taken that llhttp would refuse.
  const isLast = whole.at(-1)?.close === true;
  const taken = bytes.subarray(0, begun?.end ?? start);
  const seenNames = [...whole.map(({ request }) => request), ...(begun === undefined ? [] : [begun.request])].flatMap(({ fields }) =>
    names(fields),
  );
  // llhttp ends the connection with `Proxy-Connection: close`, too, which Scute takes away.
  if (!seenNames.includes('upgrade') && !seenNames.includes('proxy-connection')) {
    const raw = readWithLlhttp(taken);
    assert.equal(raw.problem, undefined, text);
    assert.deepEqual(
      raw.messages,
      whole.map(({ request }) => request),
      text,
    );
    if (begun !== undefined) {
      assert.ok(raw.begun !== undefined, text);
      assert.deepEqual({ ...raw.begun, body: '' }, { ...begun.request, body: '' }, text);
      assert.equal(raw.begun.body.length, begun.contentBytes, text);
    }
  }

  // What the application is sent.
  const switches = whole.findIndex(({ forwarded }) => forwarded.includes('\r\nUpgrade: websocket\r\n'));
  const sent = switches === -1 ? whole : whole.slice(0, switches + 1);
  const goesOn = switches === -1 && !isLast;
  const seen = readWithLlhttp(Buffer.concat([...sent.map(({ forwarded }) => forwarded), ...(goesOn ? [NEXT] : [])]));
  assert.equal(seen.problem, undefined, text);
  assert.equal(seen.messages.length, sent.length + (goesOn ? 1 : 0), text);
  for (const [index, { request }] of sent.entries()) {
    const message = seen.messages[index];
    assert.ok(message !== undefined, text);
    assert.equal(message.method, request.method, text);
    assert.equal(message.target, request.target, text);
    assert.equal(message.body, request.body, text);
    assert.deepEqual(identityIn(message.fields), OUR_FIELDS, text);
  }
  if (goesOn) assert.equal(seen.messages.at(-1)?.target, '/next', text);
  return whole.length;
}

export function checkResponses(bytes: Buffer, asked: readonly string[], draws: Draws): Taken {
  const text = JSON.stringify([bytes.toString('latin1'), asked]);
  const read = readResponses([bytes], asked);
  if (draws.once(4)) assert.deepEqual(readResponses(cut(bytes, draws), asked), read, text);
  const { whole } = read;
  const end = whole.at(-1)?.end ?? 0;

  const raw = readResponsesWithLlhttp(bytes.subarray(0, end), asked, { ended: true });
  assert.equal(raw.problem, undefined, text);
  assert.deepEqual(
    raw.messages.filter(({ status }) => status >= 200),
    whole.map(({ response }) => response),
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
  return whole.length;
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
