import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tooMuch } from './handshake-bytes.ts';

const KIB = 1024;
const sent = (...kib: readonly number[]) => kib.map((each) => ({ bytes: each * KIB }));

test('any number of small handshakes is too many for nobody', () => {
  assert.deepEqual(tooMuch(sent(...Array.from({ length: 10_000 }, () => 4))), []);
  assert.deepEqual(tooMuch([]), []);
});

test('up to 1 MiB beyond the small part of each is let be; above it those that sent most are given up first', () => {
  const others = sent(...Array.from({ length: 10 }, () => 100));
  assert.deepEqual(tooMuch([...others, ...sent(68)]), []);
  assert.deepEqual(tooMuch([...sent(68), ...others, ...sent(5)]), [{ bytes: 100 * KIB }]);
  assert.deepEqual(tooMuch(sent(5, 2000, 6, 3000, 7)), sent(3000, 2000));
  assert.deepEqual(tooMuch(sent(5, 900, 6, 3000, 7)), sent(3000));
});
