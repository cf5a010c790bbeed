import assert from 'node:assert/strict';
import { test } from 'node:test';
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { bitString, integer, oid, sequence, set, time } from '../../test/support/pki/der-writer.ts';
import { HeldChains } from './peer-chains.ts';

/** The most that we know how to make OpenSSL keep for a byte: attributes of a type that it has no name for, with empty texts. */
function largestWhenRead(): Buffer {
  const attribute = Buffer.from('30050601010c00', 'hex');
  const algorithm = sequence(oid('1.2'));
  const name = sequence(set(...Array.from({ length: 2500 }, () => attribute)));
  const validity = sequence(time(0), time(0));
  const key = sequence(algorithm, bitString(Buffer.alloc(0)));
  return sequence(sequence(integer(1), algorithm, name, validity, sequence(), key), algorithm, bitString(Buffer.alloc(0)));
}

const resident = (): number => Number(readFileSync('/proc/self/statm', 'utf8').split(' ')[1]) * 4096;

// First, while there is nothing that was given back and could be used again.
test('no certificate is known that takes more memory than is counted for it', () => {
  const der = largestWhenRead();
  const before = resident();
  const read = Array.from({ length: 200 }, () => new X509Certificate(der));
  const taken = resident() - before;
  const counted = new HeldChains();
  counted.hold(read.length, read.length * der.length);
  assert.ok(taken > 50 * 1024 * 1024 && taken < counted.bytes, `${taken} bytes taken, ${counted.bytes} counted`);
});

/** What is held after each collection until nothing is. */
function drained(held: HeldChains): number[] {
  const bytes = [held.bytes];
  while (held.bytes > 0) {
    assert.ok(bytes.length < 1000, 'it never ends');
    held.collected();
    bytes.push(held.bytes);
  }
  return bytes;
}

test('a chain is held until as many collections have gone by as it has certificates, and one more', () => {
  const held = new HeldChains();
  held.hold(3, 1000);
  const [whole = 0, ...rest] = drained(held);
  assert.equal(whole, 3 * 1536 + 31 * 1000);
  assert.deepEqual(
    rest.map((bytes) => Math.round((bytes / whole) * 100)),
    [75, 50, 25, 0],
  );
});

test('chains of different lengths and ages are freed side by side', () => {
  const held = new HeldChains();
  held.hold(120, 8000);
  for (let collections = 0; collections < 100; collections++) held.collected();
  held.hold(3, 500);
  const long = 120 * 1536 + 31 * 8000;
  assert.equal(Math.round(held.bytes), Math.round((long * 21) / 121 + 3 * 1536 + 31 * 500));
  assert.equal(drained(held).length, 1 + 21);
  held.collected();
  assert.equal(held.bytes, 0);
});

test('one or two certificates are gone with the next collections of young objects, and counted only if they are large', () => {
  const held = new HeldChains();
  held.hold(1, 4096);
  held.hold(2, 4096);
  assert.equal(held.bytes, 0);
  held.hold(1, 4097);
  assert.equal(held.bytes, 1536 + 31 * 4097);
});

test('thousands of chains leave nothing of their fractions behind', () => {
  const held = new HeldChains();
  for (let index = 0; index < 5000; index++) {
    held.hold((index % 13) + 3, index);
    if (index % 3 === 0) held.collected();
    assert.ok(held.bytes > 0);
  }
  drained(held);
  assert.equal(held.bytes, 0);
});
