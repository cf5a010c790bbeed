/** What happens to requests when the sidecar, its configuration, the application or the connection changes under them. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import { Agent, request } from 'node:https';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import { WEB } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { send, startHttpApplication, startHttpInbound, startRawApplication, wire } from '../../support/http/http-stage.ts';
import { createRandom } from '../../support/random.ts';
import { closed, dial, freePort } from '../../support/tcp.ts';
import { tlsClient } from '../../support/tls-peer.ts';

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const GET = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n';
const PART = 'x'.repeat(64 * 1024);

test('responses under way when the drain begins are finished, those to come say that they are the last, and nobody new is served', async (t) => {
  const { promise: released, resolve: release } = Promise.withResolvers<void>();
  let asked = 0;
  const application = await startHttpApplication(t, (incoming, response) => {
    asked++;
    incoming.resume();
    if (incoming.url === '/begun') response.writeHead(200, { 'Content-Length': 2 * PART.length }).write(PART);
    void released.then(() => response.end(incoming.url === '/begun' ? PART : 'ok'));
  });
  const stage = await startHttpInbound(t, application.address);
  const ask = (path: string) => send(stage, `GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`);
  const begun = await Promise.all(Array.from({ length: 5 }, () => ask('/begun')));
  const waiting = await Promise.all(Array.from({ length: 5 }, () => ask('/waiting')));
  const idle = wire(await stage.connect());
  await Promise.all(begun.map((line) => line.until('x')));
  await eventually(() => assert.equal(asked, 10));

  const drained = stage.sidecar.stop(AbortSignal.timeout(60_000));
  assert.deepEqual(await idle.over(), { text: '', error: undefined });
  await assert.rejects(once(tlsClient(t, stage.address, stage.web), 'secureConnect'));
  release();

  for (const line of begun) {
    const { text, error } = await line.over();
    assert.equal(error, undefined);
    assert.ok(text.endsWith(`\r\n\r\n${PART}${PART}`));
  }
  for (const line of waiting) {
    const { text, error } = await line.over();
    assert.equal(error, undefined);
    assert.match(text, /^HTTP\/1\.1 200 OK\r\n[\s\S]*\r\nConnection: close\r\n\r\nok$/);
  }
  assert.equal(await drained, 0);
  assert.equal(asked, 10);
});

test('ten connections make requests through five reloads without an error', async (t) => {
  const application = await startHttpApplication(t, (incoming, response) => incoming.pipe(response));
  const stage = await startHttpInbound(t, application.address);
  const agent = new Agent({ keepAlive: true, maxSockets: 10, ...stage.web, rejectUnauthorized: false });
  t.after(() => agent.destroy());
  const port = Number(stage.address.split(':')[1]);
  const stop = new AbortController();
  let requests = 0;
  const loops = Array.from({ length: 10 }, async (_, number) => {
    while (!stop.signal.aborted) {
      const sent = request({ host: '127.0.0.1', port, agent, method: 'POST' });
      sent.end(`${number} ${PART}`);
      const [response] = (await once(sent, 'response')) as [IncomingMessage];
      let text = '';
      for await (const part of response.setEncoding('latin1')) text += String(part);
      assert.equal(response.statusCode, 200);
      assert.ok(text === `${number} ${PART}`);
      requests++;
    }
  });

  for (let time = 0; time < 5; time++) {
    const before = requests;
    await eventually(() => assert.ok(requests >= before + 10));
    await stage.sidecar.reload(stage.with({ allow: [WEB, `spiffe://example.org/other-${time}`] }));
  }
  stop.abort();
  await Promise.all(loops);

  assert.equal(await stage.sidecar.metric('scute_tcp_open_total', { peer: 'src' }), 10);
  assert.equal(await stage.sidecar.metric('scute_http_requests_total', { result: 'forwarded' }), requests);
});

test('an application that comes and goes is a 502 while it is gone, and serves as soon as it is back', async (t) => {
  const port = await freePort();
  const stage = await startHttpInbound(t, `127.0.0.1:${port}`);
  const staying = await stage.connect();

  for (let time = 1; time <= 3; time++) {
    const { text } = await (await send(stage, GET)).over();
    assert.match(text, /^HTTP\/1\.1 502 Bad Gateway\r\n/);
    const application = createServer((_, response) => response.end('ok'));
    application.listen(port, '127.0.0.1');
    await once(application, 'listening');
    await (await send(stage, GET)).until('ok');
    application.closeAllConnections();
    application.close();
    await once(application, 'close');
  }
  // One that asks for the first time when all is well notices nothing.
  const application = createServer((_, response) => response.end('ok')).listen(port, '127.0.0.1');
  t.after(() => void application.close());
  t.after(() => application.closeAllConnections());
  const line = wire(staying);
  line.socket.write(GET);
  await line.until('ok');
  assert.equal(await stage.sidecar.metric('scute_http_requests_total', { status: '502', result: 'upstream_refused' }), 3);
});

test('a client that has said all that it will say gets its answer when it comes', async (t) => {
  const { promise: asked, resolve } = Promise.withResolvers<Socket>();
  const application = await startRawApplication(t, (received, socket) => {
    if (received.endsWith('\r\n\r\n')) resolve(socket);
    return undefined;
  });
  const stage = await startHttpInbound(t, application.address);
  const line = await send(stage, GET);
  line.socket.end();

  const socket = await asked;
  // The end has come as far as it will before the answer does.
  await eventually(async () => assert.ok((await stage.sidecar.metric('scute_tcp_read_bytes_total', { peer: 'src' })) >= GET.length));
  assert.equal(socket.readableEnded, false);
  socket.write(OK);

  assert.deepEqual(await line.over(), { text: OK, error: undefined });
});

test('connections that are reset at any moment, from either side, leave nothing behind, and everything adds up', async (t) => {
  const random = createRandom(7);
  const application = await startRawApplication(t, (received, socket) => {
    if (!received.includes('\r\n\r\n')) return undefined;
    if (random() < 0.3) {
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n');
      socket.resetAndDestroy();
      return undefined;
    }
    return random() < 0.5 ? OK : `HTTP/1.1 200 OK\r\nContent-Length: ${PART.length}\r\n\r\n${PART}`;
  });
  const stage = await startHttpInbound(t, application.address, { http: { headTimeout: '50ms' } });
  const requests = [GET, GET + GET, `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${PART.length}\r\n\r\n${PART.slice(1)}`, 'GET / HT'];

  const count = 150;
  for (let index = 0; index < count; index += 10) {
    await Promise.all(
      Array.from({ length: 10 }, async () => {
        const below = await dial(t, stage.address);
        const socket = await stage.connect({ socket: below });
        socket.write(requests[Math.floor(random() * requests.length)] ?? '');
        if (random() < 0.5) await Promise.race([once(socket, 'data'), once(socket, 'close')]);
        if (random() < 0.7) below.resetAndDestroy();
        else await closed(socket.end());
      }),
    );
  }

  const { sidecar } = stage;
  await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_open_connections'), 0));
  // Some were reset before their handshake was over on our side.
  const opened = await sidecar.metric('scute_tcp_open_total', { peer: 'src' });
  assert.ok(opened > count / 2, `${opened}`);
  assert.equal(await sidecar.metric('scute_tcp_close_total', { peer: 'src' }), count);
  assert.equal(await sidecar.metric('scute_tcp_close_total', { peer: 'src', reason: 'handshake_failed' }), count - opened);
  const lines = sidecar.log().filter(({ message }) => message === 'request finished');
  assert.equal(await sidecar.metric('scute_http_requests_total'), lines.length);
  assert.ok(!sidecar.log().some(({ close_reason }) => close_reason === 'internal_error'));
});
