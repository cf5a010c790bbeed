import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { once } from 'node:events';
import { test } from 'node:test';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { answerOk, startFrameApplication, startH2cApplication, startSpliced } from '../../support/http/h2c-application.ts';
import {
  ACK,
  CANCEL,
  DATA,
  END_HEADERS,
  END_STREAM,
  frame,
  GOAWAY,
  HEADERS,
  hpack,
  INTERNAL_ERROR,
  NO_ERROR,
  PING,
  PROTOCOL_ERROR,
  REFUSED_STREAM,
  RST_STREAM,
  settings,
  SETTINGS,
  uint32,
  WINDOW_UPDATE,
  type Field,
} from '../../support/http/http2-frames.ts';
import { answerOn, request, startClient } from '../../support/http/http2-stage.ts';
import { startRawApplication } from '../../support/http/http-stage.ts';
import { freePort } from '../../support/tcp.ts';

const OK: readonly Field[] = [[':status', '200']];
const head = (stream: number, fields: readonly Field[], flags = END_HEADERS): Buffer => frame(HEADERS, flags, stream, hpack(fields));

test('an application that cannot be reached is a 502 on its stream, and the connection goes on', async (t) => {
  const stage = await startSpliced(t, `127.0.0.1:${await freePort()}`);
  const client = await startClient(t, stage);

  const answer = await request(client, { ':path': '/' });
  const grpc = await request(client, { ':method': 'POST', ':path': '/', 'content-type': 'application/grpc+proto' }, 'x');

  assert.deepEqual([answer.status, answer.body.toString(), answer.reset], [502, 'scute: the application cannot be reached\n', undefined]);
  assert.deepEqual(
    [grpc.status, grpc.headers['grpc-status'], grpc.headers['grpc-message']],
    [200, '14', 'scute: the application cannot be reached'],
  );
  assert.equal(await stage.sidecar.metric('scute_http_requests_total', { result: 'upstream_refused' }), 2);
});

test('an application that speaks HTTP/1.1 alone is a 502 that says so', async (t) => {
  const application = await startRawApplication(t, () => 'HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n');
  const stage = await startSpliced(t, application.address);

  const answer = await request(await startClient(t, stage), { ':path': '/' });

  assert.deepEqual([answer.status, answer.body.toString()], [502, 'scute: the application does not speak HTTP/2\n']);
});

test('an application that accepts and says nothing is a 504, after the time for connecting', async (t) => {
  const clock = new FakeClock();
  const application = await startFrameApplication(t, () => undefined, Buffer.alloc(0));
  const stage = await startSpliced(t, application.address, { listener: { limits: { connectTimeout: '500ms' } }, sidecar: { clock } });
  const client = await startClient(t, stage);
  const answer = request(client, { ':path': '/' });
  await eventually(() => assert.ok((application.connections[0]?.frames().length ?? 0) > 0));

  clock.advance(500);

  assert.equal((await answer).status, 504);
});

test('an application that closes its connection at once is a 502', async (t) => {
  const server = createServer((socket) => socket.destroy());
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  const stage = await startSpliced(t, `127.0.0.1:${(server.address() as { readonly port: number }).port}`);

  assert.equal((await request(await startClient(t, stage), { ':path': '/' })).status, 502);
});

test('a response that is not valid is a 502, or cut if it had begun, and the stream is reset at the application', async (t) => {
  const whole = END_HEADERS | END_STREAM;
  const bad: [string, (stream: number) => Buffer, number][] = [
    ['no :status', (stream) => head(stream, [['a', 'b']], whole), 502],
    ['a :status that is none', (stream) => head(stream, [[':status', '20']], whole), 502],
    [':status twice', (stream) => head(stream, [...OK, ...OK], whole), 502],
    ['a pseudo-header field of requests', (stream) => head(stream, [...OK, [':path', '/']], whole), 502],
    [':status after a field', (stream) => head(stream, [['a', 'b'], ...OK], whole), 502],
    ['101', (stream) => head(stream, [[':status', '101']]), 502],
    ['Connection', (stream) => head(stream, [...OK, ['connection', 'close']], whole), 502],
    ['Transfer-Encoding', (stream) => head(stream, [...OK, ['transfer-encoding', 'chunked']], whole), 502],
    ['an upper-case name', (stream) => head(stream, [...OK, ['A', 'b']], whole), 502],
    ['CR and LF in a value', (stream) => head(stream, [...OK, ['a', 'b\r\nc: d']], whole), 502],
    ['NUL in a value', (stream) => head(stream, [...OK, ['a', '\0']], whole), 502],
    ['two lengths', (stream) => head(stream, [...OK, ['content-length', '1'], ['content-length', '1']]), 502],
    [
      '204 with a length',
      (stream) =>
        head(
          stream,
          [
            [':status', '204'],
            ['content-length', '5'],
          ],
          whole,
        ),
      502,
    ],
    ['a length and no body', (stream) => head(stream, [...OK, ['content-length', '5']], whole), 502],
    ['an interim response that ends', (stream) => head(stream, [[':status', '103']], whole), 502],
    [
      'interim responses without end',
      (stream) => Buffer.concat(Array.from({ length: 100 }, () => head(stream, [[':status', '103']]))),
      502,
    ],
    ['a body without a head', (stream) => frame(DATA, END_STREAM, stream, Buffer.from('x')), 502],
    ['a window of nothing', (stream) => frame(WINDOW_UPDATE, 0, stream, uint32(0)), 502],
    ['a window that overflows', (stream) => frame(WINDOW_UPDATE, 0, stream, uint32(0x7fffffff)), 502],
    ['too many fields', (stream) => head(stream, [...OK, ...Array.from({ length: 1500 }, (): Field => ['a', ''])], whole), 502],
    [
      'a body that is too long',
      (stream) => Buffer.concat([head(stream, [...OK, ['content-length', '1']]), frame(DATA, 0, stream, Buffer.from('ab'))]),
      200,
    ],
    [
      'a body that is too short',
      (stream) => Buffer.concat([head(stream, [...OK, ['content-length', '2']]), frame(DATA, END_STREAM, stream, Buffer.from('a'))]),
      200,
    ],
    [
      'a short body and trailers',
      (stream) =>
        Buffer.concat([
          head(stream, [...OK, ['content-length', '2']]),
          frame(DATA, 0, stream, Buffer.from('a')),
          head(stream, [['a', 'b']], whole),
        ]),
      200,
    ],
    ['trailers that do not end', (stream) => Buffer.concat([head(stream, OK), head(stream, [['a', 'b']])]), 200],
    ['trailers with :status', (stream) => Buffer.concat([head(stream, OK), head(stream, OK, whole)]), 200],
  ];
  for (const [name, response, status] of bad) {
    const application = await startFrameApplication(t, ({ type, stream }) => (type === HEADERS ? response(stream) : undefined));
    const stage = await startSpliced(t, application.address);
    const client = await startClient(t, stage);

    const answer = await request(client, { ':path': '/' });

    assert.deepEqual([answer.status, answer.reset], [status, status === 502 ? undefined : INTERNAL_ERROR], name);
    assert.equal(await stage.sidecar.metric('scute_http_requests_total', { status: String(status), result: 'upstream_failed' }), 1, name);
    await eventually(() =>
      assert.ok(
        application.connections[0]?.frames().some(({ type, stream }) => type === RST_STREAM && stream === 1),
        name,
      ),
    );
    client.close();
    await stage.sidecar.connection();
  }
});

test('an application that breaks the rules or floods us loses its connection, with a reason; the client’s goes on with another', async (t) => {
  const floods: [string, string, Buffer][] = [
    ['PING', 'control_flood', Buffer.concat(Array.from({ length: 20_000 }, () => frame(PING, 0, 0, Buffer.alloc(8))))],
    ['SETTINGS', 'control_flood', Buffer.concat(Array.from({ length: 20_000 }, () => settings([4, 65_535])))],
    ['empty DATA', 'control_flood', Buffer.concat([head(1, OK), ...Array.from({ length: 3000 }, () => frame(DATA, 0, 1))])],
    [
      'CONTINUATION',
      'header_flood',
      Buffer.concat([frame(HEADERS, 0, 1, hpack(OK)), ...Array.from({ length: 3000 }, () => frame(9, 0, 1))]),
    ],
    ['PUSH_PROMISE', 'frame', frame(5, END_HEADERS, 1, Buffer.concat([uint32(2), hpack(OK)]))],
    ['HPACK that is none', 'compression', frame(HEADERS, END_HEADERS, 1, Buffer.alloc(5, 0xff))],
    ['a stream that was never opened', 'stream', head(99, OK)],
    ['a stream of its own', 'stream', head(2, OK)],
    ['the connection window overflows', 'flow_control', frame(WINDOW_UPDATE, 0, 0, uint32(0x7fffffff))],
    ['SETTINGS that may not be', 'frame', settings([2, 1])],
    ['a frame that is too large', 'frame', Buffer.concat([head(1, OK), frame(DATA, 0, 1, Buffer.alloc(20_000))])],
    [
      'more DATA than the window',
      'flow_control',
      Buffer.concat([head(1, OK), ...Array.from({ length: 80 }, () => frame(DATA, 0, 1, Buffer.alloc(16_000)))]),
    ],
  ];
  const isFirst = new Set<string>();
  let say: Buffer = Buffer.alloc(0);
  let name = '';
  const application = await startFrameApplication(t, ({ type, stream }) => {
    if (type !== HEADERS) return undefined;
    if (isFirst.has(name)) return head(stream, OK, END_HEADERS | END_STREAM);
    isFirst.add(name);
    return say;
  });
  const stage = await startSpliced(t, application.address);
  const counts = new Map<string, number>();
  for (const [each, reason, bytes] of floods) {
    const client = await startClient(t, stage);
    name = each;
    say = bytes;
    const stream = client.request({ ':path': '/' });
    stream.pause();
    stream.on('error', () => undefined);
    counts.set(reason, (counts.get(reason) ?? 0) + 1);
    await eventually(async () =>
      assert.equal(await stage.sidecar.metric('scute_http2_faults_total', { peer: 'dst', reason }), counts.get(reason), each),
    );
    stream.close(CANCEL);
    assert.equal((await request(client, { ':path': '/' })).status, 200, each);
    client.destroy();
  }
  assert.equal(application.connections.length, floods.length * 2);
});

test('what an application did not take by its GOAWAY is refused, what it took is answered, and what comes next has a new connection', async (t) => {
  let goes = true;
  const application = await startFrameApplication(t, ({ type, stream }, { send }) => {
    if (type !== HEADERS) return undefined;
    if (!goes) return head(stream, OK, END_HEADERS | END_STREAM);
    if (stream === 1) return undefined;
    goes = false;
    send(frame(GOAWAY, 0, 0, uint32(1, NO_ERROR)));
    return head(1, OK, END_HEADERS | END_STREAM);
  });
  const stage = await startSpliced(t, application.address);
  const client = await startClient(t, stage);

  const [first, second] = await Promise.all([request(client, { ':path': '/1' }), request(client, { ':path': '/2' })]);
  const third = await request(client, { ':path': '/3' });

  assert.deepEqual([first.status, first.reset], [200, undefined]);
  assert.deepEqual([second.status, second.reset], [0, REFUSED_STREAM]);
  assert.equal(third.status, 200);
  assert.equal(application.connections.length, 2);
  // The number goes on: a connection may begin with any.
  assert.deepEqual(
    application.connections[1]
      ?.frames()
      .filter(({ type }) => type === HEADERS)
      .map(({ stream }) => stream),
    [5],
  );
  await eventually(() => assert.ok(application.connections[0]?.socket.closed === true));
});

test('an application that says it will go away serves what it has, and a new one is connected to meanwhile', async (t) => {
  const held: (() => void)[] = [];
  const application = await startH2cApplication(t, (stream, headers) => {
    if (headers[':path'] === '/held') held.push(() => answerOk(stream));
    else answerOk(stream);
  });
  const stage = await startSpliced(t, application.address);
  const client = await startClient(t, stage);
  const slow = request(client, { ':path': '/held' });
  await eventually(() => assert.equal(held.length, 1));

  // Node says GOAWAY, and closes when its streams are done.
  application.sessions[0]?.close();
  for (let time = 0; time < 3; time++) {
    const { status, reset } = await request(client, { ':path': '/' });
    assert.ok(status === 200 || reset === REFUSED_STREAM, `${status} ${reset}`);
  }
  for (const answer of held) answer();

  assert.equal((await slow).status, 200);
  assert.equal(application.sessions.length, 2);
  await eventually(async () => assert.equal(await stage.sidecar.metric('scute_file_descriptors', { use: 'inbound' }), 2));
});

test('an application that is gone leaves a 502, or a stream that is reset, never one that looks whole; and another is connected to', async (t) => {
  for (const leave of ['end', 'resetAndDestroy'] as const) {
    const application = await startFrameApplication(t, ({ type, stream }, { socket, send }) => {
      if (type !== HEADERS) return undefined;
      if (stream === 3) {
        send(head(3, OK), frame(DATA, 0, 3, Buffer.from('half')));
        setTimeout(() => socket[leave](), 50);
      }
      return stream > 3 ? head(stream, OK, END_HEADERS | END_STREAM) : undefined;
    });
    const stage = await startSpliced(t, application.address);
    const client = await startClient(t, stage);

    const [silent, half] = await Promise.all([request(client, { ':path': '/1' }), request(client, { ':path': '/2' })]);
    const next = await request(client, { ':path': '/3' });

    assert.deepEqual([silent.status, silent.reset], [502, undefined], leave);
    assert.deepEqual([half.status, half.body.toString(), half.reset], [200, 'half', INTERNAL_ERROR], leave);
    assert.equal(next.status, 200);
    assert.equal(await stage.sidecar.metric('scute_http_requests_total', { result: 'upstream_failed' }), 2);
    client.close();
    await stage.sidecar.connection();
  }
});

test('an application that goes away at each connection is not asked without end', async (t) => {
  const application = await startFrameApplication(
    t,
    () => undefined,
    Buffer.concat([settings([3, 0]), frame(GOAWAY, 0, 0, uint32(0, NO_ERROR))]),
  );
  const stage = await startSpliced(t, application.address);

  const answer = await request(await startClient(t, stage), { ':path': '/' });

  assert.deepEqual([answer.status, answer.body.toString()], [502, 'scute: the application takes requests on none of its connections\n']);
  assert.ok(application.connections.length <= 3);
});

test('what an application takes is heeded: streams, windows, frames and the size of its table', async (t) => {
  let most = 0;
  let under = 0;
  const sizes: number[] = [];
  const received = new Map<number, number>();
  const blocks: Buffer[] = [];
  let window = 0;
  const application = await startFrameApplication(
    t,
    ({ type, flags, stream, payload }, { send }) => {
      sizes.push(payload.length);
      if (type === HEADERS) {
        blocks.push(payload);
        most = Math.max(most, ++under);
        // It gives a window of ten octets, twice.
        window = Math.max(window, 10);
        send(frame(WINDOW_UPDATE, 0, stream, uint32(10)));
      }
      if (type !== DATA) return undefined;
      const all = (received.get(stream) ?? 0) + payload.length;
      received.set(stream, all);
      assert.ok(all <= 30, `${all} octets`);
      if ((flags & END_STREAM) === 0) return all === 10 ? frame(WINDOW_UPDATE, 0, stream, uint32(20)) : undefined;
      under--;
      return head(stream, OK, END_HEADERS | END_STREAM);
    },
    settings([1, 0], [3, 2], [4, 0]),
  );
  const stage = await startSpliced(t, application.address);
  const client = await startClient(t, stage);

  const answers = await Promise.all(
    Array.from({ length: 6 }, (_, index) =>
      request(client, { ':method': 'POST', ':path': `/${index}`, long: 'x'.repeat(20_000) }, Buffer.alloc(30)),
    ),
  );

  assert.deepEqual(
    answers.map(({ status }) => status),
    Array.from({ length: 6 }, () => 200),
  );
  assert.ok(most <= 2, `${most} streams at once`);
  assert.ok(Math.max(...sizes) <= 16_384);
  // RFC 7541, section 4.2: the first block says that there is no table.
  assert.equal(blocks[0]?.[0], 0x20);
  assert.notEqual(blocks[1]?.[0], 0x20);
});

test('an application that answers with a reset has it passed on, with its code', async (t) => {
  for (const [code, seen] of [
    [CANCEL, CANCEL],
    [REFUSED_STREAM, REFUSED_STREAM],
    [PROTOCOL_ERROR, PROTOCOL_ERROR],
    // It would look as if nothing were wrong; and this code is nobody's.
    [NO_ERROR, INTERNAL_ERROR],
    [4711, INTERNAL_ERROR],
  ] as const) {
    const application = await startFrameApplication(t, ({ type, stream }) =>
      type === HEADERS ? frame(RST_STREAM, 0, stream, uint32(code)) : undefined,
    );
    const stage = await startSpliced(t, application.address);
    const client = await startClient(t, stage);
    assert.deepEqual((await request(client, { ':path': '/' })).reset, seen);
    client.close();
    await stage.sidecar.connection();
  }
});

test('an early response to a body that is still coming is whole, and the client need not go on', async (t) => {
  const application = await startFrameApplication(t, ({ type, stream }) =>
    type === HEADERS
      ? Buffer.concat([
          head(stream, OK),
          frame(DATA, END_STREAM, stream, Buffer.from('ok')),
          frame(RST_STREAM, 0, stream, uint32(NO_ERROR)),
        ])
      : undefined,
  );
  const stage = await startSpliced(t, application.address);
  const client = await startClient(t, stage);

  const stream = client.request({ ':method': 'POST', ':path': '/' });
  stream.write('a part');
  const answer = await answerOn(stream);

  assert.deepEqual([answer.status, answer.body.toString(), stream.rstCode], [200, 'ok', NO_ERROR]);
  assert.equal((await request(client, { ':path': '/' })).status, 200);
  assert.equal(application.connections.length, 1);
});

test('interim responses pass, and Expect is the application’s to answer', async (t) => {
  const application = await startFrameApplication(t, ({ type, flags, stream, payload }) => {
    if (type === HEADERS && (flags & END_STREAM) === 0)
      return Buffer.concat([
        head(stream, [
          [':status', '103'],
          ['link', '</a>'],
        ]),
        head(stream, [[':status', '100']]),
      ]);
    if (type !== DATA) return undefined;
    return Buffer.concat([head(stream, OK), frame(DATA, END_STREAM, stream, payload)]);
  });
  const stage = await startSpliced(t, application.address);
  const client = await startClient(t, stage);

  const stream = client.request({ ':method': 'POST', ':path': '/', expect: '100-continue' });
  stream.on('continue', () => stream.end('body'));
  const answer = await answerOn(stream);

  assert.deepEqual([answer.status, answer.body.toString()], [200, 'body']);
  assert.equal(answer.interim[0]?.['link'], '</a>');
});

test('SETTINGS of the client reach the application before what is sent by them', async (t) => {
  const application = await startFrameApplication(t, ({ type, stream }) => (type === HEADERS ? head(stream, OK) : undefined));
  const stage = await startSpliced(t, application.address);
  const client = await startClient(t, stage);
  client.settings({ initialWindowSize: 12_345 });
  await once(client, 'localSettings');
  const stream = client.request({ ':path': '/' });
  await once(stream, 'response');
  client.settings({ initialWindowSize: 54_321 });

  const windows = (): number[] =>
    (application.connections[0]?.frames() ?? [])
      .filter(({ type, flags }) => type === SETTINGS && (flags & ACK) === 0)
      .flatMap(({ payload }) => Array.from({ length: payload.length / 6 }, (_, index) => payload.subarray(index * 6)))
      .filter((each) => each[1] === 4)
      .map((each) => each.readUInt32BE(2));
  await eventually(() => assert.deepEqual(windows(), [12_345, 54_321]));
  stream.close(CANCEL);
});
