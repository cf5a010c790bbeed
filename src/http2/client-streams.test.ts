import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ClientStreams } from './client-streams.ts';

test('only an odd id above all before opens a stream, and those below were passed over', () => {
  const streams = new ClientStreams();
  assert.equal(streams.opens(2), false);
  assert.equal(streams.lateSection(2)?.detail, 'a stream of a client with an even number');
  assert.equal(streams.opens(5), true);
  assert.equal(streams.opens(5), false);
  assert.equal(streams.opens(3), false);
  assert.equal(streams.lateSection(3)?.detail, 'a stream that was passed over, or is long over');
  assert.equal(streams.opens(7), true);
});

test('of a stream that was never opened, nothing may come', () => {
  const streams = new ClientStreams();
  assert.ok(streams.opens(3));
  for (const late of [streams.lateContent(5), streams.lateSign(5)]) assert.equal(late?.detail, 'a frame on a stream that was not opened');
  // As RFC 9113, section 5.1.1, has it, 1 is closed by now, and signs of it ask nothing.
  assert.equal(streams.lateSign(1), undefined);
});

test('of one that we have reset everything may be on its way, and of one that ended nothing but signs', () => {
  const streams = new ClientStreams();
  for (const stream of [1, 3]) assert.ok(streams.opens(stream));
  streams.closed(1, true);
  streams.closed(3, false);
  assert.deepEqual([streams.lateSection(1), streams.lateContent(1), streams.lateSign(1)], [undefined, undefined, undefined]);
  assert.equal(streams.lateSection(3)?.detail, 'a frame on a stream that is over');
  assert.equal(streams.lateContent(3)?.detail, 'a frame on a stream that is over');
  assert.equal(streams.lateSign(3), undefined);
});

test('the last that was taken is told, not the last that was opened', () => {
  const streams = new ClientStreams();
  assert.equal(streams.lastTaken, 0);
  assert.ok(streams.opens(1));
  streams.take(1);
  assert.ok(streams.opens(9));
  streams.closed(9, true);
  assert.equal(streams.lastTaken, 1);
});
