import assert from 'node:assert/strict';
import { once } from 'node:events';
import { constants } from 'node:http2';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import { presented, startExampleDomain, WEB } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { fillBacklog } from '../../support/full-backlog.ts';
import {
  ACK,
  CANCEL,
  DATA,
  END_HEADERS,
  frame,
  GET,
  headers,
  NO_ERROR,
  PING,
  POST,
  PROTOCOL_ERROR,
  RST_STREAM,
  uint32,
} from '../../support/http/http2-frames.ts';
import { answerOn, connectClient, connectClientOn, request, startClient, startFrames } from '../../support/http/http2-stage.ts';
import { startHttpApplication, startHttpInbound, startRawApplication } from '../../support/http/http-stage.ts';
import { byTranslation } from '../../support/http/translation.ts';
import { startScute } from '../../support/scute-process.ts';
import { freePort, startTcpServer } from '../../support/tcp.ts';

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const ok = (received: string): string | undefined => (received.endsWith('\r\n\r\n') ? OK : undefined);
const { NGHTTP2_CANCEL, NGHTTP2_INTERNAL_ERROR } = constants;

test('an application that cannot be reached is a 502 on its stream, and the connection goes on', async (t) => {
  const port = await freePort();
  const stage = await startHttpInbound(t, `127.0.0.1:${port}`);
  const client = await startClient(t, stage);

  const answer = await request(client, { ':path': '/' });

  assert.deepEqual([answer.status, answer.body.toString(), answer.reset], [502, 'scute: the application cannot be reached\n', undefined]);
  assert.equal((await request(client, { ':path': '/', ':method': 'HEAD' })).status, 502);
  assert.equal(await stage.sidecar.metric('scute_http_requests_total', { status: '502', result: 'upstream_refused' }), 2);
});

test('an application that does not accept in time is a 504', async (t) => {
  const stage = await startHttpInbound(t, `127.0.0.1:${await fillBacklog(t)}`, { listener: { limits: { connectTimeout: '100ms' } } });
  const client = await startClient(t, stage);

  const answer = await request(client, { ':path': '/' });

  assert.deepEqual([answer.status, answer.reset], [504, undefined]);
  assert.equal(await stage.sidecar.metric('scute_http_requests_total', { result: 'upstream_timeout' }), 1);
});

test('a client that waits for a 100 is not to blame for the time that connecting takes', async (t) => {
  const clock = new FakeClock();
  const stage = await startHttpInbound(t, `127.0.0.1:${await fillBacklog(t)}`, {
    listener: { limits: { connectTimeout: '500ms' } },
    sidecar: { clock },
  });
  const line = await startFrames(stage, headers(1, [...POST, ['expect', '100-continue']], END_HEADERS), frame(PING, 0, 0, Buffer.alloc(8)));
  await line.until(({ type, flags }) => type === PING && flags === ACK);

  clock.advance(5000);

  assert.equal((await line.streamOver(1)).status, 504);
});

test('an application that does not answer in time is a 504 on its stream alone', async (t) => {
  const application = await startRawApplication(t, (received) => (received.includes('/slow') ? undefined : ok(received)));
  const stage = await startHttpInbound(t, application.address, { http: { responseTimeout: '200ms' } });
  const client = await startClient(t, stage);

  const slow = request(client, { ':path': '/slow' });
  assert.equal((await request(client, { ':path': '/' })).status, 200);
  const answer = await slow;

  assert.deepEqual([answer.status, answer.body.toString()], [504, 'scute: the application did not answer in time\n']);
  assert.equal((await request(client, { ':path': '/' })).status, 200);
});

test('an application that takes only a part of a request and does not answer in time is a 504', async (t) => {
  const application = await startTcpServer(t, (socket) => socket.pause());
  const stage = await startHttpInbound(t, application.address, { http: { responseTimeout: '300ms' } });
  const client = await startClient(t, stage);

  const stream = client.request({ ':method': 'POST', ':path': '/' });
  const chunk = Buffer.alloc(64 * 1024);
  // As much as all buffers on the way hold.
  const more = (): void => {
    while (stream.write(chunk));
    stream.once('drain', more);
  };
  more();
  const answer = await answerOn(stream);

  assert.deepEqual([answer.status, answer.body.toString()], [504, 'scute: the application did not answer in time\n']);
});

test('an application that dies within its response leaves a stream that is reset, never one that looks whole', async (t) => {
  const responses = [
    'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n',
  ];
  for (const end of ['end', 'resetAndDestroy'] as const) {
    for (const response of responses) {
      const application = await startTcpServer(t, (socket) => {
        socket.once('data', () => socket.write(response, () => setImmediate(() => socket[end]())));
      });
      const stage = await startHttpInbound(t, application.address);
      const client = await startClient(t, stage);

      const answer = await request(client, { ':path': '/' });

      // A head that came alone may have been judged to be a whole answer of ours, before it was sent.
      assert.ok(answer.reset === NGHTTP2_INTERNAL_ERROR || answer.status === 502, `${JSON.stringify(response)}: ${JSON.stringify(answer)}`);
      assert.equal(await stage.sidecar.metric('scute_http_requests_total', { result: 'upstream_failed' }), 1);
      assert.equal(await stage.sidecar.metric('scute_tcp_open_connections'), 1);
    }
  }
});

test('a response that ends with its connection is cut, not ended, when that breaks', async (t) => {
  const application = await startTcpServer(t, (socket) => {
    socket.once('data', () => socket.write('HTTP/1.1 200 OK\r\n\r\nhalf', () => setImmediate(() => socket.resetAndDestroy())));
  });
  const stage = await startHttpInbound(t, application.address);
  const client = await startClient(t, stage);

  const answer = await request(client, { ':path': '/' });

  assert.ok(answer.reset === NGHTTP2_INTERNAL_ERROR || answer.status === 502, JSON.stringify(answer));
});

test('an application that says nothing, or nonsense, is a 502', async (t) => {
  const nonsense = [
    '',
    'hello\r\n\r\n',
    'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx',
    // Over HTTP/1.1, we take it for one number; Node does not.
    ...byTranslation([], ['HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx']),
    'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n',
    'HTTP/1.1 200 OK\r\nConnection: a b\r\n\r\n',
    'HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\nhello',
    'HTTP/1.1 103 Early\r\nConnection: close\r\n\r\n',
    'HTTP/1.1 999 No\r\nContent-Length: 0\r\n\r\n',
    'HTTP/1.1 099 No\r\nContent-Length: 0\r\n\r\n',
    'HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n',
    'HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n',
    'HTTP/1.1 200 OK\r\nX Y: a\r\nContent-Length: 0\r\n\r\n',
    'HTTP/1.1 200 OK\r\n:status: 403\r\nContent-Length: 0\r\n\r\n',
    'HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n',
    'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n',
    'HTTP/1.1 100 Continue\r\n\r\n'.repeat(100),
    `HTTP/1.1 200 OK\r\nX: ${'x'.repeat(40_000)}\r\n\r\n`,
    `HTTP/1.1 200 OK\r\n${'X: y\r\n'.repeat(1500)}\r\n`,
  ];
  for (const response of nonsense) {
    const application = await startRawApplication(t, (_, socket) => {
      socket.end(response);
      return undefined;
    });
    const stage = await startHttpInbound(t, application.address);
    const client = await startClient(t, stage);

    const answer = await request(client, { ':path': '/' });

    assert.deepEqual([answer.status, answer.reset], [502, undefined], JSON.stringify(response.slice(0, 80)));
    assert.match(answer.body.toString(), /^scute: the application /);
    assert.equal(await stage.sidecar.metric('scute_http_requests_total', { status: '502', result: 'upstream_failed' }), 1);
  }
});

test('what an application says without being asked is no answer to the next request', async (t) => {
  const evil = OK.replace('ok', 'no');
  for (const more of [evil, evil.slice(0, 20), `${evil}${evil}`]) {
    const application = await startRawApplication(t, (received) => (received.includes('/evil') ? `${OK}${more}` : OK));
    const stage = await startHttpInbound(t, application.address);
    const client = await startClient(t, stage);

    const first = await request(client, { ':path': '/evil' });
    const second = await request(client, { ':path': '/good' });

    assert.deepEqual([first.body.toString(), second.body.toString()], ['ok', 'ok']);
  }
});

test('what an application says between requests is no answer to the next one', async (t) => {
  const sockets: Socket[] = [];
  const application = await startRawApplication(t, (received, socket) => {
    if (!sockets.includes(socket)) sockets.push(socket);
    return ok(received);
  });
  const stage = await startHttpInbound(t, application.address);
  const client = await startClient(t, stage);
  assert.equal((await request(client, { ':path': '/' })).body.toString(), 'ok');

  sockets[0]?.write(OK.replace('ok', 'no'));
  await eventually(() => assert.ok(sockets[0]?.closed === true));

  assert.equal((await request(client, { ':path': '/' })).body.toString(), 'ok');
  assert.equal(application.connections(), 2);
});

test('without descriptors for another connection to the application, a request is a 503, and the others go on', async (t) => {
  const spiffe = await startExampleDomain(t);
  const held: (() => void)[] = [];
  const application = await startHttpApplication(t, (_, response) => held.push(() => response.end('ok')));
  // 42 files are kept for the process and 8 for metrics; two come with the client’s connection.
  const scute = await startScute({
    openFiles: 58,
    config: {
      workloadApi: { endpoint: spiffe.endpoint('api') },
      inbound: [{ name: 'in', listen: '127.0.0.1:0', to: application.address, allow: [WEB], protocol: 'http' }],
      metrics: { listen: '127.0.0.1:0' },
    },
  });
  t.after(() => scute.stop());
  await scute.ready('in', 'metrics');
  const client = await connectClient(t, await scute.address('in'), presented(await spiffe.issue(WEB)));

  const answers = Array.from({ length: 7 }, () => request(client, { ':path': '/' }));
  await eventually(() => assert.equal(held.length, 7));
  const refused = await request(client, { ':path': '/' });
  for (const answer of held) answer();

  assert.deepEqual([refused.status, refused.body.toString()], [503, 'scute: the application cannot be reached\n']);
  assert.deepEqual(
    (await Promise.all(answers)).map(({ status }) => status),
    Array.from({ length: 7 }, () => 200),
  );
  const metrics = async (): Promise<string> => (await fetch(`http://127.0.0.1:${await scute.port('metrics')}/metrics`)).text();
  await eventually(async () => assert.match(await metrics(), /scute_http_requests_total\{[^}]*status="503",result="overloaded"\} 1\n/));
  // What was taken is given back, a moment after the client is gone.
  const givenBack = (): Promise<void> =>
    eventually(async () => assert.match(await metrics(), /scute_file_descriptors\{use="inbound"\} 0\n/));
  client.close();
  await once(client, 'close');
  await givenBack();
  for (let round = 0; round < 3; round++) {
    const next = await connectClient(t, await scute.address('in'), presented(await spiffe.issue(WEB)));
    held.length = 0;
    const more = Array.from({ length: 7 }, () => request(next, { ':path': '/' }));
    await eventually(() => assert.equal(held.length, 7));
    for (const answer of held) answer();
    assert.ok((await Promise.all(more)).every(({ status }) => status === 200));
    next.close();
    await once(next, 'close');
    await givenBack();
  }
});

test('heads and bodies beyond the limits are refused with a reason', async (t) => {
  const application = await startRawApplication(t, () => undefined);
  const stage = await startHttpInbound(t, application.address, { http: { maxHeadBytes: 1024, maxFields: 10, maxBodyBytes: 100 } });
  const client = await startClient(t, stage);
  const post = { ':method': 'POST', ':path': '/' };

  const answers = [
    await request(client, { ':path': '/', a: 'x'.repeat(1024) }),
    await request(client, { ':path': '/', ...Object.fromEntries(Array.from({ length: 12 }, (_, index) => [`x-${index}`, '1'])) }),
    await request(client, { ...post, 'content-length': 101 }, 'x'.repeat(101)),
    await request(client, post, 'x'.repeat(101)),
  ];

  assert.deepEqual(
    answers.map(({ status, reset }) => [status, reset]),
    [
      [431, undefined],
      [431, undefined],
      [413, undefined],
      [413, undefined],
    ],
  );
  assert.equal(answers[3]?.body.toString(), 'scute: the body is too large\n');
  assert.ok(!/\r\n0\r\n\r\n/.test(application.received()), 'a part of a body has no end');
});

test('a client that resets its stream breaks the request to the application, whichever code it gives', async (t) => {
  for (const code of [NO_ERROR, CANCEL, PROTOCOL_ERROR]) {
    const ends: string[] = [];
    const application = await startHttpApplication(t, (incoming) => {
      incoming.on('data', () => ends.push('data'));
      incoming.on('end', () => ends.push('end'));
      incoming.on('error', () => ends.push('error'));
    });
    const stage = await startHttpInbound(t, application.address);
    // By hand: of a stream that it resets, Node's client sends an end before.
    const line = await startFrames(stage, headers(1, POST, END_HEADERS), frame(DATA, 0, 1, Buffer.from('a part')));
    await eventually(() => assert.deepEqual(ends, ['data']));

    line.send(frame(RST_STREAM, 0, 1, uint32(code)));

    await eventually(() => assert.deepEqual(ends, ['data', 'error'], `code ${code}`));
    assert.equal(await stage.sidecar.metric('scute_http_requests_total', { status: '0', result: 'downstream_closed' }), 1);
    line.send(headers(3, [...GET.slice(0, 2), [':path', '/'], [':authority', 'api']]), frame(PING, 0, 0, Buffer.alloc(8)));
    await line.until(({ type, flags }) => type === PING && flags === ACK);
  }
});

test('a client that goes away in whichever way never ends a request that it had not ended', async (t) => {
  for (const leave of ['end', 'destroy'] as const) {
    const ends: string[] = [];
    const application = await startHttpApplication(t, (incoming) => {
      incoming.on('data', () => ends.push('data'));
      incoming.on('end', () => ends.push('end'));
      incoming.on('error', () => ends.push('error'));
    });
    const stage = await startHttpInbound(t, application.address);
    const { client, socket } = await connectClientOn(t, stage.address, stage.web);
    const stream = client.request({ ':method': 'POST', ':path': '/' });
    stream.on('error', () => undefined);
    stream.write('a part');
    await eventually(() => assert.deepEqual(ends, ['data']));

    socket[leave]();

    await eventually(() => assert.deepEqual(ends, ['data', 'error'], leave));
    assert.equal((await stage.sidecar.connection())['close_reason'], 'downstream_reset', leave);
    assert.equal(await stage.sidecar.metric('scute_http_requests_total', { result: 'downstream_closed' }), 1);
  }
});

test('a client that gives up waits for nobody: the application loses its connection', async (t) => {
  const application = await startRawApplication(t, () => undefined);
  const stage = await startHttpInbound(t, application.address);
  const client = await startClient(t, stage);
  const stream = client.request({ ':path': '/' });
  const answer = answerOn(stream);
  await eventually(() => assert.match(application.received(), /^GET/));

  stream.close(NGHTTP2_CANCEL);

  assert.equal((await answer).status, 0);
  await eventually(async () => assert.equal(await stage.sidecar.metric('scute_http_requests_total', { result: 'downstream_closed' }), 1));
});

test('a request or a response that stands still for the idle time ends, whatever goes on beside it', async (t) => {
  const application = await startHttpApplication(t, (incoming, response) => {
    if (incoming.url === '/half') {
      response.writeHead(200, { 'Content-Length': 10 });
      response.write('half');
    } else if (incoming.url === '/ok') response.end('ok');
    else incoming.resume().on('error', () => undefined);
  });
  const stage = await startHttpInbound(t, application.address, { listener: { limits: { idleTimeout: '300ms' } } });
  const client = await startClient(t, stage);
  const quiet = new AbortController();
  const beside = (async () => {
    while (!quiet.signal.aborted) assert.equal((await request(client, { ':path': '/ok' })).status, 200);
  })();

  const halfSent = client.request({ ':method': 'POST', ':path': '/' });
  halfSent.write('a part');
  const [sent, received] = await Promise.all([answerOn(halfSent), request(client, { ':path': '/half' })]);
  quiet.abort();
  await beside;

  assert.deepEqual([sent.status, sent.body.toString()], [408, 'scute: the request stood still\n']);
  assert.deepEqual([received.status, received.body.toString(), received.reset], [200, 'half', NGHTTP2_INTERNAL_ERROR]);
  assert.equal(await stage.sidecar.metric('scute_http_requests_total', { result: 'timeout' }), 1);
  assert.equal(await stage.sidecar.metric('scute_http_requests_total', { result: 'upstream_timeout' }), 1);
});

test('chunked requests of every method arrive as they were sent: a body is never left to be the next request', async (t) => {
  // http-proxy's deleteLength would say Content-Length: 0 and send the body all the same (node-http-proxy issue 1721).
  const hidden = 'GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n';
  for (const method of ['DELETE', 'OPTIONS', 'GET', 'POST', 'QUERY']) {
    const seen: string[] = [];
    const application = await startHttpApplication(t, (incoming, response) => {
      let body = '';
      incoming.on('data', (chunk: Buffer) => (body += chunk.toString()));
      incoming.on('end', () => {
        seen.push(
          `${incoming.method} ${incoming.url} ${incoming.headers['content-length']} ${incoming.headers['transfer-encoding']} ${body}`,
        );
        response.end();
      });
    });
    const stage = await startHttpInbound(t, application.address);
    const client = await startClient(t, stage);

    for (const path of ['/one', '/two']) assert.equal((await request(client, { ':method': method, ':path': path }, hidden)).status, 200);

    assert.deepEqual(seen, [`${method} /one undefined chunked ${hidden}`, `${method} /two undefined chunked ${hidden}`]);
  }
});
