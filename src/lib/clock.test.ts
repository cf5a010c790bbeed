import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { test, type TestContext } from 'node:test';
import { systemClock } from './clock.ts';

/** Two ends of a connection. */
async function pair(t: TestContext): Promise<readonly [Socket, Socket]> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const near = connect((server.address() as AddressInfo).port, '127.0.0.1');
  const [far] = (await once(server, 'connection')) as [Socket];
  t.after(() => {
    near.destroy();
    far.destroy();
    server.close();
  });
  return [near, far];
}

/** The process does nothing at all, as if it were stopped. */
function freeze(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

test('a timer that is due runs after what had come by then was read', async (t) => {
  const [near, far] = await pair(t);
  const story: string[] = [];
  near.on('data', () => story.push('data'));
  const run = new Promise<void>((resolve) =>
    systemClock.after(10, () => {
      story.push('timer');
      resolve();
    }),
  );
  far.write('x');

  freeze(30);
  await run;

  assert.deepEqual(story, ['data', 'timer']);
});

test('after a time in which the process was stopped, others have a moment to answer what they could not have been told', async (t) => {
  const [near, far] = await pair(t);
  const story: string[] = [];
  const run = new Promise<void>((resolve) =>
    systemClock.after(10, () => {
      story.push('timer');
      resolve();
    }),
  );
  // Each answer takes the other a turn, and more than one.
  let turns = 0;
  far.on('data', (chunk: Buffer) => setImmediate(() => far.write(chunk)));
  near.on('data', (chunk: Buffer) => (++turns < 10 ? near.write(chunk) : story.push('answered')));
  near.write('x');

  freeze(200);
  await run;

  assert.deepEqual(story, ['answered', 'timer']);
});

test('a timer that is cancelled never runs, even if it was due', async () => {
  let ran = 0;
  const due = systemClock.after(1, () => ran++);
  // Runs after the one before was due, and before it is heard.
  setTimeout(() => due.cancel(), 1);
  freeze(20);
  const late = systemClock.after(1, () => ran++);
  freeze(150);
  // The system's own clock is what is tested: the late timer must have begun its grace.
  await new Promise((resolve) => setTimeout(resolve, 10));
  late.cancel();
  await new Promise<void>((resolve) => systemClock.after(400, resolve));

  assert.equal(ran, 0);
});
