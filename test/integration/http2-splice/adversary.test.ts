import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventually } from '../../support/eventually.ts';
import { answerOk, startH2cApplication, startSpliced } from '../../support/http/h2c-application.ts';
import {
  BAD_HEADS,
  bomb,
  FLOODS,
  headOf,
  MALFORMED_HEADS,
  openTooMany,
  pingPong,
  refuseHeads,
  refuseTrailers,
  repeat,
  resetMany,
  sendFloods,
  sendInTwo,
  withPseudo,
  type Flood,
} from '../../support/http/hostile-frames.ts';
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
  indexedField,
  PING,
  POST,
  PROTOCOL_ERROR,
  RST_STREAM,
  SETTINGS,
  uint32,
  WINDOW_UPDATE,
  type Field,
} from '../../support/http/http2-frames.ts';
import { request, startClient, startFrames } from '../../support/http/http2-stage.ts';

const STREAM_CLOSED = 5;

test('a malformed head is refused on its stream, and no application sees it', async (t) => {
  const application = await startH2cApplication(t, answerOk);
  const stage = await startSpliced(t, application.address);
  const malformed: typeof MALFORMED_HEADS = [
    ...MALFORMED_HEADS,
    ['CR and LF in a value', [...GET, ['x-bad', 'a\r\nx-hidden: b']]],
    ['LF in a value', [...GET, ['x-bad', 'a\nx-hidden: b']]],
    ['NUL in a value', [...GET, ['x-bad', 'a\0']]],
    ['a space before a value', [...GET, ['x-bad', ' a']]],
    ['a tab after a value', [...GET, ['x-bad', 'a\t']]],
    ['a line in a name', [...GET, ['x-bad\r\nx-hidden', 'b']]],
    ['a colon in a name', [...GET, ['x-bad:', 'b']]],
    ['an empty name', [...GET, ['', 'x-bad']]],
  ];
  const bad: typeof BAD_HEADS = [
    ...BAD_HEADS,
    ['Expect of something else', [...GET, ['expect', 'the-worst']], /Expect asks for something else/],
  ];
  const line = await startFrames(stage);
  const next = await refuseHeads(line, malformed, bad);
  assert.equal(application.heads.length, 0);
  line.send(headers(next, GET));
  assert.equal((await line.streamOver(next)).status, 200);
  assert.equal(await stage.sidecar.metric('scute_http_requests_total', { status: '400', result: 'bad_request' }), bad.length);
  assert.equal(await stage.sidecar.metric('scute_http_requests_total', { status: '0', result: 'bad_request' }), malformed.length);
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
  const block = (path: string, ...more: Buffer[]): Buffer => Buffer.concat([hpack(withPseudo(':path', path)), ...more]);
  const whole = END_STREAM | END_HEADERS;
  line.send(frame(HEADERS, whole, 1, block('/private', indexedField('x-one', 'refused'))));
  line.send(frame(HEADERS, whole, 3, block('/public', indexedField('x-two', 'malformed'), hpack([['connection', 'close']]))));
  line.send(frame(HEADERS, whole, 5, block('/public', indexedField('x-three', 'cancelled'))), frame(RST_STREAM, 0, 5, uint32(CANCEL)));
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
  await refuseTrailers(line, [[['a', 'b\0']]]);
  assert.ok(!ends.includes('end'));
});

test('a flood ends its own connection with a reason, and nobody else’s', async (t) => {
  const application = await startH2cApplication(t, answerOk);
  const stage = await startSpliced(t, application.address);
  const client = await startClient(t, stage);
  assert.equal((await request(client, { ':path': '/' })).status, 200);
  const floods: Flood[] = [
    ...FLOODS,
    [
      'requests that it has us give up',
      'reset_flood',
      repeat(3000, (index) => Buffer.concat([headers(index * 2 + 1, POST, END_HEADERS), headers(index * 2 + 1, [['host', 'b']])])),
    ],
    ['streams beyond the limit', 'reset_flood', repeat(3000, (index) => headers(index * 2 + 1, POST, END_HEADERS))],
    [
      'a field section without end',
      'header_flood',
      Buffer.concat([frame(HEADERS, 0, 1, hpack(GET)), repeat(60, () => frame(CONTINUATION, 0, 1, Buffer.alloc(16_000)))]),
    ],
    [
      'padding without data',
      'control_flood',
      Buffer.concat([headers(1, POST, END_HEADERS), repeat(60_000, () => frame(DATA, 8, 1, Buffer.of(0)))]),
    ],
    ['acknowledgements', 'control_flood', repeat(20_000, () => frame(SETTINGS, ACK, 0))],
    ['WINDOW_UPDATE', 'control_flood', repeat(20_000, () => frame(WINDOW_UPDATE, 0, 0, uint32(1)))],
    ['a frame within a field block', 'frame', Buffer.concat([frame(HEADERS, 0, 1, hpack(GET)), pingPong])],
    ['a stream that was passed over', 'stream', Buffer.concat([headers(5, GET), headers(3, GET)])],
  ];
  const counts = new Map<string, number>();
  const countOf = async ([, reason]: Flood, closed: string): Promise<void> => {
    counts.set(reason, (counts.get(reason) ?? 0) + 1);
    assert.equal(await stage.sidecar.metric('scute_http2_faults_total', { peer: 'src', reason }), counts.get(reason), closed);
  };

  await sendFloods(stage, client, floods, ([, reason]) => reason === 'control_flood', countOf);
});

test('a bomb of fields is defused on its stream', async (t) => {
  const application = await startH2cApplication(t, answerOk);
  const stage = await startSpliced(t, application.address);
  const line = await startFrames(stage);
  line.send(bomb(1));
  line.send(headOf(1500, 3));
  line.send(headers(5, GET));

  assert.equal((await line.streamOver(1)).status, 431);
  assert.equal((await line.streamOver(3)).status, 431);
  assert.equal((await line.streamOver(5)).status, 200);
  assert.equal(application.heads.length, 1);
});

test('streams beyond the limit are refused, and the others go on', async (t) => {
  const application = await startH2cApplication(t, () => undefined);
  const stage = await startSpliced(t, application.address, { http: { maxConcurrentStreams: 10 } });

  const line = await openTooMany(stage);

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

  await resetMany(stage);
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
  await sendInTwo(stage, bytes, (cut) => assert.equal(bodies.at(-1), 'hello["last","one"]', `cut at ${cut}`));
});
