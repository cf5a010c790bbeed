import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import { startPair } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { HTTP_DIRECTIONS } from '../../support/http/http-directions.ts';
import { send, startHttpApplication, startHttpInbound, startRawApplication } from '../../support/http/http-stage.ts';

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

const UPGRADES = { upgrades: ['tcp', 'SPDY/3.1'] };
const crlf = (...lines: readonly string[]): string => `${lines.join('\r\n')}\r\n\r\n`;
const switchTo = (...fields: readonly string[]): string => crlf('HTTP/1.1 101 UPGRADED', 'Content-Type: application/x', ...fields);
/** As Docker's client asks for the streams of a command, and Kubernetes' for those of a container. */
const EXEC = ['Connection: Upgrade', 'Upgrade: tcp'];

test('what a Docker client says to a command and hears from it passes two sidecars byte for byte, either side ending first', async (t) => {
  const MIB = 1024 * 1024;
  const heard: Buffer[] = [];
  const answer = randomBytes(4 * MIB);
  const application = await startHttpApplication(t, (_, response) => response.writeHead(400).end());
  application.server.on('upgrade', (asked: IncomingMessage, socket: Socket) => {
    assert.deepEqual([asked.method, asked.headers.upgrade, asked.headers.connection], ['POST', 'tcp', 'Upgrade']);
    socket.write(switchTo('Connection: Upgrade', 'Upgrade: tcp'));
    socket.on('data', (chunk: Buffer) => heard.push(chunk));
    // The rest comes when the client has said all.
    if (asked.url === '/client-first') socket.on('end', () => socket.end(answer));
    else socket.end(answer);
  });
  const pair = await startPair(t, application.address, {
    inbound: { protocol: 'http', http: UPGRADES },
    outbound: { protocol: 'http', http: UPGRADES },
  });
  const [host, port] = pair.address.split(':');

  for (const path of ['/client-first', '/application-first']) {
    heard.length = 0;
    const said = randomBytes(4 * MIB);
    const asked = httpRequest({
      host,
      port,
      path,
      method: 'POST',
      headers: { Connection: 'Upgrade', Upgrade: 'tcp', 'Content-Length': 0 },
    });
    asked.end();
    const [response, socket, first] = (await once(asked, 'upgrade')) as [IncomingMessage, Socket, Buffer];
    assert.deepEqual([response.statusCode, response.headers.upgrade, response.headers.connection], [101, 'tcp', 'Upgrade']);
    const came = [first];
    socket.on('data', (chunk: Buffer) => came.push(chunk));
    if (path === '/application-first') {
      socket.allowHalfOpen = true;
      await once(socket, 'end');
    }
    socket.end(said);
    if (path === '/client-first') await once(socket, 'end');
    await eventually(() => Promise.resolve(assert.equal(Buffer.concat(heard).length, said.length)));

    assert.ok(Buffer.concat(came).equals(answer), path);
    assert.ok(Buffer.concat(heard).equals(said), path);
  }
  for (const sidecar of [pair.inbound, pair.outbound]) {
    const lines = await eventually(() => {
      const found = sidecar.log().filter(({ message }) => message === 'request finished');
      assert.equal(found.length, 2);
      return found;
    });
    assert.deepEqual(
      lines.map(({ method, status, result }) => [method, status, result]),
      Array.from({ length: 2 }, () => ['POST', 101, 'forwarded']),
    );
  }
});

for (const { name, start } of HTTP_DIRECTIONS) {
  test(`${name}: a protocol that is configured is switched to by GET or POST without a body, in any case`, async (t) => {
    const stage = await start(
      t,
      (received) =>
        received.endsWith('\r\n\r\n') ? switchTo('Connection: Upgrade', 'Upgrade: Tcp') : received === 'ping' ? 'pong' : undefined,
      UPGRADES,
    );

    for (const [asked, sent] of [
      [crlf('POST /exec HTTP/1.1', 'Host: a', ...EXEC), crlf('POST /exec HTTP/1.1', 'Host: a', ...EXEC)],
      [
        crlf('POST /exec HTTP/1.1', 'Host: a', 'Content-Length: 0', ...EXEC),
        crlf('POST /exec HTTP/1.1', 'Host: a', 'Content-Length: 0', ...EXEC),
      ],
      [
        crlf('GET /exec HTTP/1.1', 'upgrade: TCP', 'Connection: keep-alive, upgrade', 'Host: a'),
        crlf('GET /exec HTTP/1.1', 'Host: a', ...EXEC),
      ],
    ] as const) {
      const before = stage.received().length;
      const line = await stage.say(asked);
      await line.until(/\r\n\r\n$/);
      assert.equal(line.text(), switchTo('Connection: Upgrade', 'Upgrade: tcp'));
      line.socket.write('ping');
      await line.until(/pong$/);
      line.socket.end();
      assert.equal((await line.over()).error, undefined);
      assert.equal(stage.received().slice(before), `${sent}ping`);
    }
  });

  test(`${name}: what is not configured, or not asked for alone and without a body, is an ordinary request`, async (t) => {
    const stage = await start(
      t,
      (received) => (/\r\n\r\n(?:hello)?$/.test(received) ? 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n' : undefined),
      UPGRADES,
    );

    for (const asked of [
      crlf('GET / HTTP/1.1', 'Host: a', 'Connection: Upgrade', 'Upgrade: h2c'),
      crlf('GET / HTTP/1.1', 'Host: a', 'Connection: Upgrade', 'Upgrade: SPDY/3'),
      crlf('GET / HTTP/1.1', 'Host: a', 'Connection: Upgrade', 'Upgrade: SPDY/3.1, tcp'),
      crlf('GET / HTTP/1.1', 'Host: a', 'Connection: Upgrade', 'Upgrade: tcp', 'Upgrade: tcp'),
      crlf('GET / HTTP/1.1', 'Host: a', 'Connection: Upgrade', 'Upgrade: tcp, h2c'),
      crlf('GET / HTTP/1.1', 'Host: a', 'Connection: Upgrade', 'Upgrade: tcp/1'),
      crlf('GET / HTTP/1.1', 'Host: a', 'Upgrade: tcp'),
      crlf('PUT / HTTP/1.1', 'Host: a', ...EXEC),
      crlf('POST / HTTP/1.1', 'Host: a', 'Connection: Upgrade', 'Upgrade: websocket'),
      `${crlf('POST / HTTP/1.1', 'Host: a', 'Content-Length: 5', ...EXEC)}hello`,
    ]) {
      const before = stage.received().length;
      const line = await stage.say(asked + crlf('GET /next HTTP/1.1', 'Host: a', 'Connection: close'));
      const { text } = await line.over();
      assert.equal(text.match(/HTTP\/1\.1 200 OK/g)?.length, 2, asked);
      assert.doesNotMatch(stage.received().slice(before), /upgrade/i, asked);
    }
  });

  test(`${name}: raw bytes follow no 101 but to the protocol that was asked for`, async (t) => {
    let said = '';
    const stage = await start(t, (received) => (received.endsWith('\r\n\r\n') ? `${said}raw` : undefined), UPGRADES);

    for (const fields of [
      ['Connection: Upgrade', 'Upgrade: websocket'],
      ['Connection: Upgrade', 'Upgrade: SPDY/3.1'],
      ['Connection: Upgrade', 'Upgrade: tcp, SPDY/3.1'],
      ['Connection: Upgrade', 'Upgrade: tcp', 'Upgrade: tcp'],
      ['Connection: Upgrade', 'Upgrade: h2c'],
      ['Connection: Upgrade'],
    ]) {
      said = switchTo(...fields);
      const { text } = await (await stage.say(crlf('POST /exec HTTP/1.1', 'Host: a', ...EXEC))).over();
      assert.match(text, /^HTTP\/1\.1 502 Bad Gateway\r\n[^]*101 to another protocol than tcp/, said);
      assert.ok(!text.endsWith('raw'));
    }
  });

  test(`${name}: a server that will not switch answers, and the connection goes on`, async (t) => {
    const stage = await start(
      t,
      (received) => (received.endsWith('\r\n\r\n') ? 'HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nUpgrade: tcp\r\n\r\nno' : undefined),
      UPGRADES,
    );

    const line = await stage.say(
      crlf('POST /exec HTTP/1.1', 'Host: a', ...EXEC) + crlf('GET /next HTTP/1.1', 'Host: a', 'Connection: close'),
    );

    const { text } = await line.over();
    const answer = (...more: readonly string[]): string => `${crlf('HTTP/1.1 404 Not Found', 'Content-Length: 2', ...more)}no`;
    assert.equal(text, answer() + answer('Connection: close'));
    assert.equal(stage.connections(), 1);
  });

  test(`${name}: a 426 names what may be asked for, and nothing else`, async (t) => {
    let offer = '';
    const stage = await start(
      t,
      (received) =>
        received.endsWith('\r\n\r\n') ? crlf('HTTP/1.1 426 Upgrade Required', 'Content-Length: 0', `Upgrade: ${offer}`) : undefined,
      UPGRADES,
    );

    for (const [offered, told] of [
      ['websocket', ['Connection: Upgrade', 'Upgrade: websocket']],
      ['h2c,  TCP, TLS/1.0 ,spdy/3.1, tcp', ['Connection: Upgrade', 'Upgrade: tcp, SPDY/3.1']],
      ['h2c', []],
    ] as const) {
      offer = offered;
      const line = await stage.say(crlf('GET / HTTP/1.1', 'Host: a'));
      await line.until('\r\n\r\n');
      assert.equal(line.text(), crlf('HTTP/1.1 426 Upgrade Required', 'Content-Length: 0', ...told));
      line.socket.end();
    }
    offer = 'tcp';
    const { text } = await (await stage.say(crlf('GET / HTTP/1.1', 'Host: a', 'Connection: close'))).over();
    assert.equal(text, crlf('HTTP/1.1 426 Upgrade Required', 'Content-Length: 0', 'Connection: close, Upgrade', 'Upgrade: tcp'));
  });
}
