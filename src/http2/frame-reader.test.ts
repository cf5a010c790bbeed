import assert from 'node:assert/strict';
import { test } from 'node:test';
import { frame, hpack, GET, settings, uint32 } from '../../test/support/http/http2-frames.ts';
import { createRandom } from '../../test/support/random.ts';
import {
  CONTINUATION,
  DATA,
  END_HEADERS,
  END_STREAM,
  GOAWAY,
  HAS_PRIORITY,
  HEADERS,
  PADDED,
  PING,
  PREFACE,
  PRIORITY,
  RST_STREAM,
  SETTINGS,
  WINDOW_UPDATE,
  type Fault,
} from './frame.ts';
import { FrameReader, type FrameSink } from './frame-reader.ts';

/** Keeps what is told; parts of DATA that follow each other are one. */
class Told implements FrameSink {
  readonly all: string[] = [];
  #body: { stream: number; text: string; overhead: number } | undefined;

  content(stream: number, bytes: Buffer, start: number, end: number, ends: boolean, overhead: number): undefined {
    if (this.#body?.stream !== stream) this.#flush();
    this.#body ??= { stream, text: '', overhead: 0 };
    this.#body.text += bytes.toString('latin1', start, end);
    this.#body.overhead += overhead;
    if (ends) this.#say('end', stream);
  }
  block(stream: number, bytes: Buffer, start: number, end: number, ends: boolean): undefined {
    this.#say('block', stream, bytes.toString('latin1', start, end), ends);
  }
  reset(...all: number[]): undefined {
    this.#say('reset', ...all);
  }
  settings(bytes: Buffer, start: number, length: number): undefined {
    this.#say('settings', bytes.toString('hex', start, start + length));
  }
  settingsTaken(): undefined {
    this.#say('taken');
  }
  ping(bytes: Buffer, start: number, isAck: boolean): undefined {
    this.#say('ping', bytes.toString('latin1', start, start + 8), isAck);
  }
  goaway(...all: number[]): undefined {
    this.#say('goaway', ...all);
  }
  window(...all: number[]): undefined {
    this.#say('window', ...all);
  }
  idle(): undefined {
    this.#say('idle');
  }

  end(problem: Fault | undefined): readonly string[] {
    this.#say('is read', problem ?? 'well');
    return this.all;
  }

  #say(...what: unknown[]): void {
    this.#flush();
    this.all.push(JSON.stringify(what));
  }

  #flush(): void {
    if (this.#body !== undefined) this.all.push(JSON.stringify(this.#body));
    this.#body = undefined;
  }
}

/** Reads the bytes in pieces of these lengths, and what is left in one. Each piece is scribbled over when it was read. */
function readIn(bytes: Buffer, lengths: Iterable<number>, isClient = true): readonly string[] {
  const told = new Told();
  const reader = new FrameReader(told, { isClient, maxBlockBytes: 5000 });
  let problem: Fault | undefined;
  let at = 0;
  for (const length of [...lengths, bytes.length]) {
    const piece = Buffer.from(bytes.subarray(at, at + length));
    problem ??= reader.read(piece);
    piece.fill('#');
    at += length;
  }
  return told.end(problem);
}

const block = hpack(GET);
const GOOD = Buffer.concat([
  PREFACE,
  settings([4, 10]),
  frame(SETTINGS, 1, 0),
  frame(HEADERS, END_HEADERS, 1, block),
  frame(DATA, 0, 1, Buffer.from('hello')),
  frame(DATA, PADDED, 1, Buffer.from('\x03 world---', 'latin1')),
  frame(DATA, PADDED, 1, Buffer.of(0)),
  frame(DATA, PADDED, 1, Buffer.from('\x04----', 'latin1')),
  frame(DATA, 0, 1),
  frame(PING, 0, 0, Buffer.from('12345678')),
  frame(DATA, END_STREAM, 1),
  frame(
    HEADERS,
    END_STREAM | PADDED | HAS_PRIORITY,
    3,
    Buffer.concat([Buffer.of(2, 0, 0, 0, 1, 7), block.subarray(0, 9), Buffer.alloc(2)]),
  ),
  frame(CONTINUATION, 0, 3, block.subarray(9, 9)),
  frame(CONTINUATION, END_HEADERS, 3, block.subarray(9)),
  frame(PRIORITY, 0, 5, Buffer.of(0, 0, 0, 1, 7)),
  frame(WINDOW_UPDATE, 0, 0, uint32(7)),
  frame(WINDOW_UPDATE, 0, 3, uint32(0x80000009)),
  frame(200, 255, 0x7fffffff, Buffer.from('nobody knows')),
  frame(201, 0, 0),
  frame(RST_STREAM, 0, 3, uint32(8)),
  frame(GOAWAY, 0, 0, Buffer.concat([uint32(3, 2), Buffer.from('because')])),
  frame(PING, 1, 0, Buffer.from('abcdefgh')),
]);

test('every cut of the bytes at every byte tells the same', () => {
  const whole = readIn(GOOD, []);
  assert.equal(whole.length, 23, whole.join('\n'));
  assert.match(whole.at(-1) ?? '', /well/);
  for (let cut = 1; cut < GOOD.length; cut++) assert.deepEqual(readIn(GOOD, [cut]), whole, `cut at ${cut}`);
  assert.deepEqual(
    readIn(
      GOOD,
      Array.from(GOOD, () => 1),
    ),
    whole,
    'byte by byte',
  );
  const random = createRandom(1);
  for (let time = 0; time < 200; time++) {
    const lengths = Array.from({ length: 40 }, () => Math.ceil(random() * 30));
    assert.deepEqual(readIn(GOOD, lengths), whole, lengths.join());
  }
});

test('what may not be is found at every cut, with the same words, and nothing is told after it', () => {
  const begin = Buffer.concat([PREFACE, settings()]);
  const open = frame(HEADERS, END_HEADERS, 1, block);
  const bad: [string, Buffer][] = [
    ['preface', Buffer.from('GET / HTTP/1.1\r\n\r\n')],
    ['preface', Buffer.concat([PREFACE, frame(PING, 0, 0, Buffer.alloc(8))])],
    ['preface', Buffer.concat([PREFACE, frame(SETTINGS, 1, 0)])],
    ['frame', Buffer.concat([begin, frame(DATA, 0, 0, Buffer.of(1))])],
    ['frame', Buffer.concat([begin, open, frame(DATA, PADDED, 1)])],
    ['frame', Buffer.concat([begin, open, frame(DATA, PADDED, 1, Buffer.of(1))])],
    ['frame', Buffer.concat([begin, open, frame(DATA, PADDED, 1, Buffer.of(5, 1, 2, 3, 4))])],
    ['frame', Buffer.concat([begin, frame(DATA, 0, 1, Buffer.alloc(16_385))])],
    ['frame', Buffer.concat([begin, frame(HEADERS, END_HEADERS, 0, block)])],
    ['frame', Buffer.concat([begin, frame(HEADERS, END_HEADERS | PADDED, 1)])],
    ['frame', Buffer.concat([begin, frame(HEADERS, END_HEADERS | PADDED, 1, Buffer.of(9, 1))])],
    ['frame', Buffer.concat([begin, frame(HEADERS, END_HEADERS | HAS_PRIORITY, 1, Buffer.of(0, 0, 0))])],
    ['frame', Buffer.concat([begin, frame(HEADERS, END_HEADERS | HAS_PRIORITY, 1, Buffer.of(0, 0, 0, 1, 7))])],
    ['frame', Buffer.concat([begin, frame(PRIORITY, 0, 0, Buffer.alloc(5))])],
    ['frame', Buffer.concat([begin, frame(PRIORITY, 0, 1, Buffer.alloc(4))])],
    ['frame', Buffer.concat([begin, frame(PRIORITY, 0, 1, Buffer.of(0, 0, 0, 1, 7))])],
    ['frame', Buffer.concat([begin, frame(RST_STREAM, 0, 0, uint32(8))])],
    ['frame', Buffer.concat([begin, frame(RST_STREAM, 0, 1, Buffer.alloc(3))])],
    ['frame', Buffer.concat([begin, frame(SETTINGS, 0, 1)])],
    ['frame', Buffer.concat([begin, frame(SETTINGS, 0, 0, Buffer.alloc(5))])],
    ['frame', Buffer.concat([begin, frame(SETTINGS, 1, 0, Buffer.alloc(6))])],
    ['frame', Buffer.concat([begin, frame(5, 0, 1, uint32(2))])],
    ['frame', Buffer.concat([begin, frame(PING, 0, 1, Buffer.alloc(8))])],
    ['frame', Buffer.concat([begin, frame(PING, 0, 0, Buffer.alloc(7))])],
    ['frame', Buffer.concat([begin, frame(GOAWAY, 0, 1, Buffer.alloc(8))])],
    ['frame', Buffer.concat([begin, frame(GOAWAY, 0, 0, Buffer.alloc(7))])],
    ['frame', Buffer.concat([begin, frame(WINDOW_UPDATE, 0, 0, Buffer.alloc(5))])],
    ['frame', Buffer.concat([begin, frame(CONTINUATION, END_HEADERS, 1, block)])],
    ['frame', Buffer.concat([begin, frame(HEADERS, 0, 1, block), frame(PING, 0, 0, Buffer.alloc(8))])],
    ['frame', Buffer.concat([begin, frame(HEADERS, 0, 1, block), frame(CONTINUATION, END_HEADERS, 3, block)])],
    ['header_flood', Buffer.concat([begin, frame(HEADERS, END_HEADERS, 1, Buffer.alloc(5001))])],
    [
      'header_flood',
      Buffer.concat([begin, frame(HEADERS, 0, 1, Buffer.alloc(3000)), frame(CONTINUATION, END_HEADERS, 1, Buffer.alloc(2001))]),
    ],
    ['header_flood', Buffer.concat([begin, frame(HEADERS, 0, 1, block), ...Array.from({ length: 65 }, () => frame(CONTINUATION, 0, 1))])],
  ];
  for (const [index, [reason, bytes]] of bad.entries()) {
    const all = Buffer.concat([bytes, frame(PING, 0, 0, Buffer.from('not told'))]);
    const whole = readIn(all, []);
    const name = `${index}: ${whole.join('\n')}`;
    assert.equal((JSON.parse(whole.at(-1) ?? '') as [string, Fault])[1].reason, reason, name);
    assert.ok(!whole.some((each) => each.includes('not told')), name);
    const step = all.length > 1000 ? 97 : 1;
    for (let cut = 1; cut < all.length; cut += step) assert.deepEqual(readIn(all, [cut]), whole, `${name}, cut at ${cut}`);
  }
});

test('a server says no preface, and the rest is the same', () => {
  const bytes = GOOD.subarray(PREFACE.length);
  assert.deepEqual(readIn(bytes, [], false), readIn(GOOD, []));
});

test('a reader that is stopped tells nothing more, not even of what it is reading', () => {
  const told = new Told();
  const reader: FrameReader = new FrameReader(
    Object.assign(told, {
      ping: () => {
        reader.stop();
        return undefined;
      },
    }),
    { isClient: true, maxBlockBytes: 5000 },
  );
  const ping = frame(PING, 0, 0, Buffer.alloc(8));
  assert.equal(reader.read(Buffer.concat([PREFACE, settings(), ping, frame(WINDOW_UPDATE, 0, 0, uint32(1))])), undefined);
  assert.equal(reader.read(Buffer.from('anything')), undefined);
  assert.deepEqual(told.all, ['["settings",""]']);
});

test('a block that has begun is known, from the head of its first frame', () => {
  const reader = new FrameReader(new Told(), { isClient: true, maxBlockBytes: 5000 });
  const states: boolean[] = [];
  for (const part of [
    Buffer.concat([PREFACE, settings()]),
    frame(HEADERS, 0, 1, block).subarray(0, 9),
    block,
    frame(CONTINUATION, END_HEADERS, 1),
  ]) {
    reader.read(part);
    states.push(reader.isWithinBlock);
  }
  assert.deepEqual(states, [false, true, true, false]);
});
