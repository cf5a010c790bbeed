import assert from 'node:assert/strict';
import { test } from 'node:test';
import { boolean, element, integer, namedBits, oid, time } from './support/pki/der-writer.ts';

const hex = (der: Uint8Array): string => Buffer.from(der).toString('hex');

test('lengths are written in the shortest form', () => {
  assert.equal(hex(element(0x04, new Uint8Array(127)).subarray(0, 2)), '047f');
  assert.equal(hex(element(0x04, new Uint8Array(128)).subarray(0, 3)), '048180');
  assert.equal(hex(element(0x04, new Uint8Array(256)).subarray(0, 4)), '04820100');
});

test('integers are not negative, and keep the zeros that a test wants', () => {
  assert.equal(hex(integer(0)), '020100');
  assert.equal(hex(integer(127)), '02017f');
  assert.equal(hex(integer(128)), '02020080');
  assert.equal(hex(integer(65536)), '0203010000');
  assert.equal(hex(integer('00ff')), '020200ff');
});

test('object identifiers, booleans and named bits', () => {
  assert.equal(hex(oid('1.2.840.113549.1.1.11')), '06092a864886f70d01010b');
  assert.equal(hex(oid('2.5.29.17')), '0603551d11');
  assert.equal(hex(boolean(true)), '0101ff');
  assert.equal(hex(namedBits([0])), '03020780');
  assert.equal(hex(namedBits([5, 6])), '03020106');
  assert.equal(hex(namedBits([])), '030100');
});

test('times change their form in 2050', () => {
  assert.equal(Buffer.from(time(Date.UTC(2049, 11, 31, 23, 59, 59, 999)).subarray(2)).toString(), '491231235959Z');
  assert.equal(Buffer.from(time(Date.UTC(2050, 0, 1)).subarray(2)).toString(), '20500101000000Z');
});
