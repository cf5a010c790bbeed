import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  CANCEL,
  DATA,
  END_HEADERS,
  END_STREAM,
  ENHANCE_YOUR_CALM,
  frame,
  GET,
  GOAWAY,
  HEADERS,
  headers,
  hpack,
  INTERNAL_ERROR,
  NO_ERROR,
  PROTOCOL_ERROR,
  RST_STREAM,
  settings,
  SETTINGS,
  uint32,
  type Field,
  type Frame,
} from '../../../test/support/http/http2-frames.ts';
import { forwarderOptions } from '../../../test/support/memory-forwarder.ts';
import { startMemorySplice } from '../../../test/support/http/memory-splice.ts';
import type { SpliceOptions } from './splice.ts';
import { Session } from '../session.ts';

const ENABLE_CONNECT_PROTOCOL = 8;
const CONNECT: readonly Field[] = [[':method', 'CONNECT'], [':protocol', 'websocket'], ...GET.slice(1)];
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const LIMITS = forwarderOptions(() => false).limits;
const OFFER = settings([ENABLE_CONNECT_PROTOCOL, 1]);

/** An application that offers extended CONNECT, and a client that was told so. */
function startOffered(options: Partial<SpliceOptions> = {}) {
  const stage = startMemorySplice({ upgrades: [], ...options });
  const [application] = stage.applications;
  assert.ok(application !== undefined, 'it is connected to before anything is asked');
  application.say(OFFER);
  const on = (frames: readonly Frame[], stream: number): string[] => frames.filter((each) => each.stream === stream).map(inWords);
  return {
    ...stage,
    application,
    ask: (stream: number, ...more: readonly Field[]) => stage.client.say(headers(stream, [...CONNECT, ...more], END_HEADERS)),
    respond: (stream: number, ...fields: readonly Field[]) =>
      application.say(headers(stream, fields.length === 0 ? [[':status', '200']] : fields, END_HEADERS)),
    clientHeard: (stream: number) => on(stage.toClient(), stream),
    applicationHeard: (stream: number, index?: number) => on(stage.toApplication(index), stream),
  };
}

function inWords({ type, flags, payload }: Frame): string {
  const ends = (flags & END_STREAM) !== 0 ? ' and ends' : '';
  if (type === HEADERS) return `head${ends}`;
  if (type === DATA) return `${payload.toString()}${ends}`;
  return type === RST_STREAM ? `reset ${payload.readUInt32BE(0)}` : `frame ${type}`;
}

/** How often a setting was said to the client. */
function offers(frames: readonly Frame[]): number[] {
  const said: number[] = [];
  for (const { type, flags, payload } of frames)
    if (type === SETTINGS && flags === 0)
      for (let at = 0; at < payload.length; at += 6)
        if (payload.readUInt16BE(at) === ENABLE_CONNECT_PROTOCOL) said.push(payload.readUInt32BE(at + 2));
  return said;
}

test('it is offered once, whatever applications say after that, and never taken back', () => {
  const stage = startOffered();
  stage.application.say(OFFER);
  stage.application.say(frame(GOAWAY, 0, 0, uint32(0, NO_ERROR)));
  stage.client.say(headers(1, GET));
  stage.applications[1]?.say(settings([ENABLE_CONNECT_PROTOCOL, 0]));
  stage.client.say(headers(3, GET));
  stage.applications[1]?.say(OFFER);

  assert.deepEqual(offers(stage.toClient()), [1]);
  assert.equal(stage.applications.length, 2);
  assert.deepEqual(stage.faults, []);
});

test('nobody who is denied has an application connected to, nor anybody where nothing is to be offered', () => {
  const session = new Session('test', 0);
  session.denied = 'not_allowed';
  assert.equal(startMemorySplice({ upgrades: [], session }).applications.length, 0);
  assert.equal(startMemorySplice().applications.length, 0);
});

test('what is said before the answer waits for it no longer than for a window, and passes in order', () => {
  const stage = startOffered();
  stage.ask(1);
  stage.client.say(frame(DATA, 0, 1, Buffer.from('early')));
  assert.deepEqual(stage.applicationHeard(1), ['head', 'early']);
  stage.respond(1);
  stage.client.say(frame(DATA, END_STREAM, 1, Buffer.from('late')));
  stage.application.say(frame(DATA, END_STREAM, 1, Buffer.from('all')));

  assert.deepEqual(stage.applicationHeard(1), ['head', 'early', 'late and ends']);
  assert.deepEqual(stage.clientHeard(1), ['head', 'all and ends']);
  assert.deepEqual(
    stage.records.map(({ method, target, status, result }) => [method, target, status, result]),
    [['CONNECT', '/', 200, 'forwarded']],
  );
});

test('who asks before the offer has come sends a field that means nothing, and its stream is reset', () => {
  const stage = startMemorySplice({ upgrades: [] });
  stage.client.say(headers(1, CONNECT, END_HEADERS));
  stage.applications[0]?.say(OFFER);
  stage.client.say(headers(3, CONNECT, END_HEADERS));

  const heard = stage.toClient().filter(({ type, stream }) => type === RST_STREAM && stream === 1);
  assert.deepEqual(heard.map(inWords), [`reset ${PROTOCOL_ERROR}`]);
  assert.deepEqual(
    stage
      .toApplication()
      .filter(({ type }) => type === HEADERS)
      .map(({ stream }) => stream),
    [3],
  );
});

test('nothing but DATA comes on a stream that was asked to be switched: trailers reset it, for whoever sends them', () => {
  const stage = startOffered();
  const trailers = (stream: number, flags = END_STREAM): Buffer => frame(HEADERS, END_HEADERS | flags, stream, hpack([['last', 'one']]));
  stage.ask(1);
  stage.client.say(trailers(1));
  stage.ask(3);
  stage.respond(3);
  stage.client.say(trailers(3));
  stage.ask(5);
  stage.respond(5);
  stage.application.say(trailers(5));
  stage.ask(7);
  stage.respond(7);
  stage.application.say(frame(DATA, 0, 7, Buffer.from('x')));
  stage.application.say(trailers(7, 0));

  assert.deepEqual(
    [1, 3].map((stream) => stage.clientHeard(stream)),
    [[`reset ${PROTOCOL_ERROR}`], ['head', `reset ${PROTOCOL_ERROR}`]],
  );
  assert.deepEqual(
    [5, 7].map((stream) => stage.clientHeard(stream)),
    [
      ['head', `reset ${INTERNAL_ERROR}`],
      ['head', 'x', `reset ${INTERNAL_ERROR}`],
    ],
  );
  assert.deepEqual(
    [1, 3, 5, 7].map((stream) => stage.applicationHeard(stream).at(-1)),
    [`reset ${CANCEL}`, `reset ${CANCEL}`, `reset ${PROTOCOL_ERROR}`, `reset ${PROTOCOL_ERROR}`],
  );
  assert.deepEqual(
    stage.records.map(({ status, result, detail }) => [status, result, detail]),
    [
      [0, 'bad_request', 'trailers after a CONNECT'],
      [200, 'bad_request', 'trailers after a CONNECT'],
      [
        200,
        'upstream_failed',
        'the application gave a response that is not valid: trailers on a stream that was switched to another protocol',
      ],
      [200, 'upstream_failed', 'the application gave a response that is not valid: trailers that do not end the response'],
    ],
  );
});

test('an answer that no CONNECT may have is a 502, and what is no success switches nothing', () => {
  const stage = startOffered({ limits: { ...LIMITS, maxBodyBytes: 10 } });
  const status = (text: string): Field => [':status', text];
  for (const [index, fields] of (
    [[status('200'), ['content-length', '5']], [status('101')], [status('200'), ['upgrade', 'websocket']]] as const
  ).entries()) {
    stage.ask(1 + 2 * index);
    stage.respond(1 + 2 * index, ...(fields as readonly Field[]));
  }
  stage.ask(7);
  stage.respond(7, status('204'));
  stage.application.say(frame(DATA, 0, 7, Buffer.from('x')));
  stage.ask(9);
  stage.respond(9, status('404'));
  stage.client.say(frame(DATA, 0, 9, Buffer.alloc(11)));

  assert.deepEqual(
    stage.records.map(({ status: said, result }) => [said, result]),
    [
      [502, 'upstream_failed'],
      [502, 'upstream_failed'],
      [502, 'upstream_failed'],
      [204, 'upstream_failed'],
      [404, 'too_large'],
    ],
  );
});

test('CONNECTs that are malformed without end are a flood of resets, and end their connection alone', () => {
  const stage = startOffered();
  const odd = CONNECT.filter(([name]) => name !== ':authority');
  stage.client.say(Buffer.concat(Array.from({ length: 1001 }, (_, index) => headers(1 + 2 * index, odd, END_HEADERS))));

  assert.deepEqual(stage.faults, ['downstream reset_flood']);
  assert.equal(
    stage
      .toClient()
      .findLast(({ type }) => type === GOAWAY)
      ?.payload.readUInt32BE(4),
    ENHANCE_YOUR_CALM,
  );
  assert.equal(stage.toApplication().filter(({ type }) => type === HEADERS).length, 0);
});

test('a drain says so, and what was switched goes on until it ends', () => {
  const stage = startOffered();
  stage.ask(1);
  stage.respond(1);
  stage.session.wind();
  assert.ok(stage.toClient().some(({ type }) => type === GOAWAY));
  stage.client.say(frame(DATA, END_STREAM, 1, Buffer.from('more')));
  stage.application.say(frame(DATA, END_STREAM, 1, Buffer.from('and more')));

  assert.deepEqual(stage.clientHeard(1), ['head', 'and more and ends']);
  assert.deepEqual(stage.applicationHeard(1), ['head', 'more and ends']);
  assert.equal(stage.client.hasEnded, true);
});

test('an application that says GOAWAY keeps what it switched, and is asked for nothing more', async () => {
  const stage = startOffered();
  stage.ask(1);
  stage.respond(1);
  stage.application.say(frame(GOAWAY, 0, 0, uint32(1, NO_ERROR)));
  stage.ask(3);
  stage.applications[1]?.say(OFFER);
  stage.client.say(frame(DATA, 0, 1, Buffer.from('still')));

  assert.deepEqual([stage.applicationHeard(1), stage.applicationHeard(3), stage.applicationHeard(3, 1)], [['head', 'still'], [], ['head']]);
  stage.application.break();
  await settle();
  assert.deepEqual(stage.clientHeard(1), ['head', `reset ${INTERNAL_ERROR}`]);
});
