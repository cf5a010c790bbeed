import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Keeping, parseKeepAlive, usableMs } from './keep-alive.ts';

test('a connection is used for as long as the other side says, but for a second', () => {
  for (const [value, ms] of [
    ['timeout=5', 4000],
    ['timeout=5, max=100', 4000],
    ['max=100,timeout=5', 4000],
    ['Timeout="5"', 4000],
    ['timeout=2', 1000],
    ['timeout=1', 0],
    ['timeout=0', 0],
    ['timeout=60, timeout=3', 2000],
    ['timeout=3600', 3_599_000],
  ] as const) {
    assert.equal(usableMs(parseKeepAlive(value), 1500), ms, value);
  }
});

test('what does not say how long is silent', () => {
  for (const value of ['', 'max=5', 'timeout', 'timeout=', 'timeout=-1', 'timeout=x', 'xtimeout=5', 'timeout =5']) {
    assert.equal(usableMs(parseKeepAlive(value), 1500), 1500, value);
    assert.equal(usableMs(parseKeepAlive(value), undefined), Infinity, value);
  }
});

test('the number of further requests is the least that is said', () => {
  assert.equal(parseKeepAlive('timeout=5, max=0').max, 0);
  assert.equal(parseKeepAlive('max=7, max=3').max, 3);
  assert.equal(parseKeepAlive('timeout=5').max, undefined);
});

test('a connection rests as long as was said on it last, and takes no more requests than it says', () => {
  const silent = new Keeping(1500);
  assert.equal(silent.usableMs, 1500);
  assert.equal(silent.mayRest(''), true);
  assert.equal(silent.mayRest('timeout=5'), true);
  assert.equal(silent.usableMs, 4000);
  assert.equal(silent.mayRest('timeout=1'), false);

  const counted = new Keeping(undefined);
  assert.equal(counted.usableMs, Infinity);
  // Said once, it counts down; said anew, it is what it says.
  assert.deepEqual(
    ['max=2', 'max=2', 'max=2', 'max=9', 'max=0'].map((said) => counted.mayRest(said)),
    [true, true, false, true, false],
  );
});
