import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DEFAULT_WINDOW } from '../../http2/frame.ts';
import { ENABLE_CONNECT_PROTOCOL, INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS } from '../../http2/settings.ts';
import { Announced } from './announced.ts';
import { LARGEST_WINDOW } from './wire.ts';

const DEFAULT = { initialWindow: DEFAULT_WINDOW, maxConcurrentStreams: Infinity, enablesConnect: false };

test('a client is told what the application takes, once, and never more than we take', () => {
  const announced = new Announced(100, false);
  assert.deepEqual(announced.begin(false), [[MAX_CONCURRENT_STREAMS, 100]]);
  assert.deepEqual(announced.follow(DEFAULT), { pairs: [], windowChange: 0 });
  const small = { ...DEFAULT, initialWindow: 1000, maxConcurrentStreams: 3 };
  const pairs = [
    [INITIAL_WINDOW_SIZE, 1000],
    [MAX_CONCURRENT_STREAMS, 3],
  ];
  assert.deepEqual(announced.follow(small), { pairs, windowChange: 1000 - DEFAULT_WINDOW });
  assert.deepEqual(announced.follow(small), { pairs: [], windowChange: 0 });
  const large = { ...DEFAULT, initialWindow: 2 ** 31 - 1, maxConcurrentStreams: 1000 };
  assert.deepEqual(announced.follow(large), {
    pairs: [
      [INITIAL_WINDOW_SIZE, LARGEST_WINDOW],
      [MAX_CONCURRENT_STREAMS, 100],
    ],
    windowChange: LARGEST_WINDOW - 1000,
  });
});

test('what a stream may have on its way is as much as the largest window that was told', () => {
  const announced = new Announced(100, false);
  assert.equal(announced.largestWindow, DEFAULT_WINDOW);
  announced.follow({ ...DEFAULT, initialWindow: 2 * DEFAULT_WINDOW });
  announced.follow({ ...DEFAULT, initialWindow: 0 });
  assert.equal(announced.largestWindow, 2 * DEFAULT_WINDOW);
});

test('extended CONNECT is offered when the application offers it and it may be, and not taken back', () => {
  const offers = { ...DEFAULT, enablesConnect: true };
  const announced = new Announced(100, true);
  announced.begin(false);
  assert.equal(announced.connect, false);
  assert.deepEqual(announced.follow(offers).pairs, [[ENABLE_CONNECT_PROTOCOL, 1]]);
  assert.equal(announced.connect, true);
  assert.deepEqual(announced.follow(DEFAULT).pairs, []);
  assert.equal(announced.connect, true);

  const mayNot = new Announced(100, false);
  assert.deepEqual(mayNot.follow(offers).pairs, []);
  assert.equal(mayNot.connect, false);

  const always = new Announced(100, true);
  assert.deepEqual(always.begin(true), [
    [MAX_CONCURRENT_STREAMS, 100],
    [ENABLE_CONNECT_PROTOCOL, 1],
  ]);
  assert.equal(always.connect, true);
});
