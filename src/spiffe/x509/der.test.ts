import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  decodeBoolean,
  decodeIntegerHex,
  decodeNamedBits,
  decodeOid,
  decodeSmallInteger,
  decodeTime,
  DerReader,
  type DerElement,
} from './der.ts';

function elementOf(hex: string): DerElement {
  const reader = new DerReader(Buffer.from(hex, 'hex'));
  const element = reader.any();
  reader.finish();
  return element;
}

function timeOf(tag: number, text: string): string {
  return new Date(decodeTime({ ...elementOf('0500'), tag, content: Buffer.from(text) })).toISOString();
}

test('an element is read with its header and content', () => {
  const { tag, content, whole } = elementOf('0403010203');

  assert.equal(tag, 0x04);
  assert.deepEqual([...content], [1, 2, 3]);
  assert.equal(whole.length, 5);
  assert.equal(elementOf(`048180${'00'.repeat(128)}`).content.length, 128);
  assert.equal(elementOf(`04820100${'00'.repeat(256)}`).content.length, 256);
});

for (const [what, hex, error] of [
  ['a long form that the short form can say', '04810100', /not minimal/],
  ['a length with a leading zero', `04820080${'00'.repeat(128)}`, /not minimal/],
  ['an indefinite length', '30800000', /indefinite/],
  ['a length of five bytes', '04850000000001ff', /more than four bytes/],
  ['a length beyond the end', '0405ff', /5 bytes where 1 are left/],
  ['a tag of several bytes', '1f810100', /more than one byte/],
  ['a header cut short', '04', /cut short/],
  ['nothing', '', /cut short/],
  ['two elements where one belongs', '05000500', /2 bytes too many/],
] as const)
  test(`${what} is an error`, () => {
    assert.throws(() => elementOf(hex), error);
  });

test('object identifiers are read, and only in their shortest form', () => {
  assert.equal(decodeOid(elementOf('06092a864886f70d01010b')), '1.2.840.113549.1.1.11');
  assert.equal(decodeOid(elementOf('0603551d11')), '2.5.29.17');
  assert.equal(decodeOid(elementOf('0603883703')), '2.999.3');
  assert.throws(() => decodeOid(elementOf('06045580 1d11'.replace(' ', ''))), /not minimal/);
  assert.throws(() => decodeOid(elementOf('060255 9d'.replace(' ', ''))), /cut short/);
  assert.throws(() => decodeOid(elementOf('0600')), /cut short/);
  assert.throws(() => decodeOid(elementOf('060a55ffffffffffffffff7f')), /huge/);
});

test('integers are read, and only in their shortest form', () => {
  assert.equal(decodeSmallInteger(elementOf('020100')), 0);
  assert.equal(decodeSmallInteger(elementOf('02020080')), 128);
  assert.equal(decodeIntegerHex(elementOf('020900ff00000000000001')), 'ff00000000000001');
  assert.equal(decodeIntegerHex(elementOf('02020123')), '0123');
  assert.equal(decodeIntegerHex(elementOf('020100')), '00');
  assert.equal(decodeIntegerHex(elementOf('0201ff')), '-ff');
  for (const hex of ['0200', '02020001', '0202ffff']) assert.throws(() => decodeIntegerHex(elementOf(hex)), /integer/, hex);
  assert.throws(() => decodeSmallInteger(elementOf('0201ff')), /negative/);
  assert.throws(() => decodeSmallInteger(elementOf('02050100000000')), /too large/);
});

test('booleans are 00 or ff', () => {
  assert.equal(decodeBoolean(elementOf('0101ff')), true);
  assert.equal(decodeBoolean(elementOf('010100')), false);
  for (const hex of ['010101', '0100', '0102ffff']) assert.throws(() => decodeBoolean(elementOf(hex)), /malformed boolean/, hex);
});

test('named bits are counted from the first', () => {
  assert.deepEqual([...decodeNamedBits(elementOf('03020780'))], [0]);
  assert.deepEqual([...decodeNamedBits(elementOf('03020106'))], [5, 6]);
  assert.deepEqual([...decodeNamedBits(elementOf('0303070080'))], [8]);
  assert.deepEqual([...decodeNamedBits(elementOf('030100'))], []);
  for (const hex of ['0300', '030107', '03020880', '03020701']) assert.throws(() => decodeNamedBits(elementOf(hex)), /bit string/, hex);
});

test('times are read in the two forms of RFC 5280 4.1.2.5 and no other', () => {
  assert.equal(timeOf(0x17, '491231235959Z'), '2049-12-31T23:59:59.000Z');
  assert.equal(timeOf(0x17, '500101000000Z'), '1950-01-01T00:00:00.000Z');
  assert.equal(timeOf(0x18, '99991231235959Z'), '9999-12-31T23:59:59.000Z');
  assert.equal(timeOf(0x18, '20280229000000Z'), '2028-02-29T00:00:00.000Z');
  for (const text of ['20260101000000', '20260101000000+0000', '20260101000000.5Z', '202601010000Z', '20260101000000Z\n', ''])
    assert.throws(() => timeOf(0x18, text), /malformed time/, text);
  for (const text of ['20260229000000Z', '20261301000000Z', '20260100000000Z', '20260101240000Z', '20260101006000Z', '20260101000060Z'])
    assert.throws(() => timeOf(0x18, text), /does not exist/, text);
  assert.throws(() => timeOf(0x04, '20260101000000Z'), /malformed time/);
});
