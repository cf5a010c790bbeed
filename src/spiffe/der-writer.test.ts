import assert from 'node:assert/strict';
import { test } from 'node:test';
import { boolean, encode, integer, namedBits, objectId, time } from './der-writer.ts';

const hex = (der: Uint8Array): string => Buffer.from(der).toString('hex');

test('lengths are written in the shortest form', () => {
  assert.equal(hex(encode(0x04, new Uint8Array(127)).subarray(0, 2)), '047f');
  assert.equal(hex(encode(0x04, new Uint8Array(128)).subarray(0, 3)), '048180');
  assert.equal(hex(encode(0x04, new Uint8Array(256)).subarray(0, 4)), '04820100');
});

test('integers are positive and without needless zeros', () => {
  assert.equal(hex(integer(0)), '020100');
  assert.equal(hex(integer(127)), '02017f');
  assert.equal(hex(integer(128)), '02020080');
  assert.equal(hex(integer(65536)), '0203010000');
  assert.equal(hex(integer(Buffer.from('0000ff', 'hex'))), '020200ff');
});

test('object identifiers, booleans and named bits', () => {
  assert.equal(hex(objectId('1.2.840.113549.1.1.11')), '06092a864886f70d01010b');
  assert.equal(hex(objectId('2.5.29.17')), '0603551d11');
  assert.equal(hex(boolean(true)), '0101ff');
  assert.equal(hex(namedBits([0])), '03020780');
  assert.equal(hex(namedBits([5, 6])), '03020106');
  assert.equal(hex(namedBits([])), '030100');
});

test('times change their form in 2050', () => {
  assert.equal(Buffer.from(time(Date.UTC(2049, 11, 31, 23, 59, 59, 999)).subarray(2)).toString(), '491231235959Z');
  assert.equal(Buffer.from(time(Date.UTC(2050, 0, 1)).subarray(2)).toString(), '20500101000000Z');
});
