import assert from 'node:assert/strict';
import { test } from 'node:test';
import { WEB } from '../../support/data-path.ts';
import { answerOk, startH2cApplication, startSpliced } from '../../support/h2c-application.ts';
import { answerOn, request, startClient } from '../../support/http2-stage.ts';

test('a request over HTTP/2 reaches the application over HTTP/2, with who asks', async (t) => {
  const application = await startH2cApplication(t, answerOk);
  const stage = await startSpliced(t, application.address, { http: { spiffeIdHeader: 'X-Peer' } });
  const client = await startClient(t, stage);

  const answer = await request(client, { ':path': '/one?q=secret', 'x-forwarded-client-cert': 'forged', te: 'trailers', accept: '*/*' });

  assert.deepEqual([answer.status, answer.body.toString(), answer.reset], [200, 'ok', undefined]);
  const [head = []] = application.heads;
  assert.match(
    head.join('\n'),
    /^:method\nGET\n:scheme\nhttps\n:path\n\/one\?q=secret\n:authority\napi:443\nx-forwarded-client-cert\nBy=spiffe:\/\/example\.org\/api;Hash=[0-9a-f]{64};URI=spiffe:\/\/example\.org\/web\nx-peer\nspiffe:\/\/example\.org\/web\nte\ntrailers\naccept\n\*\/\*$/,
  );
  const [line] = stage.sidecar.log().filter(({ message }) => message === 'request finished');
  assert.deepEqual(
    ['method', 'path', 'host', 'http_version', 'status', 'result', 'verdict', 'peer_id'].map((name) => line?.[name]),
    ['GET', '/one', 'api:443', '2', 200, 'forwarded', 'allow', WEB],
  );
  assert.equal(await stage.sidecar.metric('scute_http_requests_total', { listener: 'in', status: '200', result: 'forwarded' }), 1);
  client.close();
  const connection = await stage.sidecar.connection();
  assert.deepEqual([connection['alpn'], connection['close_reason']], ['h2', 'finished']);
  assert.ok(Number(connection['bytes_from_downstream']) > 50 && Number(connection['bytes_to_downstream']) > 50);
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
  while (application.heads.length < 2) await new Promise((resolve) => setImmediate(resolve));
  waiting.close(8);
  await answer;
  while (codes.length < 2) await new Promise((resolve) => setImmediate(resolve));

  assert.deepEqual(codes, [11, 8]);
});
