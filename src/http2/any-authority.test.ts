import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  CONTINUATION,
  DATA,
  END_HEADERS,
  END_STREAM,
  type Field,
  type Frame,
  frame,
  framesIn,
  HEADERS,
  headers,
  hpack,
  hpackInteger,
  PING,
  PREFACE,
  RST_STREAM,
  settings,
  uint32,
} from '../../test/support/http/http2-frames.ts';
import { AnyAuthority } from './any-authority.ts';
import { HpackDecoder } from './hpack/decoder.ts';

const PADDED = 8;
const PRIORITY = 0x20;
const CALL: readonly Field[] = [
  [':method', 'POST'],
  [':scheme', 'http'],
  [':path', '/a.B/C'],
];
const AUTHORITY: Field = [':authority', 'localhost'];

/** What the server gets of these, after the preface. */
function handedOn(...frames: readonly Uint8Array[]): { frames: Frame[]; isOver: boolean } {
  const reader = new AnyAuthority();
  const out = Buffer.concat(reader.read(Buffer.concat([PREFACE, ...frames])));
  assert.deepEqual(out.subarray(0, PREFACE.length), PREFACE);
  return { frames: framesIn(out.subarray(PREFACE.length)), isOver: reader.isOver };
}

/** The fields of every head among them. */
function fieldsOf(frames: readonly Frame[]): Field[][] {
  const decoder = new HpackDecoder({ maxTableSize: 4096, maxFieldSectionSize: 1 << 20, maxFields: 10_000 });
  const lists: Field[][] = [];
  let block = Buffer.alloc(0);
  for (const { type, flags, payload } of frames) {
    if (type !== HEADERS && type !== CONTINUATION) continue;
    block = Buffer.concat([block, payload]);
    if ((flags & END_HEADERS) === 0) continue;
    const fields = decoder.decode(block);
    assert.ok(fields !== 'too_large');
    lists.push(fields.map(([name, value]): Field => [name, value]));
    block = Buffer.alloc(0);
  }
  return lists;
}

const string = (text: string): Buffer => Buffer.concat([hpackInteger(text.length, 7, 0), Buffer.from(text, 'latin1')]);
/** A literal that goes into the table (RFC 7541, section 6.2.1). */
const inserted = ([name, value]: Field): Buffer => Buffer.concat([Buffer.of(0x40), string(name), string(value)]);

test('whatever the authority of a request is, the server gets one that it takes', () => {
  for (const authority of ['localhost', '/run/x.sock', '%2Frun%2Fx.sock', '', 'a b', '/run/\x00\x7fé\xff.sock', `/${'x'.repeat(20_000)}`]) {
    const block = hpack([...CALL, [':authority', authority], ['te', 'trailers']]);
    const first = frame(HEADERS, END_STREAM | (block.length <= 16_384 ? END_HEADERS : 0), 1, block.subarray(0, 16_384));
    const more = block.length <= 16_384 ? [] : [frame(CONTINUATION, END_HEADERS, 1, block.subarray(16_384))];

    const { frames, isOver } = handedOn(first, ...more);

    assert.deepEqual(fieldsOf(frames), [[...CALL, AUTHORITY, ['te', 'trailers']]]);
    assert.deepEqual([frames.length, frames[0]?.flags, frames[0]?.stream, isOver], [1, END_STREAM | END_HEADERS, 1, false]);
  }
});

test('a request without an authority gets one, and a Host that takes its place is another', () => {
  const cases: readonly (readonly [readonly Field[], readonly Field[]])[] = [
    [CALL, [AUTHORITY, ...CALL]],
    [
      [...CALL, ['host', '/run/x.sock']],
      [...CALL, ['host', 'localhost']],
    ],
    [
      [...CALL, [':authority', '/a'], ['host', '/b']],
      [...CALL, AUTHORITY, ['host', 'localhost']],
    ],
    // What is wrong stays wrong, for the server to refuse.
    [
      [...CALL, [':authority', '/a'], [':authority', '/b']],
      [...CALL, AUTHORITY, AUTHORITY],
    ],
    [
      [['x', 'y'], ...CALL],
      [AUTHORITY, ['x', 'y'], ...CALL],
    ],
  ];
  for (const [sent, got] of cases) assert.deepEqual(fieldsOf(handedOn(headers(1, sent)).frames), [got]);
});

test('trailers get no authority', () => {
  const { frames } = handedOn(headers(1, CALL, END_HEADERS), headers(1, [['x-sum', '1']]));

  assert.deepEqual(fieldsOf(frames)[1], [['x-sum', '1']]);
});

test('what a client puts into the table is there for its later requests, and the server needs no table', () => {
  const insertions = [...CALL, [':authority', '/run/x.sock'] as const, ['authorization', 'secret'] as const].map(inserted);
  const again = Buffer.of(0xc2, 0xc1, 0xc0, 0xbf, 0xbe);

  const { frames } = handedOn(
    frame(HEADERS, END_STREAM | END_HEADERS, 1, Buffer.concat(insertions)),
    frame(HEADERS, END_STREAM | END_HEADERS, 3, again),
    frame(HEADERS, END_STREAM | END_HEADERS, 5, again),
  );

  const fields = [...CALL, AUTHORITY, ['authorization', 'secret']];
  assert.deepEqual(fieldsOf(frames), [fields, fields, fields]);
  assert.ok(frames.every(({ payload }) => !payload.some((byte) => byte >= 0xbe)));
});

test('a field that no one may put into a table stays one', () => {
  const block = Buffer.concat([hpack(CALL), Buffer.of(0x10), string('authorization'), string('secret')]);

  const { frames } = handedOn(frame(HEADERS, END_STREAM | END_HEADERS, 1, block));

  // Index 23 of the static table, as a literal that is never indexed.
  assert.ok(frames[0]?.payload.includes(Buffer.concat([Buffer.of(0x1f, 8), string('secret')])));
});

test('however the bytes come, the server gets the same', () => {
  const block = hpack([...CALL, [':authority', '/run/x.sock']]);
  const all = Buffer.concat([
    PREFACE,
    settings([4, 100]),
    frame(HEADERS, PADDED | PRIORITY, 1, Buffer.concat([Buffer.of(3), uint32(0), Buffer.of(16), block.subarray(0, 20), Buffer.alloc(3)])),
    frame(CONTINUATION, 0, 1, block.subarray(20, 30)),
    frame(CONTINUATION, END_HEADERS, 1, block.subarray(30)),
    frame(DATA, 0, 1, Buffer.from('hello')),
    frame(PING, 0, 0, Buffer.alloc(8)),
    frame(0xfa, 0xff, 0xffff_ffff, Buffer.alloc(40)),
    headers(1, [['x-sum', '1']]),
    frame(RST_STREAM, 0, 1, uint32(8)),
  ]);
  const whole = Buffer.concat(new AnyAuthority().read(all));

  assert.deepEqual(fieldsOf(framesIn(whole.subarray(PREFACE.length)))[0], [...CALL, AUTHORITY]);
  for (let cut = 0; cut <= all.length; cut++) {
    const reader = new AnyAuthority();
    assert.deepEqual(Buffer.concat([...reader.read(all.subarray(0, cut)), ...reader.read(all.subarray(cut))]), whole, `cut at ${cut}`);
  }
  const reader = new AnyAuthority();
  assert.deepEqual(Buffer.concat([...all].flatMap((byte) => reader.read(Buffer.of(byte)))), whole);
});

test('what cannot be read ends the connection in the way that the server has for it, and nothing passes after it', () => {
  const after = headers(7, CALL);
  const cases: readonly (readonly [string, readonly Uint8Array[], readonly (readonly [type: number, flags: number, stream: number])[]])[] =
    [
      ['an index that there is not', [frame(HEADERS, 5, 1, Buffer.of(0xff, 0x20))], [[HEADERS, 5, 1]]],
      ['padding of the whole frame', [frame(HEADERS, 5 | PADDED, 1, Buffer.of(9, 0, 0))], [[HEADERS, 13, 1]]],
      ['padding that is not there', [frame(HEADERS, 5 | PADDED, 1)], [[HEADERS, 13, 1]]],
      ['priority that is not there', [frame(HEADERS, 5 | PRIORITY, 1, Buffer.alloc(4))], [[HEADERS, 37, 1]]],
      [
        'another frame within a block',
        [frame(HEADERS, 1, 1, hpack(CALL)), frame(PING, 0, 0, Buffer.alloc(8))],
        [
          [HEADERS, 0, 1],
          [PING, 0, 0],
        ],
      ],
      [
        'a block that goes on for another stream',
        [frame(HEADERS, 1, 1, hpack(CALL)), frame(CONTINUATION, 4, 3)],
        [
          [HEADERS, 0, 1],
          [CONTINUATION, 4, 3],
        ],
      ],
      ['a block in many frames', [frame(HEADERS, 1, 1), ...Array<Buffer>(20).fill(frame(CONTINUATION, 0, 1))], [[HEADERS, 5, 1]]],
    ];
  for (const [what, sent, got] of cases) {
    const reader = new AnyAuthority();
    const out = Buffer.concat([...reader.read(Buffer.concat([PREFACE, ...sent, after])), ...reader.read(after)]);
    // Of a frame that is refused by its head the rest may be missing.
    const heads = [];
    for (let at = PREFACE.length; at + 9 <= out.length; at += 9 + out.readUIntBE(at, 3))
      heads.push([out[at + 3], out[at + 4], out.readUInt32BE(at + 5)]);
    assert.deepEqual(heads, got, what);
    assert.equal(reader.isOver, true, what);
  }
});

test('a head that is longer than a frame may be is refused before it has come', () => {
  const reader = new AnyAuthority();
  const head = frame(HEADERS, 5, 1, Buffer.alloc(16_385)).subarray(0, 9);

  const out = Buffer.concat(reader.read(Buffer.concat([PREFACE, head])));

  assert.deepEqual(out.subarray(PREFACE.length), head);
  assert.equal(reader.isOver, true);
});

test('a small block that says much costs its own stream, and those after it are right', () => {
  // 4,000 bytes in the table, and that ten thousand times.
  const bomb = Buffer.concat([inserted(['x', 'y'.repeat(3900)]), Buffer.alloc(10_000, 0xbe)]);

  const { frames, isOver } = handedOn(
    frame(HEADERS, END_STREAM | END_HEADERS, 1, bomb),
    frame(HEADERS, END_STREAM | END_HEADERS, 3, Buffer.concat([hpack(CALL), Buffer.of(0xbe)])),
  );

  assert.deepEqual(
    frames.map(({ stream, payload }) => [stream, payload.length > 0]),
    [
      [1, false],
      [3, true],
    ],
  );
  assert.deepEqual(fieldsOf(frames)[1], [AUTHORITY, ...CALL, ['x', 'y'.repeat(3900)]]);
  assert.equal(isOver, false);
});
