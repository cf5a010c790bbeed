import assert from 'node:assert/strict';
import { test } from 'node:test';
import { IDENTITY_LINES, startMemoryForwarder } from '../../test/support/memory-forwarder.ts';

const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

interface Exchange {
  readonly name: string;
  readonly request: string;
  readonly forwarded: string;
  readonly response: string;
  /** As the client sees it, if not as the application said it. */
  readonly answered?: string;
  readonly status?: number;
}

const EXCHANGES: readonly Exchange[] = [
  {
    name: 'no body',
    request: 'GET /a?b HTTP/1.1\r\nHost: a\r\nX-PEER: forged\r\nConnection: x-drop\r\nX-Drop: 1\r\nLast:  z \r\n\r\n',
    forwarded: `GET /a?b HTTP/1.1\r\n${IDENTITY_LINES}Host: a\r\nLast:  z \r\n\r\n`,
    response: 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello',
  },
  {
    name: 'a body with a length, and a chunked answer',
    request: 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world',
    forwarded: `POST / HTTP/1.1\r\n${IDENTITY_LINES}Host: a\r\nContent-Length: 11\r\n\r\nhello world`,
    response: 'HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nT: 1\r\n\r\n',
    status: 201,
  },
  {
    name: 'a chunked body with trailers',
    request:
      'PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0a\r\n0123456789\r\n0\r\nA: 1\r\nx_peer: forged\r\nB: 2\r\n\r\n',
    forwarded: `PUT / HTTP/1.1\r\n${IDENTITY_LINES}Host: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0a\r\n0123456789\r\n0\r\nA: 1\r\nB: 2\r\n\r\n`,
    response: 'HTTP/1.1 204 No Content\r\n\r\n',
    status: 204,
  },
  {
    name: 'interim responses',
    request: 'PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok',
    forwarded: `PUT / HTTP/1.1\r\n${IDENTITY_LINES}Host: a\r\nContent-Length: 2\r\n\r\nok`,
    response: 'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n',
  },
  {
    name: 'a 100 that is awaited, which is ours',
    request: 'PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\nok',
    forwarded: `PUT / HTTP/1.1\r\n${IDENTITY_LINES}Host: a\r\nContent-Length: 2\r\n\r\nok`,
    response:
      'HTTP/1.1 100 Continue\r\nX: 1\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n',
    answered: 'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n',
    status: 201,
  },
  {
    name: 'HEAD',
    request: 'HEAD / HTTP/1.1\r\nHost: a\r\n\r\n',
    forwarded: `HEAD / HTTP/1.1\r\n${IDENTITY_LINES}Host: a\r\n\r\n`,
    response: 'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n',
  },
];
const NEXT = { request: 'GET /next HTTP/1.1\r\nHost: a\r\n\r\n', response: 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext' };

for (const { name, request, forwarded, response, answered = response, status = 200 } of EXCHANGES) {
  test(`the same is forwarded wherever the bytes are cut: ${name}`, async () => {
    const asked = Buffer.from(request + NEXT.request, 'latin1');
    const said = Buffer.from(response, 'latin1');
    for (let cut = 0; cut <= Math.max(asked.length, said.length); cut++) {
      const { downstream, upstreams, records } = startMemoryForwarder();
      // cut 0: a byte at a time.
      const pieces = (bytes: Buffer): Buffer[] =>
        cut === 0
          ? [...bytes].map((byte) => Buffer.of(byte))
          : [bytes.subarray(0, cut), bytes.subarray(cut)].filter((piece) => piece.length > 0);

      for (const piece of pieces(asked)) downstream.say(piece);
      await settle();
      const [upstream] = upstreams;
      assert.ok(upstream !== undefined);
      assert.equal(upstream.text(), forwarded, `cut at ${cut}`);
      for (const piece of pieces(said)) upstream.say(piece);
      await settle();
      assert.equal(upstream.text(), `${forwarded}GET /next HTTP/1.1\r\n${IDENTITY_LINES}Host: a\r\n\r\n`, `cut at ${cut}`);
      upstream.say(Buffer.from(NEXT.response));
      await settle();

      assert.equal(downstream.text(), answered + NEXT.response, `cut at ${cut}`);
      assert.equal(upstreams.length, 1);
      assert.deepEqual(
        records.map((record) => [record.status, record.result, record.bytesFromDownstream, record.bytesToDownstream]),
        [
          [status, 'forwarded', request.length, answered.length],
          [200, 'forwarded', NEXT.request.length, NEXT.response.length],
        ],
        `cut at ${cut}`,
      );
    }
  });
}

test('when both sides are gone, the session is over', async () => {
  const { downstream, upstreams, isDone } = startMemoryForwarder();
  downstream.say(Buffer.from(NEXT.request));
  await settle();
  upstreams[0]?.say(Buffer.from(NEXT.response));
  downstream.finish();
  await settle();
  assert.equal(upstreams[0]?.hasEnded, true);
  assert.equal(isDone(), false);

  upstreams[0]?.finish();
  await settle();
  assert.equal(isDone(), true);
});

test('an application that answers before the whole request and leaves has its answer forwarded', async () => {
  const { downstream, upstreams, records, isDone } = startMemoryForwarder();
  downstream.say(Buffer.from('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf'));
  await settle();

  upstreams[0]?.say(Buffer.from('HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n'));
  upstreams[0]?.finish();
  await settle();

  assert.equal(downstream.text(), 'HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n');
  assert.equal(downstream.hasEnded, true);
  assert.deepEqual(
    records.map(({ status, result }) => [status, result]),
    [[413, 'forwarded']],
  );
  downstream.finish();
  await settle();
  assert.equal(isDone(), true);
});

test('a request that waited for a connection is judged once more before it is sent, and so is one that is sent again', async () => {
  const stage = startMemoryForwarder();
  const { downstream, upstreams, records } = stage;
  downstream.say(Buffer.from(NEXT.request));
  await settle();
  upstreams[0]?.say(Buffer.from(NEXT.response));
  downstream.say(Buffer.from(NEXT.request));
  await settle();
  assert.equal(upstreams[0]?.text().match(/GET/g)?.length, 2);

  upstreams[0].finish();
  stage.denies = true;
  await settle();

  assert.equal(upstreams[1]?.text(), '');
  assert.match(downstream.text(), /next.*HTTP\/1\.1 403 /s);
  assert.equal(records[1]?.result, 'denied');

  const other = startMemoryForwarder();
  other.downstream.say(Buffer.from(NEXT.request));
  other.denies = true;
  await settle();
  assert.equal(other.upstreams[0]?.text(), '');
  assert.match(other.downstream.text(), /^HTTP\/1\.1 403 /);
});
