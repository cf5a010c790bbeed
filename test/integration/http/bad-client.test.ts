/** A client may be slow, endless or gone: it is cut off within the limits of the configuration, and nobody else notices. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { InboundStage } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { send, startHttpApplication, startHttpInbound, startRawApplication, wire } from '../../support/http/http-stage.ts';
import type { LogLine } from '../../support/sidecar.ts';
import { closed, dial } from '../../support/tcp.ts';

const GET = 'GET /good HTTP/1.1\r\nHost: a\r\n\r\n';
const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood';
const CHUNKED = 'POST /bad HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n';

const good = (received: string): string | undefined => (received.endsWith('\r\n\r\n') && received.startsWith('GET') ? OK : undefined);

/** Another client is served before, in between, and after. */
async function startBystander(stage: InboundStage): Promise<() => Promise<void>> {
  const line = await send(stage, GET);
  await line.until('good');
  let answers = 1;
  return async () => {
    line.socket.write(GET);
    answers++;
    await eventually(() => assert.equal(line.text(), OK.repeat(answers)));
  };
}

/** The lines of all requests but the bystander's. */
function fates(stage: InboundStage): readonly LogLine[] {
  return stage.sidecar.log().filter((line) => line.message === 'request finished' && line['path'] !== '/good');
}

const DRIBBLES: Readonly<Record<string, readonly [first: string, drop: string, detail: string]>> = {
  'a head': ['GET /bad HTTP/1.1\r\nHost: a\r\nX: ', 'y', 'the head took too long'],
  'a request line': ['GET /', 'y', 'the head took too long'],
  'the fields of a head': ['GET /bad HTTP/1.1\r\nHost: a\r\n', 'X: y\r\n', 'the head took too long'],
  trailers: [`${CHUNKED}0\r\nX: `, 'y', 'the trailers took too long'],
  'a body': ['POST /bad HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n', 'y', 'the body came too slowly'],
  chunks: [CHUNKED, '1\r\ny\r\n', 'the body came too slowly'],
  'the size of a chunk': [CHUNKED, '0', 'the body came too slowly'],
  'the extension of a chunk': [`${CHUNKED}5;`, 'y', 'the body came too slowly'],
  'a body that it was asked for': [
    'POST /bad HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n',
    'y',
    'the body came too slowly',
  ],
};

for (const [name, [first, drop, detail]] of Object.entries(DRIBBLES)) {
  test(`clients that say a little of ${name} each second are answered 408 when their time is over`, async (t) => {
    const clock = new FakeClock();
    const application = await startRawApplication(t, good);
    const stage = await startHttpInbound(t, application.address, { sidecar: { clock } });
    const bystand = await startBystander(stage);
    const read = (): Promise<number> => stage.sidecar.metric('scute_tcp_read_bytes_total', { peer: 'src' });

    const before = await read();
    const slow = await Promise.all(Array.from({ length: 20 }, () => send(stage, first)));
    await eventually(async () => assert.equal(await read(), before + slow.length * first.length));
    for (let second = 1; second <= 10; second++) {
      const soFar = await read();
      for (const { socket } of slow) socket.write(drop);
      await eventually(async () => assert.equal(await read(), soFar + slow.length * drop.length));
      clock.advance(1000);
      if (fates(stage).length > 0) break;
      await bystand();
    }

    for (const each of slow)
      assert.match((await each.over()).text, /^(?:HTTP\/1\.1 100 Continue\r\n\r\n)?HTTP\/1\.1 408 Request Timeout\r\n/);
    assert.deepEqual(
      fates(stage).map((line) => [line['status'], line['result'], line['detail']]),
      slow.map(() => [408, 'timeout', detail]),
    );
    assert.equal(await stage.sidecar.metric('scute_http_requests_total', { status: '408', result: 'timeout' }), slow.length);
    await bystand();
  });
}

const ENDLESS: Readonly<Record<string, readonly [first: string, more: string, status: number, result: string]>> = {
  'a request line': ['GET /', 'y'.repeat(1000), 431, 'head_too_large'],
  'a field': ['GET /bad HTTP/1.1\r\nHost: a\r\nX: ', 'y'.repeat(1000), 431, 'head_too_large'],
  fields: ['GET /bad HTTP/1.1\r\nHost: a\r\n', 'X: y\r\n'.repeat(200), 431, 'head_too_large'],
  'a trailer': [`${CHUNKED}0\r\nX: `, 'y'.repeat(1000), 431, 'head_too_large'],
  trailers: [`${CHUNKED}0\r\n`, 'X: y\r\n'.repeat(200), 431, 'head_too_large'],
  'the extension of a chunk': [`${CHUNKED}5;`, 'y'.repeat(1000), 400, 'bad_request'],
  'extensions of chunks': [CHUNKED, `1;${'x'.repeat(50)}\r\ny\r\n`.repeat(20), 400, 'bad_request'],
  'the size of a chunk': [CHUNKED, '0'.repeat(1000), 400, 'bad_request'],
  'small chunks': [CHUNKED, `64\r\n${'y'.repeat(100)}\r\n`.repeat(10), 413, 'too_large'],
  'a large chunk': [`${CHUNKED}fffff\r\n`, 'y'.repeat(1000), 413, 'too_large'],
};

for (const [name, [first, more, status, result]] of Object.entries(ENDLESS)) {
  test(`${name} without end is refused at the limit, and no more of it is read than that`, async (t) => {
    const application = await startRawApplication(t, good);
    const stage = await startHttpInbound(t, application.address, { http: { maxHeadBytes: 16_384, maxBodyBytes: 100_000 } });
    const bystand = await startBystander(stage);

    const line = await send(stage, first);
    const flood = (): void => {
      if (!line.socket.destroyed && !line.socket.writableEnded) line.socket.write(more, () => setImmediate(flood));
    };
    flood();
    await line.until(/\n$/);
    await bystand();
    line.socket.end();
    const { text } = await line.over();

    assert.equal(Number(/^HTTP\/1\.1 (\d+) /.exec(text)?.[1]), status);
    assert.deepEqual(
      fates(stage).map((each) => [each['status'], each['result']]),
      [[status, result]],
    );
    assert.equal(await stage.sidecar.metric('scute_http_requests_total', { status: String(status), result }), 1);
    // What is thrown away is not counted.
    assert.ok(Number(fates(stage)[0]?.['bytes_from_downstream']) <= 110_000);
    assert.ok(application.received().length < 120_000);
    await bystand();
  });
}

test('a client that does not read its refusal is cut off', async (t) => {
  const clock = new FakeClock();
  const application = await startRawApplication(t, good);
  const stage = await startHttpInbound(t, application.address, { sidecar: { clock } });
  const bystand = await startBystander(stage);

  const socket = await stage.connect();
  socket.pause();
  socket.write('GET / HTTP/1.1\r\n\r\n');
  await eventually(() => assert.equal(fates(stage).length, 1));
  // What it goes on to say keeps it no longer.
  socket.write(GET.repeat(1000));
  await bystand();
  assert.ok(!stage.sidecar.log().some(({ message }) => message === 'connection closed'));
  clock.advance(5000);

  await stage.sidecar.connection();
  assert.equal(application.received().match(/GET /g)?.length, 2);
  await bystand();
});

test('a client that asks and asks, and reads nothing, is not read from either, and gets everything in the end', async (t) => {
  const application = await startHttpApplication(t, (request, response) => response.end(request.url?.slice(0, 10).padEnd(20_000, '.')));
  const stage = await startHttpInbound(t, application.address);
  const count = 3000;
  const read = (): Promise<number> => stage.sidecar.metric('scute_tcp_read_bytes_total', { peer: 'src' });

  const socket = await stage.connect();
  socket.pause();
  for (let index = 0; index < count; index++) {
    const end = index === count - 1 ? 'Connection: close\r\n' : '';
    socket.write(`GET /${index};${'x'.repeat(12_000)} HTTP/1.1\r\nHost: a\r\n${end}\r\n`);
  }
  let last = -1;
  await eventually(async () => {
    const now = await read();
    const isStill = now > 0 && now === last;
    last = now;
    assert.ok(isStill, `${now} bytes, and more`);
  });
  assert.ok(last < 16 * 1024 * 1024, `${last} bytes were taken`);

  const line = wire(socket);
  socket.resume();
  const { text, error } = await line.over();
  assert.equal(error, undefined);
  assert.deepEqual(
    [...text.matchAll(/\r\n\r\n\/(\d+);/g)].map(([, index]) => Number(index)),
    Array.from({ length: count }, (_, index) => index),
  );
});

test('two hundred thousand chunks of one byte pass, and others are served meanwhile', async (t) => {
  let bytes = 0;
  const application = await startHttpApplication(t, (request, response) => {
    request.on('data', (chunk: Buffer) => (bytes += chunk.length));
    request.on('end', () => response.end('good'));
  });
  const stage = await startHttpInbound(t, application.address);
  const line = await send(stage, CHUNKED);
  const other = await send(stage, GET);

  let served = 0;
  for (let part = 0; part < 20; part++) {
    line.socket.write('1\r\ny\r\n'.repeat(10_000));
    other.socket.write(GET);
    await eventually(() => assert.ok((other.text().match(/good/g)?.length ?? 0) > part));
    served++;
  }
  line.socket.write('0\r\n\r\n');

  await line.until('good');
  assert.equal(bytes, 200_000);
  assert.equal(served, 20);
});

const LEAVES: Readonly<Record<string, readonly [said: string, status: number, result: string | undefined]>> = {
  'before it says anything': ['', 0, undefined],
  'within a head': ['GET /bad HTTP/1.1\r\nHost:', 0, undefined],
  'within a body': ['POST /bad HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf', 0, 'downstream_closed'],
  'within chunks': [`${CHUNKED}5\r\nhel`, 0, 'downstream_closed'],
  'within trailers': [`${CHUNKED}0\r\nX: y`, 0, 'downstream_closed'],
  'while it waits': ['GET /bad HTTP/1.1\r\nHost: a\r\n\r\n', 0, 'downstream_closed'],
};

for (const [name, [said, status, result]] of Object.entries(LEAVES)) {
  test(`a client that breaks off ${name} takes nobody with it but its own request`, async (t) => {
    const { promise: broken, resolve } = Promise.withResolvers<string | undefined>();
    const application = await startRawApplication(t, (received, socket) => {
      if (!received.includes(' /bad ')) return good(received);
      resolve(closed(socket));
      return undefined;
    });
    const stage = await startHttpInbound(t, application.address);
    const bystand = await startBystander(stage);
    const read = (): Promise<number> => stage.sidecar.metric('scute_tcp_read_bytes_total', { peer: 'src' });

    const before = await read();
    const below = await dial(t, stage.address);
    const line = wire(await stage.connect({ socket: below }));
    line.socket.write(said);
    await eventually(async () => assert.equal(await read(), before + said.length));
    if (result !== undefined) await eventually(() => assert.match(application.received(), / \/bad /));
    below.resetAndDestroy();

    const ended = await stage.sidecar.connection();
    assert.equal(ended['close_reason'], 'downstream_reset');
    assert.deepEqual(
      fates(stage).map((each) => [each['status'], each['result']]),
      result === undefined ? [] : [[status, result]],
    );
    // The application does not take the part for the whole.
    if (result !== undefined) assert.equal(await broken, 'ECONNRESET');
    await bystand();
  });
}

test('a client that does not read its response, and an application that does not read a request, are closed when nothing moves', async (t) => {
  const clock = new FakeClock();
  const application = await startHttpApplication(t, (request, response) => {
    if (request.method === 'POST') request.socket.pause();
    else response.end(Buffer.alloc(request.url === '/large' ? 64 * 1024 * 1024 : 4));
  });
  const stage = await startHttpInbound(t, application.address, { listener: { limits: { idleTimeout: '30s' } }, sidecar: { clock } });
  const moved = async (): Promise<number> =>
    (await stage.sidecar.metric('scute_tcp_write_bytes_total', { peer: 'src' })) +
    (await stage.sidecar.metric('scute_tcp_write_bytes_total', { peer: 'dst' }));

  const reader = await stage.connect();
  reader.pause();
  reader.write('GET /large HTTP/1.1\r\nHost: a\r\n\r\n');
  const writer = await stage.connect();
  writer.write('POST /large HTTP/1.1\r\nHost: a\r\nContent-Length: 67108864\r\n\r\n');
  writer.write(Buffer.alloc(64 * 1024 * 1024));
  let last = -1;
  await eventually(async () => {
    const now = await moved();
    const isStill = now > 2 * 1024 * 1024 && now === last;
    last = now;
    assert.ok(isStill, `${now} bytes, and more`);
  });
  for (let second = 0; second < 60; second++) clock.advance(1000);

  await eventually(() =>
    assert.deepEqual(
      stage.sidecar.log().flatMap((line) => (line.message === 'connection closed' ? [line['close_reason']] : [])),
      ['idle_timeout', 'idle_timeout'],
    ),
  );
  assert.deepEqual(
    fates(stage)
      .map(({ method, result }) => `${String(method)} ${String(result)}`)
      .toSorted(),
    ['GET dropped', 'POST dropped'],
  );
  reader.resume();
  assert.equal(await closed(reader), 'ECONNRESET');
  assert.equal(await closed(writer), 'ECONNRESET');
});
