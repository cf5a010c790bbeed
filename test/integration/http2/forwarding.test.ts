import assert from 'node:assert/strict';
import { once } from 'node:events';
import { constants } from 'node:http2';
import { test } from 'node:test';
import { presented } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { askAsWeb } from '../../support/http/ask-as-web.ts';
import { answerOn, request, startClient } from '../../support/http/http2-stage.ts';
import { send, startHttpApplication, startHttpInbound, startRawApplication, wire } from '../../support/http/http-stage.ts';
import { tlsClient } from '../../support/tls-peer.ts';

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
/** Answers when a head without a body is there. */
const ok = (received: string): string | undefined => (received.endsWith('\r\n\r\n') ? OK : undefined);

test('a request over HTTP/2 reaches the application over HTTP/1.1, with who asks', async (t) => {
  const application = await startRawApplication(t, ok);
  const stage = await startHttpInbound(t, application.address, { http: { spiffeIdHeader: 'X-Peer' } });

  await askAsWeb(t, stage, { accept: '*/*' });

  assert.match(
    application.received(),
    /^GET \/one\?q=secret HTTP\/1\.1\r\nX-Forwarded-Client-Cert: By=spiffe:\/\/example\.org\/api;Hash=[0-9a-f]{64};URI=spiffe:\/\/example\.org\/web\r\nX-Peer: spiffe:\/\/example\.org\/web\r\nhost: api:443\r\naccept: \*\/\*\r\n\r\n$/,
  );
});

test('requests at once have connections to the application of their own, which those that follow use again', async (t) => {
  let under = 0;
  let most = 0;
  let connections = 0;
  const application = await startHttpApplication(t, (incoming, response) => {
    most = Math.max(most, ++under);
    response.on('close', () => under--);
    const answer = (): void => void (most === 8 ? response.end(incoming.url) : setImmediate(answer));
    answer();
  });
  application.server.on('connection', () => connections++);
  const stage = await startHttpInbound(t, application.address);
  const client = await startClient(t, stage);

  for (let round = 0; round < 3; round++) {
    const paths = Array.from({ length: 8 }, (_, index) => `/${round}/${index}`);
    const answers = await Promise.all(paths.map((path) => request(client, { ':path': path })));
    assert.deepEqual(
      answers.map(({ body }) => body.toString()),
      paths,
    );
  }

  assert.equal(connections, 8);
  assert.equal(await stage.sidecar.metric('scute_tcp_open_connections', { peer: 'src' }), 1);
  client.close();
  await stage.sidecar.connection();
  await eventually(
    () =>
      new Promise<void>((resolve, reject) =>
        application.server.getConnections((_, count) => (count === 0 ? resolve() : reject(new Error(`${count} are open`)))),
      ),
  );
});

test('no connection to the application is shared by two peers, nor by two connections of one', async (t) => {
  const application = await startRawApplication(t, ok);
  const stage = await startHttpInbound(t, application.address, { listener: { allow: ['spiffe://example.org/**'] } });
  const other = presented(await stage.spiffe.issue('spiffe://example.org/other'));

  for (const who of [stage.web, stage.web, other]) {
    const client = await startClient(t, stage, { presented: who });
    for (let time = 0; time < 2; time++) assert.equal((await request(client, { ':path': '/' })).status, 200);
  }

  assert.equal(application.connections(), 3);
  assert.equal(application.received().match(/URI=spiffe:\/\/example\.org\/web\r/g)?.length, 4);
  assert.equal(application.received().match(/URI=spiffe:\/\/example\.org\/other\r/g)?.length, 2);
});

test('bodies pass both ways byte for byte, and trailers with them', async (t) => {
  const application = await startHttpApplication(t, (incoming, response) => {
    response.writeHead(200, { Trailer: 'X-Sum', Connection: 'X-Hop', 'X-Hop': '1' });
    incoming.on('data', (chunk: Buffer) => {
      if (!response.write(chunk)) incoming.pause();
    });
    response.on('drain', () => incoming.resume());
    incoming.on('end', () => {
      response.addTrailers({ 'X-Sum': String(incoming.trailers['x-sum']), 'X-Seen': JSON.stringify(incoming.rawTrailers) });
      response.end();
    });
  });
  const stage = await startHttpInbound(t, application.address);
  const client = await startClient(t, stage);
  const body = Buffer.alloc(5 * 1024 * 1024, 'the quick brown fox jumps over the lazy dog, ');

  const stream = client.request({ ':method': 'POST', ':path': '/', trailer: 'x-sum' }, { waitForTrailers: true });
  stream.on('wantTrailers', () => stream.sendTrailers({ 'x-sum': '7', x_forwarded_client_cert: 'URI=spiffe://example.org/admin' }));
  stream.end(body);
  const answer = await answerOn(stream);

  assert.ok(answer.body.equals(body));
  assert.equal(answer.headers['x-hop'], undefined);
  assert.deepEqual([answer.trailers['x-sum'], answer.trailers['x-seen']], ['7', '["x-sum","7"]']);
  const [line] = stage.sidecar.log().filter(({ message }) => message === 'request finished');
  assert.ok(Number(line?.['bytes_from_downstream']) > body.length && Number(line?.['bytes_to_downstream']) > body.length);
  assert.ok((await stage.sidecar.metric('scute_tcp_write_bytes_total', { peer: 'dst' })) > body.length);
  assert.ok((await stage.sidecar.metric('scute_tcp_read_bytes_total', { peer: 'dst' })) > body.length);
});

test('a body of known length has it on the other side, and its trailers have no place there', async (t) => {
  const application = await startHttpApplication(t, (incoming, response) => {
    incoming.resume();
    incoming.on('end', () => {
      const said = `${incoming.headers['content-length']} ${incoming.headers['transfer-encoding']} ${JSON.stringify(incoming.rawTrailers)}`;
      response.writeHead(200, { 'Content-Length': said.length }).end(said);
    });
  });
  const stage = await startHttpInbound(t, application.address);
  const client = await startClient(t, stage);

  const stream = client.request({ ':method': 'PUT', ':path': '/', 'content-length': 5 }, { waitForTrailers: true });
  stream.on('wantTrailers', () => stream.sendTrailers({ 'x-sum': '7' }));
  stream.end('hello');
  const answer = await answerOn(stream);

  assert.equal(answer.body.toString(), '5 undefined []');
  assert.equal(answer.headers['content-length'], '14');
});

test('responses without a body end with their head, and others may follow', async (t) => {
  const application = await startHttpApplication(t, (incoming, response) => {
    if (incoming.method === 'HEAD') response.writeHead(200, { 'Content-Length': 5 });
    else response.writeHead(Number(incoming.url?.slice(1)), incoming.url === '/304' ? { 'Content-Length': 7 } : {});
    response.end();
  });
  let connections = 0;
  application.server.on('connection', () => connections++);
  const stage = await startHttpInbound(t, application.address);
  const client = await startClient(t, stage);

  const answers = [await request(client, { ':path': '/', ':method': 'HEAD' })];
  for (const status of [204, 304, 205, 200]) answers.push(await request(client, { ':path': `/${status}` }));

  assert.deepEqual(
    answers.map(({ status, headers, body, reset }) => [status, headers['content-length'], body.length, reset]),
    [
      [200, '5', 0, undefined],
      [204, undefined, 0, undefined],
      [304, '7', 0, undefined],
      [205, undefined, 0, undefined],
      [200, undefined, 0, undefined],
    ],
  );
  // After 205 nobody waits for a body that must not be there.
  assert.ok(connections <= 2, String(connections));
});

test('interim responses pass, and the 100 that a client waits for is ours', async (t) => {
  const application = await startHttpApplication(t, (incoming, response) => {
    assert.equal(incoming.headers.expect, undefined);
    response.writeEarlyHints({ link: ['</a>; rel=preload', '</b>; rel=preload'], 'x-part': '1' });
    response.writeProcessing();
    incoming.pipe(response);
  });
  application.server.on('checkContinue', () => assert.fail('the application was asked'));
  const stage = await startHttpInbound(t, application.address);
  const client = await startClient(t, stage);

  const stream = client.request({ ':method': 'POST', ':path': '/', expect: '100-continue', 'content-length': 4 });
  let continues = 0;
  stream.on('continue', () => {
    continues++;
    stream.end('body');
  });
  const answer = await answerOn(stream);

  assert.deepEqual([answer.status, answer.body.toString(), continues], [200, 'body', 1]);
  assert.deepEqual(
    answer.interim.filter((head) => Number(head[':status']) !== 100).map((head) => [head[':status'], head['link'], head['x-part']]),
    [
      [103, '</a>; rel=preload, </b>; rel=preload', '1'],
      [102, undefined, undefined],
    ],
  );
  // To one that cannot be reached, no body is sent at all.
  application.server.closeAllConnections();
  application.server.close();
  const refused = client.request({ ':method': 'POST', ':path': '/', expect: '100-continue', 'content-length': 4 });
  refused.on('continue', () => continues++);
  assert.equal((await answerOn(refused)).status, 502);
  assert.equal(continues, 1);
});

test('crumbs of a cookie are one cookie for the application', async (t) => {
  const application = await startRawApplication(t, ok);
  const stage = await startHttpInbound(t, application.address);
  const client = await startClient(t, stage);

  await request(client, { ':path': '/', cookie: ['a=1', 'b=2', 'c=3'] });

  assert.match(application.received(), /\r\ncookie: a=1; b=2; c=3\r\n/);
});

test('a response that ends with its connection ends its stream, and nobody can tell whether it is whole', async (t) => {
  const application = await startRawApplication(t, (_, socket) => {
    socket.end('HTTP/1.1 200 OK\r\n\r\nall there is');
    return undefined;
  });
  const stage = await startHttpInbound(t, application.address);
  const client = await startClient(t, stage);

  for (let time = 0; time < 2; time++) {
    const answer = await request(client, { ':path': '/' });
    assert.deepEqual([answer.status, answer.body.toString(), answer.reset], [200, 'all there is', undefined]);
  }

  const [line] = stage.sidecar.log().filter(({ message }) => message === 'request finished');
  assert.match(String(line?.['detail']), /whether it is whole cannot be told/);
});

test('an application that closes between requests is connected to again', async (t) => {
  const application = await startRawApplication(t, (_, socket) => {
    socket.end(OK);
    return undefined;
  });
  const stage = await startHttpInbound(t, application.address);
  const client = await startClient(t, stage);

  for (let time = 1; time <= 3; time++) {
    assert.equal((await request(client, { ':path': '/' })).status, 200);
    // Node has a turn to see the end.
    await eventually(async () => assert.equal(await stage.sidecar.metric('scute_http_requests_total', { status: '200' }), time));
  }

  assert.equal(application.connections(), 3);
});

test('a connection without requests is closed before the application says that it will', async (t) => {
  let ended = false;
  const application = await startRawApplication(t, (received, socket) => {
    socket.once('end', () => (ended = true));
    return received.endsWith('\r\n\r\n') ? 'HTTP/1.1 200 OK\r\nKeep-Alive: timeout=2\r\nContent-Length: 2\r\n\r\nok' : undefined;
  });
  const stage = await startHttpInbound(t, application.address);
  const client = await startClient(t, stage);

  for (let count = 0; count < 3; count++) assert.equal((await request(client, { ':path': '/' })).status, 200);
  await eventually(() => assert.ok(ended));

  assert.equal(application.connections(), 1);
  assert.equal((await request(client, { ':path': '/' })).status, 200);
  assert.equal(application.connections(), 2);
});

test('an application that keeps no connection for long enough, however it says so, has each request on one of its own', async (t) => {
  for (const field of ['timeout=0', 'timeout=1', 'max=5\r\nKeep-Alive: timeout=0']) {
    const answer = `HTTP/1.1 200 OK\r\nKeep-Alive: ${field}\r\nContent-Length: 2\r\n\r\nok`;
    const application = await startRawApplication(t, (received) => (received.endsWith('\r\n\r\n') ? answer : undefined));
    const client = await startClient(t, await startHttpInbound(t, application.address));

    for (let count = 0; count < 2; count++) assert.equal((await request(client, { ':path': '/' })).status, 200);

    assert.equal(application.connections(), 2, field);
  }
});

test('each connection to the application begins with its PROXY header', async (t) => {
  const application = await startRawApplication(t, (_, socket) => {
    socket.end(OK);
    return undefined;
  });
  const stage = await startHttpInbound(t, application.address, { listener: { proxyProtocol: { send: 'tls' } } });
  const client = await startClient(t, stage);

  for (let time = 1; time <= 2; time++) {
    assert.equal((await request(client, { ':path': '/' })).status, 200);
    assert.equal(application.received().split('\r\n\r\n\0\r\nQUIT\n').length - 1, time);
  }
  assert.match(application.received(), /^\r\n\r\n\0\r\nQUIT\n[\s\S]*GET \/ HTTP\/1\.1\r\n/);
  assert.ok(application.received().includes('\x01\0\x02h2'));
});

test('an authenticated peer that is not allowed is told so on its stream, and its connection ends', async (t) => {
  const application = await startRawApplication(t, ok);
  const stage = await startHttpInbound(t, application.address, { listener: { allow: ['spiffe://example.org/other'] } });
  const client = await startClient(t, stage);

  const answers = await Promise.all([request(client, { ':path': '/' }), request(client, { ':path': '/', ':method': 'POST' }, 'body')]);

  const [first] = answers;
  assert.deepEqual([first.status, first.reset], [403, undefined]);
  assert.equal(first.body.toString(), 'scute: not_allowed: spiffe://example.org/web may not do this\n');
  await once(client, 'close');
  assert.equal(application.connections(), 0);
  const line = await stage.sidecar.connection();
  assert.deepEqual([line['verdict'], line['reason']], ['deny', 'not_allowed']);
  assert.ok((await stage.sidecar.metric('scute_http_requests_total', { status: '403', result: 'denied' })) >= 1);
});

test('a peer that proves nothing is not answered a byte', async (t) => {
  const application = await startRawApplication(t, ok);
  const stage = await startHttpInbound(t, application.address);

  const stranger = wire(tlsClient(t, stage.address, undefined, { ALPNProtocols: ['h2'] }));

  assert.equal((await stranger.over()).text, '');
  assert.equal(application.connections(), 0);
});

test('what is negotiated decides: HTTP/2 is preferred, and without ALPN it is HTTP/1.1', async (t) => {
  const application = await startRawApplication(t, ok);
  const stage = await startHttpInbound(t, application.address);
  const offers: [string[] | undefined, string | false][] = [
    [['http/1.1', 'h2'], 'h2'],
    [['http/1.1'], 'http/1.1'],
    [undefined, false],
  ];
  for (const [ALPNProtocols, agreed] of offers) {
    const socket = await stage.connect(ALPNProtocols && { ALPNProtocols });
    assert.equal(socket.alpnProtocol, agreed);
    if (agreed === 'h2') continue;
    const line = wire(socket);
    line.socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
    await line.until('ok');
  }
  await assert.rejects(stage.connect({ ALPNProtocols: ['spdy/3'] }), { code: 'ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL' });
});

test('the preface of HTTP/2 is a bad request where HTTP/1.1 was negotiated', async (t) => {
  const application = await startRawApplication(t, ok);
  const stage = await startHttpInbound(t, application.address);

  const line = await send(stage, 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');

  assert.match((await line.over()).text, /^HTTP\/1\.1 400 Bad Request\r\n/);
});

test('HTTP/1.1 is a broken protocol where HTTP/2 was negotiated', async (t) => {
  const application = await startRawApplication(t, ok);
  const stage = await startHttpInbound(t, application.address);

  const line = wire(await stage.connect({ ALPNProtocols: ['h2'] }));
  line.socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
  await line.over();

  assert.equal(application.connections(), 0);
  assert.equal((await stage.sidecar.connection())['close_reason'], 'protocol_error');
});

test('either version may be the only one', async (t) => {
  const application = await startRawApplication(t, ok);
  const only2 = await startHttpInbound(t, application.address, { listener: { alpn: ['h2'] } });
  const only1 = await startHttpInbound(t, application.address, { listener: { alpn: ['http/1.1'] } });

  assert.equal((await request(await startClient(t, only2), { ':path': '/' })).status, 200);
  await assert.rejects(only2.connect({ ALPNProtocols: ['http/1.1'] }), { code: 'ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL' });
  await assert.rejects(only1.connect({ ALPNProtocols: ['h2'] }), { code: 'ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL' });
  const { text, error } = await (await send(only2, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n')).over();
  assert.deepEqual([text, error], ['', undefined]);
  assert.equal(
    (await only2.sidecar.connection(({ alpn, verdict }) => alpn === undefined && verdict === 'allow'))['close_reason'],
    'protocol_error',
  );
});

test('a path with slashes, dots and questions is the one that the application gets', async (t) => {
  const application = await startRawApplication(t, ok);
  const stage = await startHttpInbound(t, application.address);
  const client = await startClient(t, stage);

  for (const path of ['//a//b/../c', '/http:/x?y=http://z//', '/%2e%2e/;a=b', '/?a?b=//']) {
    assert.equal((await request(client, { ':path': path })).status, 200);
    assert.ok(application.received().includes(`GET ${path} HTTP/1.1\r\n`), path);
  }
});

test('an early response in chunks to a body that is still coming has its trailers', async (t) => {
  const chunks = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 2\r\n\r\n';
  const application = await startRawApplication(t, (received) => (received.includes('\r\n\r\n') ? chunks : undefined));
  const stage = await startHttpInbound(t, application.address);
  const client = await startClient(t, stage);

  const stream = client.request({ ':method': 'POST', ':path': '/' });
  stream.write('a part');
  const answer = await answerOn(stream);

  assert.deepEqual([answer.status, answer.body.toString(), answer.trailers['x-sum'], answer.reset], [200, 'ok', '2', undefined]);
});

test('an early response to a body that is still coming is whole, and the client need not go on', async (t) => {
  const application = await startRawApplication(t, (received) => (received.includes('\r\n\r\n') ? OK : undefined));
  const stage = await startHttpInbound(t, application.address);
  const client = await startClient(t, stage);

  const stream = client.request({ ':method': 'POST', ':path': '/' });
  stream.write('a part');
  const answer = await answerOn(stream);

  assert.deepEqual([answer.status, answer.body.toString(), stream.rstCode], [200, 'ok', constants.NGHTTP2_NO_ERROR]);
  assert.equal((await request(client, { ':path': '/' })).status, 200);
  // What is left of the first request is never taken for a part of the second.
  assert.equal(application.connections(), 2);
});
