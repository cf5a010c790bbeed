import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { eventually } from '../../support/eventually.ts';
import { fillBacklog } from '../../support/full-backlog.ts';
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
  startOfPost,
} from '../../support/http/hostile-frames.ts';
import { FORGED_NAMES } from '../../support/http/http-corpus.ts';
import {
  ACK,
  CANCEL,
  DATA,
  END_HEADERS,
  END_STREAM,
  ENHANCE_YOUR_CALM,
  frame,
  GET,
  GOAWAY,
  headers,
  INTERNAL_ERROR,
  PING,
  POST,
  PROTOCOL_ERROR,
  REFUSED_STREAM,
  RST_STREAM,
  uint32,
  type Field,
} from '../../support/http/http2-frames.ts';
import { answerOn, request, startClient, startFrames } from '../../support/http/http2-stage.ts';
import { startHttpApplication, startHttpInbound, startRawApplication } from '../../support/http/http-stage.ts';
import { byTranslation } from '../../support/http/translation.ts';
import { startTcpServer } from '../../support/tcp.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
/** Answers when a request is whole, in chunks or without a body. */
const ok = (received: string): string | undefined =>
  (/transfer-encoding/.test(received) ? /\r\n0\r\n(?:.+\r\n)*\r\n$/.test(received) : received.endsWith('\r\n\r\n')) ? OK : undefined;

test('a malformed head is refused on its stream: by a reset, or by a response that says why; and no application sees it', async (t) => {
  const application = await startRawApplication(t, ok);
  const stage = await startHttpInbound(t, application.address);
  const line = await startFrames(stage);
  const next = await refuseHeads(line, MALFORMED_HEADS, BAD_HEADS);
  assert.equal(application.received(), '');
  line.send(headers(next, GET));
  assert.equal((await line.streamOver(next)).status, 200);
  assert.equal(await stage.sidecar.metric('scute_http_requests_total', { status: '400', result: 'bad_request' }), BAD_HEADS.length);
});

test('a field with a byte that none may have does not come through, as a field or as two', async (t) => {
  const application = await startRawApplication(t, ok);
  const stage = await startHttpInbound(t, application.address);
  const line = await startFrames(stage);
  const bad: Field[] = [
    ['x-bad', 'a\r\nx-hidden: b'],
    ['x-bad', 'a\nx-hidden: b'],
    ['x-bad', 'a\rb'],
    ['x-bad', 'a\0'],
    ['x-bad', ' a'],
    ['x-bad', 'a\t'],
    ['x-bad\r\nx-hidden', 'b'],
    ['x-bad x', 'b'],
    ['x-bad:', 'b'],
    ['', 'x-bad'],
    ['cookie', 'x-bad\r\nx-hidden: b'],
    ['x-bad', 'a\r\n\r\nGET /x-hidden HTTP/1.1\r\nhost: a\r\n\r\n'],
  ];
  for (const [index, field] of bad.entries()) {
    const before = application.received().length;
    line.send(headers(index * 2 + 1, [...GET, field, ['x-good', 'a']]));
    const outcome = await line.streamOver(index * 2 + 1);
    const seen = application.received().slice(before);
    // nghttp2 leaves the field out, and Node does not say so.
    assert.deepEqual([outcome.status, outcome.reset], byTranslation([undefined, PROTOCOL_ERROR], [200, undefined]), JSON.stringify(field));
    if (outcome.status === undefined) assert.equal(seen, '');
    else
      assert.match(
        seen,
        /^GET \/ HTTP\/1\.1\r\nX-Forwarded-Client-Cert: [^\r\n]+\r\nhost: api\r\nx-good: a\r\n\r\n$/,
        JSON.stringify(field),
      );
  }
});

test('H2.CL: a body that is longer or shorter than announced breaks the request, and never is another one', async (t) => {
  const hidden = 'GET /hidden HTTP/1.1\r\nhost: a\r\n\r\n';
  for (const [length, body, flags] of [
    [5, 'abc', END_STREAM],
    [0, hidden, END_STREAM],
    [3, `abc${hidden}`, END_STREAM],
    [3, `abc${hidden}`, 0],
  ] as const) {
    const seen: string[] = [];
    const ends: string[] = [];
    const application = await startHttpApplication(t, (incoming, response) => {
      seen.push(incoming.url ?? '');
      incoming.on('error', () => ends.push('error'));
      incoming.resume().on('end', () => ends.push('end'));
      if (incoming.url === '/') response.end('ok');
    });
    const stage = await startHttpInbound(t, application.address);
    const line = await startFrames(
      stage,
      headers(
        1,
        [...POST.map((each): Field => (each[0] === ':path' ? [':path', '/one'] : each)), ['content-length', String(length)]],
        END_HEADERS,
      ),
    );
    // The head is on its way when the body comes; a length of 0 needs no body to be whole.
    await eventually(() => assert.deepEqual(seen, ['/one']));

    line.send(frame(DATA, flags, 1, Buffer.from(body)));

    const result = byTranslation('bad_request', 'downstream_closed');
    await eventually(async () => assert.equal(await stage.sidecar.metric('scute_http_requests_total', { result }), 1));
    assert.ok(line.stream(1).status === undefined);
    await eventually(() => assert.equal(ends.length, 1));
    assert.deepEqual(ends, length === 0 ? ['end'] : ['error'], `${length} ${body}`);
    assert.deepEqual(seen, ['/one']);
    assert.equal((await request(await startClient(t, stage), { ':path': '/' })).status, 200);
  }
});

test('bad trailers break the request; good ones carry no identity', async (t) => {
  const application = await startRawApplication(t, ok);
  const stage = await startHttpInbound(t, application.address, { http: { spiffeIdHeader: 'X-Peer' } });
  const line = await startFrames(stage);
  // The field is left out by nghttp2.
  let id = await refuseTrailers(line, byTranslation<Field[][]>([[['x-bad', 'a\r\nx-hidden: b']]], []));
  assert.ok(!application.received().includes('\r\n0\r\n'), application.received());
  for (const name of [...FORGED_NAMES, 'x_peer', 'x.peer']) {
    const before = application.received().length;
    line.send(
      startOfPost(id),
      headers(id, [[name.toLowerCase(), 'forged'], ['last', 'one'], ...byTranslation([], [['x-bad', 'a\r\nx-hidden: b'] as const])]),
    );
    assert.equal((await line.streamOver(id)).status, 200);
    assert.match(application.received().slice(before), /\r\n3\r\nabc\r\n0\r\nlast: one\r\n\r\n$/);
    assert.ok(!application.received().includes('forged'));
    id += 2;
  }
});

test('no peer forges the fields that say who it is, however they are spelt', async (t) => {
  const application = await startRawApplication(t, ok);
  const stage = await startHttpInbound(t, application.address, { http: { spiffeIdHeader: 'X-Peer' } });
  const line = await startFrames(stage);
  let id = -1;
  for (const name of FORGED_NAMES.map((each) => each.toLowerCase())) {
    const before = application.received().length;
    line.send(headers((id += 2), [...GET, [name, 'forged'], ['keep', 'me'], [name, 'forged']]));
    await line.streamOver(id);
    const seen = application.received().slice(before);
    assert.ok(!seen.includes('forged'), seen);
    assert.match(seen, /\r\nkeep: me\r\n/);
    assert.equal(
      seen.match(/^X-Forwarded-Client-Cert: By=spiffe:\/\/example\.org\/api;Hash=[0-9a-f]{64};URI=spiffe:\/\/example\.org\/web\r$/gm)
        ?.length,
      1,
    );
    assert.equal(seen.match(/^X-Peer: spiffe:\/\/example\.org\/web\r$/gm)?.length, 1);
  }
});

test('no end of ours follows a part of a response', async (t) => {
  for (const part of [
    'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n',
    'HTTP/1.1 200 OK\r\n\r\nhalf',
  ]) {
    const application = await startTcpServer(t, (socket) => {
      socket.once('data', () => socket.write(part));
    });
    const stage = await startHttpInbound(t, application.address);
    const line = await startFrames(stage, headers(1, GET));
    await eventually(() => assert.ok(line.stream(1).body.length > 0));

    for (const socket of application.connections) socket.resetAndDestroy();

    const outcome = await line.streamOver(1);
    assert.deepEqual([outcome.status, outcome.ended, outcome.reset], [200, false, INTERNAL_ERROR], part);
  }
});

test('a flood ends its own connection with a reason, and nobody else’s', async (t) => {
  const application = await startRawApplication(t, ok);
  const stage = await startHttpInbound(t, application.address);
  const client = await startClient(t, stage);

  await sendFloods(stage, client, FLOODS, ([name]) => /^(?:PING|SETTINGS) \(/.test(name));

  assert.ok(application.connections() < 2000);
});

test('a bomb of fields is defused on its stream', async (t) => {
  const application = await startRawApplication(t, ok);
  const stage = await startHttpInbound(t, application.address);
  const line = await startFrames(stage);
  line.send(bomb(1));
  line.send(headOf(2100, 3));
  line.send(headOf(1500, 5));
  line.send(headers(7, GET));

  for (const stream of [1, 3]) {
    const { status, reset } = await line.streamOver(stream);
    assert.deepEqual([status, reset], byTranslation([431, undefined], [undefined, ENHANCE_YOUR_CALM]));
  }
  assert.equal((await line.streamOver(5)).status, 431);
  assert.equal((await line.streamOver(7)).status, 200);
});

test('streams beyond the limit are refused, and the others go on', async (t) => {
  const application = await startRawApplication(t, () => undefined);
  const stage = await startHttpInbound(t, application.address, { http: { maxConcurrentStreams: 10 } });

  const line = await openTooMany(stage);

  await eventually(() => assert.equal(application.connections(), 10));
  // A stream that is closed makes room for another.
  const pongs = (): number => line.frames().filter(({ type, flags }) => type === PING && flags === ACK).length;
  line.send(frame(RST_STREAM, 0, 1, uint32(CANCEL)), pingPong);
  await eventually(() => assert.equal(pongs(), 1));
  line.send(headers(31, GET), pingPong);
  await eventually(() => assert.equal(pongs(), 2));
  assert.equal(line.stream(31).reset, undefined);
});

test('resets that are not a flood end nothing', async (t) => {
  const application = await startRawApplication(t, () => undefined);
  const stage = await startHttpInbound(t, application.address, { http: { maxConcurrentStreams: 5 } });

  await resetMany(stage);
});

test('requests that are given up while the application does not accept leave no attempts behind', async (t) => {
  const port = await fillBacklog(t);
  const stage = await startHttpInbound(t, `127.0.0.1:${port}`, {
    http: { maxConcurrentStreams: 5 },
    listener: { limits: { connectTimeout: '20s' } },
  });
  const line = await startFrames(stage);
  const openFiles = (): number => readdirSync('/proc/self/fd').length;
  const before = openFiles();

  let most = 0;
  for (let round = 0; round < 20; round++) {
    const ids = Array.from({ length: 5 }, (_, index) => (round * 5 + index) * 2 + 1);
    const data = Buffer.from(String(round).padStart(8));
    line.send(...ids.map((id) => headers(id, GET)), frame(PING, 0, 0, data));
    await line.until(({ type, flags, payload }) => type === PING && flags === ACK && data.equals(payload));
    line.send(...ids.map((id) => frame(RST_STREAM, 0, id, uint32(CANCEL))));
    await eventually(async () =>
      assert.equal(await stage.sidecar.metric('scute_http_requests_total', { result: 'downstream_closed' }), (round + 1) * 5),
    );
    most = Math.max(most, openFiles() - before);
  }

  assert.ok(most < 20, `${most} more files are open after 100 requests`);
});

test('an upload that is answered early, and stands still, leaves its place to others', async (t) => {
  // It reads nothing of an upload, and answers when Scute has stopped reading from the client.
  const application = await startTcpServer(t, (socket) => {
    socket.on('data', (head: Buffer) => {
      if (head.toString('latin1').startsWith('GET')) {
        socket.write(OK);
        return;
      }
      if (socket.isPaused()) return;
      socket.pause();
      setTimeout(() => socket.write('HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno'), 300);
    });
  });
  const stage = await startHttpInbound(t, application.address, { http: { maxConcurrentStreams: 2 } });
  const client = await startClient(t, stage);

  for (let round = 0; round < 5; round++) {
    const upload = client.request({ ':method': 'POST', ':path': '/' });
    upload.write(Buffer.alloc(7 << 20));
    const { status, body } = await answerOn(upload);
    assert.deepEqual([status, body.toString()], [413, 'no']);
    assert.equal((await request(client, { ':path': '/' })).status, 200);
  }

  assert.equal(await stage.sidecar.stop(AbortSignal.timeout(60_000)), 0);
});

test('an upload of any length that is answered unread leaves its place to others', async (t) => {
  // The buffers of a Unix socket are small: at some of the lengths the end of the upload is all that does not fit.
  const path = join(await temporaryFolder(t), 'application');
  const sockets: Socket[] = [];
  const application = createServer((socket) => {
    sockets.push(socket);
    socket.on('error', () => undefined);
    socket.on('data', (head: Buffer) => {
      if (head.toString('latin1').startsWith('GET')) {
        socket.write(OK);
        return;
      }
      if (socket.isPaused()) return;
      socket.pause();
      setTimeout(() => socket.write('HTTP/1.1 413 No\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno'), 30);
    });
  });
  application.listen(path);
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    application.close();
  });
  const stage = await startHttpInbound(t, `unix://${path}`, { http: { maxConcurrentStreams: 1, responseTimeout: '2s' } });
  const client = await startClient(t, stage);

  for (let length = 16; length <= 640; length += 16) {
    assert.equal((await request(client, { ':method': 'POST', ':path': '/' }, Buffer.alloc(length * 1024))).status, 413, `${length} KiB`);
  }

  assert.equal((await request(client, { ':path': '/' })).status, 200);
});

test('a HEAD with more of a body than the application takes has no response for ever, and its reset is seen', async (t) => {
  let connections = 0;
  const application = await startTcpServer(t, (socket) => {
    connections++;
    socket.pause();
  });
  const stage = await startHttpInbound(t, application.address, { http: { responseTimeout: '2s' } });
  const client = await startClient(t, stage);

  const upload = client.request({ ':method': 'HEAD', ':path': '/' }, { endStream: false });
  upload.write(Buffer.alloc(7 << 20));

  // Of a stream whose response Node has ended in advance, and that is paused, it would not say that the client reset it.
  assert.equal((await answerOn(upload)).status, byTranslation(504, 413));
  const given = client.request({ ':method': 'HEAD', ':path': '/' }, { endStream: false });
  given.on('error', () => undefined);
  given.write(Buffer.alloc(7 << 20));
  await eventually(() => assert.equal(connections, 2));
  if (byTranslation(true, false)) given.close(CANCEL);
  const result = byTranslation('downstream_closed', 'too_large');
  await eventually(async () => assert.ok((await stage.sidecar.metric('scute_http_requests_total', { result })) > 0));
});

test('a field above ASCII reaches the application byte for byte, whenever the body comes', async (t) => {
  const application = await startRawApplication(t, (received) => (received.endsWith('0\r\n\r\n') ? OK : undefined));
  const stage = await startHttpInbound(t, application.address);
  const line = await startFrames(stage);

  line.send(headers(1, [...POST, ['x-name', 'caf\xe9']], END_HEADERS));
  await eventually(() => assert.match(application.received(), /x-name/));
  line.send(frame(DATA, END_STREAM, 1, Buffer.from('late')));
  await line.streamOver(1);
  line.send(headers(3, [...POST, ['x-name', 'caf\xe9']], END_HEADERS), frame(DATA, END_STREAM, 3, Buffer.from('at once')));
  await line.streamOver(3);

  assert.deepEqual(application.received().match(/x-name: .*/g), ['x-name: caf\xe9', 'x-name: caf\xe9']);
});

test('every cut of the bytes gives the same request', async (t) => {
  const application = await startRawApplication(t, ok);
  const stage = await startHttpInbound(t, application.address);
  const bytes = Buffer.concat([
    headers(1, [...POST, ['cookie', 'a=1'], ['cookie', 'b=2']], END_HEADERS),
    frame(DATA, 0, 1, Buffer.from('hel')),
    frame(DATA, 0, 1, Buffer.from('lo')),
    headers(1, [['last', 'one']]),
  ]);
  let first: string | undefined;
  let before = 0;
  await sendInTwo(stage, bytes, (cut) => {
    const seen = dechunked(application.received().slice(before));
    before = application.received().length;
    first ??= seen;
    assert.equal(seen, first, `cut at ${cut}`);
  });
  assert.match(first ?? '', /cookie: a=1; b=2\r\n[\s\S]*\r\n\r\nhello0\r\nlast: one\r\n\r\n$/);
});

/** DATA frames may be joined, or not. */
function dechunked(request: string): string {
  const [head = '', ...rest] = request.split('\r\n\r\n');
  return `${head}\r\n\r\n${rest.join('\r\n\r\n').replace(/[1-9a-f][0-9a-f]*\r\n([a-z]+)\r\n/g, '$1')}`;
}

test('a client at its limit may cancel all of its streams and open as many in one moment', async (t) => {
  const application = await startRawApplication(t, () => undefined);
  const stage = await startHttpInbound(t, application.address, { http: { maxConcurrentStreams: 150 } });
  const all = (first: number): Buffer => repeat(150, (index) => headers(first + index * 2, GET));
  const line = await startFrames(stage, all(1));
  await eventually(() => assert.equal(application.connections(), 150));
  const cancelled = repeat(150, (index) => frame(RST_STREAM, 0, 1 + index * 2, uint32(CANCEL)));
  line.send(cancelled, all(301), pingPong);
  await eventually(() => assert.ok(line.frames().some(({ type, flags }) => type === PING && flags === ACK)));

  // With http-proxy, Node refuses them, since it has not put the old ones away yet; the connection goes on.
  line.send(headers(601, GET), pingPong);
  await eventually(() => assert.equal(line.frames().filter(({ type, flags }) => type === PING && flags === ACK).length, 2));
  assert.equal(line.stream(301).reset, byTranslation(undefined, ENHANCE_YOUR_CALM));
  assert.equal(line.stream(601).reset, byTranslation(REFUSED_STREAM, undefined));
  assert.ok(!line.frames().some(({ type }) => type === GOAWAY));
});
