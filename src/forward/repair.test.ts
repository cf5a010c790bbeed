import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KeptRequest, wasClosed } from './repair.ts';

test('a body that comes byte by byte is kept like any other, and as long as one that comes at once', () => {
  const kept = new KeptRequest();
  assert.equal(kept.begin(100), true);
  for (let byte = 0; byte < 65_536; byte++) assert.equal(kept.add(Buffer.of(0xff, byte & 0xff, 0xff), 1, 2), true);
  assert.deepEqual(kept.body, Buffer.from(Array.from({ length: 65_536 }, (_, byte) => byte & 0xff)));

  assert.equal(kept.add(Buffer.of(1), 0, 1), false);
  assert.equal(kept.isWhole, false);
  assert.equal(kept.body.length, 0);
});

test('what is kept is bounded over all requests, heads included, and given back', () => {
  const all: KeptRequest[] = [];
  const begin = (): boolean => {
    const kept = new KeptRequest();
    all.push(kept);
    return kept.begin(32_768);
  };
  for (let round = 0; round < 2; round++) {
    for (let head = 0; head < 512; head++) assert.equal(begin(), true);
    assert.equal(begin(), false);
    for (const kept of all.splice(0)) kept.forget();
    // Twice is once.
    for (const kept of all) kept.forget();
  }
});

test('an end and a reset are closings; a time that ran out, and nonsense, are not', () => {
  for (const code of [undefined, 'ECONNRESET', 'EPIPE']) assert.equal(wasClosed(code), true);
  for (const code of ['ETIMEDOUT', 'EHOSTUNREACH', 'HPE_INVALID_CONSTANT', 'ERR_SSL_DECRYPTION_FAILED_OR_BAD_RECORD_MAC'])
    assert.equal(wasClosed(code), false);
});
