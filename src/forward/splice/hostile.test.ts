import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventually } from '../../../test/support/eventually.ts';
import {
  CONTINUATION,
  DATA,
  END_HEADERS,
  END_STREAM,
  frame,
  GET,
  GOAWAY,
  headers,
  HEADERS,
  hpack,
  hpackInteger,
  PING,
  POST,
  settings,
  uint32,
  WINDOW_UPDATE,
} from '../../../test/support/http/http2-frames.ts';
import { forwarderOptions, verdict } from '../../../test/support/memory-forwarder.ts';
import { startMemorySplice } from '../../../test/support/http/memory-splice.ts';
import { nameBytes } from '../../http1/fields.ts';
import { requireSpiffeId } from '../../spiffe/spiffe-id.ts';
import type { RequestTokens } from '../bearer.ts';
import { Session } from '../session.ts';
import { collectAll } from '../../transport/garbage.ts';

const PEER = requireSpiffeId('spiffe://example.org/web');
const { limits } = forwarderOptions(() => false);
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function bufferBytes(): number {
  collectAll();
  return process.memoryUsage().arrayBuffers;
}

/** A table entry of nearly four thousand octets, which each block that follows says eight times in as many octets. */
function bomb(count: number): Buffer {
  const entry = Buffer.concat([
    Buffer.of(0x40),
    hpackInteger(1, 7, 0),
    Buffer.from('a'),
    hpackInteger(3900, 7, 0),
    Buffer.alloc(3900, 'x'),
  ]);
  const flags = END_HEADERS | END_STREAM;
  const blocks = Array.from({ length: count }, (_, index) =>
    frame(HEADERS, flags, 3 + 2 * index, Buffer.concat([hpack(GET), hpack([['n', String(index)]]), Buffer.alloc(8, 0x80 | 62)])),
  );
  return Buffer.concat([frame(HEADERS, flags, 1, Buffer.concat([hpack(GET), entry])), ...blocks]);
}

test('short blocks that say much are not remembered without measure', async () => {
  const CONNECTIONS = 10;
  const bytes = bomb(300);
  const before = bufferBytes();
  const stages = Array.from({ length: CONNECTIONS }, () => {
    const stage = startMemorySplice({
      limits: { ...limits, maxHeadBytes: 32_768, maxFields: 1000 },
      judge: () => verdict(PEER, false),
    });
    stage.client.say(bytes);
    stage.client.written.length = 0;
    return stage;
  });

  assert.ok(stages.every(({ records }) => records.length === 301 && records.every(({ status }) => status === 403)));
  // The collector frees buffers in a thread of its own, in its own time.
  await eventually(() => {
    const each = (bufferBytes() - before) / CONNECTIONS;
    assert.ok(each < 250_000, `${each} bytes a connection`);
  });
});

test('crumbs that are held, of bodies and of field blocks, hold no more than themselves', async () => {
  const before = bufferBytes();
  const stage = startMemorySplice();
  const say = (...frames: readonly Buffer[]): void => {
    stage.client.say(Buffer.concat(frames));
    // What others do meanwhile.
    for (let time = 0; time < 4; time++) Buffer.allocUnsafe(Buffer.poolSize / 4);
  };
  // The application has not said that it speaks HTTP/2.
  for (let stream = 1; stream < 199; stream += 2) say(headers(stream, POST, END_HEADERS), frame(DATA, 0, stream, Buffer.alloc(10)));
  say(frame(HEADERS, 0, 199, hpack(GET)));
  for (let part = 0; part < 60; part++) say(frame(CONTINUATION, 0, 199, hpack([['a', 'b']])));

  assert.equal(stage.applications[0]?.isPaused, false);
  assert.deepEqual(stage.records, []);
  await eventually(() => {
    const held = bufferBytes() - before;
    assert.ok(held < 1024 * 1024, `${held} bytes`);
  });
  assert.equal(stage.client.hasEnded, false);
});

test('a client that reads nothing until its own write is through is read from', () => {
  const stage = startMemorySplice();
  stage.client.say(headers(1, POST, END_HEADERS));
  stage.applications[0]?.say(settings());
  stage.client.isStuck = true;
  stage.applications[0]?.say(
    Buffer.concat([frame(HEADERS, END_HEADERS, 1, hpack([[':status', '200']])), frame(DATA, 0, 1, Buffer.alloc(16_000))]),
  );
  assert.equal(stage.applications[0]?.isPaused, true);

  stage.client.say(frame(DATA, END_STREAM, 1, Buffer.alloc(16_000)));

  const sent = stage.toApplication().filter(({ type }) => type === DATA);
  assert.equal(
    sent.reduce((sum, { payload }) => sum + payload.length, 0),
    16_000,
  );
});

test('what is owed to a client that reads nothing has an end', () => {
  const stage = startMemorySplice({ judge: () => verdict(PEER, false) });
  stage.client.isStuck = true;

  let stream = -1;
  for (let time = 0; time < 1000 && !stage.client.isPaused; time++) {
    stage.client.say(Buffer.concat(Array.from({ length: 20 }, () => headers((stream += 2), GET))));
  }

  assert.equal(stage.client.isPaused, true);
  assert.ok(stage.client.text().length < 200_000);
  stage.client.isStuck = false;
  stage.client.handler?.drained();
  assert.equal(stage.client.isPaused, false);
});

test('what is owed to an application that reads nothing has an end, however much it says itself', () => {
  const stage = startMemorySplice();
  const more = uint32(1_000_000_000);
  stage.client.say(Buffer.concat([headers(1, GET), frame(WINDOW_UPDATE, 0, 0, more), frame(WINDOW_UPDATE, 0, 1, more)]));
  const [application] = stage.applications;
  assert.ok(application !== undefined);
  application.say(Buffer.concat([settings(), frame(HEADERS, END_HEADERS, 1, hpack([[':status', '200']]))]));
  application.isStuck = true;

  // What it says earns it the PINGs.
  const part = Buffer.concat([frame(DATA, 0, 1, Buffer.alloc(64)), frame(PING, 0, 0, Buffer.alloc(8))]);
  const parts = Buffer.concat(Array.from({ length: 200 }, () => part));
  for (let time = 0; time < 500 && !application.isPaused; time++) application.say(parts);

  assert.equal(application.isPaused, true);
  assert.ok(application.text().length < 200_000);
  assert.deepEqual(stage.faults, []);
  application.isStuck = false;
  application.handler?.drained();
  assert.equal(application.isPaused, false);
});

test('a stream keeps the window that its application gave, whatever a later connection to it says', () => {
  const stage = startMemorySplice();
  stage.client.say(headers(1, POST, END_HEADERS));
  stage.applications[0]?.say(Buffer.concat([settings(), frame(GOAWAY, 0, 0, uint32(1, 0))]));
  stage.client.say(headers(3, POST, END_HEADERS));

  for (const window of [100, 50_000, 0]) stage.applications[1]?.say(settings([4, window]));

  // As the client reckons: what it was told for all, and for this one.
  const given = stage
    .toClient()
    .filter(({ type, stream }) => type === WINDOW_UPDATE && stream === 1)
    .map(({ payload }) => payload.readUInt32BE(0));
  assert.deepEqual(given, [65_435, 100]);
  assert.ok(!stage.toClient().some(({ type, stream }) => type === WINDOW_UPDATE && stream === 3));
});

test('a stream that was not taken is not among those that GOAWAY says were', () => {
  const session = new Session('test', 0);
  session.denied = 'not_allowed';
  const stage = startMemorySplice({ session, judge: () => verdict(PEER, false) });

  stage.client.say(Buffer.concat([headers(1, GET), headers(3, GET)]));

  const last = stage.toClient().findLast(({ type }) => type === GOAWAY);
  assert.deepEqual([stage.records.length, last?.payload.readUInt32BE(0)], [1, 1]);
});

test('an application that neither answers nor reads is given up, and the client goes on with another connection', async () => {
  const stage = startMemorySplice();
  stage.client.say(headers(1, POST, END_HEADERS));
  const [deaf] = stage.applications;
  assert.ok(deaf !== undefined);
  deaf.say(settings());
  stage.client.say(frame(DATA, END_STREAM, 1, Buffer.alloc(10)));
  deaf.isStuck = true;
  stage.client.say(headers(3, GET));
  assert.equal(stage.client.isPaused, true);

  stage.clock.advance(10_000);
  await settle();

  assert.deepEqual(
    stage.records.map(({ status, result }) => [status, result]),
    [
      [504, 'upstream_timeout'],
      [502, 'upstream_failed'],
    ],
  );
  assert.deepEqual([deaf.isAborted, stage.client.isPaused], [true, false]);
  stage.client.say(headers(5, GET));
  stage.applications[1]?.say(settings());
  assert.ok(stage.toApplication(1).some(({ type, stream }) => type === HEADERS && stream === 5));
});

test('an application that does not answer in time, and reads, keeps its connection', () => {
  const stage = startMemorySplice();
  stage.client.say(headers(1, GET));
  const [application] = stage.applications;
  assert.ok(application !== undefined);
  application.say(settings());
  application.isStuck = true;
  stage.client.say(headers(3, GET));
  application.handler?.drained();
  stage.clock.advance(9999);
  stage.client.say(headers(5, GET));

  stage.clock.advance(1);

  assert.deepEqual(
    stage.records.map(({ status }) => status),
    [504, 504],
  );
  assert.equal(application.isAborted, false);
});

test('an application with a window larger than the client is told of need not say more for all of it to be sent', () => {
  const stage = startMemorySplice();
  const window = 4 * 1024 * 1024;
  stage.client.say(headers(1, POST, END_HEADERS));
  stage.applications[0]?.say(Buffer.concat([settings([4, window]), frame(WINDOW_UPDATE, 0, 0, uint32(window))]));

  for (let sent = 0; sent < window; sent += 16_384) stage.client.say(frame(DATA, 0, 1, Buffer.alloc(16_384)));

  // What the client may send in all, as it reckons.
  const given = stage
    .toClient()
    .reduce(
      (sum, { type, stream, payload }) => (type === WINDOW_UPDATE && stream === 1 ? sum + payload.readUInt32BE(0) : sum),
      1024 * 1024,
    );
  assert.equal(given, window);
});

test('requests that are over while their tokens are verified count, and end their connection', () => {
  const { identity } = forwarderOptions(() => false);
  const tokens: RequestTokens = {
    header: nameBytes('authorization'),
    identity,
    subjectHeader: 'x-subject',
    read: () => new Promise(() => undefined),
    problemOf: () => undefined,
  };
  const stage = startMemorySplice({ tokens });
  const trailers = hpack([['host', 'x']]);

  for (let stream = 1; stream < 6000 && stage.faults.length === 0; stream += 2) {
    stage.client.say(Buffer.concat([headers(stream, POST, END_HEADERS), frame(HEADERS, END_HEADERS | END_STREAM, stream, trailers)]));
  }

  assert.deepEqual(stage.faults, ['downstream reset_flood']);
});
