import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../../test/support/fake-clock.ts';
import {
  CANCEL,
  DATA,
  END_HEADERS,
  frame,
  GET,
  GOAWAY,
  headers,
  HEADERS,
  hpack,
  INTERNAL_ERROR,
  POST,
  RST_STREAM,
  settings,
  uint32,
  WINDOW_UPDATE,
  framesIn,
  PREFACE,
} from '../../../test/support/http/http2-frames.ts';
import { MemoryConnection } from '../../../test/support/memory-connection.ts';
import { startMemorySplice } from '../../../test/support/http/memory-splice.ts';
import { connectFailure } from '../outcome.ts';

const FLOW_CONTROL_ERROR = 3;
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('a request for which there is no connection at once is told so, and does not wait', () => {
  const stage = startMemorySplice({}, { ok: false, failure: connectFailure('the application', 'ENOENT', 'no such file') });

  stage.client.say(headers(1, GET));

  assert.deepEqual(
    stage.records.map(({ status, result }) => [status, result]),
    [[502, 'upstream_refused']],
  );
});

test('who is served in turn does not go before those who were not', () => {
  const stage = startMemorySplice();
  // The client takes nothing over all streams but what is in its first window.
  stage.client.say(Buffer.concat([headers(1, GET), headers(3, GET), headers(5, GET)]));
  stage.applications[0]?.say(settings());
  stage.answer(1, Buffer.alloc(16_000));
  stage.client.say(Buffer.concat([1, 3, 5].map((stream) => frame(WINDOW_UPDATE, 0, stream, uint32(100_000)))));
  for (const stream of [3, 5]) {
    stage.applications[0]?.say(frame(HEADERS, END_HEADERS, stream, hpack([[':status', '200']])));
    for (let part = 0; part < 3; part++) stage.applications[0]?.say(frame(DATA, 0, stream, Buffer.alloc(16_000)));
  }
  const taken = (stream: number): number =>
    stage.toClient().reduce((sum, each) => (each.type === DATA && each.stream === stream ? sum + each.payload.length : sum), 0);
  const before = [taken(3), taken(5)];

  for (let time = 0; time < 6; time++) stage.client.say(frame(WINDOW_UPDATE, 0, 0, uint32(10)));

  assert.deepEqual([taken(3) + taken(5), taken(1)], [65_535 - 16_000 + 60, 16_000]);
  assert.ok(taken(5) - (before[1] ?? 0) >= 30, `${taken(3)} and ${taken(5)}, after ${before.join()}`);
});

test('a mistake of ours ends one connection, and not the process', () => {
  const stage = startMemorySplice({
    judge: () => {
      throw new Error('a mistake');
    },
  });

  stage.client.say(headers(1, GET));

  assert.equal(stage.session.record(new FakeClock()).closeReason, 'internal_error');
  assert.ok(stage.client.hasEnded);
});

test('more DATA than a window is an error of the stream, or of the connection, and no more than the windows is held', () => {
  for (const [given, code, where] of [
    [1_000_000, FLOW_CONTROL_ERROR, RST_STREAM],
    [0, FLOW_CONTROL_ERROR, GOAWAY],
  ] as const) {
    const stage = startMemorySplice();
    stage.client.say(headers(1, POST, END_HEADERS));
    // It takes nothing on its streams, and little or much over all of them.
    stage.applications[0]?.say(Buffer.concat([settings([4, 0]), ...(given > 0 ? [frame(WINDOW_UPDATE, 0, 0, uint32(given))] : [])]));

    for (let part = 0; part < 8; part++) stage.client.say(frame(DATA, 0, 1, Buffer.alloc(16_000)));

    const told = stage.toClient().find(({ type }) => type === where);
    assert.equal(told?.payload.readUInt32BE(where === GOAWAY ? 4 : 0), code);
    assert.ok(!stage.toApplication().some(({ type }) => type === DATA));
    assert.equal(stage.records.length, 1);
  }
});

test('a client that changes its mind about windows gets no more than the last one allows', () => {
  const stage = startMemorySplice();
  stage.client.say(headers(1, GET));
  stage.applications[0]?.say(settings());
  stage.client.say(settings([4, 10]));
  stage.answer(1, Buffer.alloc(50, 'x'));
  const taken = (): number => stage.toClient().reduce((sum, each) => (each.type === DATA ? sum + each.payload.length : sum), 0);
  assert.equal(taken(), 10);

  stage.client.say(settings([4, 0]));
  stage.client.say(frame(WINDOW_UPDATE, 0, 1, uint32(10)));
  assert.equal(taken(), 10);
  stage.client.say(frame(WINDOW_UPDATE, 0, 1, uint32(5)));
  assert.equal(taken(), 15);
  stage.client.say(settings([4, 65_535]));
  assert.equal(taken(), 50);
  assert.equal(stage.records[0]?.result, 'forwarded');
});

test('what is held for a stream that is over is given back to the window of the application', () => {
  const stage = startMemorySplice();
  stage.client.say(settings([4, 0]));
  stage.applications[0]?.say(settings());
  // Each response is as much as half of the window of the connection, and is never read.
  for (let stream = 1; stream < 40; stream += 2) {
    stage.client.say(headers(stream, GET));
    stage.applications[0]?.say(settings());
    stage.applications[0]?.say(
      Buffer.concat([
        frame(HEADERS, END_HEADERS, stream, hpack([[':status', '200']])),
        frame(DATA, 0, stream, Buffer.alloc(16_000)),
        frame(DATA, 0, stream, Buffer.alloc(14_000)),
      ]),
    );
    stage.client.say(frame(RST_STREAM, 0, stream, uint32(CANCEL)));
  }
  assert.deepEqual(stage.faults, []);
  const credit = stage
    .toApplication()
    .reduce((sum, { type, stream, payload }) => (type === WINDOW_UPDATE && stream === 0 ? sum + payload.readUInt32BE(0) : sum), 0);
  assert.ok(credit > 500_000, String(credit));
});

test('what the client takes over all streams is what the application hears, also if it says so while that is connected to', () => {
  let connect = (): void => undefined;
  const application = new MemoryConnection();
  const stage = startMemorySplice({
    open(done) {
      connect = () => done({ ok: true, connection: application });
      return { abort: () => undefined };
    },
  });
  stage.client.say(Buffer.concat([headers(1, GET), frame(WINDOW_UPDATE, 0, 0, uint32(500_000)), settings([4, 123])]));

  connect();

  const said = framesIn(Buffer.concat(application.written).subarray(PREFACE.length));
  assert.deepEqual(
    said.filter(({ type }) => type === WINDOW_UPDATE).map(({ stream, payload }) => [stream, payload.readUInt32BE(0)]),
    [[0, 500_000]],
  );
  assert.ok(said[0]?.payload.includes(Buffer.of(0, 4, 0, 0, 0, 123)));
});

test('a slow application stops the client, and a slow client the application', async () => {
  const stage = startMemorySplice();
  stage.client.say(headers(1, POST, END_HEADERS));
  const [application] = stage.applications;
  assert.ok(application !== undefined);
  application.say(settings());

  application.isStuck = true;
  stage.client.say(frame(DATA, 0, 1, Buffer.alloc(10)));
  assert.equal(stage.client.isPaused, true);
  application.isStuck = false;
  application.handler?.drained();
  assert.equal(stage.client.isPaused, false);

  stage.client.isStuck = true;
  application.say(frame(HEADERS, END_HEADERS, 1, hpack([[':status', '200']])));
  // Who must be heard before it reads would else be waited for without end.
  assert.deepEqual([application.isPaused, stage.client.isPaused], [true, false]);
  stage.client.isStuck = false;
  stage.client.handler?.drained();
  assert.deepEqual([application.isPaused, stage.client.isPaused], [false, false]);
  await settle();
});

test('our own answers wait for the window of the client, too', () => {
  const stage = startMemorySplice({}, { ok: false, failure: connectFailure('the application', 'ECONNREFUSED', 'refused') });
  stage.client.say(settings([4, 5]));

  stage.client.say(headers(1, POST, END_HEADERS));
  const data = (): string =>
    Buffer.concat(
      stage
        .toClient()
        .filter(({ type }) => type === DATA)
        .map(({ payload }) => payload),
    ).toString();
  assert.equal(data(), 'scute');
  assert.ok(!stage.toClient().some(({ type }) => type === RST_STREAM));
  stage.client.say(frame(WINDOW_UPDATE, 0, 1, uint32(1000)));

  assert.equal(data(), 'scute: the application cannot be reached\n');
  // The rest of the request is not wanted, and that is no error.
  assert.equal(stage.toClient().at(-1)?.type, RST_STREAM);
  assert.notEqual(stage.toClient().at(-1)?.payload.readUInt32BE(0), INTERNAL_ERROR);
});
