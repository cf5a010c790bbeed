import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
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
  RST_STREAM,
  SETTINGS,
  uint32,
  type Field,
} from '../../../test/support/http/http2-frames.ts';
import { startMemorySplice } from '../../../test/support/http/memory-splice.ts';
import { verdict } from '../../../test/support/memory-forwarder.ts';
import { responsesIn } from '../../../test/support/http/random-http2-side.ts';
import { Fields } from '../../http1/fields.ts';
import { ok } from '../../lib/result.ts';
import { requireSpiffeId } from '../../spiffe/spiffe-id.ts';
import type { SpliceOptions } from './splice.ts';

const PEER = requireSpiffeId('spiffe://example.org/web');
const CONNECT: readonly Field[] = [[':method', 'CONNECT'], [':protocol', 'websocket'], ...GET.slice(1)];
const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function start(options: Partial<SpliceOptions> = {}) {
  const stage = startMemorySplice({ http1: { scratch: new Fields(20) }, upgrades: ['tcp'], ...options });
  const text = (index = 0): string => stage.applications[index]?.text() ?? '';
  return {
    ...stage,
    text,
    ask: (stream: number, fields: readonly Field[] = CONNECT, flags = END_HEADERS) => stage.client.say(headers(stream, fields, flags)),
    say: (said: string, index = 0) => stage.applications[index]?.say(Buffer.from(said, 'latin1')),
    /** The 101 to what was asked last. */
    agree(more = '', index = 0) {
      const key = /sec-websocket-key: (\S+)/i.exec(text(index))?.[1] ?? '';
      const accept = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
      stage.applications[index]?.say(
        Buffer.from(
          `HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ${accept}\r\nSec-WebSocket-Protocol: chat\r\n\r\n${more}`,
        ),
      );
    },
    response: (stream: number) => responsesIn(Buffer.concat(stage.client.written)).get(stream),
    resets: () => stage.toClient().flatMap(({ type, stream, payload }) => (type === RST_STREAM ? [[stream, payload.readUInt32BE(0)]] : [])),
    head: (stream: number) =>
      stage
        .toClient()
        .find((each) => each.type === HEADERS && each.stream === stream)
        ?.payload.toString('latin1') ?? '',
  };
}

test('it is offered with the first SETTINGS, by the option alone', () => {
  const offers = (stage: ReturnType<typeof startMemorySplice>): boolean =>
    stage.toClient().some(({ type, payload }) => type === SETTINGS && payload.includes(Buffer.of(0, 8, 0, 0, 0, 1)));

  assert.equal(offers(start()), true);
  assert.equal(start().applications.length, 0, 'nothing is connected to for that');
  assert.equal(offers(start({ upgrades: undefined })), false);
  const without = start({ upgrades: undefined });
  without.ask(1);
  assert.deepEqual(without.resets(), [[1, 1]]);
});

test('a CONNECT becomes the GET of HTTP/1.1 that asks for a WebSocket, with a key of ours, and is judged as that', () => {
  const judged: string[] = [];
  const stage = start({
    judge(method, target) {
      judged.push(`${method} ${target}`);
      return ok({ allowed: true, peer: PEER, rule: PEER, audited: undefined });
    },
  });

  stage.ask(1, [...CONNECT, ['sec-websocket-key', 'forged'], ['sec-websocket-version', '13'], ['origin', 'https://a']]);

  assert.match(
    stage.text(),
    /^GET \/ HTTP\/1\.1\r\nSec-WebSocket-Key: [A-Za-z0-9+/]{22}==\r\n[^]*host: api\r\nsec-websocket-version: 13\r\norigin: https:\/\/a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n$/,
  );
  assert.ok(!stage.text().includes('forged'));
  stage.agree();
  assert.match(stage.head(1), /sec-websocket-protocol/);
  assert.ok(!/sec-websocket-accept|connection|upgrade/.test(stage.head(1)));
  assert.deepEqual(new Set(judged), new Set(['GET /']));
  stage.client.say(frame(RST_STREAM, 0, 1, uint32(CANCEL)));
  assert.deepEqual(
    stage.records.map(({ method, status }) => [method, status]),
    [['GET', 101]],
  );
  assert.equal(stage.applications[0]?.isAborted, true);
});

test('what is said ahead of the answer is not sent before it, and never to who does not switch', () => {
  const early = 'GET /hidden HTTP/1.1\r\nhost: a\r\n\r\n';
  for (const agrees of [true, false]) {
    const stage = start();
    stage.ask(1);
    const head = stage.text();
    stage.client.say(frame(DATA, 0, 1, Buffer.from(early)));
    assert.equal(stage.text(), head);

    if (agrees) stage.agree('hello');
    else stage.say('HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno');

    assert.equal(stage.text(), agrees ? head + early : head);
    assert.deepEqual(stage.response(1), agrees ? { body: 'hello', hasEnded: false } : { body: 'no', hasEnded: true });
    assert.deepEqual(stage.resets(), agrees ? [] : [[1, NO_ERROR]]);
    if (agrees) continue;
    // Nothing of it was said on this connection, which goes on.
    stage.ask(3, GET, END_HEADERS | END_STREAM);
    stage.say(OK);
    assert.deepEqual([stage.applications.length, stage.response(3)?.body], [1, 'ok']);
  }
});

test('bytes pass both ways until each side has ended', async () => {
  for (const isFirst of [true, false]) {
    const stage = start();
    stage.ask(1);
    stage.agree();
    const head = stage.text().length;
    const clientEnds = (): void => stage.client.say(frame(DATA, END_STREAM, 1, Buffer.from('from the client')));
    const applicationEnds = (): void => {
      stage.say('from the application');
      stage.applications[0]?.finish();
    };

    if (isFirst) clientEnds();
    applicationEnds();
    if (!isFirst) {
      assert.deepEqual(stage.response(1), { body: 'from the application', hasEnded: true });
      assert.equal(stage.records.length, 0);
      clientEnds();
    }
    await settle();

    assert.equal(stage.text().slice(head), 'from the client');
    assert.deepEqual([stage.applications[0]?.hasEnded, stage.response(1)], [true, { body: 'from the application', hasEnded: true }]);
    assert.deepEqual(
      stage.records.map(({ status, result }) => [status, result]),
      [[101, 'forwarded']],
    );
    assert.deepEqual(stage.resets(), []);
  }
});

test('a client that has ended before the answer has its end passed on after it', () => {
  const stage = start();
  stage.ask(1, CONNECT, END_HEADERS | END_STREAM);
  stage.ask(3);
  stage.client.say(frame(DATA, END_STREAM, 3, Buffer.from('all')));
  assert.deepEqual([stage.applications[0]?.hasEnded, stage.applications[1]?.hasEnded], [false, false]);

  stage.agree('', 0);
  stage.agree('', 1);

  assert.deepEqual([stage.applications[0]?.hasEnded, stage.applications[1]?.hasEnded], [true, true]);
  assert.match(stage.text(1), /\r\n\r\nall$/);
});

test('an answer that is no switch, or not the one that was asked for, is a 502', () => {
  const to = 'Connection: Upgrade\r\nUpgrade: ';
  for (const answer of [
    OK,
    'HTTP/1.1 204 No\r\n\r\n',
    `HTTP/1.1 101 S\r\n${to}websocket\r\n\r\n`,
    `HTTP/1.1 101 S\r\n${to}websocket\r\nSec-WebSocket-Accept: wrong\r\n\r\n`,
    `HTTP/1.1 101 S\r\n${to}tcp\r\n\r\n`,
    'HTTP/1.1 101 S\r\nConnection: close\r\nUpgrade: websocket\r\n\r\n',
  ]) {
    const stage = start();
    stage.ask(1);
    stage.client.say(frame(DATA, 0, 1, Buffer.from('early')));

    stage.say(answer);

    assert.deepEqual(
      stage.records.map(({ status, result }) => [status, result]),
      [[502, 'upstream_failed']],
      answer,
    );
    assert.ok(!stage.text().includes('early'));
    assert.equal(stage.applications[0]?.isAborted, true, answer);
  }
});

test('another protocol is asked for by its name, and has no key', () => {
  const stage = start();
  stage.ask(1, [[':method', 'CONNECT'], [':protocol', 'TCP'], ...GET.slice(1)]);

  assert.match(stage.text(), /\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n$/);
  assert.ok(!/websocket/i.test(stage.text()));
  stage.say('HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: TCP\r\n\r\nbytes');
  assert.equal(stage.response(1)?.body, 'bytes');
  stage.ask(3, [[':method', 'CONNECT'], [':protocol', 'h2c'], ...GET.slice(1)]);
  assert.equal(stage.records.at(-1)?.status, 501);
});

test('an application that does not answer in time is a 504, and one that breaks a switched connection resets its stream', async () => {
  const stage = start();
  stage.ask(1);
  stage.ask(3);
  stage.agree('', 1);
  stage.clock.advance(10_000);
  assert.equal(stage.records[0]?.status, 504);

  stage.applications[1]?.break();
  await settle();

  assert.deepEqual(
    stage.resets().map(([stream]) => stream),
    [1, 3],
  );
  assert.equal(stage.records[1]?.result, 'upstream_failed');
});

test('a WebSocket that is not allowed any more ends on both sides, whoever has ended already', () => {
  for (const ended of ['nobody', 'the client', 'the application'] as const) {
    let isAllowed = true;
    const stage = start({ judge: () => verdict(PEER, isAllowed) });
    stage.ask(1);
    stage.agree();
    if (ended === 'the client') stage.client.say(frame(DATA, END_STREAM, 1));
    if (ended === 'the application') stage.applications[0]?.finish();

    isAllowed = false;
    assert.equal(stage.session.hasDenied(), true);
    stage.session.endDenied('policy', 'not any more');

    assert.deepEqual(stage.resets(), [[1, CANCEL]], ended);
    assert.equal(stage.applications[0]?.isAborted, true, ended);
    assert.deepEqual(
      stage.records.map(({ status, result }) => [status, result]),
      [[101, 'dropped']],
    );
  }
});
