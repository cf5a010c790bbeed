/** An application is not trusted with the edges of messages: what it says may harm its own answer, and nobody else's. */
import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import type { InboundStage } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { send, startHttpInbound } from '../../support/http/http-stage.ts';
import type { LogLine } from '../../support/sidecar.ts';
import { closed, startTcpServer } from '../../support/tcp.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';

const GET = 'GET /bad HTTP/1.1\r\nHost: a\r\n\r\n';
const GOOD = 'GET /good HTTP/1.1\r\nHost: a\r\n\r\n';
const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood';
const CHUNKED = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n';

interface Application {
  readonly address: string;
  readonly connections: () => number;
}

/** An application that answers requests for `/good`, and does what it is told to do at any other. */
async function startApplication(t: TestContext, misbehave: (socket: Socket, received: string) => void): Promise<Application> {
  let connections = 0;
  const { address } = await startTcpServer(t, (socket) => {
    connections++;
    let received = '';
    socket.on('data', (chunk: Buffer) => {
      received += chunk.toString('latin1');
      if (!received.includes('\r\n\r\n')) return;
      const asked = received;
      received = '';
      if (asked.startsWith('GET /good ')) socket.write(OK);
      else misbehave(socket, asked);
    });
    socket.on('end', () => socket.end());
  });
  return { address, connections: () => connections };
}

/** Another client is served before and after. */
async function withBystander(stage: InboundStage, meanwhile: () => Promise<void>): Promise<void> {
  const bystander = await send(stage, GOOD);
  await bystander.until('good');
  await meanwhile();
  bystander.socket.write(GOOD);
  await bystander.until(/good[\s\S]*good$/);
}

/** What became of the one request for anything but `/good`: its log line, and that the metric counts it. */
async function fateOf(stage: InboundStage, path = '/bad'): Promise<LogLine> {
  const line = await eventually(() => {
    const found = stage.sidecar.log().find((each) => each.message === 'request finished' && each['path'] === path);
    assert.ok(found !== undefined);
    return found;
  });
  const labels = { status: String(line['status']), result: String(line['result']) };
  assert.ok((await stage.sidecar.metric('scute_http_requests_total', labels)) > 0);
  return line;
}

const NONSENSE: Readonly<Record<string, string>> = {
  'bytes of any kind': Buffer.from(Array.from({ length: 256 }, (_, byte) => byte)).toString('latin1'),
  'a TLS alert': '\x15\x03\x01\x00\x02\x02\x28\r\n\r\n',
  HTML: '<html>\r\n\r\n</html>',
  'HTTP/0.9': 'hello\r\n\r\n',
  'HTTP/2': '\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64\0\x04\0\x10\0\0\0\x06\0\0\x40\0\r\n\r\n',
  'HTTP/2 in text': 'HTTP/2.0 200 OK\r\n\r\n',
  'HTTP/1.2': 'HTTP/1.2 200 OK\r\n\r\n',
  'a version in lower case': 'http/1.1 200 OK\r\n\r\n',
  'no space after the version': 'HTTP/1.1200 OK\r\n\r\n',
  'two spaces after the version': 'HTTP/1.1  200 OK\r\n\r\n',
  'no space after the status': 'HTTP/1.1 200OK\r\n\r\n',
  'a status of two digits': 'HTTP/1.1 99 OK\r\n\r\n',
  'a status of four digits': 'HTTP/1.1 2000 OK\r\n\r\n',
  'a status of 600': 'HTTP/1.1 600 OK\r\n\r\n',
  'a status of letters': 'HTTP/1.1 abc OK\r\n\r\n',
  'a line end before the head': '\r\nHTTP/1.1 200 OK\r\n\r\n',
  'a request': GOOD,
  'a bare line feed': 'HTTP/1.1 200 OK\nContent-Length: 0\n\n',
  'a bare line feed in a value': 'HTTP/1.1 200 OK\r\nX: y\nSet-Cookie: a\r\n\r\n',
  'a bare carriage return in a value': 'HTTP/1.1 200 OK\r\nX: y\rSet-Cookie: a\r\n\r\n',
  'a NUL in a value': 'HTTP/1.1 200 OK\r\nX: y\0z\r\n\r\n',
  'a carriage return in the reason': 'HTTP/1.1 200 O\rK\r\n\r\n',
  'a NUL in the reason': 'HTTP/1.1 200 O\0K\r\n\r\n',
  'a fold': 'HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n',
  'a space before the colon': 'HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n',
  'a field without a name': 'HTTP/1.1 200 OK\r\n: y\r\n\r\n',
  'a field without a colon': 'HTTP/1.1 200 OK\r\nX\r\n\r\n',
  'two lengths': 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 4\r\n\r\n',
  'a list of lengths': 'HTTP/1.1 200 OK\r\nContent-Length: 4, 5\r\n\r\ngood',
  'a list with nothing in it': 'HTTP/1.1 200 OK\r\nContent-Length: 4,\r\n\r\ngood',
  'a list of nothing': 'HTTP/1.1 200 OK\r\nContent-Length: ,\r\n\r\n',
  'a list of one length in two ways': 'HTTP/1.1 200 OK\r\nContent-Length: 4, +4\r\n\r\ngood',
  'a list of lengths and another length': 'HTTP/1.1 200 OK\r\nContent-Length: 4, 4\r\nContent-Length: 5\r\n\r\ngood',
  'a list that is too long': `HTTP/1.1 200 OK\r\nContent-Length: ${'4,'.repeat(64)}4\r\n\r\ngood`,
  'a negative length': 'HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n',
  'a hexadecimal length': 'HTTP/1.1 200 OK\r\nContent-Length: 0x4\r\n\r\ngood',
  'a length without digits': 'HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n',
  'a length beyond numbers': 'HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551620\r\n\r\ngood',
  'both framings': 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
  'another coding': 'HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n',
  'identity as a coding': 'HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n',
  'two codings': 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
  'chunks of HTTP/1.0': 'HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
  'another coding of a 204': 'HTTP/1.1 204 No Content\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n',
  'chunks and a length of a 304': 'HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n',
  'chunks of a 103': 'HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
  'a body of a 103': 'HTTP/1.1 103 Early Hints\r\nContent-Length: 4\r\n\r\ngood',
  'a body of a 204': 'HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\ngood',
  'an interim response that is the last': 'HTTP/1.1 103 Early Hints\r\nConnection: close\r\n\r\n',
  'an interim response of HTTP/1.0': 'HTTP/1.0 100 Continue\r\n\r\n',
  'a 101 that nobody asked for': 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n',
  'a head that is too long': `HTTP/1.1 200 OK\r\n${`X: ${'y'.repeat(1000)}\r\n`.repeat(40)}\r\n`,
  'a head with too many fields': `HTTP/1.1 200 OK\r\n${'X: y\r\n'.repeat(1001)}\r\n`,
  'a bad head after an interim one': 'HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\nX: y\r\n\r\n',
};

test('an application that answers nonsense is answered for, with 502, and hears no second request on that connection', async (t) => {
  let said = '';
  const application = await startApplication(t, (socket) => socket.write(Buffer.from(said, 'latin1')));
  const stage = await startHttpInbound(t, application.address, { http: { upstreamIdleTimeout: 'off' } });

  await withBystander(stage, async () => {
    for (const [index, [name, bytes]] of Object.entries(NONSENSE).entries()) {
      said = bytes;
      const line = await send(stage, `GET /${index} HTTP/1.1\r\nHost: a\r\n\r\n${GOOD}`);
      const { text, error } = await line.over();

      assert.match(text, /^(?:HTTP\/1\.1 103 Early Hints\r\n\r\n)?HTTP\/1\.1 502 Bad Gateway\r\n/, name);
      assert.ok(!text.includes('good'), name);
      assert.equal(error, undefined, name);
      const { status, result, detail } = await fateOf(stage, `/${index}`);
      assert.deepEqual([status, result], [502, 'upstream_failed'], name);
      assert.match(String(detail), /^the application gave a response that is not valid: /, name);
    }
  });
  assert.equal(application.connections(), Object.keys(NONSENSE).length + 1);
});

const BROKEN_BODIES: Readonly<Record<string, readonly [said: string, detail: RegExp]>> = {
  'a size that is none': [`${CHUNKED}4\r\ngood\r\nx\r\n`, /malformed chunked body/],
  'a negative size': [`${CHUNKED}-4\r\ngood\r\n`, /malformed chunked body/],
  'a size of 0x': [`${CHUNKED}0x4\r\ngood\r\n`, /malformed chunked body/],
  'a size beyond numbers': [`${CHUNKED}ffffffffffffffff4\r\ngood`, /malformed chunked body/],
  'a chunk that is longer than it says': [`${CHUNKED}3\r\ngood\r\n0\r\n\r\n`, /malformed chunked body/],
  'a chunk that is shorter than it says': [`${CHUNKED}5\r\ngood\r\n0\r\n\r\n`, /malformed chunked body/],
  'a bare line feed after a size': [`${CHUNKED}4\ngood\r\n0\r\n\r\n`, /malformed chunked body/],
  'a quoted extension': [`${CHUNKED}4;a="\r\ngood\r\n0\r\n\r\n`, /malformed chunked body/],
  'a long extension': [`${CHUNKED}4;${'x'.repeat(5000)}`, /malformed chunked body/],
  'many short extensions': [`${CHUNKED}${`1;${'x'.repeat(100)}\r\ny\r\n`.repeat(50)}0\r\n\r\n`, /malformed chunked body/],
  'a malformed trailer': [`${CHUNKED}0\r\nX : y\r\n\r\n`, /malformed trailers/],
  'a trailer with a bare line feed': [`${CHUNKED}0\r\nX: y\nZ: z\r\n\r\n`, /malformed trailers/],
  'a length for a trailer': [`${CHUNKED}4\r\ngood\r\n0\r\nContent-Length: 9\r\n\r\n`, /malformed trailers/],
  'a coding for a trailer': [`${CHUNKED}4\r\ngood\r\n0\r\ntransfer-encoding: chunked\r\n\r\n`, /malformed trailers/],
  'an end of the connection for a trailer': [`${CHUNKED}4\r\ngood\r\n0\r\nConnection: close\r\n\r\n`, /malformed trailers/],
  'trailers that are too long': [`${CHUNKED}0\r\n${`X: ${'y'.repeat(1000)}\r\n`.repeat(40)}\r\n`, /malformed trailers/],
  'too many trailers': [`${CHUNKED}0\r\n${'X: y\r\n'.repeat(1001)}\r\n`, /malformed trailers/],
};

test('a response that loses its frame is ended by a reset, never so that it looks whole', async (t) => {
  let said = '';
  const application = await startApplication(t, (socket) => socket.write(Buffer.from(said, 'latin1')));
  const stage = await startHttpInbound(t, application.address);

  await withBystander(stage, async () => {
    for (const [index, [name, [bytes, reason]]] of Object.entries(BROKEN_BODIES).entries()) {
      said = bytes;
      const line = await send(stage, `GET /${index} HTTP/1.1\r\nHost: a\r\n\r\n${GOOD}`);
      const { text, error } = await line.over();

      assert.ok(bytes.startsWith(text) && text !== bytes, name);
      assert.equal(error, 'ECONNRESET', name);
      const { status, result, detail } = await fateOf(stage, `/${index}`);
      assert.deepEqual([status, result], [200, 'upstream_failed'], name);
      assert.match(String(detail), reason, name);
      const closed = await stage.sidecar.connection(({ detail: why }) => why === detail);
      assert.equal(closed['close_reason'], 'upstream_reset', name);
    }
  });
});

const TOO_MUCH: Readonly<Record<string, readonly [method: string, response: string, more: string]>> = {
  'a second response': ['GET', OK, OK.replace('good', 'evil')],
  'a body after HEAD': ['HEAD', 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n', 'evil'],
  'chunks after HEAD': ['HEAD', CHUNKED, '4\r\nevil\r\n0\r\n\r\n'],
  'a body of a 204': ['GET', 'HTTP/1.1 204 No Content\r\n\r\n', 'evil'],
  'a body of a 204 that says that it has none': ['GET', 'HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n', 'evil'],
  'a body of a 304': ['GET', 'HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n', 'evil'],
  'more than the length': ['GET', OK, 'evil'],
  'more after the last chunk': ['GET', `${CHUNKED}4\r\ngood\r\n0\r\n\r\n`, '4\r\nevil\r\n0\r\n\r\n'],
  'more after an empty body': ['GET', 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n', OK.replace('good', 'evil')],
  'an interim response after the final one': ['GET', OK, 'HTTP/1.1 103 Early Hints\r\nX: evil\r\n\r\n'],
};

test('what an application says beyond its response is never taken for the answer to the next request, whenever it comes', async (t) => {
  let misbehave: (socket: Socket) => void = () => undefined;
  const application = await startApplication(t, (socket) => misbehave(socket));
  const stage = await startHttpInbound(t, application.address);

  await withBystander(stage, async () => {
    for (const [name, [method, response, more]] of Object.entries(TOO_MUCH)) {
      for (const isLate of [false, true]) {
        const { promise: asked, resolve } = Promise.withResolvers<Socket>();
        misbehave = resolve;
        const line = await send(stage, `${method} /bad HTTP/1.1\r\nHost: a\r\n\r\n`);
        const socket = await asked;
        socket.write(isLate ? response : response + more);
        await line.until(response);
        if (isLate) socket.write(more);
        // Nothing more is taken from that connection.
        assert.ok(['ECONNRESET', 'EPIPE'].includes(String(await closed(socket))), name);

        line.socket.write(GOOD);
        await line.until(response + OK);
        assert.equal(line.text(), response + OK, name);
        line.socket.end();
        await line.over();
      }
    }
  });
  const lines = stage.sidecar.log().filter(({ message }) => message === 'request finished');
  assert.equal(lines.length, 4 * Object.keys(TOO_MUCH).length + 2);
  assert.ok(lines.every(({ result }) => result === 'forwarded'));
});

test('interim responses without end are cut off by the time for the response', async (t) => {
  const some = 'HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n'.repeat(100);
  const application = await startApplication(t, (socket) => {
    // One piece a turn, so that everybody has a turn.
    const more = (): void => {
      if (!socket.destroyed) socket.write(some, () => setImmediate(more));
    };
    more();
  });
  const stage = await startHttpInbound(t, application.address, { http: { responseTimeout: '500ms' } });

  await withBystander(stage, async () => {
    const { text } = await (await send(stage, GET)).over();
    assert.match(text, /^(?:HTTP\/1\.1 103 Early Hints\r\nLink: [^\r]*\r\n\r\n)+HTTP\/1\.1 504 Gateway Timeout\r\n/);
  });
  const { status, result } = await fateOf(stage);
  assert.deepEqual([status, result], [504, 'upstream_timeout']);
});

for (const [name, drop] of Object.entries({
  'a byte a second of a head': (second: number) =>
    'HTTP/1.1 200 OK\r\nX: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy'[second],
  'an interim response a second': () => 'HTTP/1.1 102 Processing\r\n\r\n',
  nothing: () => '',
})) {
  test(`an application that says ${name} is answered for when its time is over`, async (t) => {
    const clock = new FakeClock();
    const { promise: asked, resolve } = Promise.withResolvers<Socket>();
    const application = await startApplication(t, resolve);
    const stage = await startHttpInbound(t, application.address, { sidecar: { clock } });

    await withBystander(stage, async () => {
      const line = await send(stage, GET);
      const socket = await asked;
      const before = await stage.sidecar.metric('scute_tcp_read_bytes_total', { peer: 'dst' });
      let said = 0;
      for (let second = 0; second < 60; second++) {
        const text = drop(second) ?? '';
        said += text.length;
        socket.write(text);
        await eventually(async () =>
          assert.equal(await stage.sidecar.metric('scute_tcp_read_bytes_total', { peer: 'dst' }), before + said),
        );
        assert.equal(line.socket.closed, false);
        clock.advance(1000);
      }
      assert.match((await line.over()).text, /HTTP\/1\.1 504 Gateway Timeout\r\n/);
    });
    const { status, result, detail } = await fateOf(stage);
    assert.deepEqual([status, result, detail], [504, 'upstream_timeout', 'the application did not answer in time']);
  });
}

for (const [name, end] of Object.entries({
  'closes at once': (socket: Socket) => socket.end(),
  'resets at once': (socket: Socket) => socket.resetAndDestroy(),
  'closes within its head': (socket: Socket) => socket.end('HTTP/1.1 200 OK\r\nContent-'),
  'closes after an interim response': (socket: Socket) => socket.end('HTTP/1.1 103 Early Hints\r\n\r\n'),
})) {
  test(`an application that ${name} is answered for with 502`, async (t) => {
    const application = await startApplication(t, end);
    const stage = await startHttpInbound(t, application.address);

    await withBystander(stage, async () => {
      const { text, error } = await (await send(stage, GET + GOOD)).over();
      assert.match(text, /^(?:HTTP\/1\.1 103 Early Hints\r\n\r\n)?HTTP\/1\.1 502 Bad Gateway\r\n/);
      assert.equal(error, undefined);
    });
    const { status, result, detail } = await fateOf(stage);
    assert.deepEqual([status, result], [502, 'upstream_failed']);
    assert.match(String(detail), /^the application (?:closed|broke) the connection/);
  });
}

for (const [name, said] of Object.entries({
  'a body of known length': 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf',
  chunks: `${CHUNKED}4\r\nhalf\r\n`,
  'the last chunk': `${CHUNKED}4\r\nhalf\r\n0\r\n`,
  trailers: `${CHUNKED}4\r\nhalf\r\n0\r\nX: y\r\n`,
})) {
  for (const how of ['closes', 'resets'] as const) {
    test(`an application that ${how} within ${name} leaves the caller a reset`, async (t) => {
      const { promise: asked, resolve } = Promise.withResolvers<Socket>();
      const application = await startApplication(t, resolve);
      const stage = await startHttpInbound(t, application.address);

      await withBystander(stage, async () => {
        const line = await send(stage, GET + GOOD);
        const socket = await asked;
        socket.write(said);
        await line.until(/half|0\r\n$/);
        if (how === 'closes') socket.end();
        else socket.resetAndDestroy();
        const { text, error } = await line.over();
        assert.ok(said.startsWith(text), text);
        assert.equal(error, 'ECONNRESET');
      });
      const { status, result } = await fateOf(stage);
      assert.deepEqual([status, result], [200, 'upstream_failed']);
      assert.equal((await stage.sidecar.connection(({ close_reason }) => close_reason !== 'finished'))['close_reason'], 'upstream_reset');
    });
  }
}

const UPLOAD = 'POST /bad HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n';

test('an application that answers before the whole request, and reads the rest, goes on', async (t) => {
  const { promise: asked, resolve } = Promise.withResolvers<Socket>();
  const application = await startApplication(t, resolve);
  const stage = await startHttpInbound(t, application.address);

  await withBystander(stage, async () => {
    const line = await send(stage, `${UPLOAD}half`);
    const socket = await asked;
    socket.write(OK);
    await line.until(OK);
    line.socket.write('rest');
    await eventually(() => assert.equal(stage.sidecar.log().filter(({ path }) => path === '/bad').length, 1));
    line.socket.end();
    assert.equal((await line.over()).text, OK);
  });
  const { status, result } = await fateOf(stage);
  assert.deepEqual([status, result], [200, 'forwarded']);
});

for (const what of ['reads no more', 'reads on in the end'] as const) {
  test(`an application that answers an upload, and ${what}, holds up the next request no longer than it may take to answer`, async (t) => {
    const length = 480 * 1024;
    let taken = 0;
    const { promise: asked, resolve } = Promise.withResolvers<Socket>();
    // The buffers of a Unix socket are small.
    const path = join(await temporaryFolder(t), 'application');
    const application = await startTcpServer(
      t,
      (socket) => {
        socket.on('data', (chunk: Buffer) => {
          taken += chunk.length;
          if (chunk.includes('GET /next')) socket.write(OK);
        });
        socket.once('data', () => {
          socket.pause();
          socket.write(OK);
          resolve(socket);
        });
      },
      path,
    );
    const responseTimeout = what === 'reads no more' ? '200ms' : '30s';
    const stage = await startHttpInbound(t, application.address, { http: { responseTimeout } });
    const line = await send(stage, `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${length}\r\n\r\n`);
    const socket = await asked;
    await line.until(OK);
    line.socket.write(Buffer.alloc(length - 10));
    await eventually(async () => assert.ok((await stage.sidecar.metric('scute_tcp_read_bytes_total', { peer: 'src' })) > length - 10));
    line.socket.write(Buffer.alloc(10));
    await eventually(() => assert.equal(stage.sidecar.log().filter(({ method }) => method === 'POST').length, 1));

    line.socket.write('GET /next HTTP/1.1\r\nHost: a\r\n\r\n');

    if (what === 'reads no more') await line.until('504');
    else {
      socket.resume();
      await line.until(OK + OK);
      assert.ok(taken > length);
    }
  });
}

for (const how of ['closes', 'resets'] as const) {
  test(`an application that answers before the whole request and ${how} ends the connection with its answer`, async (t) => {
    const { promise: asked, resolve } = Promise.withResolvers<Socket>();
    const application = await startApplication(t, resolve);
    const stage = await startHttpInbound(t, application.address);

    await withBystander(stage, async () => {
      const line = await send(stage, `${UPLOAD}half`);
      const socket = await asked;
      socket.write(OK);
      await line.until(OK);
      // Neither a second request nor a second answer comes of what follows.
      line.socket.prependListener('end', () => line.socket.write(`rest${GOOD}`));
      if (how === 'closes') socket.end();
      else socket.resetAndDestroy();
      const { text, error } = await line.over();
      assert.equal(text, OK);
      assert.equal(error, undefined);
    });
    const { status, result } = await fateOf(stage);
    assert.deepEqual([status, result], [200, 'forwarded']);
    assert.equal(application.connections(), 2);
  });
}
