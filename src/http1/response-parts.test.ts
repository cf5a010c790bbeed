import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Fields } from './fields.ts';
import { ResponseParts, type ResponsePartsSink } from './response-parts.ts';
import { ResponseReader, type ResponseSink } from './response-reader.ts';

const LIMITS = { maxHeadBytes: 4096, maxFields: 10 };
const RESPONSES: readonly (readonly [string, string, boolean?])[] = [
  ['GET', 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello'],
  ['GET', 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'],
  ['GET', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;a=b\r\n!\r\n0\r\n\r\n'],
  ['GET', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n'],
  ['GET', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'],
  ['HEAD', 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n'],
  ['HEAD', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'],
  ['GET', 'HTTP/1.1 204 No\r\n\r\n'],
  ['GET', 'HTTP/1.1 103 Early\r\nLink: a\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 304 Not\r\nContent-Length: 5\r\n\r\n'],
  ['GET', 'HTTP/1.0 200 OK\r\n\r\nuntil it ends', true],
  ['GET', 'HTTP/1.1 200 OK\r\n\r\n', true],
  ['GET', 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel', true],
  ['GET', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel', true],
  ['GET', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n', true],
  ['GET', 'HTTP/1.1 20', true],
  ['GET', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX'],
  ['GET', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n'],
  ['GET', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nBad\r\n\r\n'],
  ['GET', 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello'],
  ['GET', 'HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n'],
  ['GET', 'junk\r\n\r\n'],
  ['GET', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nunasked'],
  ['GET', `HTTP/1.1 200 OK\r\n${'A: b\r\n'.repeat(11)}\r\n`],
];

/** What is told of a response that comes in these pieces. */
function read(method: string, pieces: readonly Buffer[], ends: boolean): readonly string[] {
  const told: string[] = [];
  let body = '';
  const flush = (): void => {
    if (body !== '') told.push(`content ${body}`);
    body = '';
  };
  const sink: ResponsePartsSink = {
    headRead: (isLast) => told.push(`head ${parts.head.status} ${parts.fields.count}${isLast ? ' ends' : ''}`),
    contentRead(chunk, start, end, isLast) {
      assert.ok(end > start || isLast, 'no crumbs');
      body += chunk.toString('latin1', start, end);
      if (!isLast) return;
      flush();
      told.push('end');
    },
    trailersRead() {
      flush();
      told.push(`trailers ${parts.fields.name(0)} ${parts.fields.count}`);
    },
    responseRefused(detail) {
      body = '';
      told.push(`refused: ${detail}`);
    },
  };
  const parts = new ResponseParts(sink, LIMITS, new Fields(LIMITS.maxFields));
  parts.expect({ method, minorVersion: 1, upgrade: undefined, close: false });
  for (const piece of pieces) {
    if (parts.isOver) break;
    const taken = parts.read(piece);
    if (taken < piece.length) told.push('unasked');
    // What the transport does with its memory.
    piece.fill('#');
  }
  if (ends && !parts.isOver) told.push(`ended: ${parts.ended() ?? 'whole'}`);
  flush();
  assert.equal(parts.isOver || ends, true);
  return told;
}

test('a response says the same wherever its bytes are cut', () => {
  for (const [method, text, ends = false] of RESPONSES) {
    const whole = read(method, [Buffer.from(text)], ends);
    for (let cut = 1; cut < text.length; cut++) {
      const told = read(method, [Buffer.from(text.slice(0, cut)), Buffer.from(text.slice(cut))], ends);
      // What is unasked may come in a piece of its own; and of what is refused, a part may have been told.
      const without = (list: readonly string[]): readonly string[] =>
        list.filter((each) => each !== 'unasked' && !isPartOfRefused(list, each));
      assert.deepEqual(without(told), without(whole), `${JSON.stringify(text)} cut at ${cut}`);
    }
    const bytes = Array.from(Buffer.from(text), (byte) => Buffer.of(byte));
    assert.deepEqual(read(method, bytes, ends).at(-1) === undefined, false);
  }
});

function isPartOfRefused(list: readonly string[], each: string): boolean {
  return each.startsWith('content') && list.some((other) => other.startsWith('refused'));
}

test('what is taken for a response, and for its end, is what the reader takes that keeps the bytes', () => {
  for (const [method, text, ends = false] of RESPONSES) {
    const told = read(method, [Buffer.from(text)], ends);
    let isWhole = false;
    let refused: string | undefined;
    const sink: ResponseSink = {
      responseRead: () => undefined,
      finalHead: () => undefined,
      responseWhole: () => (isWhole = true),
      unasked: () => undefined,
      responseRefused: (detail) => (refused = detail),
    };
    const reader = new ResponseReader(sink, LIMITS, new Fields(LIMITS.maxFields), false, []);
    reader.expect({ method, minorVersion: 1, upgrade: undefined, close: false }, false);
    reader.read(Buffer.from(text));
    const isEnd = (each: string): boolean => each === 'end' || each.endsWith(' ends') || each.startsWith('trailers');
    assert.equal(told.some(isEnd), isWhole || (ends && reader.part === 'body' && reader.head.framing.kind === 'close'), text);
    assert.deepEqual(
      told.filter((each) => each.startsWith('refused: ')),
      refused === undefined ? [] : [`refused: ${refused}`],
      text,
    );
  }
});
