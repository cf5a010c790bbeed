import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { eventually } from '../support/eventually.ts';
import { send, startHttpApplication, startHttpInbound, startRawApplication } from '../support/http-stage.ts';

const ask = (method: string, upgrade: string, ...more: readonly string[]): string =>
  [
    `${method} /socket HTTP/1.1`,
    'Host: a',
    'Connection: keep-alive, Upgrade',
    `Upgrade: ${upgrade}`,
    'Sec-WebSocket-Key: AAAA',
    ...more,
    '',
    '',
  ].join('\r\n');
const SWITCH = 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n';

test('a WebSocket carries any bytes both ways after the 101, those that came early too', async (t) => {
  const application = await startHttpApplication(t, (_, response) => response.end());
  application.server.on('upgrade', (request, socket, head) => {
    assert.match(String(request.headers['x-forwarded-client-cert']), /URI=spiffe:\/\/example\.org\/web$/);
    socket.write(SWITCH);
    socket.write(head);
    socket.pipe(socket);
  });
  const stage = await startHttpInbound(t, application.address);
  const bytes = Buffer.alloc(4 * 1024 * 1024, 'GET / HTTP/1.1\r\n\r\n\0\xff');
  const sum = createHash('sha256').update(bytes).digest('hex');

  const line = await send(stage, ask('GET', 'WebSocket') + 'early');
  await line.until('early');
  line.socket.write(bytes);
  await eventually(() => Promise.resolve(assert.equal(line.text().length, SWITCH.length + 5 + bytes.length)));
  line.socket.end();

  const { text, error } = await line.over();
  assert.equal(error, undefined);
  assert.equal(text.slice(0, SWITCH.length + 5), `${SWITCH}early`);
  assert.equal(
    createHash('sha256')
      .update(Buffer.from(text.slice(SWITCH.length + 5), 'latin1'))
      .digest('hex'),
    sum,
  );
  const request = stage.sidecar.log().find(({ message }) => message === 'request finished');
  assert.deepEqual([request?.['status'], request?.['result']], [101, 'forwarded']);
});

test('an application that will not switch answers, and the connection goes on as it was', async (t) => {
  const application = await startHttpApplication(t, (request, response) => response.end(request.url));
  const stage = await startHttpInbound(t, application.address);

  const line = await send(stage, `${ask('GET', 'websocket')}GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`);

  const { text } = await line.over();
  assert.match(text, /^HTTP\/1\.1 200 OK[\s\S]*\/socketHTTP\/1\.1 200 OK[\s\S]*\/next$/);
});

test('no other upgrade reaches the application, and a 101 to none is refused', async (t) => {
  const application = await startRawApplication(t, () => SWITCH);
  const stage = await startHttpInbound(t, application.address);

  const asked = [
    ask('GET', 'h2c'),
    ask('GET', 'h2c, websocket'),
    ask('GET', 'websocket', 'Upgrade: h2c'),
    ask('GET', 'websocket/13'),
    ask('POST', 'websocket'),
    `${ask('GET', 'websocket', 'Content-Length: 5')}hello`,
    `${ask('GET', 'websocket', 'Transfer-Encoding: chunked')}0\r\n\r\n`,
    'GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n',
    'GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n',
    'GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade_: websocket\r\n\r\n',
  ];
  for (const request of asked) {
    const { text } = await (await send(stage, request)).over();
    assert.match(text, /^HTTP\/1\.1 502 Bad Gateway\r\n/, request);
  }
  assert.doesNotMatch(application.received(), /upgrade: /i);
});

test('a 101 to another protocol than was asked for is refused', async (t) => {
  const application = await startRawApplication(t, () => SWITCH.replace('websocket', 'h2c'));
  const stage = await startHttpInbound(t, application.address);

  const { text } = await (await send(stage, ask('GET', 'websocket'))).over();

  assert.match(text, /^HTTP\/1\.1 502 Bad Gateway\r\n/);
});

test('a WebSocket whose application breaks is broken', async (t) => {
  const application = await startRawApplication(t, (_, socket) => {
    socket.write(SWITCH, () => socket.resetAndDestroy());
    return undefined;
  });
  const stage = await startHttpInbound(t, application.address);

  const { error } = await (await send(stage, ask('GET', 'websocket'))).over();

  assert.equal(error, 'ECONNRESET');
});
