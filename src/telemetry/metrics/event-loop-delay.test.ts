import assert from 'node:assert/strict';
import { connect, createServer } from 'node:net';
import { performance } from 'node:perf_hooks';
import { once } from 'node:events';
import { test } from 'node:test';
import { eventually } from '../../../test/support/eventually.ts';
import { eventLoopDelay, SPAN_MS, worstOfSpans } from './event-loop-delay.ts';

function block(ms: number): void {
  const until = performance.now() + ms;
  while (performance.now() < until);
}

test('a turn of the event loop that is blocked by what came from a socket is told', async (t) => {
  eventLoopDelay();
  const server = createServer((socket) => socket.on('error', () => undefined).once('data', () => block(300)));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  const address = server.address();
  assert.ok(typeof address === 'object' && address !== null);
  const client = connect(address.port, '127.0.0.1');
  t.after(() => client.destroy());
  client.write('x');

  await eventually(() => {
    assert.ok(eventLoopDelay().max >= 0.3);
    return Promise.resolve();
  });
});

test('the worse of two spans counts, so that nobody who asks once a minute misses one', () => {
  let now = 0;
  let turns: number[] = [];
  const histogram = {
    get count() {
      return turns.length;
    },
    get max() {
      return Math.max(...turns) * 1e9;
    },
    percentile: () => Math.min(...turns) * 1e9,
    reset: () => {
      turns = [];
    },
  };
  const ask = worstOfSpans(histogram, () => now);
  assert.deepEqual(ask(), { p99: 0, max: 0 });

  turns = [0.25, 2];
  now = SPAN_MS - 1;
  assert.deepEqual(ask(), { p99: 0.25, max: 2 });
  now = SPAN_MS;
  assert.deepEqual(ask(), { p99: 0.25, max: 2 });
  turns.push(0.5);
  assert.deepEqual(ask(), { p99: 0.5, max: 2 });
  now = 2 * SPAN_MS;
  assert.deepEqual(ask(), { p99: 0.5, max: 2 });
  turns.push(0.125);
  assert.deepEqual(ask(), { p99: 0.5, max: 0.5 });
});
