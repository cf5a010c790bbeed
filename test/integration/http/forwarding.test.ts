import assert from 'node:assert/strict';
import { test } from 'node:test';
import { presented, WEB } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { send, startHttpApplication, startHttpInbound, startRawApplication, wire } from '../../support/http/http-stage.ts';
import { request, startClient } from '../../support/http/http2-stage.ts';
import { freePort } from '../../support/tcp.ts';
import { tlsClient } from '../../support/tls-peer.ts';

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const get = (path: string, ...fields: readonly string[]): string => [`GET ${path} HTTP/1.1`, 'Host: api', ...fields, '', ''].join('\r\n');

test('who asks stands ahead of all that a client says: an application that drops fields for their number drops none of ours', async (t) => {
  const application = await startRawApplication(t, (received) => (received.endsWith('\r\n\r\n') ? OK : undefined));
  const stage = await startHttpInbound(t, application.address, { http: { spiffeIdHeader: 'X-Peer' } });
  const names = Array.from({ length: 999 }, (_, index) => `f${index}`);
  const lines = names.map((name) => `${name}: 1\r\n`).join('');

  await (await send(stage, `GET /path HTTP/1.1\r\nHost: a\r\n${lines}\r\n`)).until('ok');
  await (await send(stage, `GET http://a/path HTTP/1.1\r\nHost: a\r\n${lines}\r\n`)).until('ok');
  const client = await startClient(t, stage);
  assert.equal((await request(client, { ':path': '/path', ...Object.fromEntries(names.map((name) => [name, '1'])) })).status, 200);

  const heads = application.received().split('\r\n\r\n').slice(0, -1);
  assert.equal(heads.length, 3);
  for (const head of heads) {
    const [, ...fields] = head.split('\r\n');
    assert.equal(fields.length, 1002);
    assert.deepEqual(
      fields.slice(0, 3).map((field) => /^[^:]+/.exec(field)?.[0].toLowerCase()),
      ['x-forwarded-client-cert', 'x-peer', 'host'],
    );
  }
});

test('the application is told who asks, and requests of one connection share one of its connections', async (t) => {
  const application = await startRawApplication(t, (received) => (received.endsWith('\r\n\r\n') ? OK : undefined));
  const stage = await startHttpInbound(t, application.address, { http: { spiffeIdHeader: 'X-Peer' } });

  const line = await send(stage, get('/one?q=secret'));
  await line.until('ok');
  line.socket.write(get('/two'));
  await line.until(/ok.*ok/s);

  const [first = '', second = ''] = application.received().split(/(?=GET \/two)/);
  const xfcc = /^X-Forwarded-Client-Cert: By=spiffe:\/\/example\.org\/api;Hash=[0-9a-f]{64};URI=spiffe:\/\/example\.org\/web\r\n/m;
  assert.ok(first.startsWith('GET /one?q=secret HTTP/1.1\r\nX-Forwarded'), first);
  for (const each of [first, second]) {
    assert.match(each, xfcc);
    assert.match(each, /^X-Peer: spiffe:\/\/example\.org\/web\r\nHost: api\r\n\r\n$/m);
  }
  assert.equal(application.connections(), 1);
  const lines = stage.sidecar.log().filter(({ message }) => message === 'request finished');
  assert.deepEqual(
    lines.map(({ method, path, host, status, result, verdict, peer_id }) => [method, path, host, status, result, verdict, peer_id]),
    [
      ['GET', '/one', 'api', 200, 'forwarded', 'allow', WEB],
      ['GET', '/two', 'api', 200, 'forwarded', 'allow', WEB],
    ],
  );
  assert.equal(await stage.sidecar.metric('scute_http_requests_total', { listener: 'in', status: '200', result: 'forwarded' }), 2);
});

test('pipelined requests are answered in order, one after the other', async (t) => {
  let under = 0;
  const application = await startHttpApplication(t, (request, response) => {
    assert.equal(++under, 1);
    request.resume();
    setImmediate(() => {
      under--;
      response.end(request.url);
    });
  });
  const stage = await startHttpInbound(t, application.address);

  const paths = Array.from({ length: 50 }, (_, index) => `/${index};`);
  const line = await send(stage, paths.map((path) => get(path)).join('') + get('/last', 'Connection: close'));

  const { text, error } = await line.over();
  assert.equal(error, undefined);
  assert.deepEqual(
    [...text.matchAll(/\r\n\r\n(\/\d+;|\/last)/g)].map(([, path]) => path),
    [...paths, '/last'],
  );
});

test('bodies of both framings pass both ways, with trailers', async (t) => {
  const application = await startHttpApplication(t, (request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      response.writeHead(200, { Trailer: 'X-Sum' });
      response.write(Buffer.concat(chunks));
      response.addTrailers({ 'X-Sum': String(request.trailers['x-sum']), 'X-Seen': JSON.stringify(request.rawTrailers) });
      response.end();
    });
  });
  const stage = await startHttpInbound(t, application.address);

  const line = await send(stage, 'POST / HTTP/1.1\r\nHost: api\r\nContent-Length: 5\r\n\r\nhello');
  await line.until(/5\r\nhello\r\n0\r\nX-Sum: undefined\r\nX-Seen: \[\]\r\n\r\n$/);
  line.socket.write(
    'POST / HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\n\r\n' +
      '3\r\nabc\r\n0a;ext=1\r\n0123456789\r\n0\r\nX-Sum: 13\r\nX_Forwarded_Client_Cert: URI=spiffe://example.org/admin\r\n\r\n',
  );
  await line.until(/abc0123456789\r\n0\r\nX-Sum: 13\r\nX-Seen: \["X-Sum","13"\]\r\n\r\n$/);
});

test('responses without a body are followed by the next', async (t) => {
  const application = await startHttpApplication(t, (request, response) => {
    if (request.method === 'HEAD') response.writeHead(200, { 'Content-Length': 5 });
    else response.writeHead(Number(request.url?.slice(1)), request.url === '/304' ? { 'Content-Length': 7 } : {});
    response.end();
  });
  const stage = await startHttpInbound(t, application.address);

  const line = await send(stage, `HEAD / HTTP/1.1\r\nHost: api\r\n\r\n${get('/204')}${get('/304')}${get('/205', 'Connection: close')}`);

  const { text } = await line.over();
  assert.deepEqual(text.match(/HTTP\/1\.1 \d+/g), ['HTTP/1.1 200', 'HTTP/1.1 204', 'HTTP/1.1 304', 'HTTP/1.1 205']);
});

test('a request waits for 100 Continue, which is ours: the application is never asked', async (t) => {
  const application = await startHttpApplication(t, (request, response) => {
    assert.equal(request.headers.expect, undefined);
    request.pipe(response);
  });
  const stage = await startHttpInbound(t, application.address);

  const line = await send(stage, 'PUT / HTTP/1.1\r\nHost: api\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n');
  await line.until('HTTP/1.1 100 Continue\r\n\r\n');
  line.socket.write('body');
  await line.until(/HTTP\/1\.1 200 OK[\s\S]*body/);
});

test('a response that ends with its connection ends ours', async (t) => {
  const application = await startRawApplication(t, (_, socket) => {
    socket.end('HTTP/1.1 200 OK\r\n\r\nall there is');
    return undefined;
  });
  const stage = await startHttpInbound(t, application.address);

  const { text, error } = await (await send(stage, get('/'))).over();

  assert.equal(text, 'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall there is');
  assert.equal(error, undefined);
});

test('an application that closes between requests is connected to again', async (t) => {
  const application = await startRawApplication(t, (_, socket) => {
    socket.end(OK);
    return undefined;
  });
  const stage = await startHttpInbound(t, application.address);

  const line = await send(stage, get('/1'));
  await line.until('ok');
  await eventually(async () => assert.equal((await stage.sidecar.metric('scute_tcp_open_connections')) > 0, true));
  await new Promise((resolve) => setImmediate(resolve));
  line.socket.write(get('/2'));
  await line.until(/ok.*ok/s);

  assert.equal(application.connections(), 2);
});

test('an authenticated peer that is not allowed is told so, and never reaches the application', async (t) => {
  const application = await startRawApplication(t, () => OK);
  const stage = await startHttpInbound(t, application.address, { listener: { allow: ['spiffe://example.org/other'] } });

  const { text, error } = await (await send(stage, get('/'))).over();

  assert.match(text, /^HTTP\/1\.1 403 Forbidden\r\n/);
  assert.match(text, /\r\nConnection: close\r\n\r\nscute: not_allowed: spiffe:\/\/example\.org\/web may not do this\n$/);
  assert.equal(error, undefined);
  assert.equal(application.connections(), 0);
  const line = await stage.sidecar.connection();
  assert.equal(line['verdict'], 'deny');
  assert.equal(line['reason'], 'not_allowed');
  assert.equal(await stage.sidecar.metric('scute_http_requests_total', { status: '403', result: 'denied' }), 1);
  assert.equal(await stage.sidecar.metric('scute_authorization_total', { decision: 'deny' }), 1);
});

test('a peer that proves nothing is not answered a byte', async (t) => {
  const application = await startRawApplication(t, () => OK);
  const stage = await startHttpInbound(t, application.address);

  const stranger = wire(tlsClient(t, stage.address, undefined));
  stranger.socket.write(get('/'));

  const { text } = await stranger.over();
  assert.equal(text, '');
  assert.equal(application.connections(), 0);
});

test('a peer that a reload no longer allows is cut off', async (t) => {
  const application = await startRawApplication(t, () => OK);
  const stage = await startHttpInbound(t, application.address);
  const line = await send(stage, get('/'));
  await line.until('ok');

  await stage.sidecar.reload(stage.with({ allow: [] }));
  await line.over();

  assert.equal((await stage.sidecar.connection())['reason'], 'policy');
});

test('an application that cannot be reached is a 502', async (t) => {
  const stage = await startHttpInbound(t, `127.0.0.1:${await freePort()}`);

  const { text } = await (await send(stage, get('/'))).over();

  assert.match(text, /^HTTP\/1\.1 502 Bad Gateway\r\n/);
  assert.equal((await stage.sidecar.connection())['close_reason'], 'upstream_refused');
});

test('an application that does not answer in time is a 504', async (t) => {
  const application = await startRawApplication(t, () => undefined);
  const stage = await startHttpInbound(t, application.address, { http: { responseTimeout: '100ms' } });

  const { text } = await (await send(stage, get('/'))).over();

  assert.match(text, /^HTTP\/1\.1 504 Gateway Timeout\r\n/);
});

test('an application that dies within its response leaves no response that looks whole', async (t) => {
  const responses = ['HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel'];
  for (const response of responses) {
    const application = await startRawApplication(t, (_, socket) => {
      socket.end(response);
      return undefined;
    });
    const stage = await startHttpInbound(t, application.address);

    const { text, error } = await (await send(stage, get('/'))).over();

    assert.equal(error, 'ECONNRESET');
    assert.ok(response.startsWith(text));
  }
});

test('an application that says nothing, or nonsense, is a 502', async (t) => {
  const nonsense = [
    '',
    'hello\r\n\r\n',
    'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx',
    'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    'HTTP/1.1 200 OK\nContent-Length: 1\n\nx',
    'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n',
    `HTTP/1.1 200 OK\r\nX: ${'x'.repeat(40_000)}\r\n\r\n`,
  ];
  for (const response of nonsense) {
    const application = await startRawApplication(t, (_, socket) => {
      socket.end(response);
      return undefined;
    });
    const stage = await startHttpInbound(t, application.address);

    const { text } = await (await send(stage, get('/'))).over();

    assert.match(text, /^HTTP\/1\.1 502 Bad Gateway\r\n/, JSON.stringify(response.slice(0, 50)));
  }
});

test('what an application says without being asked is no answer to the next request', async (t) => {
  const application = await startRawApplication(t, (received) => (received.includes('/evil') ? `${OK}${OK.replace('ok', 'no')}` : OK));
  const stage = await startHttpInbound(t, application.address);

  const line = await send(stage, `${get('/evil')}${get('/good', 'Connection: close')}`);

  const { text } = await line.over();
  assert.equal(text, OK + OK.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n'));
  assert.equal(application.connections(), 2);
});

test('a head that takes too long is a 408', async (t) => {
  const application = await startRawApplication(t, () => OK);
  const stage = await startHttpInbound(t, application.address, { http: { headTimeout: '100ms' } });

  const { text } = await (await send(stage, 'GET / HTTP/1.1\r\nHost:')).over();

  assert.match(text, /^HTTP\/1\.1 408 Request Timeout\r\n/);
  assert.equal(application.connections(), 0);
});

test('heads and bodies beyond the limits are refused', async (t) => {
  const application = await startRawApplication(t, () => undefined);
  const stage = await startHttpInbound(t, application.address, { http: { maxHeadBytes: 1024, maxFields: 10, maxBodyBytes: 100 } });
  const chunked = 'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n';
  const cases: [string, number][] = [
    [get('/', `X: ${'x'.repeat(1024)}`), 431],
    [get('/', ...Array.from({ length: 10 }, (_, index) => `X-${index}: 1`)), 431],
    ['POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n', 413],
    [`${chunked}65\r\n`, 413],
    [`${chunked}60\r\n${'x'.repeat(96)}\r\n5\r\n`, 413],
    [`${chunked}0\r\nX: ${'x'.repeat(1024)}`, 431],
  ];
  for (const [request, status] of cases) {
    const { text } = await (await send(stage, request)).over();
    assert.equal(Number(text.slice(9, 12)), status, request.slice(0, 80));
  }
});

test('a caller that leaves within its request breaks the one to the application', async (t) => {
  let error: string | undefined;
  const application = await startHttpApplication(t, (request) => {
    request.on('error', (cause: NodeJS.ErrnoException) => (error = cause.code));
    request.resume();
  });
  const stage = await startHttpInbound(t, application.address);

  const line = await send(stage, 'POST / HTTP/1.1\r\nHost: api\r\nContent-Length: 10\r\n\r\nhalf');
  await eventually(async () => assert.equal((await stage.sidecar.metric('scute_tcp_write_bytes_total', { peer: 'dst' })) > 0, true));
  line.socket.end();

  const { text } = await line.over();
  assert.match(text, /^HTTP\/1\.1 400 Bad Request\r\n/);
  await eventually(() => Promise.resolve(assert.equal(error, 'ECONNRESET')));
});

test('a listener that drains ends idle connections at once', async (t) => {
  const application = await startRawApplication(t, () => OK);
  const stage = await startHttpInbound(t, application.address);
  const line = await send(stage, get('/'));
  await line.until('ok');

  const forced = await stage.sidecar.stop(AbortSignal.timeout(60_000));

  assert.equal(forced, 0);
  assert.equal((await line.over()).error, undefined);
});

test('large bodies pass both ways byte for byte', async (t) => {
  const application = await startHttpApplication(t, (request, response) => {
    request.pipe(response);
  });
  const stage = await startHttpInbound(t, application.address);
  const body = Buffer.alloc(8 * 1024 * 1024, 'the quick brown fox jumps over the lazy dog, ');

  const line = await send(
    stage,
    Buffer.concat([Buffer.from(`POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n`), body]),
  );

  const { text, error } = await line.over();
  assert.equal(error, undefined);
  const received: Buffer[] = [];
  let at = text.indexOf('\r\n\r\n') + 4;
  const bytes = Buffer.from(text, 'latin1');
  for (;;) {
    const lineEnd = text.indexOf('\r\n', at);
    const size = Number.parseInt(text.slice(at, lineEnd), 16);
    if (size === 0) break;
    received.push(bytes.subarray(lineEnd + 2, lineEnd + 2 + size));
    at = lineEnd + 2 + size + 2;
  }
  assert.ok(Buffer.concat(received).equals(body));
});

test('whoever presents the certificate of another workload is that workload', async (t) => {
  const application = await startRawApplication(t, () => OK);
  const stage = await startHttpInbound(t, application.address, { listener: { allow: ['spiffe://example.org/**'] } });

  const line = wire(tlsClient(t, stage.address, presented(await stage.spiffe.issue('spiffe://example.org/ns/prod/batch'))));
  line.socket.write(get('/'));
  await line.until('ok');

  assert.match(application.received(), /;URI=spiffe:\/\/example\.org\/ns\/prod\/batch\r\n/);
});

test('nobody is told to go on with a body that is not taken', async (t) => {
  const application = await startRawApplication(t, () => OK);
  const expect = (length: number): string => `PUT / HTTP/1.1\r\nHost: api\r\nExpect: 100-continue\r\nContent-Length: ${length}\r\n\r\n`;
  const stage = await startHttpInbound(t, application.address, { http: { maxBodyBytes: 10 } });
  assert.match((await (await send(stage, expect(11))).over()).text, /^HTTP\/1\.1 413 /);
  assert.match((await (await send(stage, expect(1).replace('100-continue', '200-ok'))).over()).text, /^HTTP\/1\.1 400 /);

  await stage.sidecar.reload(stage.with({ allow: [] }));
  assert.match((await (await send(stage, expect(1))).over()).text, /^HTTP\/1\.1 403 /);
  assert.equal(application.connections(), 0);

  const nobody = await startHttpInbound(t, `127.0.0.1:${await freePort()}`);
  assert.match((await (await send(nobody, expect(1))).over()).text, /^HTTP\/1\.1 502 /);
});

test('what a client says of itself reaches the application only where that was asked for, under that very name', async (t) => {
  const application = await startRawApplication(t, (received) => (received.endsWith('\r\n\r\n') ? OK : undefined));
  const fields = [
    'X-Forwarded-Client-Cert: URI=spiffe://a/1',
    'x_forwarded_client_cert: URI=spiffe://a/2',
    'x-forwarded-client-cert:  URI=spiffe://a/3 ',
  ];
  const xfccOf = (text: string): string[] => text.match(/^x.forwarded.client.cert:.*$/gim) ?? [];

  const forwarding = await startHttpInbound(t, application.address, { http: { xfcc: 'unsafe-forward' } });
  await (await send(forwarding, get('/', ...fields))).until('ok');
  const appending = await startHttpInbound(t, application.address, { http: { xfcc: 'unsafe-append' } });
  await (await send(appending, get('/appended', ...fields))).until('ok');
  await (await send(appending, get('/bare'))).until('ok');

  const [forwarded = '', appended = '', bare = ''] = application.received().split(/(?=GET \/[ab])/);
  assert.deepEqual(xfccOf(forwarded), ['X-Forwarded-Client-Cert: URI=spiffe://a/1', 'x-forwarded-client-cert:  URI=spiffe://a/3 ']);
  const ours = String.raw`By=spiffe:\/\/example\.org\/api;Hash=[0-9a-f]{64};URI=spiffe:\/\/example\.org\/web$`;
  assert.equal(xfccOf(appended).length, 1);
  assert.match(xfccOf(appended).join(), new RegExp(`^X-Forwarded-Client-Cert: URI=spiffe://a/1,URI=spiffe://a/3,${ours}`));
  assert.match(xfccOf(bare).join(), new RegExp(`^X-Forwarded-Client-Cert: ${ours}`));
});
