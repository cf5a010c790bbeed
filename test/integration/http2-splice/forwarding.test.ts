import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { WEB } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { askAsWeb } from '../../support/http/ask-as-web.ts';
import { answerOk, startH2cApplication, startSpliced } from '../../support/http/h2c-application.ts';
import { answerOn, request, startClient } from '../../support/http/http2-stage.ts';
import { send, startRawApplication } from '../../support/http/http-stage.ts';

test('a request over HTTP/2 reaches the application over HTTP/2, with who asks', async (t) => {
  const application = await startH2cApplication(t, answerOk);
  const stage = await startSpliced(t, application.address, { http: { spiffeIdHeader: 'X-Peer' } });

  await askAsWeb(t, stage, { te: 'trailers', accept: '*/*' });

  const [head = []] = application.heads;
  assert.match(
    head.join('\n'),
    /^:method\nGET\n:scheme\nhttps\n:path\n\/one\?q=secret\n:authority\napi:443\nx-forwarded-client-cert\nBy=spiffe:\/\/example\.org\/api;Hash=[0-9a-f]{64};URI=spiffe:\/\/example\.org\/web\nx-peer\nspiffe:\/\/example\.org\/web\nte\ntrailers\naccept\n\*\/\*$/,
  );
});

test('all requests of a connection go over one to the application, and bodies pass both ways byte for byte, with trailers', async (t) => {
  const application = await startH2cApplication(t, (stream) => {
    stream.respond({ ':status': 200 }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'x-sum': '7' }));
    stream.pipe(stream);
  });
  const stage = await startSpliced(t, application.address);
  const client = await startClient(t, stage);
  const body = Buffer.alloc(3 * 1024 * 1024, 'the quick brown fox jumps over the lazy dog, ');

  const answers = await Promise.all(
    Array.from({ length: 4 }, (_, index) => request(client, { ':method': 'POST', ':path': `/${index}` }, body)),
  );

  for (const { status, body: echoed, trailers, reset } of answers) {
    assert.deepEqual([status, echoed.equals(body), trailers['x-sum'], reset], [200, true, '7', undefined]);
  }
  assert.equal(application.sessions.length, 1);
  assert.ok((await stage.sidecar.metric('scute_tcp_write_bytes_total', { peer: 'dst' })) > 4 * body.length);
});

test('a request that is not allowed is refused on its stream, and the application never sees it', async (t) => {
  const application = await startH2cApplication(t, answerOk);
  const stage = await startSpliced(t, application.address, {
    listener: { allow: [{ peer: WEB, methods: ['GET', 'POST'], paths: ['/public/**'] }] },
  });
  const client = await startClient(t, stage);

  const answers = await Promise.all([
    request(client, { ':path': '/public/1' }),
    request(client, { ':path': '/private' }),
    request(client, { ':method': 'POST', ':path': '/private' }, Buffer.alloc(30_000)),
    request(client, { ':method': 'POST', ':path': '/pkg.Service/Method', 'content-type': 'application/grpc' }, Buffer.alloc(5)),
    request(client, { ':path': '/public/2' }),
  ]);

  assert.deepEqual(
    answers.map(({ status, reset }) => [status, reset]),
    [
      [200, undefined],
      [403, undefined],
      [403, undefined],
      [200, undefined],
      [200, undefined],
    ],
  );
  assert.equal(answers[1]?.body.toString(), 'scute: not_allowed: spiffe://example.org/web may not do this\n');
  assert.deepEqual(
    [answers[3]?.headers['grpc-status'], answers[3]?.headers['grpc-message'], answers[3]?.body.length],
    ['7', 'scute: not_allowed: spiffe://example.org/web may not do this', 0],
  );
  assert.deepEqual(
    application.heads.map((head) => head[head.indexOf(':path') + 1]),
    ['/public/1', '/public/2'],
  );
  assert.equal(await stage.sidecar.metric('scute_http_requests_total', { result: 'denied', status: '403' }), 2);
});

test('a stream that the client resets is reset at the application, and the other way round', async (t) => {
  const codes: number[] = [];
  const application = await startH2cApplication(t, (stream, headers) => {
    stream.on('close', () => codes.push(stream.rstCode));
    if (headers[':path'] === '/reset') stream.close(11);
  });
  const stage = await startSpliced(t, application.address);
  const client = await startClient(t, stage);

  assert.equal((await request(client, { ':path': '/reset' })).reset, 11);
  const waiting = client.request({ ':path': '/wait' });
  const answer = answerOn(waiting);
  await eventually(() => assert.equal(application.heads.length, 2));
  waiting.close(8);
  await answer;
  await eventually(() => assert.deepEqual(codes, [11, 8]));
});

test('each connection to the application begins with its PROXY header, and then with HTTP/2', async (t) => {
  const application = await startRawApplication(t, () => undefined);
  const stage = await startSpliced(t, application.address, { listener: { proxyProtocol: { send: 'tls' } } });
  const client = await startClient(t, stage);

  const stream = client.request({ ':path': '/' });
  stream.on('error', () => undefined);

  await eventually(() => assert.match(application.received(), /^\r\n\r\n\0\r\nQUIT\n[\s\S]*PRI \* HTTP\/2\.0\r\n\r\nSM\r\n\r\n/));
  assert.ok(application.received().includes('\x01\0\x02h2'));
  client.destroy();
});

test('who negotiates no HTTP/2 is not served, and the application hears nothing of it', async (t) => {
  const application = await startRawApplication(t, () => undefined);
  const stage = await startSpliced(t, application.address);

  await assert.rejects(stage.connect({ ALPNProtocols: ['http/1.1'] }), { code: 'ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL' });
  const { text, error } = await (await send(stage, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n')).over();

  assert.deepEqual([text, error], ['', undefined]);
  const line = await stage.sidecar.connection(({ alpn, verdict }) => alpn === undefined && verdict === 'allow');
  assert.deepEqual([line['close_reason'], application.connections()], ['protocol_error', 0]);
});

test('an authenticated peer that is not allowed is told so on its stream, as gRPC wants it or not, and its connection ends', async (t) => {
  const application = await startRawApplication(t, () => undefined);
  const stage = await startSpliced(t, application.address, { listener: { allow: ['spiffe://example.org/other'] } });
  for (const type of ['application/json', 'application/grpc']) {
    const client = await startClient(t, stage);

    const answer = await request(client, { ':method': 'POST', ':path': '/', 'content-type': type }, 'body');

    const why = 'scute: not_allowed: spiffe://example.org/web may not do this';
    if (type === 'application/json') assert.deepEqual([answer.status, answer.body.toString()], [403, `${why}\n`]);
    else assert.deepEqual([answer.status, answer.headers['grpc-status'], answer.headers['grpc-message']], [200, '7', why]);
    if (!client.closed) await once(client, 'close');
  }
  assert.equal(application.connections(), 0);
  assert.equal((await stage.sidecar.connection())['reason'], 'not_allowed');
});
