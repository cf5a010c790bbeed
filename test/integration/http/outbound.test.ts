import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test, type TestContext } from 'node:test';
import { startOutbound, startOutboundToApi, startPair, startExampleDomain, presented, WEB, API } from '../../support/data-path.ts';
import { startDevDomainWith } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { startHttpApplication, wire, type Wire } from '../../support/http/http-stage.ts';
import type { LogLine, Sidecar } from '../../support/sidecar.ts';
import { closed, dial, dialling, freePort, startTcpServer } from '../../support/tcp.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { tlsServer } from '../../support/tls-peer.ts';

const HTTP = { protocol: 'http' };
const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const get = (path: string, ...fields: readonly string[]): string => [`GET ${path} HTTP/1.1`, 'Host: api', ...fields, '', ''].join('\r\n');

function requests(sidecar: Sidecar): readonly LogLine[] {
  return sidecar.log().filter(({ message }) => message === 'request finished');
}

async function caller(t: TestContext, address: string): Promise<Wire> {
  return wire(await dial(t, address));
}

test('requests of one connection go over one connection to the server, which is connected to when the first one comes', async (t) => {
  let received = '';
  let connections = 0;
  const { sidecar, address } = await startOutboundToApi(
    t,
    (socket) => {
      connections++;
      socket.on('data', (chunk: Buffer) => {
        received += chunk.toString('latin1');
        if (received.endsWith('\r\n\r\n')) socket.write(OK);
      });
      socket.on('end', () => socket.end());
    },
    { listener: HTTP },
  );
  const line = await caller(t, address);
  await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_open_connections'), 1));
  assert.equal(connections, 0);

  line.socket.write(get('/one', 'X-Forwarded-Client-Cert: URI=spiffe://example.org/admin', 'X-Other: 1'));
  await line.until('ok');
  line.socket.write(get('/two', 'x_forwarded_client_cert: URI=spiffe://example.org/admin'));
  await line.until(/ok.*ok/s);

  assert.equal(connections, 1);
  assert.equal(received, `${get('/one', 'X-Other: 1')}${get('/two')}`);
  assert.deepEqual(
    requests(sidecar).map(({ path, status, result, verdict, rule, peer_id }) => [path, status, result, verdict, rule, peer_id]),
    ['/one', '/two'].map((path) => [path, 200, 'forwarded', 'allow', API, API]),
  );
  assert.equal(await sidecar.metric('scute_tls_handshakes_total', { result: 'ok' }), 1);
});

test('a server that is not who it must be is sent nothing, and the application is told why', async (t) => {
  const heard: string[] = [];
  const { sidecar, address } = await startOutboundToApi(t, (socket) => socket.on('data', (chunk: Buffer) => heard.push(String(chunk))), {
    listener: { ...HTTP, expect: ['spiffe://example.org/db'] },
  });

  const line = await caller(t, address);
  line.socket.write(get('/secret'));
  const { text } = await line.over();

  assert.match(
    text,
    /^HTTP\/1\.1 502 Bad Gateway\r\n[\s\S]*Connection: close\r\n\r\nscute: the server is not who it must be: not_allowed\n$/,
  );
  assert.deepEqual(heard, []);
  assert.deepEqual(
    requests(sidecar).map(({ status, result, verdict }) => [status, result, verdict]),
    [[502, 'upstream_denied', 'none']],
  );
  assert.equal((await sidecar.connection())['close_reason'], 'upstream_denied');
});

test('a server that is no SPIFFE peer, does not speak TLS, or is not there, is a 502 with the reason', async (t) => {
  const spiffe = await startExampleDomain(t);
  const plain = await startHttpApplication(t, (_, response) => response.end());
  // As a sidecar without an identity.
  const silent = await startTcpServer(t, (socket) => socket.once('data', () => socket.resetAndDestroy()));
  for (const [to, detail] of [
    [plain.address, 'the TLS handshake with the server failed: protocol_error'],
    [`127.0.0.1:${await freePort()}`, 'the server cannot be reached'],
    [`no-such-host.invalid:1`, 'the name of the server has no address'],
    [silent.address, 'the server closed the connection within the TLS handshake: its sidecar may not be ready'],
  ] as const) {
    const { address } = await startOutbound(t, to, { spiffe, listener: HTTP });
    const line = await caller(t, address);
    line.socket.write(get('/'));
    const { text } = await line.over();
    assert.match(text, /^HTTP\/1\.1 502 /);
    assert.ok(text.endsWith(`scute: ${detail}\n`), text);
  }
});

test('a server that says nothing in the handshake is a 504', async (t) => {
  const spiffe = await startExampleDomain(t);
  const silent = await startTcpServer(t, (socket) => socket.resume());
  const { address } = await startOutbound(t, silent.address, { spiffe, listener: { ...HTTP, limits: { handshakeTimeout: '50ms' } } });

  const line = await caller(t, address);
  line.socket.write(get('/'));

  assert.match((await line.over()).text, /^HTTP\/1\.1 504 /);
});

test('a server that closes between requests is connected to and judged anew for the next one', async (t) => {
  let connections = 0;
  const { sidecar, address } = await startOutboundToApi(
    t,
    (socket) => {
      connections++;
      socket.on('data', () => socket.end(OK));
    },
    { listener: HTTP },
  );
  const line = await caller(t, address);
  for (let request = 1; request <= 5; request++) {
    line.socket.write(get('/'));
    await eventually(() => assert.equal(line.text().match(/ok/g)?.length, request));
    await eventually(() => assert.equal(connections, request));
  }
  assert.equal(await sidecar.metric('scute_tls_handshakes_total', { result: 'ok' }), 5);
  assert.equal(await sidecar.metric('scute_tcp_open_total'), 1);
});

test('a server that a reload no longer accepts is asked nothing more, and the application is told when it asks', async (t) => {
  let heard = 0;
  const ends: string[] = [];
  const stage = await startOutboundToApi(
    t,
    (socket) => {
      socket.on('data', () => (heard++, socket.write(OK)));
      socket.on('error', () => ends.push('error'));
      socket.on('end', () => (ends.push('end'), socket.end()));
    },
    { listener: HTTP },
  );
  const line = await caller(t, stage.address);
  line.socket.write(get('/'));
  await line.until('ok');

  await stage.sidecar.reload(stage.with({ expect: ['spiffe://example.org/other'] }));
  await eventually(() => assert.deepEqual(ends, ['end']));
  line.socket.write(get('/'));

  const { text, error } = await line.over();
  assert.match(text, /ok[^]* 502 [^]*scute: the server is not who it must be: not_allowed\n$/);
  assert.deepEqual([error, heard], [undefined, 1]);
  const ended = stage.sidecar.log().find(({ message }) => message === 'connection to the server ended');
  assert.deepEqual([ended?.['reason'], ended?.['peer_id'], ended?.['detail']], ['policy', API, `${API} is no longer allowed`]);
  assert.equal(await stage.sidecar.metric('scute_connections_drained_total', { reason: 'policy' }), 1);
});

test('a request that is under way to a server that is no longer accepted is cut', async (t) => {
  const stage = await startOutboundToApi(
    t,
    (socket) => socket.on('data', () => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart')),
    {
      listener: HTTP,
    },
  );
  const line = await caller(t, stage.address);
  line.socket.write(get('/'));
  await line.until('part');

  await stage.sidecar.reload(stage.with({ expect: ['spiffe://example.org/other'] }));

  assert.equal(await closed(line.socket), 'ECONNRESET');
  assert.equal((await stage.sidecar.connection())['close_reason'], 'policy');
});

test('an application that asks while there is no identity is answered, however it asks, and the server hears nothing', async (t) => {
  const clock = new FakeClock();
  const spiffe = await startDevDomainWith(t, { clock: new FakeClock() }, [
    { name: 'example.org', svidLife: '1h', workloads: { web: [WEB], api: [API] } },
  ]);
  let connections = 0;
  const server = await tlsServer(t, presented(await spiffe.issue(API, { lifeMs: 100 * 3_600_000 })), (socket) => {
    connections++;
    socket.on('data', () => socket.write(OK));
    socket.on('end', () => socket.end());
  });
  const { address, sidecar } = await startOutbound(t, server.address, {
    spiffe,
    sidecar: { clock },
    listener: { ...HTTP, limits: { idleTimeout: 'off' } },
  });
  const kept = await Promise.all(Array.from({ length: 5 }, () => caller(t, address)));
  const silentLine = await caller(t, address);
  for (const line of kept) line.socket.write(get('/'));
  for (const line of kept) await line.until('ok');
  await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_open_connections'), 6));

  // The agent gives us no new one.
  clock.advance(3_600_000 + 2000);
  for (const line of [...kept, silentLine]) line.socket.write(get('/expired'));
  for (const line of [...kept, silentLine]) {
    const { text, error } = await line.over();
    assert.match(text, /HTTP\/1\.1 503 [^]*scute: there is no SVID to present\n$/);
    assert.equal(error, undefined);
  }
  for (let fresh = 0; fresh < 20; fresh++) {
    const line = await caller(t, address);
    line.socket.write(get('/fresh'));
    const { text, error } = await line.over();
    assert.match(text, /^HTTP\/1\.1 503 [^]*scute: there is no SVID to present\n$/);
    assert.equal(error, undefined);
  }

  assert.equal(connections, 5);
  assert.equal(await sidecar.metric('scute_http_requests_total', { result: 'identity_not_ready', status: '503' }), 26);
  assert.equal(await sidecar.metric('scute_accept_refused_total'), 0);
});

test('while the agent gives no identity, a request is a 503, and bytes are refused unread', async (t) => {
  const spiffe = await startExampleDomain(t);
  await spiffe.withdraw('web');
  const server = await startTcpServer(t, (socket) => socket.resume());
  for (const [listener, ending] of [
    [HTTP, /^HTTP\/1\.1 503 /],
    [{}, /^$/],
  ] as const) {
    const { address } = await startOutbound(t, server.address, {
      spiffe,
      listener: { ...listener, identityWait: '0s' },
      sidecar: { unready: true },
    });
    const line = wire(dialling(t, address));
    line.socket.write(get('/'));
    const { text, error } = await line.over();
    assert.match(text, ending);
    assert.equal(error, listener === HTTP ? undefined : 'ECONNRESET');
  }
});

test('when our identity is withdrawn between requests, the next one has none to show: the connection ends unheard', async (t) => {
  const heard: string[] = [];
  const stage = await startOutboundToApi(t, (socket) => socket.on('data', (chunk: Buffer) => heard.push(String(chunk))), {
    listener: HTTP,
  });
  const line = await caller(t, stage.address);
  await eventually(async () => assert.equal(await stage.sidecar.metric('scute_tcp_open_connections'), 1));

  await stage.spiffe.withdraw('web');
  await eventually(() => assert.ok(stage.sidecar.log().some(({ message }) => message === 'identity withdrawn')));
  line.socket.write(get('/'));

  const { text } = await line.over();
  assert.match(text, /^HTTP\/1\.1 503 [\s\S]*scute: there is no SVID to present\n$/);
  assert.deepEqual(heard, []);
});

test('through a sidecar on each side, requests, bodies and a WebSocket pass', async (t) => {
  const application = await startHttpApplication(t, (request, response) => {
    response.setHeader('X-Who', String(request.headers['x-forwarded-client-cert']));
    request.pipe(response);
  });
  application.server.on('upgrade', (_, socket) => {
    socket.on('error', () => undefined);
    socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
    socket.pipe(socket);
  });
  const { address } = await startPair(t, application.address, { inbound: HTTP, outbound: HTTP });

  const line = await caller(t, address);
  line.socket.write(`POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n`);
  await line.until(/^HTTP\/1\.1 100 Continue\r\n\r\n$/);
  line.socket.write('hello');
  await line.until(new RegExp(`X-Who: By=${API};Hash=[0-9a-f]{64};URI=${WEB}\r\n[\\s\\S]*hello`));
  line.socket.write(get('/socket', 'Connection: Upgrade', 'Upgrade: websocket'));
  await line.until(/101 Switching[\s\S]*\r\n\r\n$/);
  line.socket.write('frames');
  await line.until(/frames$/);
});

test('what the application says of itself in X-Forwarded-Client-Cert goes through only where that was asked for', async (t) => {
  const spiffe = await startExampleDomain(t);
  const { cert, key } = presented(await spiffe.issue(API));
  let seen = '';
  const server = await tlsServer(t, { cert, key }, (socket) =>
    socket.on('data', (chunk: Buffer) => {
      seen = chunk.toString('latin1');
      socket.write(OK);
    }),
  );
  const { address } = await startOutbound(t, server.address, { spiffe, listener: { ...HTTP, http: { xfcc: 'unsafe-forward' } } });

  const line = await caller(t, address);
  line.socket.write(get('/', 'X-Forwarded-Client-Cert: URI=spiffe://a/b', 'X_Forwarded_Client_Cert: URI=spiffe://a/c'));
  await line.until('ok');

  assert.equal(seen, get('/', 'X-Forwarded-Client-Cert: URI=spiffe://a/b'));
});

test('many callers at once each have their own connection to the server', async (t) => {
  const spiffe = await startExampleDomain(t);
  const server = createServer((request, response) => response.end(request.url));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const { address, outbound } = await startPair(t, `127.0.0.1:${(server.address() as AddressInfo).port}`, {
    spiffe,
    inbound: HTTP,
    outbound: HTTP,
  });

  await Promise.all(
    Array.from({ length: 50 }, async (_, index) => {
      const line = await caller(t, address);
      for (let request = 0; request < 10; request++) {
        line.socket.write(get(`/${index}-${request};`));
        await line.until(`\r\n\r\n/${index}-${request};`);
      }
      line.socket.end();
      await line.over();
    }),
  );

  await eventually(async () => assert.equal(await outbound.metric('scute_tcp_open_connections'), 0));
  assert.equal(await outbound.metric('scute_http_requests_total', { result: 'forwarded' }), 500);
  assert.equal(await outbound.metric('scute_tls_handshakes_total', { result: 'ok' }), 50);
});

test('between servers nothing ends the connection of the application: the next server is judged by itself', async (t) => {
  const stage = await startOutboundToApi(t, (socket) => socket.on('data', () => socket.end(OK)), { listener: HTTP });
  const line = await caller(t, stage.address);
  line.socket.write(get('/'));
  await line.until('ok');
  await eventually(() => assert.equal(stage.server.connections.size, 0));

  await stage.sidecar.reload(stage.with({ expect: ['spiffe://example.org/other'] }));
  line.socket.write(get('/'));

  assert.match((await line.over()).text, /ok[\s\S]*502 Bad Gateway[\s\S]*the server is not who it must be: not_allowed\n$/);
});

test('a response that breaks off shows as broken at a Unix socket, where no connection can be reset', async (t) => {
  const folder = await temporaryFolder(t);
  const stage = await startOutboundToApi(t, (socket) => socket.on('data', () => socket.write('HTTP/1.1 200 OK\r\n\r\npart of it')), {
    listener: { ...HTTP, listen: `unix://${folder}/out.sock` },
  });
  const line = await caller(t, stage.address);
  line.socket.write(get('/'));
  await line.until('part of it');

  for (const socket of stage.server.connections) socket.resetAndDestroy();

  const { text } = await line.over();
  assert.match(text, /Transfer-Encoding: chunked\r\n[\s\S]*part of it\r\n$/);
});
