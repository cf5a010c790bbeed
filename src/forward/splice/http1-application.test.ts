import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  CANCEL,
  DATA,
  END_HEADERS,
  END_STREAM,
  frame,
  GET,
  headers,
  HEADERS,
  NO_ERROR,
  POST,
  RST_STREAM,
  uint32,
  WINDOW_UPDATE,
  type Field,
} from '../../../test/support/http/http2-frames.ts';
import { startMemorySplice } from '../../../test/support/http/memory-splice.ts';
import { responsesIn } from '../../../test/support/http/random-http2-side.ts';
import { MemoryConnection } from '../../../test/support/memory-connection.ts';
import { forwarderOptions, verdict } from '../../../test/support/memory-forwarder.ts';
import { Fields } from '../../http1/fields.ts';
import { buildIdentityFields } from '../../http1/identity-fields.ts';
import { requireSpiffeId } from '../../spiffe/spiffe-id.ts';
import type { SpliceOptions } from './splice.ts';

const PEER = requireSpiffeId('spiffe://example.org/web');
const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const WINDOW = 65_535;
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** A client of HTTP/2, and applications that speak HTTP/1.1. */
function start(options: Partial<SpliceOptions> = {}) {
  const stage = startMemorySplice({ http1: { scratch: new Fields(20) }, ...options });
  return {
    ...stage,
    application: (index = 0): MemoryConnection => stage.applications[index] ?? assert.fail(`no connection ${index}`),
    say: (text: string, index = 0) => stage.applications[index]?.say(Buffer.from(text, 'latin1')),
    response: (stream: number) => responsesIn(Buffer.concat(stage.client.written)).get(stream),
    resets: () => stage.toClient().flatMap(({ type, stream, payload }) => (type === RST_STREAM ? [[stream, payload.readUInt32BE(0)]] : [])),
    given: (stream: number) =>
      stage
        .toClient()
        .reduce((sum, each) => sum + (each.type === WINDOW_UPDATE && each.stream === stream ? each.payload.readUInt32BE(0) : 0), 0),
  };
}
const body = (stream: number, bytes: number, flags = 0): Buffer =>
  Buffer.concat(
    Array.from({ length: Math.ceil(bytes / 16_384) }, (_, index) => {
      const left = bytes - index * 16_384;
      return frame(DATA, left <= 16_384 ? flags : 0, stream, Buffer.alloc(Math.min(left, 16_384), 'x'));
    }),
  );

test('a client that takes no more of a response has the application not read from, until it does', async () => {
  const stage = start();
  stage.client.say(headers(1, GET));
  stage.say(`HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n${'x'.repeat(60_000)}`);
  assert.equal(stage.application().isPaused, false);

  stage.say('x'.repeat(10_000));

  assert.equal(stage.application().isPaused, true);
  assert.equal(stage.response(1)?.body.length, WINDOW);
  stage.client.say(Buffer.concat([frame(WINDOW_UPDATE, 0, 0, uint32(1e6)), frame(WINDOW_UPDATE, 0, 1, uint32(10))]));
  assert.equal(stage.application().isPaused, true);
  stage.client.say(frame(WINDOW_UPDATE, 0, 1, uint32(1e6)));
  assert.equal(stage.application().isPaused, false);
  stage.say('x'.repeat(130_000));
  await settle();
  assert.deepEqual([stage.response(1)?.body.length, stage.response(1)?.hasEnded], [200_000, true]);
});

test('a client is given as much window as the application has taken', async () => {
  const stage = start();
  stage.client.say(headers(1, POST, END_HEADERS));
  stage.client.say(body(1, 40_000));
  assert.equal(stage.given(1), 40_000);
  stage.application().isStuck = true;

  stage.client.say(body(1, WINDOW));

  assert.equal(stage.given(1), 40_000);
  assert.equal(stage.application().isAborted, false);
  // Over all streams others go on: what is not taken is bounded by the stream's own window.
  assert.ok(stage.given(0) >= 40_000);
  stage.application().isStuck = false;
  stage.application().handler?.drained();
  assert.equal(stage.given(1), 40_000 + WINDOW);
});

for (const [what, head] of [
  ['in chunks', POST],
  ['of a known length', [...POST, ['content-length', '6000']] satisfies Field[]],
] as const)
  test(`a body ${what} that comes octet by octet is no more writes than turns, and none while the application takes nothing`, async () => {
    const stage = start();
    stage.client.say(headers(1, head, END_HEADERS));
    const octets = (count: number, last = 0): Buffer[] =>
      Array.from({ length: count }, (_, index) => frame(DATA, index === count - 1 ? last : 0, 1, Buffer.from('x')));
    stage.client.say(Buffer.concat(octets(1000)));
    assert.ok(stage.application().written.length <= 3, `${stage.application().written.length} writes`);
    stage.application().isStuck = true;
    stage.client.say(frame(DATA, 0, 1, Buffer.from('x')));
    const before = stage.application().written.length;

    for (const octet of octets(4999, END_STREAM)) stage.client.say(octet);

    assert.equal(stage.application().written.length, before);
    stage.application().isStuck = false;
    stage.application().handler?.drained();
    const text = stage.application().text();
    const content = text.slice(text.indexOf('\r\n\r\n') + 4);
    assert.equal(content.replaceAll(/[0-9a-f]+\r\n(x*)\r\n/g, '$1'), 'x'.repeat(6000));
    stage.say(OK);
    await settle();
    assert.equal(stage.response(1)?.body.toString(), 'ok');
  });

test('of 100s that the client is not told of, an application may say so many', () => {
  const stage = start();
  stage.client.say(headers(1, [...POST, ['expect', '100-continue']], END_HEADERS));
  stage.say('HTTP/1.1 100 Continue\r\n\r\n'.repeat(64));
  assert.equal(stage.application().isAborted, false);
  stage.say('HTTP/1.1 100 Continue\r\n\r\n');
  assert.equal(stage.application().isAborted, true);
  assert.equal(stage.records[0]?.result, 'upstream_failed');
});

test('more than the window of a stream is an error of the stream, and the application’s connection is broken', async () => {
  const stage = start();
  stage.client.say(headers(1, POST, END_HEADERS));
  stage.application().isStuck = true;

  stage.client.say(body(1, WINDOW));
  stage.client.say(body(1, WINDOW + 1));

  assert.deepEqual(stage.resets(), [[1, 3]]);
  assert.equal(stage.application().isAborted, true);
});

test('a request that is taken back in the moment in which it comes is not sent, and its connection is kept', async () => {
  const stage = start();
  stage.client.say(headers(1, GET));
  stage.say(OK);
  const before = stage.application().text();

  stage.client.say(Buffer.concat([headers(3, GET), frame(RST_STREAM, 0, 3, uint32(CANCEL)), headers(5, GET)]));

  assert.equal(stage.applications.length, 1);
  assert.equal(stage.application().text(), before.repeat(2));
  assert.equal(stage.records.find(({ result }) => result === 'downstream_closed')?.target, '/');
});

test('a request that is taken back later breaks the connection, so that nobody takes a part of it for the whole', async () => {
  for (const fields of [GET, POST]) {
    const stage = start();
    stage.client.say(headers(1, fields, fields === GET ? END_STREAM | END_HEADERS : END_HEADERS));
    stage.client.say(frame(RST_STREAM, 0, 1, uint32(NO_ERROR)));

    assert.equal(stage.application().isAborted, true);
    stage.client.say(headers(3, GET));
    assert.equal(stage.applications.length, 2);
  }
});

test('a head and the body that comes with it go in one write, in chunks, with the trailers', async () => {
  const stage = start();

  stage.client.say(Buffer.concat([headers(1, POST, END_HEADERS), frame(DATA, 0, 1, Buffer.from('hello'))]));
  assert.equal(stage.application().written.length, 1);
  stage.client.say(Buffer.concat([frame(DATA, 0, 1, Buffer.from('you')), headers(1, [['last', 'one']])]));

  assert.match(stage.application().text(), /\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n3\r\nyou\r\n0\r\nlast: one\r\n\r\n$/);
  stage.client.say(Buffer.concat([headers(3, POST, END_HEADERS), frame(DATA, END_STREAM, 3)]));
  assert.match(stage.application(1).text(), /\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n$/);
  const announced: Field[] = [...POST, ['content-length', '2']];
  stage.client.say(Buffer.concat([headers(5, announced, END_HEADERS), frame(DATA, END_STREAM, 5, Buffer.from('ok'))]));
  assert.match(stage.application(2).text(), /\r\ncontent-length: 2\r\n\r\nok$/);
  assert.equal(stage.application(2).written.length, 1);
});

test('who waits for 100 hears it once, from us, and when there is a connection', async () => {
  const waiting = Promise.withResolvers<() => void>();
  const connection = new MemoryConnection();
  const stage = start({
    open(done) {
      waiting.resolve(() => done({ ok: true, connection }));
      return { abort: () => undefined };
    },
  });
  const heads = (): number => stage.toClient().filter(({ type }) => type === HEADERS).length;
  stage.client.say(headers(1, [...POST, ['expect', '100-continue']], END_HEADERS));
  assert.equal(heads(), 0);

  (await waiting.promise)();

  assert.equal(heads(), 1);
  assert.ok(!connection.text().includes('expect'));
  connection.say(Buffer.from(`HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\n\r\n`));
  assert.equal(heads(), 2);
  stage.client.say(frame(DATA, END_STREAM, 1, Buffer.from('body')));
  connection.say(Buffer.from(OK));
  assert.deepEqual(stage.response(1), { body: 'ok', hasEnded: true });
});

test('what is left of a request that was answered is not asked for any more', async () => {
  const stage = start();
  stage.client.say(Buffer.concat([headers(1, POST, END_HEADERS), body(1, 100)]));

  stage.say(OK);

  assert.deepEqual([stage.response(1), stage.resets()], [{ body: 'ok', hasEnded: true }, [[1, NO_ERROR]]]);
  assert.equal(stage.application().isAborted, true);
  assert.equal(stage.records[0]?.result, 'forwarded');
});

test('a request is judged again before it is sent once more, and keeps its body', async () => {
  let isAllowed = true;
  for (const [allows, status] of [
    [true, 200],
    [false, 403],
  ] as const) {
    isAllowed = true;
    const stage = start({ judge: () => verdict(PEER, isAllowed) });
    const put: Field[] = POST.map((each) => (each[0] === ':method' ? [':method', 'PUT'] : each));
    stage.client.say(headers(1, GET));
    stage.say(OK);
    stage.client.say(Buffer.concat([headers(3, put, END_HEADERS), frame(DATA, END_STREAM, 3, Buffer.from('hello'))]));
    isAllowed = allows;

    stage.application().break();
    await settle();
    await settle();

    stage.say(OK, 1);
    assert.deepEqual(
      stage.records.map((each) => [each.status, each.retries]),
      [
        [200, 0],
        [status, 1],
      ],
    );
    const again = stage.application(1).text();
    if (allows) assert.match(again, /^PUT \/ HTTP\/1\.1\r\n[^]*\r\n\r\n5\r\nhello\r\n0\r\n\r\n$/);
    else assert.equal(again, '');
  }
});

test('what is not repeatable, or was begun to be answered, is not sent once more', async () => {
  for (const [fields, said] of [
    [POST, ''],
    [GET, 'HTTP/1.1 103 E\r\n\r\n'],
    [GET, 'H'],
  ] as const) {
    const stage = start();
    stage.client.say(headers(1, GET));
    stage.say(OK);
    stage.client.say(headers(3, fields));
    if (said !== '') stage.say(said);

    stage.application().finish();
    await settle();

    assert.equal(stage.applications.length, 1);
    assert.deepEqual(
      stage.records.map(({ status, retries }) => [status, retries]),
      [
        [200, 0],
        [502, 0],
      ],
    );
  }
});

test('fields that say another path are taken out of a request that waited, if a rule looks at requests by then', async () => {
  let guards = false;
  const caller = { peerId: PEER, ownId: PEER, leafSha256: '0'.repeat(64) };
  const connection = new MemoryConnection();
  let connect: (() => void) | undefined;
  const stage = start({
    identity: buildIdentityFields({ xfcc: 'sanitize', spiffeIdHeader: undefined }, caller, () => guards),
    open(done) {
      connect = () => done({ ok: true, connection });
      return { abort: () => undefined };
    },
  });
  stage.client.say(headers(1, [...GET, ['x-original-url', '/admin']]));

  guards = true;
  connect?.();

  assert.match(connection.text(), /^GET \/ HTTP\/1\.1\r\n/);
  assert.ok(!connection.text().includes('/admin'));
});

test('connections rest as long as the application says, and no more of them than sixteen', async () => {
  const stage = start();
  const ids = Array.from({ length: 20 }, (_, index) => index * 2 + 1);
  stage.client.say(Buffer.concat(ids.map((id) => headers(id, GET))));
  for (const index of ids.keys()) stage.say(`HTTP/1.1 200 OK\r\nKeep-Alive: timeout=3\r\nContent-Length: 0\r\n\r\n`, index);
  assert.equal(stage.applications.filter(({ hasEnded }) => hasEnded).length, 4);

  stage.clock.advance(1500);
  stage.client.say(headers(101, GET));
  await settle();
  assert.equal(stage.applications.length, 20);
  stage.clock.advance(600);
  assert.equal(stage.applications.filter(({ hasEnded }) => hasEnded).length, 19);
  stage.clock.advance(5000);
  assert.equal(stage.applications.filter(({ isAborted }) => isAborted).length, 19);
});

test('a connection on which nothing was ever asked rests no longer than others of which nothing is said', () => {
  const { limits } = forwarderOptions(() => false);
  const stage = start({ limits: { ...limits, upstreamIdleTimeoutMs: 5000 } });
  stage.client.say(Buffer.concat([headers(1, GET), frame(RST_STREAM, 0, 1, uint32(CANCEL))]));
  assert.equal(stage.application().text(), '');

  stage.clock.advance(4999);
  assert.equal(stage.application().hasEnded, false);
  stage.clock.advance(1);

  assert.equal(stage.application().hasEnded, true);
});

test('an application that ends each connection leaves few of them behind', async () => {
  const stage = start();
  for (let index = 0; index < 100; index++) {
    stage.client.say(headers(index * 2 + 1, GET));
    stage.say('HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n', index);
    if (index % 10 === 0) await settle();
  }
  await settle();

  assert.ok(stage.applications.filter(({ isAborted }) => !isAborted).length <= 17);
  assert.equal(stage.records.filter(({ status }) => status === 200).length, 100);
});

test('what is said on a connection that rests, or behind a response, ends that connection, and answers nobody', async () => {
  for (const isBehind of [true, false]) {
    const stage = start();
    stage.client.say(headers(1, GET));
    if (isBehind) stage.say(OK + OK);
    else {
      stage.say(OK);
      stage.say(OK);
    }

    assert.equal(stage.application().isAborted, true);
    stage.client.say(headers(3, GET));
    assert.equal(stage.applications.length, 2);
    assert.equal(stage.response(3), undefined);
  }
});

test('a response that ends with its connection is logged as one that cannot be told to be whole', async () => {
  const stage = start();
  stage.client.say(headers(1, GET));
  stage.say('HTTP/1.1 200 OK\r\n\r\nhello');

  stage.application().finish();

  assert.deepEqual(stage.response(1), { body: 'hello', hasEnded: true });
  assert.match(stage.records[0]?.detail ?? '', /whether it is whole cannot be told/);
});

test('wherever the bytes of an application are cut, the client reads the same', async () => {
  const said =
    'HTTP/1.1 103 E\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3\r\nyou\r\n0\r\nX: y\r\n\r\n';
  const frames = (cut: number): string => {
    const stage = start();
    stage.client.say(headers(1, GET));
    stage.say(said.slice(0, cut));
    stage.say(said.slice(cut));
    return JSON.stringify([stage.response(1), stage.toClient().filter(({ type }) => type === HEADERS), stage.records.length]);
  };
  const whole = frames(said.length);
  assert.match(whole, /helloyou/);
  for (let cut = 1; cut < said.length; cut++) assert.equal(frames(cut), whole, `cut at ${cut}`);
});

test('a client that is full stops all of its applications’ connections, and they go on with it', async () => {
  const stage = start();
  stage.client.say(Buffer.concat([headers(1, GET), headers(3, GET)]));
  stage.client.isStuck = true;

  stage.say('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello');

  assert.deepEqual([stage.application(0).isPaused, stage.application(1).isPaused], [true, true]);
  stage.client.isStuck = false;
  stage.client.handler?.drained();
  assert.deepEqual([stage.application(0).isPaused, stage.application(1).isPaused], [false, false]);
});
