import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { forwarderOptions, PEER, startMemoryForwarder, verdict, type MemoryForwarder } from '../../test/support/memory-forwarder.ts';
import type { MemoryConnection } from '../../test/support/memory-connection.ts';
import { HeldToken, type TokenFetch } from '../credentials/held-token.ts';
import { NO_BEARER, type RequestJudge, type RequestTokens } from './bearer.ts';
import type { RequestCredential } from './request-credential.ts';

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const GET = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n';
const DRAINING = { reason: 'peer_svid_expired', detail: 'expired', endsAtMs: Infinity, mayAsk: true } as const;
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

function endOf({ session }: MemoryForwarder): unknown[] {
  const { closeReason, detail } = session.record(new FakeClock());
  return [closeReason, detail];
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

  stage.session.drain(DRAINING);
  await say(stage.downstream, 'bye');
  stage.downstream.finish();
  stage.upstreams[0]?.finish();
  await settle();

  assert.equal(stage.isDone(), true);
  assert.equal(stage.session.record(clock).closeReason, 'finished');
});

test('a server whose SVID has expired is asked nothing more, not even by who had begun to', async () => {
  const stage = startMemoryForwarder({ outbound: true });
  await once(stage);
  await say(stage.downstream, GET.slice(0, 10));

  stage.session.drain(DRAINING);
  await say(stage.downstream, GET.slice(10));
  await say(stage.upstreams[1], OK);

  assert.doesNotMatch(stage.upstreams[0]?.text().slice(10) ?? '', /GET/);
  assert.equal(stage.upstreams[0]?.hasEnded, true);
  assert.equal(stage.downstream.text(), OK + OK);
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

  stage.session.drain(DRAINING);
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

/** One request and its answer, on a connection that is kept. */
async function once(stage: MemoryForwarder, answer = OK): Promise<void> {
  await say(stage.downstream, GET);
  await say(stage.upstreams.at(-1), answer);
}

for (const [who, field, silentMs, usableMs] of [
  ['one that says how long', 'Keep-Alive: timeout=5\r\n', 1500, 4000],
  ['one that says so of a short time', 'Keep-Alive: timeout=2\r\n', 1500, 1000],
  ['one that says so of a longer time', 'Connection: keep-alive\r\nkeep-alive: max=9, timeout=75\r\n', 1500, 74_000],
  ['a silent one', '', 1500, 1500],
] as const) {
  test(`a connection that the application is about to close is not used, and is closed: ${who}`, async () => {
    const clock = new FakeClock();
    const stage = startMemoryForwarder({ clock, limits: { upstreamIdleTimeoutMs: silentMs } });
    const answer = OK.replace('\r\n', `\r\n${field}`);
    await once(stage, answer);
    clock.advance(usableMs - 1);
    await once(stage, answer);
    assert.equal(stage.upstreams.length, 1);

    clock.advance(usableMs - 1);
    assert.equal(stage.upstreams[0]?.hasEnded, false);
    clock.advance(1);
    assert.equal(stage.upstreams[0]?.hasEnded, true);
    await once(stage, answer);

    assert.equal(stage.upstreams.length, 2);
    assert.deepEqual(
      resultsOf(stage),
      Array.from({ length: 3 }, () => [200, 'forwarded', undefined]),
    );
    stage.session.drop();
    await settle();
    assert.equal(clock.armed, 0);
  });
}

test('a connection on which the application takes no further request is closed, whether it says so or counts down', async () => {
  const stage = startMemoryForwarder();
  for (const said of ['max=2', 'max=1', 'max=0']) await once(stage, OK.replace('\r\n', `\r\nKeep-Alive: timeout=5, ${said}\r\n`));
  assert.deepEqual([stage.upstreams.length, stage.upstreams[0]?.hasEnded], [1, true]);
  for (let request = 0; request < 3; request++) await once(stage, OK.replace('\r\n', `\r\nKeep-Alive: max=1\r\n`));
  assert.deepEqual([stage.upstreams.length, stage.upstreams[1]?.hasEnded], [3, true]);
});

test('a connection that is closed in the turn in which a request comes is not sent it, whoever asks', async () => {
  for (const does of ['finish', 'break'] as const) {
    const clock = new FakeClock();
    const stage = startMemoryForwarder({ clock });
    await once(stage);
    clock.advance(30);

    stage.downstream.say(Buffer.from('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab'));
    stage.upstreams[0]?.[does]();
    await settle();
    await settle();
    await say(stage.upstreams[1], OK);

    assert.doesNotMatch(stage.upstreams[0]?.text() ?? '', /POST/);
    assert.match(stage.upstreams[1]?.text() ?? '', /^POST [^]*ab$/);
    assert.deepEqual(
      stage.records.map(({ status, retries }) => [status, retries]),
      [
        [200, 0],
        [200, 0],
      ],
    );
  }
});

test('a request is sent once more, and no oftener', async () => {
  const stage = startMemoryForwarder();
  await once(stage);
  await say(stage.downstream, GET);
  stage.upstreams[0]?.break();
  await settle();
  assert.equal(stage.upstreams.length, 2);
  stage.upstreams[1]?.break();
  await settle();

  assert.equal(stage.upstreams.length, 2);
  assert.deepEqual(
    stage.records.map(({ result, retries }) => [result, retries]),
    [
      ['forwarded', 0],
      ['upstream_failed', 1],
    ],
  );
});

test('a connection that never answered is no reason to send a request once more', async () => {
  const stage = startMemoryForwarder();
  await say(stage.downstream, GET);
  stage.upstreams[0]?.break();
  await settle();

  assert.equal(stage.upstreams.length, 1);
  assert.equal(stage.records[0]?.result, 'upstream_failed');
});

test('an application that does not answer in time is not asked once more, and neither is one whose connection ended for another reason', async () => {
  const clock = new FakeClock();
  const late = startMemoryForwarder({ clock });
  await once(late);
  await say(late.downstream, GET);
  clock.advance(10_000);
  assert.deepEqual(resultsOf(late).at(-1), [504, 'upstream_timeout', 'the application did not answer in time']);
  assert.equal(late.upstreams.length, 1);

  const lost = startMemoryForwarder();
  await once(lost);
  await say(lost.downstream, GET);
  lost.upstreams[0]?.break('ETIMEDOUT');
  await settle();
  assert.deepEqual(resultsOf(lost).at(-1), [502, 'upstream_failed', 'the application broke the connection (ETIMEDOUT)']);
  assert.equal(lost.upstreams.length, 1);
});

test('a request that is sent once more has the time of one for its response', async () => {
  const clock = new FakeClock();
  const stage = startMemoryForwarder({ clock });
  await once(stage);
  await say(stage.downstream, GET);
  clock.advance(9000);
  stage.upstreams[0]?.finish();
  await settle();
  assert.equal(stage.upstreams.length, 2);

  clock.advance(1000);

  assert.deepEqual(resultsOf(stage).at(-1), [504, 'upstream_timeout', 'the application did not answer in time']);
});

for (const outbound of [false, true]) {
  test(`a request is judged again before it is sent once more, by the newest list: ${outbound ? 'outbound' : 'inbound'}`, async () => {
    const stage = startMemoryForwarder({ outbound });
    await once(stage);
    await say(stage.downstream, GET);
    stage.denies = true;
    stage.upstreams[0]?.break();
    await settle();

    assert.equal(stage.upstreams[1]?.text(), '');
    assert.deepEqual([stage.upstreams.length, stage.upstreams[1]?.isAborted, stage.downstream.hasEnded], [2, false, true]);
    assert.deepEqual(
      stage.records.map(({ status, result, retries }) => [status, result, retries]).at(-1),
      outbound ? [502, 'upstream_denied', 1] : [403, 'denied', 1],
    );
  });
}

test('a list that changes while the application is connected to is the one that counts', async () => {
  const stage = startMemoryForwarder();
  stage.downstream.say(Buffer.from(GET, 'latin1'));
  stage.denies = true;
  await settle();

  assert.equal(stage.upstreams[0]?.text(), '');
  assert.match(stage.downstream.text(), /^HTTP\/1\.1 403 /);
});

test('a client that has left is asked for by nobody: its request is not sent once more', async () => {
  const stage = startMemoryForwarder();
  await once(stage);
  await say(stage.downstream, GET);
  stage.downstream.break();
  stage.upstreams[0]?.break();
  await settle();

  assert.equal(stage.upstreams.length, 1);
  assert.equal(stage.isDone(), true);
});

test('a body is kept for a second time up to 64 KiB, and of all requests 16 MiB', async () => {
  const put = (bytes: number): string => `PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: ${bytes}\r\n\r\n${'x'.repeat(bytes)}`;
  const outcome = async (stages: readonly MemoryForwarder[]): Promise<number> => {
    for (const stage of stages) stage.upstreams[0]?.finish();
    await settle();
    await settle();
    return stages.filter((stage) => stage.upstreams.length === 2).length;
  };
  const asked = async (bytes: number): Promise<MemoryForwarder> => {
    const stage = startMemoryForwarder();
    await once(stage);
    await say(stage.downstream, put(bytes));
    return stage;
  };
  assert.equal(await outcome([await asked(65_536)]), 1);
  assert.equal(await outcome([await asked(65_537)]), 0);

  for (let round = 0; round < 2; round++) {
    const many: MemoryForwarder[] = [];
    for (let stage = 0; stage < 300; stage++) many.push(await asked(65_536));
    // With their heads, one less than bodies alone.
    assert.equal(await outcome(many), 255);
    // What was kept is given back, by those that were answered and by those that were not.
    for (const stage of many) stage.session.drop();
    await settle();
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

test('of a response that the client does not take, nothing more is sent when its peer is dismissed', async () => {
  const stage = startMemoryForwarder();
  const { session, downstream, upstreams, records } = stage;
  downstream.isStuck = true;
  await say(downstream, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n');
  const [upstream] = upstreams;
  assert.ok(upstream);
  await say(upstream, 'HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret');
  assert.deepEqual(
    records.map(({ result }) => result),
    ['forwarded'],
  );

  session.dismiss('policy', 'not any more');

  assert.ok(downstream.isAborted);
});

const NO_TOKENS: Pick<RequestTokens, 'header' | 'identity' | 'subjectHeader' | 'problemOf'> = {
  header: Buffer.from('authorization'),
  identity: forwarderOptions(() => false).identity,
  subjectHeader: 'X-Subject',
  problemOf: () => undefined,
};

test('a mistake of ours when a token has been read ends its connection, and no other', async () => {
  const judge: RequestJudge = () => {
    throw new Error('nobody knows the rules');
  };
  const stage = startMemoryForwarder({ more: { judge, tokens: { ...NO_TOKENS, read: () => Promise.resolve(NO_BEARER) } } });

  await say(stage.downstream, GET);

  assert.ok(stage.downstream.isAborted);
  assert.equal(stage.upstreams.length, 0);
  assert.deepEqual(resultsOf(stage), [[0, 'dropped', undefined]]);
  assert.deepEqual(endOf(stage), ['internal_error', 'a request could not be served: nobody knows the rules']);
});

test('a mistake of ours when a token came ends one connection, and the others that wait for it are told', async () => {
  const clock = new FakeClock();
  let give: (token: Awaited<ReturnType<TokenFetch>>) => void = () => undefined;
  const held = new HeldToken({
    fetch: () => new Promise((resolve) => (give = resolve)),
    clock,
    random: () => 0.5,
    fetched: () => undefined,
  });
  const comes = async (): Promise<void> => {
    held.retry();
    give({ ok: true, value: { value: 't', expiresAtMs: clock.now() + 300_000 } });
    await settle();
  };
  const credential: RequestCredential = {
    name: Buffer.from('authorization'),
    replaces: false,
    line: () => held.current() && Buffer.from('Authorization: Bearer t\r\n'),
    wait: (done) => held.wait((problem) => done(problem?.reason)),
  };
  let isMistaken = false;
  const judge: RequestJudge = () => {
    if (isMistaken) throw new Error('nobody knows the rules');
    return verdict(PEER, true);
  };
  const [first, second] = [{ credential, judge }, { credential }].map((more) => startMemoryForwarder({ clock, outbound: true, more }));
  assert.ok(first !== undefined && second !== undefined);
  held.start();
  await comes();
  for (const { downstream, upstreams } of [first, second]) {
    await say(downstream, GET);
    await say(upstreams[0], OK);
  }
  held.withdraw({ reason: 'not_entitled', detail: 'not any more' });
  held.retry();
  for (const { downstream } of [first, second]) await say(downstream, GET);
  isMistaken = true;

  await comes();

  assert.ok(first.downstream.isAborted);
  assert.deepEqual(endOf(first), ['internal_error', 'a request could not be served: nobody knows the rules']);
  await say(second.upstreams[0], OK);
  assert.deepEqual(resultsOf(second), [
    [200, 'forwarded', undefined],
    [200, 'forwarded', undefined],
  ]);
  held.stop();
});
