/** WebSockets over HTTP/2 (RFC 8441), from a client that has them to an application that has them. */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { ClientHttp2Stream, ServerHttp2Stream } from 'node:http2';
import type { Socket } from 'node:net';
import { test, type TestContext } from 'node:test';
import type { WebSocket } from 'ws';
import { API, presented, startPair, WEB, type StageOptions } from '../../support/data-path.ts';
import { startDevDomainWith } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import {
  askSwitch,
  echo,
  EXTENDED,
  heardOn,
  offered,
  OFFERING,
  serveConnect,
  startConnectApplication,
  switchTo,
  webSocketOn,
} from '../../support/http/extended-connect.ts';
import { startFrameApplication, startH2cApplication, startSpliced } from '../../support/http/h2c-application.ts';
import { h2cOutbound, startCaller, startSplicedOut } from '../../support/http/h2c-outbound.ts';
import { CANCEL, END_HEADERS, GET, headers, HEADERS, PROTOCOL_ERROR, settings, type Field } from '../../support/http/http2-frames.ts';
import { answerOn, request, startClient, startFrames } from '../../support/http/http2-stage.ts';
import type { LogLine, Sidecar } from '../../support/sidecar.ts';

const SIZES = [0, 1, 125, 126, 65_536, 1024 * 1024];
const ENABLE_CONNECT_PROTOCOL = 8;
const HOUR_MS = 3_600_000;
const CONNECT: readonly Field[] = [[':method', 'CONNECT'], [':protocol', 'websocket'], ...GET.slice(1)];

function lines(sidecar: Sidecar, count: number): Promise<readonly LogLine[]> {
  return eventually(() => {
    const found = sidecar.log().filter(({ message }) => message === 'request finished');
    assert.equal(found.length, count);
    return found;
  });
}

function said({ method, status, result }: LogLine): readonly unknown[] {
  return [method, status, result];
}

function startExtended(t: TestContext, to: string, { http, ...rest }: StageOptions & { readonly http?: object } = {}) {
  return startSpliced(t, to, { ...rest, http: { ...EXTENDED, ...http } });
}

/** Resolves to the code with which a stream is over. */
async function codeOf(stream: ClientHttp2Stream | ServerHttp2Stream): Promise<number> {
  stream.resume();
  if (!stream.closed || !stream.destroyed) await new Promise((resolve) => stream.once('close', resolve));
  return stream.rstCode ?? 0;
}

/** Has the server's WebSockets say everything back. */
function echoMessages(stream: ServerHttp2Stream): WebSocket {
  stream.respond({ ':status': 200 });
  const socket = webSocketOn(stream, true);
  socket.on('error', () => undefined);
  socket.on('message', (message, isBinary) => socket.send(message, { binary: isBinary }));
  return socket;
}

/** Sends messages without waiting for their answers, which must be the same. */
async function exchange(socket: WebSocket, messages: readonly Buffer[]): Promise<void> {
  const heard: string[] = [];
  const digest = (message: Buffer): string => createHash('sha256').update(message).digest('hex');
  socket.on('message', (message) => heard.push(digest(message as Buffer)));
  for (const message of messages) socket.send(message);
  await eventually(() => assert.equal(heard.length, messages.length));
  assert.deepEqual(heard, messages.map(digest));
}

test('a WebSocket over HTTP/2 carries messages of any size both ways, and the application is told whose it is', async (t) => {
  const closed: unknown[] = [];
  const application = await startConnectApplication(t, (stream) => {
    echoMessages(stream).on('close', (code: number, reason: Buffer) => closed.push(code, reason.toString()));
  });
  const stage = await startExtended(t, application.address, { http: { spiffeIdHeader: 'X-Peer' } });
  const client = await startClient(t, stage);
  const { stream, status } = await switchTo(client, { 'x-peer': 'spiffe://example.org/admin', 'sec-websocket-version': '13' });
  assert.equal(status, 200);
  const socket = webSocketOn(stream, false);

  await exchange(
    socket,
    [...SIZES, ...SIZES.toReversed()].map((size) => randomBytes(size)),
  );
  assert.deepEqual((await request(client, { ':path': '/beside' })).body.toString(), 'ok');
  socket.close(4000, 'enough');
  // Of the answer to it, `ws` on a stream of Node's does not always hear, without a sidecar, too.
  await eventually(() => assert.deepEqual(closed, [4000, 'enough']));

  const [head = []] = application.heads;
  assert.deepEqual(head.slice(0, 10), [
    ':method',
    'CONNECT',
    ':protocol',
    'websocket',
    ':scheme',
    'https',
    ':path',
    '/socket',
    ':authority',
    'api:443',
  ]);
  assert.deepEqual(
    head.filter((_, at) => head[at - 1] === 'x-peer'),
    [WEB],
  );
  const [beside, line] = await lines(stage.sidecar, 2);
  assert.deepEqual(beside && said(beside), ['GET', 200, 'forwarded']);
  assert.ok(line !== undefined);
  assert.deepEqual(
    ['method', 'status', 'path', 'http_version'].map((name) => line[name]),
    ['CONNECT', 200, '/socket', '2'],
  );
  const total = 2 * SIZES.reduce((all, size) => all + size, 0);
  assert.ok(Number(line['bytes_from_downstream']) > total && Number(line['bytes_to_downstream']) > total);
  // It lasts as long as it is wanted, which says nothing of how fast anybody is.
  assert.equal(await stage.sidecar.metric('scute_http_request_duration_seconds_count', { listener: 'in' }), 1);
});

test('a WebSocket over HTTP/2 passes a sidecar on each side, and what upgrades names does, too', async (t) => {
  const application = await startConnectApplication(t, (stream, { ':protocol': protocol }) => {
    if (protocol === 'websocket') echoMessages(stream);
    else echo(stream);
  });
  const http = { ...EXTENDED, upgrades: ['tcp'] };
  const { address, inbound, outbound } = await startPair(t, application.address, {
    inbound: h2cOutbound(http),
    outbound: h2cOutbound(http),
  });
  const client = await startCaller(t, address);

  const socket = webSocketOn((await switchTo(client)).stream, false);
  await exchange(
    socket,
    SIZES.map((size) => randomBytes(size)),
  );
  const { stream: raw } = await switchTo(client, { ':protocol': 'TCP' });
  const heard = heardOn(raw);
  raw.end('any bytes');
  await eventually(() => assert.equal(heard(), 'any bytes'));
  assert.equal(await codeOf(raw), 0);
  const { status, stream: refused } = await switchTo(client, { ':protocol': 'connect-udp' });
  assert.deepEqual([status, await codeOf(refused)], [501, 0]);

  socket.terminate();
  assert.deepEqual(
    application.heads.map((head) => head[3]),
    ['websocket', 'tcp'],
  );
  assert.equal((await lines(inbound, 2)).length, 2);
  assert.deepEqual(
    (await lines(outbound, 3)).map(({ status: answered, result }) => [answered, result]),
    [
      [200, 'forwarded'],
      [501, 'bad_request'],
      [200, 'downstream_closed'],
    ],
  );
});

test('extended CONNECT is offered by an option, where the application offers it; who asks all the same is reset', async (t) => {
  const offering = await startConnectApplication(t, echo);
  const silent = await startH2cApplication(t, serveConnect(echo));
  for (const [application, http] of [
    [offering, {}],
    [silent, EXTENDED],
  ] as const) {
    const stage = await startSpliced(t, application.address, { http });
    const wire = await startFrames(stage);
    wire.send(headers(1, GET));
    assert.equal((await wire.streamOver(1)).status, 200);

    wire.send(headers(3, CONNECT, END_HEADERS), headers(5, GET));

    assert.deepEqual([(await wire.streamOver(3)).reset, (await wire.streamOver(5)).status], [PROTOCOL_ERROR, 200]);
    const announced = wire.frames().filter(({ type, flags }) => type === 4 && flags === 0);
    for (const { payload } of announced)
      for (let at = 0; at < payload.length; at += 6) assert.notEqual(payload.readUInt16BE(at), ENABLE_CONNECT_PROTOCOL);
    assert.deepEqual(
      (await lines(stage.sidecar, 3)).map(({ result, status }) => [result, status]),
      [
        ['forwarded', 200],
        ['bad_request', 0],
        ['forwarded', 200],
      ],
    );
    wire.socket.destroy();
  }
  assert.equal(offering.heads.length + silent.heads.length, 4);
});

test('the offer is known before anything is asked, and outbound, too; an application that cannot be reached is asked again', async (t) => {
  const { address, server } = await startSplicedOut(t, serveConnect(echo), { http: EXTENDED, server: OFFERING });
  const client = await startCaller(t, address);
  await offered(client);
  assert.deepEqual([server.sessions.length, server.heads.length], [1, 0]);
  const { stream, status } = await switchTo(client);
  const heard = heardOn(stream);
  stream.end('hello');
  await eventually(() => assert.equal(heard(), 'hello'));
  assert.equal(status, 200);

  const gone = await startH2cApplication(t, serveConnect(echo), OFFERING);
  gone.server.close();
  await eventually(() => assert.equal(gone.server.listening, false));
  const stage = await startExtended(t, gone.address);
  const other = await startClient(t, stage);
  const answer = await request(other, { ':path': '/' });
  assert.deepEqual([answer.status, answer.body.toString()], [502, 'scute: the application cannot be reached\n']);
});

test('an application that comes later and offers nothing has these refused one by one, and serves the rest', async (t) => {
  const application = await startConnectApplication(t, echo);
  const stage = await startExtended(t, application.address);
  const client = await startClient(t, stage);
  const { stream } = await switchTo(client);
  application.server.updateSettings({ enableConnectProtocol: false });
  application.sessions[0]?.close();
  // It is answered by the next one.
  await eventually(async () => {
    assert.equal((await request(client, { ':path': '/' })).status, 200);
    assert.equal(application.sessions.length, 2);
  });

  const refused = askSwitch(client);
  const answer = await answerOn(refused);

  assert.deepEqual([answer.status, answer.body.toString()], [501, 'scute: the application takes no extended CONNECT on this connection\n']);
  const heard = heardOn(stream);
  stream.end('still here');
  await eventually(() => assert.equal(heard(), 'still here'));
  assert.equal(client.remoteSettings.enableConnectProtocol, true);
  const failed = stage.sidecar.log().find(({ status }) => status === 501);
  assert.deepEqual([failed?.['method'], failed?.['result']], ['CONNECT', 'upstream_failed']);
});

test('an application that takes its offer back loses its connection, and the peer goes on with another', async (t) => {
  const application = await startFrameApplication(
    t,
    ({ type, stream }, { send }) => {
      if (type !== HEADERS) return undefined;
      if (stream === 1) send(settings([ENABLE_CONNECT_PROTOCOL, 0]));
      return headers(stream, [[':status', '200']]);
    },
    settings([ENABLE_CONNECT_PROTOCOL, 1]),
  );
  const stage = await startExtended(t, application.address);
  const client = await startClient(t, stage);
  await offered(client);

  const [first, second] = [await request(client, { ':path': '/1' }), await request(client, { ':path': '/2' })];

  assert.deepEqual([first.status, second.status], [502, 200]);
  assert.match(first.body.toString(), /ENABLE_CONNECT_PROTOCOL/);
  assert.equal(await stage.sidecar.metric('scute_http2_faults_total', { peer: 'dst', reason: 'frame' }), 1);
});

test('a rule sees the method CONNECT, the path and the host of a WebSocket, and its change ends it and no other stream', async (t) => {
  const application = await startConnectApplication(t, echo);
  const allow = (...methods: readonly string[]): object => ({
    allow: [
      { peer: WEB, methods, paths: ['/socket'], hosts: ['api'] },
      { peer: WEB, paths: ['/any/**'] },
    ],
    deny: [{ peer: WEB, methods: ['CONNECT'], paths: ['/any/never'] }],
  });
  const stage = await startExtended(t, application.address, { listener: allow('GET', 'CONNECT') });
  const client = await startClient(t, stage);
  const { stream, status } = await switchTo(client);
  const { stream: other } = await switchTo(client, { ':path': '/any/socket' });
  for (const more of [{ ':path': '/other' }, { ':authority': 'elsewhere' }, { ':path': '/any/never' }])
    assert.equal((await switchTo(client, more)).status, 403, JSON.stringify(more));
  assert.equal((await request(client, { ':path': '/any/never' })).status, 200);
  assert.equal(status, 200);

  await stage.sidecar.reload(stage.with(allow('GET')));

  assert.equal(await codeOf(stream), CANCEL);
  assert.equal((await switchTo(client)).status, 403);
  assert.equal((await request(client, { ':path': '/socket' })).status, 200);
  const heard = heardOn(other);
  other.end('goes on');
  await eventually(() => assert.equal(heard(), 'goes on'));
  const cut = stage.sidecar.log().filter(({ result }) => result === 'dropped');
  assert.deepEqual(cut.map(said), [['CONNECT', 200, 'dropped']]);
});

test('outbound, a server that may not be asked for a WebSocket is not asked, and a change ends the one that is open', async (t) => {
  const expect = (...methods: readonly string[]): object => ({ expect: [{ peer: API, methods, paths: ['/socket'] }] });
  const stage = await startSplicedOut(t, serveConnect(echo), { http: EXTENDED, server: OFFERING, listener: expect('GET', 'CONNECT') });
  const client = await startCaller(t, stage.address);
  const { stream, status } = await switchTo(client);
  assert.deepEqual([status, (await switchTo(client, { ':path': '/other' })).status], [200, 502]);

  await stage.sidecar.reload(stage.with({ protocol: 'http', http: { application: 'h2c', ...EXTENDED }, ...expect('GET') }));

  assert.equal(await codeOf(stream), CANCEL);
  assert.equal((await switchTo(client)).status, 502);
  assert.equal(stage.server.heads.length, 1);
});

test('either side may end first, and the other goes on until it has said all', async (t) => {
  const switched: ServerHttp2Stream[] = [];
  const application = await startConnectApplication(t, (stream) => {
    switched.push(stream);
    stream.respond({ ':status': 200 });
  });
  const stage = await startExtended(t, application.address);
  const client = await startClient(t, stage);

  const { stream: first } = await switchTo(client, { ':path': '/client' });
  const firstHeard = heardOn(first);
  const applicationHeard = heardOn(switched[0] as ServerHttp2Stream);
  first.end('all that I say');
  await once(switched[0] as ServerHttp2Stream, 'end');
  switched[0]?.end('all that I answer');
  assert.deepEqual([await codeOf(first), firstHeard(), applicationHeard()], [0, 'all that I answer', 'all that I say']);

  const { stream: second } = await switchTo(client, { ':path': '/application' });
  const [secondHeard, answered] = [heardOn(second), heardOn(switched[1] as ServerHttp2Stream)];
  switched[1]?.end('bye');
  await once(second, 'end');
  assert.equal(secondHeard(), 'bye');
  second.write('and ');
  await eventually(() => assert.equal(answered(), 'and '));
  assert.equal((await lines(stage.sidecar, 1)).length, 1);
  second.end('one more');
  await eventually(() => assert.equal(answered(), 'and one more'));
  assert.equal(await codeOf(second), 0);

  const [, line] = await lines(stage.sidecar, 2);
  assert.deepEqual(line && [...said(line), line['path']], ['CONNECT', 200, 'forwarded', '/application']);
});

test('a reset passes with its code both ways, and ends nothing else', async (t) => {
  const switched: ServerHttp2Stream[] = [];
  const application = await startConnectApplication(t, (stream) => {
    switched.push(stream.resume());
    stream.respond({ ':status': 200 });
  });
  const sockets: Socket[] = [];
  application.server.on('connection', (socket: Socket) => sockets.push(socket));
  const stage = await startExtended(t, application.address);
  const client = await startClient(t, stage);
  const { stream: one } = await switchTo(client);
  const { stream: two } = await switchTo(client);
  const { stream: three } = await switchTo(client);

  one.close(CANCEL);
  assert.equal(await codeOf(switched[0] as ServerHttp2Stream), CANCEL);
  switched[1]?.close(CANCEL);
  assert.equal(await codeOf(two), CANCEL);
  // The application says all, and is then gone.
  const ended = once(three.resume(), 'end');
  switched[2]?.end();
  await ended;
  sockets[0]?.resetAndDestroy();
  assert.equal(await codeOf(three), CANCEL);

  assert.deepEqual((await lines(stage.sidecar, 3)).map(said), [
    ['CONNECT', 200, 'downstream_closed'],
    ['CONNECT', 200, 'upstream_failed'],
    ['CONNECT', 200, 'upstream_failed'],
  ]);
  assert.equal((await request(client, { ':path': '/' })).status, 200);
});

test('a WebSocket has no time but the idle one, which either side renews', async (t) => {
  const clock = new FakeClock();
  const switched: ServerHttp2Stream[] = [];
  const application = await startConnectApplication(t, (stream) => {
    switched.push(stream);
    echo(stream);
  });
  const stage = await startExtended(t, application.address, {
    sidecar: { clock },
    listener: { limits: { idleTimeout: '1h' } },
    http: { responseTimeout: '5s', minBodyRate: 1000, maxBodyBytes: 10 },
  });
  const client = await startClient(t, stage);
  const { stream: kept } = await switchTo(client);
  const { stream: told } = await switchTo(client);
  const { stream: silent } = await switchTo(client);
  const [keptHeard, toldHeard] = [heardOn(kept), heardOn(told)];
  for (let time = 1; time <= 3; time++) {
    clock.advance(HOUR_MS / 2);
    kept.write('longer than a body may be');
    switched[1]?.write('from you');
    await eventually(() => assert.deepEqual([keptHeard().length, toldHeard().length], [25 * time, 8 * time]));
    if (time === 2) assert.equal(await codeOf(silent), CANCEL);
  }

  kept.close(CANCEL);
  told.close(CANCEL);
  const all = await lines(stage.sidecar, 3);
  assert.deepEqual(said(all[0] as LogLine), ['CONNECT', 200, 'dropped']);
  assert.equal(all[0]?.['detail'], 'nothing passed for the idle time');
});

test('an application that takes what is said and never answers is a 504, however much is said; and there is a limit to that', async (t) => {
  const clock = new FakeClock();
  const switched: ServerHttp2Stream[] = [];
  const application = await startConnectApplication(t, (stream) => void switched.push(stream.resume()));
  const stage = await startExtended(t, application.address, { sidecar: { clock }, http: { responseTimeout: '5s', maxBodyBytes: 1000 } });
  const client = await startClient(t, stage);
  await offered(client);

  const late = askSwitch(client);
  const answer = answerOn(late);
  await eventually(() => assert.equal(switched.length, 1));
  const heard = heardOn(switched[0] as ServerHttp2Stream);
  for (let time = 1; time <= 4; time++) {
    late.write('early');
    await eventually(() => assert.equal(heard().length, 5 * time));
    clock.advance(1500);
  }
  assert.equal((await answer).status, 504);
  assert.equal(await codeOf(switched[0] as ServerHttp2Stream), CANCEL);

  const large = askSwitch(client);
  large.write(Buffer.alloc(1001));
  assert.equal((await answerOn(large)).status, 413);
  assert.deepEqual((await lines(stage.sidecar, 2)).map(said), [
    ['CONNECT', 504, 'upstream_timeout'],
    ['CONNECT', 413, 'too_large'],
  ]);
});

test("when the peer's SVID expires, its WebSockets end for the reason that its connection has", async (t) => {
  const application = await startConnectApplication(t, echo);
  const clock = new FakeClock();
  const spiffe = await startDevDomainWith(t, { clock: new FakeClock() }, [
    { name: 'example.org', svidLife: '10h', workloads: { web: [WEB], api: [API] } },
  ]);
  const stage = await startExtended(t, application.address, {
    spiffe,
    sidecar: { clock },
    listener: { limits: { idleTimeout: 'off' }, onPeerExpiry: 'close' },
  });
  const client = await startClient(t, stage, { presented: presented(await spiffe.issue(WEB, { lifeMs: HOUR_MS })) });
  const { stream } = await switchTo(client);

  clock.advance(HOUR_MS + 2000);

  assert.equal(await codeOf(stream), CANCEL);
  assert.equal((await stage.sidecar.connection())['close_reason'], 'peer_svid_expired');
});

test('an answer other than a 2xx is an answer like any other', async (t) => {
  const application = await startConnectApplication(t, (stream) => {
    stream.respond({ ':status': 403, 'content-length': 2 });
    stream.end('no');
  });
  const stage = await startExtended(t, application.address);
  const client = await startClient(t, stage);
  await offered(client);

  const stream = askSwitch(client);
  const answer = answerOn(stream);
  await once(stream, 'response');
  stream.end();

  assert.deepEqual([(await answer).status, (await answer).body.toString(), (await answer).reset], [403, 'no', undefined]);
  assert.deepEqual((await lines(stage.sidecar, 1)).map(said), [['CONNECT', 403, 'forwarded']]);
});
