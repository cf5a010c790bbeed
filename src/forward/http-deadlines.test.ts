import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { Deadlines } from './http-deadlines.ts';

function stage(more: { readonly minBodyBytesPerSecond?: number | undefined } = {}) {
  const clock = new FakeClock();
  const late: string[] = [];
  const deadlines = new Deadlines(
    {
      headLate: () => late.push('head'),
      bodyLate: () => late.push('body'),
      responseLate: () => late.push('response'),
    },
    clock,
    {
      maxHeadBytes: 1024,
      maxFields: 10,
      maxBodyBytes: undefined,
      headTimeoutMs: 1000,
      minBodyBytesPerSecond: 100,
      upstreamIdleTimeoutMs: undefined,
      responseTimeoutMs: 3000,
      ...more,
    },
  );
  return { clock, late, deadlines };
}

test('a head is late when its time is over since its first byte, whatever came since', () => {
  const { clock, late, deadlines } = stage();

  deadlines.headBegun();
  clock.advance(900);
  deadlines.headBegun();
  clock.advance(99);
  assert.deepEqual(late, []);
  clock.advance(1);

  assert.deepEqual(late, ['head']);
});

test('a head that ended is not late, and the next one has its own time', () => {
  const { clock, late, deadlines } = stage();

  deadlines.headBegun();
  clock.advance(900);
  deadlines.headEnded();
  deadlines.headBegun();
  clock.advance(900);

  assert.deepEqual(late, []);
});

test('a body is late when it made too little of any five seconds, however much of those before', () => {
  const { clock, late, deadlines } = stage();

  deadlines.bodyAwaited();
  deadlines.bodyRead(1_000_000);
  clock.advance(5000);
  deadlines.bodyRead(499);
  clock.advance(4999);
  assert.deepEqual(late, []);
  clock.advance(1);

  assert.deepEqual(late, ['body']);
});

test('a body is judged by its own five seconds, not by those of the one before', () => {
  const { clock, late, deadlines } = stage();

  deadlines.bodyAwaited();
  clock.advance(4000);
  deadlines.bodyEnded();
  deadlines.bodyAwaited();
  clock.advance(4999);
  assert.deepEqual(late, []);
  deadlines.bodyRead(500);
  clock.advance(1);
  assert.deepEqual(late, []);
  clock.advance(5000);

  assert.deepEqual(late, ['body']);
});

test('a body that is held up is not late, until it has been let come for five seconds', () => {
  const { clock, late, deadlines } = stage();

  deadlines.bodyAwaited();
  deadlines.heldUp(true);
  clock.advance(60_000);
  deadlines.heldUp(false);
  clock.advance(5000);
  assert.deepEqual(late, []);
  clock.advance(5000);

  assert.deepEqual(late, ['body']);
});

test('without a limit a body may take for ever', () => {
  const { clock, late, deadlines } = stage({ minBodyBytesPerSecond: undefined });

  deadlines.bodyAwaited();
  clock.advance(1_000_000);

  assert.deepEqual(late, []);
  assert.equal(clock.armed, 0);
});

test('a response is late when its own time is over, though one timer serves many', () => {
  const { clock, late, deadlines } = stage();

  deadlines.awaitResponse();
  clock.advance(2000);
  deadlines.responseBegun();
  deadlines.stop();
  deadlines.awaitResponse();
  assert.equal(clock.armed, 1);
  clock.advance(2999);
  assert.deepEqual(late, []);
  clock.advance(1);

  assert.deepEqual(late, ['response']);
});

test('when the connection has ended, no timer is left', () => {
  const { clock, deadlines } = stage();

  deadlines.headBegun();
  deadlines.bodyAwaited();
  deadlines.awaitResponse();
  deadlines.end();

  assert.equal(clock.armed, 0);
});
