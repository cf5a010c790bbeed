import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { test, type TestContext } from 'node:test';
import { API, presented, startInbound, startOutbound, WEB, type StageOptions } from '../../support/data-path.ts';
import { startDevDomainWith } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { HTTP2_KINDS } from '../../support/http/http2-kinds.ts';
import { connectClient, request } from '../../support/http/http2-stage.ts';
import { send, startHttpApplication, startHttpInbound, startRawApplication, wire } from '../../support/http/http-stage.ts';
import { closed, dial, startEcho } from '../../support/tcp.ts';
import { outcome, tlsClient, tlsServer } from '../../support/tls-peer.ts';

const HOUR_MS = 3_600_000;
const OTHER = 'spiffe://example.org/other';
const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const GET = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n';

/** Wall time moves on when it has been asked for so often: by little, so that nobody takes it for a clock that was set. */
class MovingClock extends FakeClock {
  left = Infinity;

  override now(): number {
    const nowMs = super.now();
    if (--this.left === 0) this.jump(100);
    return nowMs;
  }
}

/** Options of a sidecar whose clock moves by hand, with SVIDs of ten hours; `at` is a time so long from now, as it is written. */
async function byHand(t: TestContext) {
  const clock = new FakeClock();
  const spiffe = await startDevDomainWith(t, { clock: new FakeClock() }, [
    { name: 'example.org', svidLife: '100h', workloads: { web: [WEB], api: [API] } },
  ]);
  const options = (listener: object): StageOptions & { readonly spiffe: typeof spiffe } => ({
    spiffe,
    sidecar: { clock },
    listener: { ...listener, limits: { idleTimeout: 'off' } },
  });
  return { clock, spiffe, options, at: (aheadMs: number) => new Date(clock.now() + aheadMs).toISOString() };
}

test('a rule that is over admits nobody from that moment on, and closes what it had admitted, and nothing else', async (t) => {
  const { clock, spiffe, options, at } = await byHand(t);
  const application = await startEcho(t);
  const allow = [
    { peer: WEB, notAfter: at(2.5 * HOUR_MS) },
    { peer: OTHER, notAfter: at(9 * HOUR_MS) },
  ];
  const { sidecar, address, connect } = await startInbound(t, application.address, options({ allow }));
  const other = presented(await spiffe.issue(OTHER));
  const [losing, staying] = [await connect(), tlsClient(t, address, other)];
  for (const socket of [losing, staying]) {
    socket.write('!');
    await once(socket, 'data');
  }
  const lost = closed(losing);

  clock.advance(2.5 * HOUR_MS - 1);
  losing.write('!');
  await once(losing, 'data');
  const late = await connect();
  late.write('!');
  await once(late, 'data');

  clock.advance(1);
  assert.equal(await lost, 'ECONNRESET');
  const line = await sidecar.connection((found) => found['close_reason'] === 'policy');
  assert.deepEqual([line['peer_id'], line['detail']], [WEB, `${WEB} is no longer allowed`]);
  assert.equal((await outcome(await connect())).text, '');
  assert.equal((await sidecar.connection(({ verdict }) => verdict === 'deny'))['reason'], 'not_allowed');
  staying.write('!');
  await once(staying, 'data');
  await eventually(async () => assert.equal(await sidecar.metric('scute_connections_drained_total', { reason: 'policy' }), 2));
});

test('a rule that denies for a time closes when it begins, and lets in again when it is over', async (t) => {
  const { clock, options, at } = await byHand(t);
  const application = await startEcho(t);
  const deny = [{ peer: WEB, notBefore: at(HOUR_MS / 2), notAfter: at(HOUR_MS) }];
  const { sidecar, connect } = await startInbound(t, application.address, options({ deny }));
  const losing = await connect();
  losing.write('!');
  await once(losing, 'data');
  const lost = closed(losing);

  clock.advance(HOUR_MS / 2);
  assert.equal(await lost, 'ECONNRESET');
  const line = await sidecar.connection((found) => found['close_reason'] === 'policy');
  assert.match(String(line['detail']), /^spiffe:\/\/example\.org\/web is no longer allowed: deny spiffe:\/\/example\.org\/web from /);
  assert.equal((await outcome(await connect())).text, '');

  clock.advance(HOUR_MS / 2);
  const again = await connect();
  again.write('!');
  await once(again, 'data');
});

test('requests are judged by the time at which they come, and between requests a rule that is over ends the connection', async (t) => {
  const { clock, spiffe, options, at } = await byHand(t);
  const application = await startRawApplication(t, (received) => (received.endsWith('\r\n\r\n') ? OK : undefined));
  const allow = [
    { peer: WEB, paths: ['/now'], notAfter: at(HOUR_MS) },
    { peer: WEB, paths: ['/later'], notBefore: at(HOUR_MS), notAfter: at(2 * HOUR_MS) },
  ];
  const http = { responseTimeout: 'off', minBodyRate: 'off' };
  const stage = await startHttpInbound(t, application.address, { ...options({ allow }), http });
  const client = await connectClient(t, stage.address, presented(await spiffe.issue(WEB)));
  const ask = async (path: string): Promise<number> => (await request(client, { ':path': path, ':authority': 'a' })).status;
  const line = await send(stage, GET.replace('/', '/now'));
  await line.until('ok');
  assert.deepEqual([await ask('/now'), await ask('/later')], [200, 403]);

  clock.advance(HOUR_MS);
  assert.deepEqual([await ask('/now'), await ask('/later')], [403, 200], 'who may still ask for something stays');
  line.socket.write(GET.replace('/', '/later'));
  await line.until(/ok.*ok/s);

  const ended = once(client, 'close');
  clock.advance(HOUR_MS);
  assert.equal((await line.over()).text, OK + OK);
  clock.advance(2000);
  await ended;
  assert.equal(await stage.sidecar.metric('scute_connections_drained_total', { reason: 'policy' }), 2);
});

test('what is under way ends with the rule that allowed it: a WebSocket with its connection, a stream of HTTP/2 by itself', async (t) => {
  const { clock, spiffe, options, at } = await byHand(t);
  const server = await startHttpApplication(t, ({ url }, response) => {
    response.write(`begun ${url}`);
  });
  server.server.on('upgrade', (_, socket) => {
    socket.on('error', () => undefined);
    socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
  });
  const allow = [
    { peer: WEB, paths: ['/events', '/socket'], notAfter: at(HOUR_MS) },
    { peer: WEB, paths: ['/other'] },
  ];
  const http = { responseTimeout: 'off', minBodyRate: 'off' };
  const stage = await startHttpInbound(t, server.address, { ...options({ allow }), http });
  const socket = await send(stage, 'GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
  await socket.until('101 Switching');
  const other = await send(stage, 'GET /other HTTP/1.1\r\nHost: a\r\n\r\n');
  await other.until('begun /other');
  const client = await connectClient(t, stage.address, presented(await spiffe.issue(WEB)));
  const [ending, staying] = ['/events', '/other'].map((path) => client.request({ ':path': path, ':authority': 'a' }));
  assert.ok(ending !== undefined && staying !== undefined);
  ending.on('error', () => undefined);
  await Promise.all([once(ending, 'data'), once(staying, 'data')]);
  const ended = new Promise((resolve) => ending.once('close', resolve));

  clock.advance(HOUR_MS);

  assert.equal((await socket.over()).error, 'ECONNRESET');
  await ended;
  assert.notEqual(ending.rstCode, 0);
  assert.ok(!staying.closed && !client.closed && !other.socket.destroyed);
  const line = await stage.sidecar.connection();
  assert.deepEqual([line['close_reason'], line['detail']], ['policy', `${WEB} is no longer allowed the request that is under way`]);
  assert.equal(await stage.sidecar.metric('scute_http_requests_total', { result: 'dropped' }), 2);
});

test('a server whose rule is over is asked nothing more', async (t) => {
  const { clock, spiffe, options, at } = await byHand(t);
  const server = await tlsServer(t, presented(await spiffe.issue(API)), (socket) => socket.pipe(socket));
  const { sidecar, address } = await startOutbound(t, server.address, options({ expect: [{ peer: API, notAfter: at(HOUR_MS) }] }));
  const caller = await dial(t, address);
  caller.write('!');
  await once(caller, 'data');
  const lost = closed(caller);

  clock.advance(HOUR_MS);

  assert.equal(await lost, 'ECONNRESET');
  assert.equal((await sidecar.connection())['close_reason'], 'policy');
});

test('a clock that was set is seen within a second, and a new policy is waited for by its own times', async (t) => {
  const { clock, options, at } = await byHand(t);
  const application = await startEcho(t);
  const { sidecar, connect, with: settings } = await startInbound(t, application.address, options({}));
  const losing = await connect();
  losing.write('!');
  await once(losing, 'data');
  const lost = closed(losing);
  await sidecar.reload(settings({ allow: [{ peer: WEB, notAfter: at(50 * HOUR_MS) }], limits: { idleTimeout: 'off' } }));
  losing.write('!');
  await once(losing, 'data');

  clock.jump(50 * HOUR_MS);
  assert.equal((await outcome(await connect())).text, '', 'who comes is judged by the clock');
  clock.advance(1000);

  assert.equal(await lost, 'ECONNRESET');
});

test('a rule closes what it had admitted also where the clock was ahead at first, and where it is set back to before its time', async (t) => {
  const { clock, options, at } = await byHand(t);
  const application = await startEcho(t);
  const allow = [{ peer: WEB, notBefore: at(HOUR_MS), notAfter: at(2 * HOUR_MS) }];
  clock.jump(50 * HOUR_MS);
  const { connect } = await startInbound(t, application.address, options({ allow }));
  const admitted = async (): Promise<Socket> => {
    const socket = await connect();
    socket.write('!');
    await once(socket, 'data');
    return socket;
  };
  assert.equal((await outcome(await connect())).text, '');

  clock.jump(-48.5 * HOUR_MS);
  const early = closed(await admitted());
  clock.jump(-HOUR_MS);
  clock.advance(1000);
  assert.equal(await early, 'ECONNRESET');

  clock.jump(HOUR_MS);
  const late = closed(await admitted());
  clock.advance(HOUR_MS);
  assert.equal(await late, 'ECONNRESET');
});

test('a rule closes what it had admitted also where it ends while a new policy is taken over', async (t) => {
  const { options } = await byHand(t);
  const clock = new MovingClock();
  const application = await startEcho(t);
  const { sidecar, connect, with: settings } = await startInbound(t, application.address, { ...options({}), sidecar: { clock } });

  let count = 0;
  for (let isReached = true; isReached; count++) {
    await sidecar.reload(settings({ limits: { idleTimeout: 'off' } }));
    const socket = await connect();
    socket.write('!');
    await once(socket, 'data');
    const lost = closed(socket);
    const notAfter = new Date(clock.now() + 50).toISOString();
    clock.left = 1 + count;
    await sidecar.reload(settings({ allow: [{ peer: WEB, notAfter }], limits: { idleTimeout: 'off' } }));
    isReached = clock.left <= 0;
    clock.left = Infinity;
    if (!isReached) clock.jump(100);
    clock.advance(1000);
    assert.equal(await lost, 'ECONNRESET');
  }
  assert.ok(count > 3);
});

for (const kind of HTTP2_KINDS)
  test(`over HTTP/2 a stream ends with the rule that allowed it, by itself, before ${kind.application}`, async (t) => {
    const { clock, spiffe, options, at } = await byHand(t);
    const server = await kind.startHttpApplication(t, ({ url }, response) => {
      response.write(`begun ${url}`);
    });
    const allow = [
      { peer: WEB, paths: ['/events'], notAfter: at(HOUR_MS) },
      { peer: WEB, paths: ['/later'], notBefore: at(HOUR_MS) },
      { peer: WEB, paths: ['/other'] },
    ];
    const http = { responseTimeout: 'off', minBodyRate: 'off' };
    const stage = await kind.startInbound(t, server.address, { ...options({ allow }), http });
    const client = await connectClient(t, stage.address, presented(await spiffe.issue(WEB)));
    const [ending, staying] = ['/events', '/other'].map((path) => client.request({ ':path': path, ':authority': 'a' }));
    assert.ok(ending !== undefined && staying !== undefined);
    ending.on('error', () => undefined);
    await Promise.all([once(ending, 'data'), once(staying, 'data')]);
    const ask = async (path: string): Promise<number> => (await request(client, { ':path': path, ':authority': 'a' })).status;
    assert.equal(await ask('/later'), 403);
    const ended = new Promise((resolve) => ending.once('close', resolve));

    clock.advance(HOUR_MS);

    await ended;
    assert.notEqual(ending.rstCode, 0);
    assert.ok(!staying.closed && !client.closed);
    assert.equal(await ask('/events'), 403);
    const later = client.request({ ':path': '/later', ':authority': 'a' });
    assert.equal(String((await once(later, 'data'))[0]), 'begun /later');
    assert.equal(await stage.sidecar.metric('scute_http_requests_total', { result: 'dropped' }), 1);
  });

test('a request that is allowed no more when the application is connected to does not reach it', async (t) => {
  const { spiffe, options } = await byHand(t);
  const clock = new MovingClock();
  const urls: string[] = [];
  const application = await startHttpApplication(t, ({ url = '' }, response) => {
    urls.push(url);
    response.end('ok');
  });
  const allow = [
    { peer: WEB, paths: ['/now', '/later'], notAfter: new Date(clock.now() + 150).toISOString() },
    { peer: WEB, paths: ['/any'] },
  ];
  const http = { responseTimeout: 'off', minBodyRate: 'off' };
  const stage = await startHttpInbound(t, application.address, { ...options({ allow }), sidecar: { clock }, http });
  const line = wire(await stage.connect());
  const client = await connectClient(t, stage.address, presented(await spiffe.issue(WEB)));

  clock.left = 1;
  line.socket.write(GET.replace('/', '/now'));
  await line.until('ok');
  clock.left = 1;
  assert.equal((await request(client, { ':path': '/later', ':authority': 'a' })).status, 403);
  assert.equal((await request(client, { ':path': '/any', ':authority': 'a' })).status, 200);
  assert.deepEqual(urls, ['/now', '/any']);
});

test('a window closes what it had admitted, and opens again', async (t) => {
  const { clock, options } = await byHand(t);
  const application = await startEcho(t);
  const minuteOf = (ms: number): string => new Date(ms).toISOString().slice(11, 16);
  // It is open until the beginning of a minute more than an hour from now.
  const endMs = Math.ceil(clock.now() / 60_000) * 60_000 + 70 * 60_000;
  const windows = [{ from: minuteOf(endMs - 3 * HOUR_MS), to: minuteOf(endMs), timeZone: 'UTC' }];
  const { connect } = await startInbound(t, application.address, options({ allow: [{ peer: WEB, windows }] }));
  const losing = await connect();
  losing.write('!');
  await once(losing, 'data');
  const lost = closed(losing);

  clock.advance(endMs - 1 - clock.now());
  losing.write('!');
  await once(losing, 'data');
  clock.advance(1);
  assert.equal(await lost, 'ECONNRESET');
  assert.equal((await outcome(await connect())).text, '');

  clock.advance(21 * HOUR_MS);
  const again = await connect();
  again.write('!');
  await once(again, 'data');
});

test('a sidecar that has stopped waits for no time of its rules', async (t) => {
  const { clock, options, at } = await byHand(t);
  const application = await startEcho(t);
  const allow = [{ peer: WEB, notAfter: at(50 * HOUR_MS) }];
  const plain = await startInbound(t, application.address, options({}));
  await plain.sidecar.stop();
  const left = clock.armed;
  const timed = await startInbound(t, application.address, options({ allow }));
  await timed.sidecar.stop();

  assert.equal(clock.armed, left);
});
