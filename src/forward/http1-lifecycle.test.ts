import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { startMemoryForwarder, type MemoryForwarder } from '../../test/support/memory-forwarder.ts';
import type { MemoryConnection } from '../../test/support/memory-connection.ts';

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const GET = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n';
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Says it in one piece, and lets all that follows happen. */
async function say(connection: MemoryConnection | undefined, text: string): Promise<void> {
  assert.ok(connection !== undefined);
  connection.say(Buffer.from(text, 'latin1'));
  await settle();
}

function resultsOf({ records }: MemoryForwarder): unknown[] {
  return records.map(({ status, result, detail }) => [status, result, detail]);
}

test('a response that has begun is not late, however long it goes on after the end of the request', async () => {
  const clock = new FakeClock();
  const stage = startMemoryForwarder({ clock, limits: { responseTimeoutMs: 60_000 } });
  await say(stage.downstream, 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello');
  await say(stage.upstreams[0], 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n');
  await say(stage.downstream, 'world');

  for (let second = 0; second < 100; second++) {
    clock.advance(1000);
    await say(stage.upstreams[0], '1\r\nx\r\n');
  }
  await say(stage.upstreams[0], '0\r\n\r\n');

  assert.deepEqual(resultsOf(stage), [[200, 'forwarded', undefined]]);
});

for (const [what, head, kept] of [
  ['of the first request', 'Content-Length: 10', false],
  ['of a later request', 'Content-Length: 10', true],
  ['of a request that expects 100', 'Expect: 100-continue\r\nContent-Length: 10', false],
] as const) {
  test(`a body of which no byte comes is late: ${what}`, async () => {
    const clock = new FakeClock();
    const stage = startMemoryForwarder({ clock, limits: { minBodyBytesPerSecond: 240 } });
    if (kept) {
      await say(stage.downstream, GET);
      await say(stage.upstreams[0], OK);
    }

    await say(stage.downstream, `POST / HTTP/1.1\r\nHost: a\r\n${head}\r\n\r\n`);
    clock.advance(5000);

    assert.deepEqual(resultsOf(stage).at(-1), [408, 'timeout', 'the body came too slowly']);
  });
}

test('trailers of which no byte comes are late', async () => {
  const clock = new FakeClock();
  const stage = startMemoryForwarder({ clock });

  await say(stage.downstream, 'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n');
  clock.advance(10_000);

  assert.deepEqual(resultsOf(stage), [[408, 'timeout', 'the trailers took too long']]);
});

test('a client is not late with what waits for us because the application takes nothing', async () => {
  const clock = new FakeClock();
  const stage = startMemoryForwarder({ clock, limits: { responseTimeoutMs: undefined } });
  await say(stage.downstream, 'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n');
  const [upstream] = stage.upstreams;
  assert.ok(upstream !== undefined);
  upstream.isStuck = true;

  await say(stage.downstream, '5\r\nhello\r\n0\r\n\r');
  await say(stage.downstream, '\n');
  clock.advance(60_000);
  assert.deepEqual(resultsOf(stage), []);

  upstream.isStuck = false;
  upstream.handler?.drained();
  await settle();
  await say(upstream, OK);
  assert.deepEqual(resultsOf(stage), [[200, 'forwarded', undefined]]);
});

test('an application is not late with an answer that waits for a client that does not read', async () => {
  const clock = new FakeClock();
  const stage = startMemoryForwarder({ clock });
  stage.downstream.isStuck = true;
  await say(stage.downstream, GET + GET);
  await say(stage.upstreams[0], OK);
  await say(stage.upstreams[0], OK);

  clock.advance(60_000);
  assert.equal(stage.records.length, 1);
  stage.downstream.isStuck = false;
  stage.downstream.handler?.drained();
  await settle();

  assert.equal(stage.downstream.text(), OK + OK);
});

test('an application that takes nothing more of a request has no longer to answer than one that has it all', async () => {
  const clock = new FakeClock();
  const stage = startMemoryForwarder({ clock, limits: { minBodyBytesPerSecond: 240, responseTimeoutMs: 60_000 } });
  await say(stage.downstream, 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nx');
  const [upstream] = stage.upstreams;
  assert.ok(upstream !== undefined);
  upstream.isStuck = true;
  await say(stage.downstream, 'hello');

  clock.advance(59_999);
  assert.deepEqual(resultsOf(stage), []);
  clock.advance(1);

  assert.deepEqual(resultsOf(stage), [[504, 'upstream_timeout', 'the application did not answer in time']]);
});

test('an application that takes a long request slowly is not late', async () => {
  const clock = new FakeClock();
  const stage = startMemoryForwarder({ clock, limits: { responseTimeoutMs: 60_000 } });
  await say(stage.downstream, 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n');
  const [upstream] = stage.upstreams;
  assert.ok(upstream !== undefined);

  for (let byte = 0; byte < 10; byte++) {
    upstream.isStuck = true;
    await say(stage.downstream, 'x');
    clock.advance(50_000);
    upstream.isStuck = false;
    upstream.handler?.drained();
    await settle();
  }
  await say(upstream, OK);

  assert.deepEqual(resultsOf(stage), [[200, 'forwarded', undefined]]);
});

test('a drain ends a connection whose client stays after the last response and talks on', async () => {
  const clock = new FakeClock();
  const stage = startMemoryForwarder({ clock });
  await say(stage.downstream, 'GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n');
  await say(stage.upstreams[0], OK);
  await say(stage.downstream, 'and more');
  assert.equal(stage.isDone(), false);

  stage.session.wind();
  clock.advance(5000);
  await settle();

  assert.equal(stage.isDone(), true);
});

test('what is said of a head that never came whole counts its own bytes, not those of the request before', async () => {
  const clock = new FakeClock();
  const stage = startMemoryForwarder({ clock });
  await say(stage.downstream, GET);
  await say(stage.upstreams[0], OK);

  await say(stage.downstream, 'GET');
  clock.advance(10_000);

  const [, late] = stage.records;
  assert.deepEqual([late?.status, late?.method, late?.bytesFromDownstream], [408, '', 0]);
});

test('a status is told only with the head that said it', async () => {
  const stage = startMemoryForwarder();
  await say(stage.downstream, GET);

  const head = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n';
  await say(stage.upstreams[0], `${head}zz`);

  assert.ok(stage.downstream.text().startsWith(head));
  assert.equal(stage.downstream.isAborted, true);
  assert.deepEqual(resultsOf(stage), [[200, 'upstream_failed', 'the application gave a malformed chunked body']]);
});

test('a WebSocket that outlives an SVID and ends in order has finished', async () => {
  const clock = new FakeClock();
  const stage = startMemoryForwarder({ clock });
  await say(stage.downstream, 'GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n');
  await say(stage.upstreams[0], 'HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello');

  stage.session.expire();
  await say(stage.downstream, 'bye');
  stage.downstream.finish();
  stage.upstreams[0]?.finish();
  await settle();

  assert.equal(stage.isDone(), true);
  assert.equal(stage.session.record(clock).closeReason, 'finished');
});

test("when the server's SVID expires while it takes nothing, the application is read from again", async () => {
  const clock = new FakeClock();
  const stage = startMemoryForwarder({ clock, outbound: true });
  await say(stage.downstream, 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n');
  const [first] = stage.upstreams;
  assert.ok(first !== undefined);
  first.isStuck = true;
  await say(stage.downstream, 'hello');
  await say(first, OK);

  stage.session.expire();
  await say(stage.downstream, GET);

  assert.equal(first.hasEnded, true);
  assert.equal(stage.upstreams.length, 2);
  await say(stage.upstreams[1], OK);
  assert.equal(stage.downstream.text(), OK + OK);
});

test('at a Unix socket, which no reset can end, a response without an end of its own gets one', async () => {
  const stage = startMemoryForwarder({ unix: true });
  await say(stage.downstream, GET);
  await say(stage.upstreams[0], 'HTTP/1.0 200 OK\r\nX: 1\r\n\r\npart');
  await say(stage.upstreams[0], ' and the rest of it');
  stage.upstreams[0]?.finish();
  await settle();

  assert.equal(
    stage.downstream.text(),
    'HTTP/1.1 200 OK\r\nX: 1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n4\r\npart\r\n13\r\n and the rest of it\r\n0\r\n\r\n',
  );
  assert.equal(stage.downstream.hasEnded, true);
});

test('at a Unix socket, a response that breaks off has no end', async () => {
  const stage = startMemoryForwarder({ unix: true });
  await say(stage.downstream, GET);
  await say(stage.upstreams[0], 'HTTP/1.1 200 OK\r\n\r\npart');
  stage.upstreams[0]?.break();
  await settle();

  assert.match(stage.downstream.text(), /\r\n\r\n4\r\npart\r\n$/);
  assert.equal(stage.downstream.isAborted, true);
  assert.deepEqual(resultsOf(stage), [[200, 'upstream_failed', 'the application broke the connection (ECONNRESET)']]);
});

test('at a Unix socket, a client of HTTP/1.0 and the answer to a HEAD get no chunks', async () => {
  for (const [request, response] of [
    ['GET / HTTP/1.0\r\nHost: a\r\n\r\n', 'HTTP/1.1 200 OK\r\n\r\nall'],
    ['HEAD / HTTP/1.1\r\nHost: a\r\n\r\n', 'HTTP/1.1 200 OK\r\n\r\n'],
  ] as const) {
    const stage = startMemoryForwarder({ unix: true });
    await say(stage.downstream, request);
    await say(stage.upstreams[0], response);
    stage.upstreams[0]?.finish();
    await settle();
    const text = stage.downstream.text();
    assert.equal(text.replace('Connection: close\r\n', ''), response);
  }
});

test('an empty line is no request: the connection is between requests, however long', async () => {
  const clock = new FakeClock();
  const stage = startMemoryForwarder({ clock });
  await say(stage.downstream, `${GET}\r\n`);
  await say(stage.upstreams[0], OK);
  clock.advance(3_600_000);
  await settle();
  assert.equal(stage.downstream.text(), OK);
  await say(stage.downstream, GET);
  await say(stage.upstreams[0], OK);
  assert.equal(stage.downstream.text(), OK + OK);
  await say(stage.downstream, '\r\n');

  stage.downstream.finish();
  await settle();

  assert.deepEqual([stage.downstream.hasEnded, stage.downstream.text()], [true, OK + OK]);
  assert.deepEqual(
    resultsOf(stage),
    Array.from({ length: 2 }, () => [200, 'forwarded', undefined]),
  );
});

test('a part of an empty line is a part of a head, whose time runs', async () => {
  const clock = new FakeClock();
  const stage = startMemoryForwarder({ clock });
  await say(stage.downstream, '\r\n\r');
  clock.advance(10_000);
  await settle();

  assert.match(stage.downstream.text(), /^HTTP\/1\.1 408 /);
});

test('a peer that is not allowed gains no time with an empty line', async () => {
  const clock = new FakeClock();
  const stage = startMemoryForwarder({ clock, denied: true });
  clock.advance(1900);
  await say(stage.downstream, '\r\n');
  clock.advance(100);
  await settle();

  assert.equal(stage.downstream.hasEnded, true);
});
