import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventually } from '../../support/eventually.ts';
import { answerOk, startH2cApplication, startSpliced } from '../../support/http/h2c-application.ts';
import { FORGED_NAMES } from '../../support/http/http-corpus.ts';
import {
  ACK,
  CANCEL,
  CONTINUATION,
  DATA,
  END_HEADERS,
  END_STREAM,
  ENHANCE_YOUR_CALM,
  frame,
  GET,
  GOAWAY,
  headers,
  HEADERS,
  hpack,
  hpackInteger,
  PING,
  POST,
  PRIORITY,
  PROTOCOL_ERROR,
  PUSH_PROMISE,
  REFUSED_STREAM,
  RST_STREAM,
  settings,
  SETTINGS,
  uint32,
  WINDOW_UPDATE,
  type Field,
} from '../../support/http/http2-frames.ts';
import { request, startClient, startFrames } from '../../support/http/http2-stage.ts';

const STREAM_CLOSED = 5;
const without = (name: string, fields: readonly Field[] = GET): Field[] => fields.filter(([each]) => each !== name);
const withPseudo = (name: string, value: string): Field[] => GET.map(([each, old]) => [each, each === name ? value : old]);
const repeat = (count: number, make: (index: number) => Buffer): Buffer =>
  Buffer.concat(Array.from({ length: count }, (_, index) => make(index)));
const pingPong = frame(PING, 0, 0, Buffer.alloc(8));

test('a malformed head is refused on its stream, and no application sees it', async (t) => {
  const application = await startH2cApplication(t, answerOk);
  const stage = await startSpliced(t, application.address);
  const reset: [string, readonly Field[]][] = [
    ['no :method', without(':method')],
    ['no :scheme', without(':scheme')],
    ['no :path', without(':path')],
    ['neither :authority nor Host', without(':authority')],
    ['a pseudo-header field after another', [...without(':path'), ['a', 'b'], [':path', '/']]],
    [':path twice', [...GET, [':path', '/b']]],
    [':method twice', [...GET, [':method', 'GET']]],
    ['an unknown pseudo-header field', [...GET, [':foo', 'a']]],
    ['one of responses', [...GET, [':status', '200']]],
    ['extended CONNECT, which was never offered', [...withPseudo(':method', 'CONNECT'), [':protocol', 'websocket']]],
    ['CONNECT with a path', withPseudo(':method', 'CONNECT')],
    ['two Hosts', [...without(':authority'), ['host', 'a'], ['host', 'a']]],
    ['an upper-case name', [...GET, ['Accept', 'a']]],
    ['Connection', [...GET, ['connection', 'close']]],
    ['Connection that names ours', [...GET, ['connection', 'x-forwarded-client-cert']]],
    ['Keep-Alive', [...GET, ['keep-alive', 'a']]],
    ['Proxy-Connection', [...GET, ['proxy-connection', 'a']]],
    ['Transfer-Encoding', [...GET, ['transfer-encoding', 'chunked']]],
    ['Upgrade', [...GET, ['upgrade', 'websocket']]],
    ['TE other than trailers', [...GET, ['te', 'gzip']]],
    ['a space in :path', withPseudo(':path', '/a b')],
    ['a request line in :path', withPseudo(':path', '/ HTTP/1.1\r\nhost: b\r\n\r\nGET /hidden')],
    ['NUL in :path', withPseudo(':path', '/\0')],
    ['an empty :path', withPseudo(':path', '')],
    ['an absolute :path', withPseudo(':path', 'http://api/')],
    ['* of GET', withPseudo(':path', '*')],
    ['a line in :authority', withPseudo(':authority', 'a\r\nx: y')],
    ['a user in :authority', withPseudo(':authority', 'user@api')],
    ['an empty :authority', withPseudo(':authority', '')],
    ['a bad :scheme', withPseudo(':scheme', 'ht tp')],
    ['a length and no body', [...GET, ['content-length', '5']]],
    ['two lengths', [...GET, ['content-length', '0'], ['content-length', '0']]],
    ['a length that is none', [...GET, ['content-length', '+0']]],
    ['a list of lengths', [...GET, ['content-length', '0, 0']]],
    ['CR and LF in a value', [...GET, ['x-bad', 'a\r\nx-hidden: b']]],
    ['LF in a value', [...GET, ['x-bad', 'a\nx-hidden: b']]],
    ['NUL in a value', [...GET, ['x-bad', 'a\0']]],
    ['a space before a value', [...GET, ['x-bad', ' a']]],
    ['a tab after a value', [...GET, ['x-bad', 'a\t']]],
    ['a line in a name', [...GET, ['x-bad\r\nx-hidden', 'b']]],
    ['a colon in a name', [...GET, ['x-bad:', 'b']]],
    ['an empty name', [...GET, ['', 'x-bad']]],
  ];
  const answered: [string, readonly Field[], RegExp][] = [
    ['Host other than :authority', [...GET, ['host', 'b']], /:authority and Host are not the same/],
    ['a fragment', withPseudo(':path', '/a#b'), /the request target has a byte/],
    ['obs-text in :path', withPseudo(':path', '/\xe9'), /the request target has a byte/],
    ['a method in lower case', withPseudo(':method', 'get'), /the method is not one/],
    ['TRACE', withPseudo(':method', 'TRACE'), /the method is not one/],
    [
      'CONNECT',
      [
        [':method', 'CONNECT'],
        [':authority', 'api:443'],
      ],
      /the method is not one/,
    ],
    ['another scheme', withPseudo(':scheme', 'ftp'), /the scheme is neither/],
    ['what reads as Content-Length', [...GET, ['content_length', '0']], /reads as Content-Length/],
    ['what reads as Transfer-Encoding', [...GET, ['transfer_encoding', 'chunked']], /reads as Transfer-Encoding/],
    ['Expect of something else', [...GET, ['expect', 'the-worst']], /Expect asks for something else/],
  ];
  const line = await startFrames(stage);
  let id = -1;
  for (const [name, fields] of reset) {
    line.send(headers((id += 2), fields));
    const outcome = await line.streamOver(id);
    assert.deepEqual([outcome.status, outcome.ended, outcome.reset], [undefined, false, PROTOCOL_ERROR], name);
  }
  for (const [name, fields, reason] of answered) {
    line.send(headers((id += 2), fields));
    const outcome = await line.streamOver(id);
    assert.deepEqual([outcome.status, outcome.ended, outcome.reset], [400, true, undefined], name);
    assert.match(outcome.body, reason, name);
  }
  assert.equal(application.heads.length, 0);
  line.send(headers((id += 2), GET));
  assert.equal((await line.streamOver(id)).status, 200);
  assert.equal(await stage.sidecar.metric('scute_http_requests_total', { status: '400', result: 'bad_request' }), answered.length);
  assert.equal(await stage.sidecar.metric('scute_http_requests_total', { status: '0', result: 'bad_request' }), reset.length);
});

test('no peer forges the fields that say who it is, however they are spelt, in heads or in trailers', async (t) => {
  const trailers: string[][] = [];
  const application = await startH2cApplication(t, (stream) => {
    stream.on('trailers', (_: object, __: number, raw?: string[]) => trailers.push(raw ?? []));
    stream.resume().on('end', () => answerOk(stream));
  });
  const stage = await startSpliced(t, application.address, { http: { spiffeIdHeader: 'X-Peer' } });
  const line = await startFrames(stage);
  let id = -1;
  const names = [...FORGED_NAMES, 'x_peer', 'x.peer'].map((each) => each.toLowerCase());
  for (const name of names) {
    const fields: Field[] = [...POST, [name, 'forged'], ['keep', 'me'], [name, 'forged']];
    line.send(
      headers((id += 2), fields, END_HEADERS),
      headers(id, [
        [name, 'forged'],
        ['last', 'one'],
      ]),
    );
    assert.equal((await line.streamOver(id)).status, 200, name);
    const seen = application.heads.at(-1) ?? [];
    assert.ok(!seen.includes('forged'), name);
    assert.equal(seen[seen.indexOf('keep') + 1], 'me');
    assert.equal(seen.filter((each) => each === 'x-forwarded-client-cert').length, 1);
    assert.match(
      String(seen[seen.indexOf('x-forwarded-client-cert') + 1]),
      /^By=spiffe:\/\/example\.org\/api;Hash=[0-9a-f]{64};URI=spiffe:\/\/example\.org\/web$/,
    );
    assert.equal(seen.filter((each) => each === 'x-peer').length, 1);
    assert.equal(seen[seen.indexOf('x-peer') + 1], 'spiffe://example.org/web');
    assert.deepEqual(trailers.at(-1), ['last', 'one'], name);
  }
  assert.equal(application.heads.length, names.length);
});

test('a refused or a rewritten stream leaves the tables of both sides as they were', async (t) => {
  const application = await startH2cApplication(t, answerOk);
  const stage = await startSpliced(t, application.address, {
    listener: { allow: [{ peer: 'spiffe://example.org/web', paths: ['/public'] }] },
  });
  const line = await startFrames(stage);
  // Entries are put into the table by streams that are refused, malformed, or reset at once, and are meant by those that follow.
  const literal = (name: string, value: string): Buffer =>
    Buffer.concat([
      Buffer.of(0x40),
      hpackInteger(name.length, 7, 0),
      Buffer.from(name),
      hpackInteger(value.length, 7, 0),
      Buffer.from(value),
    ]);
  const block = (path: string, ...more: Buffer[]): Buffer => Buffer.concat([hpack(withPseudo(':path', path)), ...more]);
  const whole = END_STREAM | END_HEADERS;
  line.send(frame(HEADERS, whole, 1, block('/private', literal('x-one', 'refused'))));
  line.send(frame(HEADERS, whole, 3, block('/public', literal('x-two', 'malformed'), hpack([['connection', 'close']]))));
  line.send(frame(HEADERS, whole, 5, block('/public', literal('x-three', 'cancelled'))), frame(RST_STREAM, 0, 5, uint32(CANCEL)));
  // The newest entry has the index 62.
  line.send(frame(HEADERS, whole, 7, block('/public', Buffer.of(0x80 | 64, 0x80 | 63, 0x80 | 62))));

  assert.equal((await line.streamOver(1)).status, 403);
  assert.equal((await line.streamOver(3)).reset, PROTOCOL_ERROR);
  assert.equal((await line.streamOver(7)).status, 200);
  const seen = application.heads.at(-1) ?? [];
  assert.deepEqual(seen.slice(-6), ['x-one', 'refused', 'x-two', 'malformed', 'x-three', 'cancelled']);
});

test('what is refused may be as long as it likes: it is taken back into the window of the connection, and others go on', async (t) => {
  const application = await startH2cApplication(t, (stream) => void stream.resume().on('end', () => answerOk(stream)));
  const stage = await startSpliced(t, application.address, {
    listener: { allow: [{ peer: 'spiffe://example.org/web', paths: ['/public'] }] },
  });
  const client = await startClient(t, stage);

  for (let round = 0; round < 5; round++) {
    // Each is most of the window of the connection.
    const refused = await request(client, { ':method': 'POST', ':path': '/private' }, Buffer.alloc(60_000));
    assert.equal(refused.status, 403);
    const taken = await request(client, { ':method': 'POST', ':path': '/public' }, Buffer.alloc(60_000));
    assert.deepEqual([taken.status, taken.reset], [200, undefined]);
  }
});

test('a body that is longer or shorter than announced breaks the request', async (t) => {
  const application = await startH2cApplication(t, (stream) => void stream.resume());
  const stage = await startSpliced(t, application.address);
  const line = await startFrames(stage);
  let id = -1;
  for (const [length, body, flags] of [
    [5, 'abc', END_STREAM],
    [0, 'abc', END_STREAM],
    [3, 'abcd', 0],
  ] as const) {
    line.send(headers((id += 2), [...POST, ['content-length', String(length)]], END_HEADERS), frame(DATA, flags, id, Buffer.from(body)));
    assert.equal((await line.streamOver(id)).reset, PROTOCOL_ERROR);
  }
  line.send(
    headers((id += 2), [...POST, ['content-length', '3']], END_HEADERS),
    frame(DATA, 0, id, Buffer.from('ab')),
    headers(id, [['a', 'b']]),
  );
  assert.equal((await line.streamOver(id)).reset, PROTOCOL_ERROR);
});

test('bad trailers break the request', async (t) => {
  const ends: string[] = [];
  const application = await startH2cApplication(
    t,
    (stream) => void stream.resume().on('end', () => ends.push(stream.aborted ? 'cut' : 'end')),
  );
  const stage = await startSpliced(t, application.address);
  const line = await startFrames(stage);
  const start = (id: number): Buffer => Buffer.concat([headers(id, POST, END_HEADERS), frame(DATA, 0, id, Buffer.from('abc'))]);
  let id = -1;
  for (const fields of [
    [[':path', '/']],
    [['transfer-encoding', 'chunked']],
    [['connection', 'close']],
    [['X', 'a']],
    [['a', 'b\0']],
  ] as Field[][]) {
    line.send(start((id += 2)), headers(id, fields));
    assert.equal((await line.streamOver(id)).reset, PROTOCOL_ERROR, JSON.stringify(fields));
  }
  for (const fields of [[['content-length', '3']], [['host', 'b']], [['content_length', '3']]] as Field[][]) {
    line.send(start((id += 2)), headers(id, fields));
    const outcome = await line.streamOver(id);
    assert.deepEqual([outcome.status, outcome.ended], [400, true], JSON.stringify(fields));
  }
  // Trailers that do not end the stream.
  line.send(start((id += 2)), headers(id, [['a', 'b']], END_HEADERS));
  assert.equal((await line.streamOver(id)).reset, PROTOCOL_ERROR);
  assert.ok(!ends.includes('end'));
});

test('a flood ends its own connection with a reason, and nobody else’s', async (t) => {
  const application = await startH2cApplication(t, answerOk);
  const stage = await startSpliced(t, application.address);
  const client = await startClient(t, stage);
  assert.equal((await request(client, { ':path': '/' })).status, 200);
  const floods: [string, string, Buffer][] = [
    [
      'rapid reset (CVE-2023-44487)',
      'reset_flood',
      repeat(3000, (index) => Buffer.concat([headers(index * 2 + 1, GET), frame(RST_STREAM, 0, index * 2 + 1, uint32(CANCEL))])),
    ],
    [
      'resets that it has us do (CVE-2025-8671)',
      'reset_flood',
      repeat(3000, (index) =>
        Buffer.concat([headers(index * 2 + 1, POST, END_HEADERS), frame(WINDOW_UPDATE, 0, index * 2 + 1, uint32(0))]),
      ),
    ],
    [
      'requests that it has us give up',
      'reset_flood',
      repeat(3000, (index) => Buffer.concat([headers(index * 2 + 1, POST, END_HEADERS), headers(index * 2 + 1, [['host', 'b']])])),
    ],
    ['malformed requests', 'reset_flood', repeat(3000, (index) => headers(index * 2 + 1, [...GET, ['connection', 'a']]))],
    ['streams beyond the limit', 'reset_flood', repeat(3000, (index) => headers(index * 2 + 1, POST, END_HEADERS))],
    [
      'CONTINUATION (CVE-2024-27316)',
      'header_flood',
      Buffer.concat([frame(HEADERS, 0, 1, hpack(GET)), repeat(3000, () => frame(CONTINUATION, 0, 1, hpack([['a', 'b']])))]),
    ],
    [
      'empty CONTINUATION',
      'header_flood',
      Buffer.concat([frame(HEADERS, 0, 1, hpack(GET)), repeat(3000, () => frame(CONTINUATION, 0, 1))]),
    ],
    [
      'a field section without end',
      'header_flood',
      Buffer.concat([frame(HEADERS, 0, 1, hpack(GET)), repeat(60, () => frame(CONTINUATION, 0, 1, Buffer.alloc(16_000)))]),
    ],
    ['empty DATA (CVE-2019-9518)', 'control_flood', Buffer.concat([headers(1, POST, END_HEADERS), repeat(3000, () => frame(DATA, 0, 1))])],
    [
      'padding without data',
      'control_flood',
      Buffer.concat([headers(1, POST, END_HEADERS), repeat(60_000, () => frame(DATA, 8, 1, Buffer.of(0)))]),
    ],
    ['PING (CVE-2019-9512)', 'control_flood', repeat(20_000, () => pingPong)],
    ['SETTINGS (CVE-2019-9515)', 'control_flood', repeat(20_000, () => settings([4, 65_535]))],
    ['acknowledgements', 'control_flood', repeat(20_000, () => frame(SETTINGS, ACK, 0))],
    [
      'PRIORITY (CVE-2019-9513)',
      'control_flood',
      repeat(20_000, (index) => frame(PRIORITY, 0, 1 + 2 * (index % 1000), Buffer.of(0, 0, 0, 0, 1))),
    ],
    ['WINDOW_UPDATE', 'control_flood', repeat(20_000, () => frame(WINDOW_UPDATE, 0, 0, uint32(1)))],
    ['frames of no known type', 'control_flood', repeat(20_000, () => frame(99, 0, 0, Buffer.from('x')))],
    ['many settings at once', 'control_flood', settings(...Array.from({ length: 1000 }, () => [4, 65_535] as const))],
    ['PUSH_PROMISE', 'frame', frame(PUSH_PROMISE, END_HEADERS, 1, Buffer.concat([uint32(2), hpack(GET)]))],
    ['a frame within a field block', 'frame', Buffer.concat([frame(HEADERS, 0, 1, hpack(GET)), pingPong])],
    ['a window that overflows', 'flow_control', frame(WINDOW_UPDATE, 0, 0, uint32(0x7fffffff))],
    ['an initial window that is none', 'flow_control', settings([4, 0xffffffff])],
    ['DATA for nobody', 'frame', frame(DATA, 0, 0, Buffer.from('x'))],
    ['DATA before its stream', 'stream', frame(DATA, 0, 5, Buffer.from('x'))],
    ['a stream of the server’s', 'stream', headers(2, GET)],
    ['a stream that was passed over', 'stream', Buffer.concat([headers(5, GET), headers(3, GET)])],
    ['a frame that is too large', 'frame', frame(DATA, 0, 1, Buffer.alloc(20_000))],
    ['HPACK that is none', 'compression', frame(HEADERS, END_HEADERS | END_STREAM, 1, Buffer.alloc(5, 0xff))],
    ['a SETTINGS acknowledgement with a payload', 'frame', frame(SETTINGS, ACK, 0, Buffer.alloc(6))],
  ];
  const before = process.memoryUsage.rss();
  let lastSeen = 1;
  const counts = new Map<string, number>();
  for (const [name, reason, bytes] of floods) {
    const line = await startFrames(stage);
    // Not read from: what is owed to it must not pile up.
    if (reason === 'control_flood') line.socket.pause();
    line.send(bytes);
    const closed = await stage.sidecar.connection(({ connection }) => Number(connection) > lastSeen);
    lastSeen = Number(closed['connection']);
    assert.equal(closed['close_reason'], 'protocol_error', `${name}: ${JSON.stringify(closed)}`);
    assert.ok(String(closed['detail']).length > 5, name);
    counts.set(reason, (counts.get(reason) ?? 0) + 1);
    assert.equal(
      await stage.sidecar.metric('scute_http2_faults_total', { peer: 'src', reason }),
      counts.get(reason),
      `${name}: ${JSON.stringify(closed)}`,
    );
    line.socket.destroy();
    assert.equal((await request(client, { ':path': '/' })).status, 200, name);
  }
  assert.equal(await stage.sidecar.metric('scute_tcp_close_total', { reason: 'protocol_error' }), floods.length);
  assert.ok(process.memoryUsage.rss() - before < 200 * 1024 * 1024);
});

test('a bomb of fields is defused on its stream', async (t) => {
  const application = await startH2cApplication(t, answerOk);
  const stage = await startSpliced(t, application.address);
  const line = await startFrames(stage);
  // One entry of the dynamic table, 12,000 times: 46 MB.
  const entry = Buffer.concat([
    Buffer.of(0x40),
    hpackInteger(1, 7, 0),
    Buffer.from('a'),
    hpackInteger(3900, 7, 0),
    Buffer.alloc(3900, 'x'),
  ]);
  line.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, Buffer.concat([hpack(GET), entry, Buffer.alloc(12_000, 0xbe)])));
  line.send(headers(3, [...GET, ...Array.from({ length: 1500 }, (_, index): Field => [`x${index.toString(36)}`, ''])]));
  line.send(headers(5, GET));

  assert.equal((await line.streamOver(1)).status, 431);
  assert.equal((await line.streamOver(3)).status, 431);
  assert.equal((await line.streamOver(5)).status, 200);
  assert.equal(application.heads.length, 1);
});

test('streams beyond the limit are refused, and the others go on', async (t) => {
  const application = await startH2cApplication(t, () => undefined);
  const stage = await startSpliced(t, application.address, { http: { maxConcurrentStreams: 10 } });
  const line = await startFrames(
    stage,
    repeat(15, (index) => headers(index * 2 + 1, GET)),
  );

  await eventually(() => assert.equal(line.frames().filter(({ type }) => type === RST_STREAM).length, 5));

  assert.ok(line.frames().some(({ type, payload }) => type === SETTINGS && payload.includes(Buffer.of(0, 3, 0, 0, 0, 10))));
  for (let index = 10; index < 15; index++) assert.equal(line.stream(index * 2 + 1).reset, REFUSED_STREAM);
  await eventually(() => assert.equal(application.heads.length, 10));
  // A stream that is closed makes room for another.
  line.send(frame(RST_STREAM, 0, 1, uint32(CANCEL)), headers(31, GET));
  await eventually(() => assert.equal(application.heads.length, 11));
  assert.equal(line.stream(31).reset, undefined);
});

test('a client at its limit may cancel all of its streams and open as many in one moment', async (t) => {
  const application = await startH2cApplication(t, () => undefined);
  const stage = await startSpliced(t, application.address, { http: { maxConcurrentStreams: 150 } });
  const all = (first: number): Buffer => repeat(150, (index) => headers(first + index * 2, GET));
  const line = await startFrames(stage, all(1));
  await eventually(() => assert.equal(application.heads.length, 150));

  line.send(
    repeat(150, (index) => frame(RST_STREAM, 0, 1 + index * 2, uint32(CANCEL))),
    all(301),
  );

  // Node's own server refuses some of them, as it does without us, and closes the connection on none.
  await eventually(() => assert.ok(application.heads.length >= 151));
  assert.ok(!line.frames().some(({ type }) => type === GOAWAY));
});

test('a client that resets its stream breaks the request, whichever code it gives', async (t) => {
  for (const code of [0, CANCEL, PROTOCOL_ERROR]) {
    const ends: string[] = [];
    const application = await startH2cApplication(t, (stream) => {
      stream.on('data', () => ends.push('data'));
      stream.on('aborted', () => ends.push(`aborted with ${stream.rstCode}`));
    });
    const stage = await startSpliced(t, application.address);
    // By hand: of a stream that it resets, Node's client sends an end before.
    const line = await startFrames(stage, headers(1, POST, END_HEADERS), frame(DATA, 0, 1, Buffer.from('a part')));
    await eventually(() => assert.deepEqual(ends, ['data']));

    line.send(frame(RST_STREAM, 0, 1, uint32(code)));

    // 0 would say that nothing is wrong.
    await eventually(() => assert.deepEqual(ends, ['data', `aborted with ${code === 0 ? CANCEL : code}`]));
    assert.equal(await stage.sidecar.metric('scute_http_requests_total', { status: '0', result: 'downstream_closed' }), 1);
  }
});

test('resets that are not a flood end nothing', async (t) => {
  const application = await startH2cApplication(t, () => undefined);
  const stage = await startSpliced(t, application.address, { http: { maxConcurrentStreams: 5 } });
  const line = await startFrames(stage);

  for (let index = 0; index < 200; index++) line.send(headers(index * 2 + 1, GET), frame(RST_STREAM, 0, index * 2 + 1, uint32(0)));
  line.send(pingPong);

  await line.until(({ type, flags }) => type === PING && flags === ACK);
  assert.ok(!line.frames().some(({ type }) => type === GOAWAY));
  await eventually(async () => assert.equal(await stage.sidecar.metric('scute_http_requests_total', { result: 'downstream_closed' }), 200));
});

test('a frame on a stream that the client has ended ends the connection, and one on a stream that was reset by us does not', async (t) => {
  const application = await startH2cApplication(t, (stream) => stream.close(2));
  const stage = await startSpliced(t, application.address);
  const line = await startFrames(stage, headers(1, POST, END_HEADERS));
  assert.equal((await line.streamOver(1)).reset, 2);

  line.send(frame(DATA, 0, 1, Buffer.from('late')), frame(WINDOW_UPDATE, 0, 1, uint32(5)), headers(1, [['late', 'one']]), pingPong);
  await line.until(({ type, flags }) => type === PING && flags === ACK);

  line.send(headers(3, GET), frame(DATA, 0, 3, Buffer.from('more')));
  assert.equal(await line.over(), STREAM_CLOSED);
});

test('a field section that never ends holds its place no longer than a head may take', async (t) => {
  const application = await startH2cApplication(t, answerOk);
  const stage = await startSpliced(t, application.address, { http: { headTimeout: '150ms' } });
  for (const bytes of [frame(HEADERS, END_STREAM, 1, hpack(GET)), headers(1, GET).subarray(0, 12)]) {
    const line = await startFrames(stage, pingPong);
    await line.until(({ type, flags }) => type === PING && flags === ACK);
    line.send(bytes);
    assert.equal(await line.over(), ENHANCE_YOUR_CALM);
  }
  assert.equal(await stage.sidecar.metric('scute_http2_faults_total', { peer: 'src', reason: 'too_slow' }), 2);
});

test('every cut of the bytes gives the same request', async (t) => {
  const bodies: string[] = [];
  const application = await startH2cApplication(t, (stream) => {
    let body = '';
    stream.on('data', (chunk: Buffer) => (body += chunk.toString()));
    stream.on('trailers', (_: object, __: number, raw?: string[]) => (body += JSON.stringify(raw)));
    stream.on('end', () => {
      bodies.push(body);
      answerOk(stream);
    });
  });
  const stage = await startSpliced(t, application.address);
  const bytes = Buffer.concat([
    headers(1, [...POST, ['cookie', 'a=1'], ['cookie', 'b=2']], END_HEADERS),
    frame(DATA, 0, 1, Buffer.from('hel')),
    frame(DATA, 8, 1, Buffer.concat([Buffer.of(4), Buffer.from('lo'), Buffer.alloc(4)])),
    headers(1, [['last', 'one']]),
  ]);
  for (let cut = 1; cut < bytes.length; cut += 3) {
    const line = await startFrames(stage);
    line.send(bytes.subarray(0, cut));
    await new Promise((resolve) => setImmediate(resolve));
    line.send(bytes.subarray(cut));
    assert.equal((await line.streamOver(1)).status, 200);
    line.socket.destroy();
    assert.equal(bodies.at(-1), 'hello["last","one"]', `cut at ${cut}`);
  }
});
