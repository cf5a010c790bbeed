import assert from 'node:assert/strict';
import { Socket } from 'node:net';
import { test } from 'node:test';
import { SlowReading } from './slow-reading.ts';

test('a socket whose handle is not where it was in Node is refused, and not left waiting unheard', () => {
  assert.throws(() => new SlowReading(new Socket()), /gives no second socket/);
  const taken = new Socket();
  Reflect.set(taken, '_handle', undefined);
  assert.throws(() => new SlowReading(taken), /gives no second socket/);
});
