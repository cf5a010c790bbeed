import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { ServerHttp2Stream } from 'node:http2';
import { join } from 'node:path';
import { test } from 'node:test';
import { API, presented, startExampleDomain, startPair } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { answerOk, startH2cApplication } from '../../support/http/h2c-application.ts';
import { h2cOutbound, startCaller, startH2cOutbound, startHttp2Server, startSplicedOut } from '../../support/http/h2c-outbound.ts';
import { wire } from '../../support/http/http-stage.ts';
import * as h2 from '../../support/http/http2-frames.ts';
import { ask } from '../../support/http/http.ts';
import { answerOn, request } from '../../support/http/http2-stage.ts';
import type { LogLine, Sidecar } from '../../support/sidecar.ts';
import { dial, freePort, startTcpServer } from '../../support/tcp.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { tlsServer } from '../../support/tls-peer.ts';

const GRPC = { ':method': 'POST', ':path': '/pkg.Service/Method', 'content-type': 'application/grpc' };

function requests(sidecar: Sidecar): readonly LogLine[] {
  return sidecar.log().filter(({ message }) => message === 'request finished');
}

test('requests of one application go over one connection of HTTP/2 to the server, which is opened for the first', async (t) => {
  const { sidecar, address, server } = await startSplicedOut(t, answerOk);
  const client = await startCaller(t, address);
  await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_open_connections'), 1));
  assert.equal(server.sessions.length, 0);

  const answers = await Promise.all(
    ['/one?q=secret', '/two'].map((path) =>
      request(client, {
        ':path': path,
        'x-forwarded-client-cert': 'URI=spiffe://example.org/admin',
        x_forwarded_client_cert: 'x',
        te: 'trailers',
      }),
    ),
  );

  assert.deepEqual(
    answers.map(({ status, body, reset }) => [status, body.toString(), reset]),
    [
      [200, 'ok', undefined],
      [200, 'ok', undefined],
    ],
  );
  assert.deepEqual([server.sessions.length, server.sessions[0]?.alpnProtocol], [1, 'h2']);
  // The scheme is that of the connection, and nobody is told who asks but by TLS.
  assert.deepEqual(server.heads, [
    [':method', 'GET', ':scheme', 'https', ':path', '/one?q=secret', ':authority', 'api:80', 'te', 'trailers'],
    [':method', 'GET', ':scheme', 'https', ':path', '/two', ':authority', 'api:80', 'te', 'trailers'],
  ]);
  assert.deepEqual(
    requests(sidecar).map((line) => ['path', 'http_version', 'status', 'result', 'verdict', 'rule', 'peer_id'].map((name) => line[name])),
    ['/one', '/two'].map((path) => [path, '2', 200, 'forwarded', 'allow', API, API]),
  );
  assert.equal(await sidecar.metric('scute_http_requests_total', { direction: 'outbound', status: '200', result: 'forwarded' }), 2);
  assert.equal(await sidecar.metric('scute_tls_handshakes_total', { result: 'ok' }), 1);
  client.close();
  const connection = await sidecar.connection();
  assert.deepEqual(
    ['alpn', 'close_reason', 'peer_id', 'verdict'].map((name) => connection[name]),
    ['h2', 'finished', API, 'allow'],
  );
});

test('through a sidecar on each side, streams pass both ways, with metadata and trailers, and the last one says who asks', async (t) => {
  const seen: unknown[] = [];
  const application = await startH2cApplication(t, (stream, headers) => {
    seen.push(headers['x-forwarded-client-cert']);
    stream.respond({ ':status': 200, 'content-type': 'application/grpc', 'key-bin': 'AAE' }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0', 'sum-bin': '/w' }));
    stream.pipe(stream);
  });
  const folder = await temporaryFolder(t);
  const { inbound, outbound, address } = await startPair(t, application.address, {
    inbound: h2cOutbound(),
    outbound: h2cOutbound({}, { listen: `unix://${join(folder, 'out.sock')}` }),
  });
  const client = await startCaller(t, address);
  const body = Buffer.alloc(2 * 1024 * 1024, 'the quick brown fox jumps over the lazy dog, ');

  // What is said is answered before the next is said.
  const talk = client.request({ ...GRPC, 'meta-bin': 'AAE' });
  const talked = answerOn(talk);
  let heard = '';
  talk.on('data', (chunk: Buffer) => (heard += chunk.toString()));
  for (const word of ['one', 'two', 'three']) {
    talk.write(word);
    await eventually(() => assert.ok(heard.endsWith(word)));
  }
  const others = await Promise.all(Array.from({ length: 8 }, () => request(client, GRPC, body)));
  talk.end();

  for (const answer of [await talked, ...others]) {
    assert.deepEqual(
      [answer.status, answer.headers['key-bin'], answer.trailers['grpc-status'], answer.trailers['sum-bin'], answer.reset],
      [200, 'AAE', '0', '/w', undefined],
    );
  }
  for (const { body: echoed } of others) assert.ok(echoed.equals(body));
  assert.equal(application.sessions.length, 1);
  for (const who of seen) assert.match(String(who), /^By=spiffe:\/\/example\.org\/api;Hash=[0-9a-f]{64};URI=spiffe:\/\/example\.org\/web$/);
  client.close();
  for (const sidecar of [inbound, outbound]) {
    const { alpn, close_reason } = await sidecar.connection();
    assert.deepEqual([alpn, close_reason], ['h2', 'finished']);
  }
});

test('a request that the server may not be asked is refused on its stream, and never sent; the others go on', async (t) => {
  const { sidecar, address, server } = await startSplicedOut(t, answerOk, {
    listener: { expect: [{ peer: API, methods: ['GET', 'POST'], paths: ['/public/**'] }] },
  });
  const client = await startCaller(t, address);

  const answers = await Promise.all([
    request(client, { ':path': '/private' }),
    request(client, { ':path': '/public/1' }),
    request(client, { ':method': 'POST', ':path': '/private' }, Buffer.alloc(200_000)),
    request(client, GRPC, Buffer.alloc(5)),
    request(client, { ':path': '/public/2' }),
  ]);

  assert.deepEqual(
    answers.map(({ status, reset }) => [status, reset]),
    [502, 200, 502, 200, 200].map((status) => [status, undefined]),
  );
  assert.equal(answers[0]?.body.toString(), `scute: not_allowed: ${API} may not be asked this\n`);
  // Nobody should repeat it.
  assert.deepEqual([answers[3]?.headers['grpc-status'], answers[3]?.body.length], ['7', 0]);
  assert.deepEqual(
    server.heads.map((head) => head[head.indexOf(':path') + 1]),
    ['/public/1', '/public/2'],
  );
  assert.equal(await sidecar.metric('scute_http_requests_total', { result: 'upstream_denied' }), 3);
});

test('a server that is not who it must be is sent nothing, and the application is told why, and that its connection ends', async (t) => {
  const spiffe = await startExampleDomain(t);
  const server = await startHttp2Server(t, spiffe, answerOk);
  const { sidecar, address } = await startH2cOutbound(t, server.address, { spiffe, listener: { expect: ['spiffe://example.org/db'] } });
  const client = await startCaller(t, address);
  const goaway = once(client, 'goaway');

  const [plain, grpc] = await Promise.all([request(client, { ':path': '/secret' }), request(client, GRPC, 'x')]);

  assert.deepEqual([plain.status, plain.body.toString()], [502, 'scute: the server is not who it must be: not_allowed\n']);
  assert.deepEqual(
    [grpc.status, grpc.headers['grpc-status'], grpc.headers['grpc-message']],
    [200, '14', 'scute: the server is not who it must be: not_allowed'],
  );
  assert.equal((await goaway)[0], h2.NO_ERROR);
  assert.deepEqual(server.heads, []);
  assert.deepEqual(
    requests(sidecar).map(({ status, result, verdict }) => [status, result, verdict]),
    [
      [502, 'upstream_denied', 'none'],
      [200, 'upstream_denied', 'none'],
    ],
  );
  const { close_reason, verdict } = await sidecar.connection();
  assert.deepEqual([close_reason, verdict], ['upstream_denied', 'deny']);
});

test('a server that speaks no HTTP/2, or is not there, is a 502 that says so', async (t) => {
  const spiffe = await startExampleDomain(t);
  const api = presented(await spiffe.issue(API));
  const heard: string[] = [];
  const hear = (socket: NodeJS.ReadableStream): unknown => socket.on('data', (chunk: Buffer) => heard.push(chunk.toString('latin1')));
  const silent = await startTcpServer(t, (socket) => socket.once('data', () => socket.resetAndDestroy()));
  const servers = {
    'the server does not speak HTTP/2': [
      (await tlsServer(t, api, hear, { ALPNProtocols: ['http/1.1'] })).address,
      // ALPN is not looked at.
      (await tlsServer(t, api, hear)).address,
    ],
    'the server cannot be reached': [`127.0.0.1:${await freePort()}`],
    'the server closed the connection within the TLS handshake: its sidecar may not be ready': [silent.address],
  };
  for (const [detail, addresses] of Object.entries(servers)) {
    for (const to of addresses) {
      const { address, sidecar } = await startH2cOutbound(t, to, { spiffe });
      const client = await startCaller(t, address);
      const { status, body } = await request(client, { ':path': '/' });
      assert.deepEqual([status, body.toString()], [502, `scute: ${detail}\n`]);
      assert.notEqual((await sidecar.connection())['close_reason'], 'finished');
    }
  }
  assert.deepEqual(heard, []);
});

test('a server that agrees to h2 and then speaks something else, or nothing, is a 502 or a 504', async (t) => {
  const spiffe = await startExampleDomain(t);
  const api = presented(await spiffe.issue(API));
  const http1 = await tlsServer(t, api, (socket) => socket.write('HTTP/1.1 200 OK\r\n\r\n'), { ALPNProtocols: ['h2'] });
  const silent = await tlsServer(t, api, (socket) => socket.resume(), { ALPNProtocols: ['h2'] });
  const gone = await tlsServer(t, api, (socket) => socket.end(), { ALPNProtocols: ['h2'] });
  for (const [to, status, detail] of [
    [http1.address, 502, 'the server does not speak HTTP/2'],
    [silent.address, 504, 'the server did not accept the connection in time'],
    [gone.address, 502, 'the server closed the connection without a word'],
  ] as const) {
    const { address } = await startH2cOutbound(t, to, { spiffe, listener: { limits: { connectTimeout: '200ms' } } });
    const client = await startCaller(t, address);
    const answer = await request(client, { ':path': '/' });
    assert.deepEqual([answer.status, answer.body.toString()], [status, `scute: ${detail}\n`]);
  }
});

test('an application that speaks something else than HTTP/2 is told so in plain words, and the server is not connected to', async (t) => {
  const { sidecar, address, server } = await startSplicedOut(t, answerOk);
  for (const first of ['GET / HTTP/1.1\r\nHost: api\r\n\r\n', 'PRI * HTTP/1.1\r\n\r\n', '\x16\x03\x01\x02\x00']) {
    const line = wire(await dial(t, address));
    // However it is cut.
    for (const byte of Buffer.from(first, 'latin1')) line.socket.write(Buffer.of(byte));
    const { text } = await line.over();
    assert.match(
      text,
      /^HTTP\/1\.1 400 Bad Request\r\n[^]*Connection: close\r\n\r\nscute: this listener is for applications that speak HTTP\/2 from the first byte on \(h2c\)\n$/,
    );
  }
  assert.equal(server.sessions.length, 0);
  assert.equal((await sidecar.connection())['close_reason'], 'protocol_error');
  assert.equal(await sidecar.metric('scute_http2_faults_total', { direction: 'outbound', peer: 'src', reason: 'preface' }), 3);
});

test('what an application says first is answered with SETTINGS first, whatever it is', async (t) => {
  const { address } = await startSplicedOut(t, answerOk);
  const line = h2.frameWire(await dial(t, address), h2.headers(1, h2.GET), h2.frame(h2.DATA, 0, 0));

  assert.equal(await line.over(), h2.PROTOCOL_ERROR);

  assert.deepEqual([line.frames()[0]?.type, line.frames()[0]?.flags], [h2.SETTINGS, 0]);
});

test('before the first SVID requests wait for it, on their streams, and go on when it comes, longer than an answer may take', async (t) => {
  const clock = new FakeClock();
  const spiffe = await startExampleDomain(t);
  await spiffe.withdraw('web');
  const server = await startHttp2Server(t, spiffe, answerOk);
  const { address, sidecar } = await startH2cOutbound(t, server.address, {
    spiffe,
    listener: { identityWait: '60s' },
    http: { responseTimeout: '5s' },
    sidecar: { unready: true, clock },
  });
  const client = await startCaller(t, address);
  const answers = [request(client, { ':path': '/early' }), request(client, { ...GRPC, ':path': '/early' }, Buffer.alloc(50_000))];
  await eventually(async () => assert.ok((await sidecar.metric('scute_tcp_read_bytes_total', { peer: 'src' })) > 50_000));
  clock.advance(10_000);

  await spiffe.restore('web');
  // Until the agent is asked again.
  await eventually(async () => {
    clock.advance(100);
    assert.equal(await sidecar.metric('scute_identity_waits_total', { result: 'came' }), 1);
  });

  for (const { status, body } of await Promise.all(answers)) assert.deepEqual([status, body.toString()], [200, 'ok']);
});

test('while there is no identity a request is a 503, for gRPC UNAVAILABLE, and says when to come again', async (t) => {
  const spiffe = await startExampleDomain(t);
  await spiffe.withdraw('web');
  const server = await startHttp2Server(t, spiffe, answerOk);
  const { address, sidecar } = await startH2cOutbound(t, server.address, {
    spiffe,
    listener: { identityWait: '0s' },
    sidecar: { unready: true },
  });

  const plain = await request(await startCaller(t, address), { ':path': '/' });
  const grpc = await request(await startCaller(t, address), GRPC, 'x');
  // All that are asked at once.
  const line = h2.frameWire(await dial(t, address), h2.headers(1, h2.GET), h2.headers(3, h2.GET), h2.headers(5, h2.GET));

  assert.deepEqual([plain.status, plain.headers['retry-after']], [503, '1']);
  assert.equal(plain.body.toString(), 'scute: there is no SVID to present yet\n');
  assert.equal(grpc.headers['grpc-status'], '14');
  assert.equal(await line.over(), h2.NO_ERROR);
  for (const stream of [1, 3, 5]) assert.deepEqual([line.stream(stream).status, line.stream(stream).ended], [503, true]);
  assert.equal((await sidecar.connection())['close_reason'], 'identity_withdrawn');
  assert.equal(await sidecar.metric('scute_http_requests_total', { result: 'identity_not_ready' }), 5);
  assert.deepEqual(server.heads, []);
});

/** Keeps streams until `release`. */
function holding(): {
  readonly serve: (stream: ServerHttp2Stream) => void;
  readonly held: ServerHttp2Stream[];
  readonly release: () => void;
} {
  const held: ServerHttp2Stream[] = [];
  return {
    held,
    serve: (stream) => void held.push(stream),
    release: () => {
      for (const stream of held.splice(0)) if (!stream.destroyed) answerOk(stream);
    },
  };
}

test('a server that says GOAWAY answers what it took; the application hears of it, and its next connection has another server', async (t) => {
  const { serve, held, release } = holding();
  const { sidecar, address, server } = await startSplicedOut(t, serve);
  const client = await startCaller(t, address);
  const goaway = once(client, 'goaway');
  const taken = [request(client, { ':path': '/1' }), request(client, GRPC, 'x')];
  await eventually(() => assert.equal(held.length, 2));

  server.sessions[0]?.goaway(h2.NO_ERROR);

  assert.equal((await goaway)[0], h2.NO_ERROR);
  const next = request(await startCaller(t, address), { ':path': '/next' });
  await eventually(() => assert.equal(held.length, 3));
  release();
  for (const { status, reset } of await Promise.all([...taken, next])) assert.deepEqual([status, reset], [200, undefined]);
  assert.equal(server.sessions.length, 2);
  assert.equal((await sidecar.connection())['close_reason'], 'finished');
});

test('what a server did not take is refused, so that the application may repeat it', async (t) => {
  const { serve, held, release } = holding();
  const { address, server } = await startSplicedOut(t, serve, { server: { settings: { maxConcurrentStreams: 1 } } });
  // The application does not wait to be told how many.
  const line = h2.frameWire(await dial(t, address), h2.headers(1, h2.GET), h2.headers(3, h2.GET));
  await eventually(() => assert.equal(held.length, 1));

  server.sessions[0]?.goaway(h2.NO_ERROR);

  assert.equal((await line.streamOver(3)).reset, h2.REFUSED_STREAM);
  release();
  assert.equal((await line.streamOver(1)).status, 200);
  assert.equal(await line.over(), h2.NO_ERROR);
  assert.equal(server.sessions.length, 1);
});

test('a server that closes while nothing is asked is connected to and judged anew for the next request', async (t) => {
  const { sidecar, address, server } = await startSplicedOut(t, answerOk);
  const client = await startCaller(t, address);
  for (let round = 1; round <= 4; round++) {
    assert.equal((await request(client, { ':path': '/' })).status, 200);
    assert.equal(server.sessions.length, round);
    const session = server.sessions[round - 1];
    if (round % 2 === 0) session?.destroy();
    else session?.close();
    await eventually(() => assert.equal(session?.destroyed, true));
    await eventually(async () => assert.equal(await sidecar.metric('scute_peer_connections'), 0));
  }
  assert.equal(await sidecar.metric('scute_tcp_open_total'), 1);
  assert.equal(await sidecar.metric('scute_tls_handshakes_total', { result: 'ok' }), 4);
});

test('a server that is lost under streams leaves a 502, or a stream that is reset, never one that looks whole', async (t) => {
  const { address, server } = await startSplicedOut(t, (stream, headers) => {
    if (headers[':path'] === '/begun') stream.respond({ ':status': 200 });
    if (headers[':path'] === '/begun') stream.write('part');
  });
  const client = await startCaller(t, address);
  const begun = client.request({ ':path': '/begun' });
  const answers = Promise.all([answerOn(begun), request(client, { ':path': '/asked' }), request(client, GRPC, 'x')]);
  await once(begun, 'data');
  await eventually(() => assert.equal(server.heads.length, 3));

  server.sessions[0]?.socket.destroy();

  const [cut, asked, grpc] = await answers;
  assert.deepEqual([cut.status, cut.body.toString(), cut.reset], [200, 'part', h2.INTERNAL_ERROR]);
  assert.equal(asked.status, 502);
  assert.equal(grpc.headers['grpc-status'], '14');
});

test('a server that a reload no longer accepts is asked nothing more: streams are cut, and between requests nobody sees an error', async (t) => {
  const { serve, held, release } = holding();
  const stage = await startSplicedOut(t, serve);
  const idle = await startCaller(t, stage.address);
  const first = request(idle, { ':path': '/' });
  await eventually(() => assert.equal(held.length, 1));
  release();
  await first;
  const busy = await startCaller(t, stage.address);
  const cut = request(busy, { ':path': '/busy' });
  await eventually(() => assert.equal(held.length, 1));

  await stage.sidecar.reload(stage.with({ expect: ['spiffe://example.org/other'] }));

  assert.notEqual((await cut).reset, undefined);
  assert.equal((await stage.sidecar.connection())['close_reason'], 'policy');
  await eventually(() => assert.ok(stage.sidecar.log().some(({ message }) => message === 'connection to the server ended')));
  const answer = await request(idle, { ':path': '/' });
  assert.deepEqual([answer.status, answer.body.toString()], [502, 'scute: the server is not who it must be: not_allowed\n']);
  assert.equal(stage.server.heads.length, 2);
});

test('a rule that is taken away cuts the streams that it had let begin, and the others go on', async (t) => {
  const { serve, held, release } = holding();
  const stage = await startSplicedOut(t, serve, { listener: { expect: [{ peer: API, paths: ['/a', '/b'] }] } });
  const client = await startCaller(t, stage.address);
  const answers = Promise.all([request(client, { ':path': '/a' }), request(client, { ':path': '/b' })]);
  await eventually(() => assert.equal(held.length, 2));

  await stage.sidecar.reload(stage.with({ expect: [{ peer: API, paths: ['/b'] }] }));
  await eventually(() => assert.equal(held.filter(({ closed }) => closed).length, 1));
  release();

  const [a, b] = await answers;
  assert.deepEqual([a.reset, b.status, b.reset], [h2.INTERNAL_ERROR, 200, undefined]);
});

test('a drain asks the application to go, lets its streams end, and then the connection does', async (t) => {
  const { serve, held, release } = holding();
  const { sidecar, address } = await startSplicedOut(t, serve);
  const client = await startCaller(t, address);
  const goaway = once(client, 'goaway');
  const answer = request(client, { ':path': '/' });
  await eventually(() => assert.equal(held.length, 1));

  const stopped = sidecar.stop(new AbortController().signal);
  await goaway;
  release();

  assert.deepEqual([(await answer).status, await stopped], [200, 0]);
});

test('an application whose connection is idle is let go of, and its server with it', async (t) => {
  const clock = new FakeClock();
  const { sidecar, address, server } = await startSplicedOut(t, answerOk, {
    listener: { limits: { idleTimeout: '10s' } },
    sidecar: { clock },
  });
  const client = await startCaller(t, address);
  assert.equal((await request(client, { ':path': '/' })).status, 200);

  for (let second = 0; second < 15; second++) clock.advance(1000);

  assert.equal((await sidecar.connection())['close_reason'], 'idle_timeout');
  await eventually(() => assert.ok(client.closed && server.sessions[0]?.destroyed === true));
});

test('a server that does not answer in time is a 504, for gRPC DEADLINE_EXCEEDED', async (t) => {
  const clock = new FakeClock();
  const { address, server } = await startSplicedOut(t, (stream) => stream.resume(), {
    http: { responseTimeout: '5s' },
    sidecar: { clock },
  });
  const client = await startCaller(t, address);
  const answers = Promise.all([request(client, { ':path': '/' }), request(client, GRPC, 'x')]);
  await eventually(() => assert.equal(server.heads.length, 2));

  clock.advance(6000);

  const [plain, grpc] = await answers;
  assert.deepEqual([plain.status, plain.body.toString()], [504, 'scute: the server did not answer in time\n']);
  assert.equal(grpc.headers['grpc-status'], '4');
});

test('a connection to a server that drains while nothing is asked is let go of, and the application hears nothing of it', async (t) => {
  const { sidecar, address, server } = await startSplicedOut(t, answerOk, { file: { admin: { listen: '127.0.0.1:0' } } });
  const admin = sidecar.app.addresses().get('admin');
  assert.ok(admin !== undefined);
  const client = await startCaller(t, address);
  let isAskedToGo = false;
  client.on('goaway', () => (isAskedToGo = true));
  assert.equal((await request(client, { ':path': '/' })).status, 200);

  const { status } = await ask(admin, '/drain', {
    method: 'POST',
    headers: [['content-type', 'application/json']],
    body: JSON.stringify({ peer: API }),
  });
  await eventually(() => assert.equal(server.sessions[0]?.destroyed, true));

  assert.equal(status, 200);
  assert.equal((await request(client, { ':path': '/' })).status, 200);
  assert.deepEqual([isAskedToGo, server.sessions.length], [false, 2]);
});
