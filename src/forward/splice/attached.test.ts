import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  DATA,
  END_HEADERS,
  END_STREAM,
  frame,
  GET,
  HEADERS,
  headers,
  POST,
  REFUSED_STREAM,
  RST_STREAM,
  settings,
  uint32,
  type Field,
} from '../../../test/support/http/http2-frames.ts';
import { startMemorySplice } from '../../../test/support/http/memory-splice.ts';
import { HpackDecoder } from '../../http2/hpack/decoder.ts';
import { buildOutboundFields } from '../../http1/identity-fields.ts';
import { foldName, nameBytes } from '../../http1/fields.ts';
import type { RequestCredential } from '../request-credential.ts';
import type { SpliceOptions } from './splice.ts';

const MAX_CONCURRENT_STREAMS = 3;

/** A token that comes and goes by hand. */
function createToken(replaces: boolean) {
  let value: string | undefined;
  let line: Buffer | undefined;
  let whyNone: string | undefined;
  const waiting = new Set<(problem: string | undefined) => void>();
  const credential: RequestCredential = {
    name: nameBytes(foldName('Authorization')),
    replaces,
    line: () => line,
    wait(done) {
      if (whyNone !== undefined) {
        done(whyNone);
        return { abort: () => undefined };
      }
      waiting.add(done);
      return { abort: () => waiting.delete(done) };
    },
  };
  const tell = (problem: string | undefined): void => {
    for (const done of waiting) if (waiting.delete(done)) done(problem);
  };
  return {
    credential,
    waiting,
    comes(text: string) {
      value = text;
      line = Buffer.from(`Authorization: Bearer ${value}\r\n`);
      tell(undefined);
    },
    runsOut: () => (line = undefined),
    /** There will be none for now. */
    fails(problem: string) {
      line = undefined;
      whyNone = problem;
      tell(problem);
    },
  };
}

/** Away from an application, with a token for the server. */
function startOut(options: Partial<SpliceOptions> = {}, replaces = false) {
  const token = createToken(replaces);
  const stage = startMemorySplice({
    identity: buildOutboundFields('sanitize', () => false, { replaced: replaces ? 'Authorization' : undefined }),
    judge: undefined,
    credential: token.credential,
    outbound: { released: () => undefined, dismissed: () => undefined },
    ...options,
  });
  /** What the server has of each stream: its number, and its tokens. */
  const sent = (index = 0): (readonly [number, readonly string[]])[] => {
    const decoder = new HpackDecoder({ maxTableSize: 4096, maxFieldSectionSize: 1e6, maxFields: 1000 });
    return stage
      .toApplication(index)
      .filter(({ type }) => type === HEADERS)
      .map(({ stream, payload }) => {
        const fields = decoder.decode(payload, 0, payload.length);
        assert.ok(fields !== 'too_large');
        return [stream, fields.filter(([name]) => name === 'authorization').map(([, value]) => value)] as const;
      });
  };
  return {
    ...stage,
    token,
    sent,
    ask: (stream: number, ...more: readonly Field[]) => stage.client.say(headers(stream, [...GET, ...more])),
  };
}

const OWN: Field = ['authorization', 'Basic own'];

test('no stream goes before one that came first and waits for its token, whatever it brings itself', () => {
  const { ask, client, applications, token, sent, records, toApplication } = startOut();
  client.say(headers(1, POST, END_HEADERS));
  client.say(frame(DATA, END_STREAM, 1, Buffer.from('body')));
  ask(3, OWN);
  ask(5);
  applications[0]?.say(settings());
  assert.deepEqual(sent(), []);

  token.comes('one');

  assert.deepEqual(sent(), [
    [1, ['Bearer one']],
    [3, ['Basic own']],
    [5, ['Bearer one']],
  ]);
  assert.deepEqual(
    toApplication()
      .filter(({ type }) => type === DATA)
      .map(({ payload }) => payload.toString()),
    ['body'],
  );
  assert.deepEqual([token.waiting.size, records.length], [0, 0]);
});

test('when there is no token to wait for, those that need one are told so, and those behind them go on', () => {
  const { ask, applications, token, sent, records } = startOut();
  ask(1);
  ask(3, OWN);
  ask(5, ['content-type', 'application/grpc']);
  ask(7, OWN);
  applications[0]?.say(settings());

  token.fails('there is no token to attach: timeout');

  assert.deepEqual(
    records.map(({ status, result, detail }) => [status, result, detail]),
    [
      [503, 'token_unavailable', 'there is no token to attach: timeout'],
      [200, 'token_unavailable', 'there is no token to attach: timeout'],
    ],
  );
  assert.deepEqual(
    sent().map(([stream]) => stream),
    [3, 7],
  );
});

test('a token that has run out while its stream waited is not sent: another one is waited for, or it is told that there is none', () => {
  const { ask, applications, client, token, sent, records } = startOut();
  token.comes('one');
  ask(1);
  applications[0]?.say(settings([MAX_CONCURRENT_STREAMS, 1]));
  ask(3);
  ask(5);
  ask(7);
  const answer = (stream: number): void => applications[0]?.say(headers(stream, [[':status', '200']]));
  token.runsOut();
  answer(1);
  assert.deepEqual([sent().length, token.waiting.size], [1, 1]);
  token.comes('two');
  token.runsOut();
  token.fails('there is none');
  answer(3);

  assert.deepEqual(sent(), [
    [1, ['Bearer one']],
    [3, ['Bearer two']],
  ]);
  assert.deepEqual(
    records.map(({ status, result }) => [status, result]),
    [
      [200, 'forwarded'],
      [200, 'forwarded'],
      [503, 'token_unavailable'],
      [503, 'token_unavailable'],
    ],
  );
  ask(9, OWN);
  assert.deepEqual(sent().at(-1), [9, ['Basic own']]);
  assert.equal(client.isAborted, false);
});

test('ten thousand streams that find no token any more are each told so', () => {
  const STREAMS = 10_000;
  const { client, applications, token, records, sent } = startOut({ maxConcurrentStreams: STREAMS });
  token.comes('one');
  client.say(Buffer.concat(Array.from({ length: STREAMS }, (_, index) => headers(1 + 2 * index, GET))));
  token.runsOut();
  token.fails('there is none');
  applications[0]?.say(settings());

  assert.equal(records.filter(({ result }) => result === 'token_unavailable').length, STREAMS);
  assert.equal(sent().length, 0);
});

test('a token goes as it is when its stream is sent, not when that came', () => {
  const { ask, applications, token, sent } = startOut();
  token.comes('one');
  ask(1);
  token.comes('two');
  applications[0]?.say(settings());
  token.comes('three');
  ask(3);

  assert.deepEqual(sent(), [
    [1, ['Bearer two']],
    [3, ['Bearer three']],
  ]);
});

test('no table keeps a token, and what the application sent in its place is gone however it is spelt', () => {
  const { ask, applications, token, sent, toApplication } = startOut({}, true);
  token.comes('secret');
  ask(1, OWN, ['author.ization', 'x'], ['x-other', '1']);
  applications[0]?.say(settings());

  assert.deepEqual(sent(), [[1, ['Bearer secret']]]);
  const block = toApplication().find(({ type }) => type === HEADERS)?.payload ?? Buffer.alloc(0);
  // RFC 7541, section 6.2.3: a literal that is never indexed, with the name of the static table (23).
  assert.ok(block.includes(Buffer.of(0x1f, 23 - 15)), block.toString('hex'));
});

test('an end while a token is waited for ends the wait', () => {
  const { ask, client, applications, token, session } = startOut();
  ask(1);
  ask(3);
  applications[0]?.say(settings());
  client.say(frame(3, 0, 1, uint32(8)));
  assert.equal(token.waiting.size, 1);
  session.drop();
  assert.equal(token.waiting.size, 0);
});

test('a request that waits for its token when the authorities of its server change never goes to that one', () => {
  for (const isBusy of [false, true]) {
    const { ask, client, applications, token, sent, session, records } = startOut();
    if (isBusy) token.comes('old');
    ask(1);
    applications[0]?.say(settings());
    token.runsOut();
    if (isBusy) ask(3);

    session.drain({ reason: 'authority_removed', detail: 'the authorities changed', endsAtMs: Infinity, mayAsk: true });
    token.comes('new');
    applications[1]?.say(settings());

    assert.deepEqual(sent(0), isBusy ? [[1, ['Bearer old']]] : []);
    if (isBusy) {
      assert.deepEqual([applications.length, records.length, applications[0]?.isAborted], [1, 1, false]);
      assert.ok(Buffer.concat(client.written).includes(frame(RST_STREAM, 0, 3, uint32(REFUSED_STREAM))));
    } else assert.deepEqual([sent(1), applications[0]?.hasEnded], [[[1, ['Bearer new']]], true]);
  }
});
