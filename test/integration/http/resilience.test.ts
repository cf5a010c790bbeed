import assert from 'node:assert/strict';
import { test } from 'node:test';
import { presented, WEB } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { send, startHttpApplication, startHttpInbound, startRawApplication, wire } from '../../support/http/http-stage.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { tlsClient } from '../../support/tls-peer.ts';

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const GET = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n';

test('a peer that is not allowed and says nothing holds no place for long', async (t) => {
  const application = await startRawApplication(t, () => OK);
  const stage = await startHttpInbound(t, application.address, { listener: { allow: [] }, http: { headTimeout: '100ms' } });

  const { text, error } = await wire(await stage.connect()).over();

  assert.equal(text, '');
  assert.equal(error, undefined);
});

test('a peer that is not allowed is told so whatever it pipelines, once', async (t) => {
  const application = await startRawApplication(t, () => OK);
  const stage = await startHttpInbound(t, application.address, { listener: { allow: [] } });

  const { text } = await (await send(stage, GET.repeat(100))).over();

  assert.equal(text.match(/HTTP\/1\.1 \d+/g)?.join(), 'HTTP/1.1 403');
  assert.equal(application.connections(), 0);
});

test('a peer that a reload allows is served on a new connection', async (t) => {
  const application = await startRawApplication(t, () => OK);
  const stage = await startHttpInbound(t, application.address, { listener: { allow: [] } });
  assert.match((await (await send(stage, GET)).over()).text, / 403 /);

  await stage.sidecar.reload(stage.with({ allow: [WEB] }));

  await (await send(stage, GET)).until('ok');
});

test('rotations close no connection and lose no request', async (t) => {
  const application = await startHttpApplication(t, (_, response) => response.end('ok'));
  const stage = await startHttpInbound(t, application.address);
  const line = await send(stage, GET);

  for (let rotation = 1; rotation <= 5; rotation++) {
    const before = await stage.sidecar.metric('scute_identity_generation');
    await stage.spiffe.rotate();
    await eventually(async () => assert.ok((await stage.sidecar.metric('scute_identity_generation')) > before));
    line.socket.write(GET);
    await eventually(() => Promise.resolve(assert.equal(line.text().match(/ok/g)?.length, rotation + 1)));
  }
});

test('a connection without requests is closed after the idle time', async (t) => {
  const application = await startHttpApplication(t, (request, response) => request.pipe(response));
  const stage = await startHttpInbound(t, application.address, { listener: { limits: { idleTimeout: '200ms' } } });

  const line = await send(stage, GET);
  await line.until('200 OK');
  await line.over();

  assert.equal((await stage.sidecar.connection())['close_reason'], 'idle_timeout');
});

test('a caller that does not read holds no more than the buffers of its connection', async (t) => {
  const body = Buffer.alloc(1024 * 1024, 'x');
  let written = 0;
  const application = await startHttpApplication(t, (_, response) => {
    response.writeHead(200, { 'Content-Length': body.length * 200 });
    const more = (): void => {
      for (;;) {
        if (response.destroyed || written >= body.length * 200) return;
        written += body.length;
        if (!response.write(body)) break;
      }
      response.once('drain', more);
    };
    more();
  });
  const stage = await startHttpInbound(t, application.address);
  const socket = tlsClient(t, stage.address, stage.web);
  socket.pause();
  socket.write(GET);

  let last = -1;
  await eventually(() => {
    const now = written;
    const isStill = now > 0 && now === last;
    last = now;
    return isStill ? Promise.resolve() : Promise.reject(new Error(`${now} bytes, and more`));
  });
  assert.ok(written < body.length * 50, `${written} bytes were taken`);

  let read = 0;
  socket.on('data', (chunk: Buffer) => (read += chunk.length));
  socket.resume();
  await eventually(() => Promise.resolve(assert.ok(read > body.length * 200)));
});

test('an application that does not read slows the caller down', async (t) => {
  const application = await startRawApplication(t, (_, socket) => {
    socket.pause();
    return undefined;
  });
  const stage = await startHttpInbound(t, application.address);
  const line = await send(stage, 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 209715200\r\n\r\n');
  const chunk = Buffer.alloc(1024 * 1024);
  let accepted = 0;
  const more = (): void => {
    while (accepted < 200 && line.socket.write(chunk)) accepted++;
    if (accepted < 200) line.socket.once('drain', () => (accepted++, more()));
  };
  more();

  let last = -1;
  await eventually(() => {
    const isStill = accepted === last;
    last = accepted;
    return isStill ? Promise.resolve() : Promise.reject(new Error(`${accepted} MiB, and more`));
  });
  assert.ok(accepted < 50, `${accepted} MiB were taken`);
});

test('with the PROXY protocol, each connection to the application begins with its header', async (t) => {
  const application = await startRawApplication(t, (_, socket) => {
    socket.end(OK);
    return undefined;
  });
  const stage = await startHttpInbound(t, application.address, { listener: { proxyProtocol: { send: 'tls' } } });

  for (let time = 1; time <= 2; time++) {
    const line = wire(tlsClient(t, stage.address, presented(await stage.spiffe.issue(WEB))));
    line.socket.write(GET);
    await line.until('ok');
    assert.equal(application.received().split('\r\n\r\n\0\r\nQUIT\n').length - 1, time);
  }
  assert.match(application.received(), /^\r\n\r\n\0\r\nQUIT\n[\s\S]*GET \/ HTTP\/1\.1\r\n/);
});

test('connections that are cut while they end leave no descriptor behind', async (t) => {
  const application = await startHttpApplication(t, (_, response) => response.end('ok'));
  const stage = await startHttpInbound(t, application.address);
  const lines = await Promise.all(Array.from({ length: 10 }, () => send(stage, GET)));
  await Promise.all(lines.map((line) => line.until('200 OK')));

  // Ended in order for the drain, and cut by its deadline in the same turn.
  await stage.sidecar.stop(AbortSignal.abort());
  await Promise.all(lines.map((line) => line.over()));
  application.server.closeAllConnections();

  await eventually(() => {
    const sockets = process.getActiveResourcesInfo().filter((resource) => resource === 'TCPSocketWrap');
    return sockets.length < 10 ? Promise.resolve() : Promise.reject(new Error(`${sockets.length} sockets are open`));
  });
});

test('a body that dribbles is cut off', async (t) => {
  const clock = new FakeClock();
  let begun = 0;
  const application = await startHttpApplication(t, (request, response) => {
    begun++;
    request.resume().on('end', () => response.end());
  });
  const stage = await startHttpInbound(t, application.address, { sidecar: { clock } });
  const dribbling = await send(stage, 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n');
  const chunked = await send(stage, 'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nf');
  const other = await send(stage, GET);
  await eventually(() => assert.equal(begun, 3));

  for (let second = 0; second < 10; second++) {
    dribbling.socket.write('x');
    clock.advance(1000);
    await new Promise(setImmediate);
  }

  for (const each of [dribbling, chunked]) {
    assert.match((await each.over()).text, /^HTTP\/1\.1 408 [\s\S]*the body came too slowly\n$/);
  }
  assert.equal(await stage.sidecar.metric('scute_http_requests_total', { result: 'timeout' }), 2);
  other.socket.write(GET);
  await eventually(() => assert.equal(other.text().match(/200 OK/g)?.length, 2));
});

test('a body as fast as it must be is not cut off, however long it takes', async (t) => {
  const clock = new FakeClock();
  const application = await startHttpApplication(t, (request, response) => request.pipe(response));
  const stage = await startHttpInbound(t, application.address, { sidecar: { clock } });
  const line = await send(stage, 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30000\r\n\r\n');

  for (let sent = 300; sent <= 30_000; sent += 300) {
    line.socket.write('x'.repeat(300));
    await eventually(() => assert.ok(line.text().split('x').length > sent));
    clock.advance(1000);
  }

  assert.match(line.text(), /^HTTP\/1\.1 200 /);
});
