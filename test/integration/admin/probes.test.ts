import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { test, type TestContext } from 'node:test';
import type { ProbeConfig } from '../../../src/config/sections/probes.ts';
import { parseAddress } from '../../../src/config/units.ts';
import { createAdminParts, LOOPBACK, startService } from '../../support/admin/admin.ts';
import { eventually } from '../../support/eventually.ts';
import { ask } from '../../support/http/http.ts';
import { dialling, startTcpServer } from '../../support/tcp.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';

/** A metrics listener that probes an application which `serve` plays, byte by byte. */
async function stage(
  t: TestContext,
  serve: (socket: Socket) => void,
  { target = '/healthz', path = undefined as string | undefined } = {},
) {
  const application = await startTcpServer(
    t,
    (socket) => {
      socket.on('end', () => socket.end());
      serve(socket);
    },
    path,
  );
  const to = parseAddress(application.address);
  assert.ok(to.ok);
  const probe: ProbeConfig = { path: '/app/ready', to: to.value, target };
  const parts = await createAdminParts();
  const address = await startService(t, parts.metricsServer({ ...LOOPBACK, probes: [probe] }));
  return { ...parts, application, address, results: parts.metrics.probes.probe(probe.path) };
}

/** Answers each request with `answer`, and keeps what was asked. */
function answering(answer: string): { readonly asked: string[]; readonly serve: (socket: Socket) => void } {
  const asked: string[] = [];
  return {
    asked,
    serve(socket) {
      let text = '';
      socket.on('data', (chunk) => {
        text += chunk.toString('latin1');
        if (!text.endsWith('\r\n\r\n')) return;
        asked.push(text);
        socket.write(answer);
      });
    },
  };
}

test('a probe is answered with the status of the application, and with nothing else that it says', async (t) => {
  for (const [line, status] of [
    ['200 Fine', 200],
    ['204 No Content', 204],
    ['302 Found', 302],
    ['304 Not Modified', 304],
    ['418 Teapot', 418],
    ['503 Busy', 503],
    ['599 Whatever', 599],
  ] as const) {
    const { serve } = answering(
      `HTTP/1.1 ${line}\r\nLocation: http://secret.example/\r\nSet-Cookie: secret=1\r\nContent-Length: 6\r\n\r\nsecret`,
    );
    const { address } = await stage(t, serve);

    const answer = await ask(address, '/app/ready');

    assert.equal(answer.status, status);
    assert.equal(answer.body, '');
    assert.equal(answer.headers['content-length'], status === 204 || status === 304 ? undefined : '0');
    assert.doesNotMatch(JSON.stringify(answer.headers), /secret|location/i);
  }
});

test('nothing of what is asked of us goes on to the application', async (t) => {
  const { asked, serve } = answering('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n');
  const { address, application } = await stage(t, serve, { target: '/healthz?full=1' });

  const answer = await ask(address, '/app/ready?target=/admin&x=%0d%0aX-Evil:1', {
    headers: [
      ['host', '127.0.0.1:9999'],
      ['x-forwarded-client-cert', 'URI=spiffe://example.org/admin'],
      ['authorization', 'Bearer evil'],
      ['cookie', 'evil'],
      ['user-agent', 'evil'],
    ],
  });

  assert.equal(answer.status, 200);
  assert.deepEqual(asked, [`GET /healthz?full=1 HTTP/1.1\r\nhost: ${application.address}\r\nConnection: close\r\n\r\n`]);
});

test('what is not a GET is refused, and the application is not asked', async (t) => {
  const { asked, serve } = answering('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n');
  const { address, metrics } = await stage(t, serve);

  for (const method of ['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS'])
    assert.equal((await ask(address, '/app/ready', { method, headers: [['content-type', 'application/json']], body: '{}' })).status, 405);
  for (const path of ['/app/ready/', '/app/ready/../ready', '/app', '/app/%72eady', '//app/ready', '/__proto__'])
    assert.equal((await ask(address, path)).status, 404, path);
  assert.equal((await ask(address, '/app/ready', { headers: [['host', 'evil.example']] })).status, 421);

  assert.deepEqual(asked, []);
  assert.equal(metrics.statusRefusals.metrics.bad_method, 5);
});

test('HEAD has the status of a GET, and the application is asked by a GET', async (t) => {
  const { asked, serve } = answering('HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n');
  const { address } = await stage(t, serve);

  assert.equal((await ask(address, '/app/ready', { method: 'HEAD' })).status, 503);

  assert.match(asked.join(), /^GET \/healthz /);
});

test('an application behind a Unix socket is probed too', async (t) => {
  const folder = await temporaryFolder(t);
  const { asked, serve } = answering('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n');
  const { address } = await stage(t, serve, { path: `${folder}/app.sock` });

  assert.equal((await ask(address, '/app/ready')).status, 200);
  assert.match(asked.join(), /\r\nhost: localhost\r\n/);
});

test('an application that does not answer in a second is given up, however much it says meanwhile', async (t) => {
  const dumb: readonly ((socket: Socket) => void)[] = [
    () => undefined,
    (socket) => socket.write('HTTP/1.1 200 OK\r\nX: '),
    (socket) => socket.write('HTTP/1.1 100 Continue\r\n\r\n'.repeat(16)),
    (socket) => socket.write('HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n'),
  ];
  for (const say of dumb) {
    const heard = Promise.withResolvers<void>();
    const { address, clock, application, results } = await stage(t, (socket) => {
      socket.on('data', () => {
        say(socket);
        heard.resolve();
      });
    });
    const answer = ask(address, '/app/ready');
    await heard.promise;

    clock.advance(999);
    assert.equal(results.timeout, 0);
    clock.advance(1);

    const { status, body } = await answer;
    assert.equal(status, 504);
    assert.equal(body, 'no answer of the application: it did not answer within 1s\n');
    assert.equal(results.timeout, 1);
    // Its connection is not left open either.
    await eventually(async () => assert.equal(application.connections.size, 0));
  }
});

test('an application that says without end that it will answer is not heard for as long as that', async (t) => {
  const { address, results, application } = await stage(t, (socket) =>
    socket.on('data', () => socket.write('HTTP/1.1 103 Early Hints\r\nLink: </secret>\r\n\r\n'.repeat(17))),
  );

  // The clock stands still.
  const { status, body } = await ask(address, '/app/ready');

  assert.equal(status, 502);
  assert.equal(body, 'no answer of the application: more than 16 interim responses came\n');
  assert.equal(results.failed, 1);
  await eventually(async () => assert.equal(application.connections.size, 0));
});

test('what is no answer of HTTP/1.1 is a 502, and its words are not told', async (t) => {
  const broken = [
    'SSH-2.0-secret\r\n',
    'HTTP/1.1 999 secret\r\n\r\n',
    'HTTP/1.1 20 secret\r\n\r\n',
    'HTTP/1.1 101 secret\r\nUpgrade: secret\r\nConnection: Upgrade\r\n\r\nsecret',
    `HTTP/1.1 200 OK\r\nX: ${'secret'.repeat(1500)}\r\n\r\n`,
    'HTTP/1.1 200 OK\r\nX secret\r\n\r\n',
    '\u0015\u0003\u0003\u0000\u0002\u0002F',
  ];
  for (const bytes of broken) {
    const { address, results } = await stage(t, (socket) => socket.on('data', () => socket.write(bytes)));

    const { status, headers, body } = await ask(address, '/app/ready');

    assert.equal(status, 502, bytes.slice(0, 30));
    assert.doesNotMatch(`${body}${JSON.stringify(headers)}`, /secret/);
    assert.equal(results.failed, 1);
  }
});

test('an application that is not there, or that resets, is a 502 that is counted and told, and so is its coming back', async (t) => {
  let answer: string | undefined;
  const { address, lines, results, clock } = await stage(t, (socket) => {
    if (answer === undefined) socket.resetAndDestroy();
    else socket.on('data', () => socket.write(String(answer)));
  });

  assert.equal((await ask(address, '/app/ready')).status, 502);
  answer = 'HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n';
  clock.advance(1000);
  assert.equal((await ask(address, '/app/ready')).status, 500);

  assert.deepEqual(results, { answered: 1, timeout: 0, failed: 1 });
  const told = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  assert.deepEqual(
    told.map(({ message, path, target, reason }) => ({ message, path, target, reason })),
    [
      { message: 'the application does not answer its probe', path: '/app/ready', target: '/healthz', reason: 'failed' },
      { message: 'the application answers its probe', path: '/app/ready', target: '/healthz', reason: undefined },
    ],
  );
});

test('however many ask at once or one after the other, the application is asked five times a second at most', async (t) => {
  const { asked, serve } = answering('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n');
  const { address, application, clock } = await stage(t, serve);

  const answers = await Promise.all(Array.from({ length: 50 }, () => ask(address, '/app/ready')));
  for (let count = 0; count < 20; count += 1) assert.equal((await ask(address, '/app/ready')).status, 200);
  assert.equal(asked.length, 1);
  assert.ok(answers.every(({ status }) => status === 200));

  clock.advance(200);
  await ask(address, '/app/ready');
  assert.equal(asked.length, 2);
  await eventually(async () => assert.equal(application.connections.size, 0));
});

test('who leaves before the answer disturbs nobody', async (t) => {
  const heard = Promise.withResolvers<Socket>();
  const { address, results } = await stage(t, (socket) => socket.on('data', () => heard.resolve(socket)));
  assert.ok(address.kind === 'tcp');
  const leaving = dialling(t, `127.0.0.1:${address.port}`);
  leaving.write('GET /app/ready HTTP/1.1\r\nHost: localhost\r\n\r\n');
  const socket = await heard.promise;
  leaving.destroy();
  const staying = ask(address, '/app/ready');

  socket.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n');

  assert.equal((await staying).status, 200);
  assert.equal(results.answered, 1);
});

test('a request for a page of the metrics themselves never goes to the application', async (t) => {
  const { asked, serve } = answering('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n');
  const { address } = await stage(t, serve);

  for (const path of ['/metrics', '/livez', '/readyz']) await ask(address, path);

  assert.deepEqual(asked, []);
});
