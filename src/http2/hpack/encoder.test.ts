import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HpackDecoder } from './decoder.ts';
import { HpackEncoder } from './encoder.ts';
import { STATIC_TABLE, type HpackField } from './field.ts';

const decoder = (): HpackDecoder => new HpackDecoder({ maxTableSize: 4096, maxFieldSectionSize: 1_000_000, maxFields: 1000 });
const encode = (...fields: readonly HpackField[]): string => new HpackEncoder().encode(fields).toString('hex');

test('a field that everybody knows is a byte, one of a known name has its index, and any other is written out', () => {
  assert.equal(encode([':method', 'POST']), '83');
  assert.equal(encode(['accept-encoding', 'gzip, deflate']), '90');
  assert.equal(encode([':method', 'PUT']), '0203505554');
  assert.equal(encode([':status', '201']), '0803323031', 'the first entry of the name');
  assert.equal(encode(['www-authenticate', 'x']), '0f2e0178');
  assert.equal(encode(['cookie', '']), 'a0');
  assert.equal(encode(['x', 'y']), '0001780179');
  assert.equal(encode(['', '']), '000000');
  assert.equal(encode(), '');
});

test('a name that is also a property of every object is a name', () => {
  assert.equal(encode(['constructor', 'valueOf']), '000b636f6e7374727563746f720776616c75654f66');
  assert.equal(encode([':method', '__proto__']), '02095f5f70726f746f5f5f');
});

test('a field that is never to be indexed stays so, even if everybody knows it', () => {
  assert.equal(encode([':method', 'GET', true]), '1203474554');
  assert.equal(encode(['authorization', 'x', true]), '1f080178');
  assert.equal(encode(['x', 'y', true]), '1001780179');
});

test('what is written is read as it was, whatever its length, and leaves the table of the reader empty', () => {
  const reader = decoder();
  const encoder = new HpackEncoder();
  const fields: HpackField[] = STATIC_TABLE.flatMap((field) =>
    field === undefined ? [] : [field, [field[0], 'other'], [field[0], 'x', true]],
  );
  for (const length of [0, 1, 126, 127, 128, 254, 255, 256, 16_510, 16_511, 100_000]) {
    fields.push(['n'.repeat(length), 'v'], ['n', '\xff'.repeat(length)], [':path', '/'.repeat(length), true]);
  }
  assert.deepEqual(reader.decode(encoder.encode(fields)), fields);
  assert.throws(() => reader.decode(Buffer.of(0xbe)), { reason: 'index' });
});

test('a character that is no byte is refused, and not sent as another', () => {
  for (const text of ['\u010a', 'a\u{1f600}', `${'a'.repeat(100)}\u0100`]) {
    assert.throws(() => encode(['x', text]), RangeError);
    assert.throws(() => encode([text, 'x']), RangeError);
  }
});

test('blocks may be left out or come in another order', () => {
  const encoder = new HpackEncoder();
  const messages: HpackField[][] = Array.from({ length: 5 }, (_, number) => [
    ['x-number', String(number)],
    [':path', `/${number}`],
  ]);
  const blocks = messages.map((fields) => encoder.encode(fields));
  const reader = decoder();
  for (const number of [3, 1, 4]) assert.deepEqual(reader.decode(blocks[number] ?? Buffer.alloc(0)), messages[number]);
});

test('a table of less than 4096 bytes is answered with an update to 0, once for ever', () => {
  const encoder = new HpackEncoder();
  const next = (): string => encoder.encode([[':method', 'GET']]).toString('hex');
  encoder.limitTableSize(65_536);
  assert.equal(next(), '82');
  encoder.limitTableSize(4096);
  assert.equal(next(), '82');
  encoder.limitTableSize(4095);
  assert.equal(next(), '2082');
  assert.equal(next(), '82');
  for (const bytes of [0, 4096, 100]) {
    encoder.limitTableSize(bytes);
    assert.equal(next(), '82', 'there is nothing to lower any more');
  }
});

test('a table that was lowered and raised again before the next block is answered too', () => {
  const encoder = new HpackEncoder();
  const reader = decoder();
  for (const bytes of [0, 4096]) {
    encoder.limitTableSize(bytes);
    reader.limitTableSize(bytes);
  }
  assert.deepEqual(reader.decode(encoder.encode([[':method', 'GET']])), [[':method', 'GET']]);
});

test('an update that is due is not lost with a block that could not be written', () => {
  const encoder = new HpackEncoder();
  encoder.limitTableSize(0);
  assert.throws(() => encoder.encode([['x', '\u0100']]), RangeError);
  assert.equal(encoder.encode([]).toString('hex'), '20');
});
