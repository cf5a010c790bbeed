import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import {
  connect as connectHttp2,
  constants,
  type ClientHttp2Session,
  type ClientHttp2Stream,
  type IncomingHttpHeaders,
  type Settings,
} from 'node:http2';
import { connect } from 'node:net';
import { test, type TestContext } from 'node:test';
import { gzipSync } from 'node:zlib';
import { status, type Client } from '@grpc/grpc-js';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { createTestAuthority } from '../../support/pki/pki.ts';
import {
  encodeDelta,
  encodeSotw,
  fetchSecrets,
  openDelta,
  openRaw,
  openSotw,
  SECRET_TYPE,
  sdsClient,
  secretsOf,
  startSds,
  type TestSdsServer,
} from '../../support/sds.ts';
import { heldSnapshot, svidOf } from '../../support/pki/snapshots.ts';

const WEB = 'spiffe://example.org/web';
const own = createTestAuthority({ trustDomain: 'example.org' });
const identity = () => heldSnapshot([svidOf(own, WEB)], [own]);

/** A well-behaved client on a connection of its own, which must never notice anything. */
async function bystander(t: TestContext, sds: TestSdsServer) {
  const stream = openSotw(sdsClient(t, sds.target));
  stream.send({ resourceNames: ['default'] });
  let { nonce } = await stream.next();
  return {
    /** Tells a rotation, and fails if it does not come soon. */
    async rotate(): Promise<void> {
      stream.send({ resourceNames: ['default'], responseNonce: nonce });
      const begin = performance.now();
      sds.publish(identity());
      const response = await stream.next();
      nonce = response.nonce;
      assert.equal(secretsOf(response).length, 1);
      assert.ok(performance.now() - begin < 20_000, 'told late');
    },
  };
}

function start(t: TestContext, limits: object = {}) {
  return startSds(t, { sds: { limits } }).then((sds) => {
    sds.publish(identity());
    return sds;
  });
}

test('bytes that are no HTTP/2, or end within a frame, end that connection alone', async (t) => {
  const sds = await start(t);
  const other = await bystander(t, sds);
  const preface = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';
  const garbage = [
    Buffer.from('GET / HTTP/1.1\r\nhost: x\r\n\r\n'),
    randomBytes(65_536),
    Buffer.concat([Buffer.from(preface), randomBytes(65_536)]),
    Buffer.from(preface.slice(0, 9)),
    // A frame that claims 16 MiB; one on stream 0 that may not be there; HEADERS that cannot be decompressed.
    Buffer.concat([Buffer.from(preface), Buffer.from('ffffff0000000000010000', 'hex')]),
    Buffer.concat([Buffer.from(preface), Buffer.from('000000040000000000', 'hex'), Buffer.from('0000010000000000000a', 'hex')]),
    Buffer.concat([Buffer.from(preface), Buffer.from('000000040000000000', 'hex'), Buffer.from('00000401040000000180808080', 'hex')]),
  ];
  for (const bytes of garbage) {
    const socket = connect(sds.path);
    socket.on('error', () => undefined);
    t.after(() => socket.destroy());
    socket.end(bytes);
    socket.resume();
    await new Promise((resolve) => socket.once('close', resolve));
  }
  await other.rotate();
  await eventually(() => assert.equal(sds.metrics.sds.connections, 1));
});

test('what is no xDS request is INVALID_ARGUMENT, and the stream is over', async (t) => {
  const sds = await start(t);
  const client = sdsClient(t, sds.target);
  for (const bytes of [Buffer.from([0x0a, 0xff]), Buffer.from('ffffffffffffffffffff', 'hex'), Buffer.from([0x1a, 0x02, 0xc3, 0x28])]) {
    for (const path of [
      '/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets',
      '/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets',
    ]) {
      const call = openRaw(client, path);
      call.on('error', () => undefined);
      const ended = new Promise<{ code: number }>((resolve) => call.on('status', resolve));
      call.resume();
      call.write(bytes);
      assert.equal((await ended).code, status.INVALID_ARGUMENT);
    }
  }
  assert.ok(sds.metrics.sds.refused.bad_request >= 4);
});

test('fields that nobody knows are ignored', async (t) => {
  const sds = await start(t);
  const call = openRaw(sdsClient(t, sds.target), '/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets');
  call.on('error', () => undefined);
  const answered = new Promise((resolve) => call.once('data', resolve));
  // Field 7 of a request (locators), and one that does not exist.
  call.write(Buffer.concat([encodeSotw({ resourceNames: ['default'] }), Buffer.from('3a026869', 'hex'), Buffer.from('fa3f026869', 'hex')]));
  await answered;
  call.cancel();
});

test('a megabyte of names is refused with a clear status, however it is sent', async (t) => {
  const sds = await start(t);
  const other = await bystander(t, sds);
  const client = sdsClient(t, sds.target);
  const names = Array.from({ length: 20_000 }, (_, index) => `name-${index}-${'x'.repeat(40)}`);

  const [sotw, delta] = [openSotw(client), openDelta(client)];
  sotw.send({ resourceNames: names });
  delta.send({ resourceNamesSubscribe: names });
  for (const { ended } of [sotw, delta]) {
    const { code, details } = await ended;
    assert.equal(code, status.RESOURCE_EXHAUSTED);
    assert.match(details, /a request of \d+ bytes: 262144 are allowed/);
  }
  assert.equal(sds.metrics.sds.refused.request_size, 2);

  // Below the size of one request, but too many.
  const many = openSotw(client);
  many.send({ resourceNames: names.slice(0, 1001) });
  assert.equal((await many.ended).code, status.RESOURCE_EXHAUSTED);
  assert.equal(sds.metrics.sds.refused.name_limit, 1);
  const byDelta = openDelta(client);
  for (let index = 0; index < 11; index += 1) byDelta.send({ resourceNamesSubscribe: names.slice(index * 100, index * 100 + 100) });
  assert.equal((await byDelta.ended).code, status.RESOURCE_EXHAUSTED);
  await other.rotate();
});

test('a request beyond what gRPC itself reads is refused by it, and counted by us, once each', async (t) => {
  const sds = await start(t, { maxRequestBytes: 10_000 });
  const other = await bystander(t, sds);
  const client = sdsClient(t, sds.target);
  const resourceNames = ['x'.repeat(90_000)];
  const [first, later, delta] = [openSotw(client), openSotw(client), openDelta(client)];
  later.send({ resourceNames: ['default'] });
  await later.next();

  first.send({ resourceNames });
  later.send({ resourceNames });
  delta.send({ resourceNamesSubscribe: resourceNames });

  for (const { ended } of [first, later, delta]) {
    const { code, details } = await ended;
    assert.equal(code, status.RESOURCE_EXHAUSTED);
    assert.match(details, /^Received message larger than max \(90\d\d\d vs 80000\)$/);
  }
  assert.equal((await fetchSecrets(client, { resourceNames })).error?.code, status.RESOURCE_EXHAUSTED);
  assert.equal(sds.metrics.sds.refused.request_size, 4);
  assert.ok(sds.log().some((line) => line['message'] === 'SDS client refused' && line['reason'] === 'request_size'));
  await eventually(() => assert.deepEqual([sds.metrics.sds.streams, sds.metrics.sds.calls], [{ sotw: 1, delta: 0 }, 0]));
  await other.rotate();
});

test('the names that one connection asks for are limited together, and given back when a stream ends', async (t) => {
  const sds = await start(t, { maxSubscriptionBytes: 80_000 });
  const client = sdsClient(t, sds.target);
  const names = Array.from({ length: 500 }, (_, index) => `${index}-${'x'.repeat(90)}`);

  const first = openSotw(client);
  first.send({ resourceNames: ['default', ...names] });
  await first.next();
  const second = openSotw(client);
  second.send({ resourceNames: ['default', ...names.map((name) => `second-${name}`)] });
  assert.equal((await second.ended).code, status.RESOURCE_EXHAUSTED);
  assert.equal(sds.metrics.sds.refused.subscription_size, 1);
  const elsewhere = openSotw(sdsClient(t, sds.target));
  elsewhere.send({ resourceNames: ['default', ...names] });
  await elsewhere.next();

  first.call.cancel();
  await eventually(() => assert.equal(sds.server.streams().length, 1));
  const third = openSotw(client);
  third.send({ resourceNames: ['default', ...names] });
  await third.next();
});

test('short names count for what it takes to remember them', async (t) => {
  const sds = await start(t);
  const other = await bystander(t, sds);
  const client = sdsClient(t, sds.target);
  const streams = Array.from({ length: 20 }, () => openSotw(client));
  for (const [index, stream] of streams.entries()) {
    stream.send({ resourceNames: Array.from({ length: 1000 }, (_, name) => (index * 1000 + name).toString(36)) });
  }

  const { code, details } = await Promise.race(streams.map(({ ended }) => ended));
  assert.equal(code, status.RESOURCE_EXHAUSTED);
  assert.match(details, /the names that one connection asks for have more than 1048576 bytes/);
  await other.rotate();
});

test('a flood of NACKs ends with RESOURCE_EXHAUSTED; one that never stops is cut, and others do not notice', async (t) => {
  const sds = await start(t, { maxRequestRate: 10 });
  const other = await bystander(t, sds);
  const client = sdsClient(t, sds.target);
  const stream = openSotw(client);
  stream.send({ resourceNames: ['default'] });
  const { nonce } = await stream.next();

  const nack = encodeSotw({ resourceNames: ['default'], responseNonce: nonce, errorDetail: { code: 13, message: 'x'.repeat(100) } });
  for (let count = 0; count < 150; count += 1) stream.call.write(nack);

  const { code, details } = await stream.ended;
  assert.equal(code, status.RESOURCE_EXHAUSTED);
  assert.match(details, /more than 10 requests a second/);
  assert.deepEqual(stream.waiting(), [], 'no NACK is answered');
  assert.ok(sds.metrics.sds.refused.request_rate >= 1);
  const rejected = sds.log().filter((line) => line['message'] === 'secret rejected by the client');
  assert.ok(rejected.length <= 2, `${rejected.length} lines`);
  await other.rotate();

  // New streams, again and again, whatever they are told.
  await assert.rejects(flood(client, 1000), /UNAVAILABLE|dropped|reset|closed/i);
  await other.rotate();
});

/** Opens streams until the connection is gone. */
async function flood(client: Client, times: number): Promise<void> {
  for (let count = 0; count < times; count += 1) {
    const stream = openSotw(client);
    stream.send({ resourceNames: ['default'] });
    const { code, details } = await stream.ended;
    if (code !== status.RESOURCE_EXHAUSTED) throw new Error(`${code} ${details}`);
  }
}

test('acknowledgements are never counted against a client, however fast rotations come', async (t) => {
  const sds = await start(t, { maxRequestRate: 1 });
  const stream = openSotw(sdsClient(t, sds.target));
  stream.send({ resourceNames: ['default'] });
  let response = await stream.next();
  for (let rotation = 0; rotation < 20; rotation += 1) {
    stream.send({ resourceNames: ['default'], responseNonce: response.nonce });
    sds.publish(identity());
    response = await stream.next();
  }
  assert.equal(sds.metrics.sds.refused.request_rate, 0);
});

test('requests that change the subscription count, though each answers a response', async (t) => {
  const sds = await start(t, { maxRequestRate: 1 });
  const other = await bystander(t, sds);
  const sotw = openSotw(sdsClient(t, sds.target));
  const delta = openDelta(sdsClient(t, sds.target));
  sotw.send({ resourceNames: ['default'] });
  delta.send({ resourceNamesSubscribe: ['nobody'] });
  let [{ nonce }, { nonce: deltaNonce }] = await Promise.all([sotw.next(), delta.next()]);

  await assert.rejects(async () => {
    for (let count = 0; count < 100; count += 1) {
      sotw.send({ resourceNames: [count % 2 === 0 ? 'ROOTCA' : 'default'], responseNonce: nonce });
      ({ nonce } = await sotw.next());
    }
  }, /8: more than 1 requests a second/);
  await assert.rejects(async () => {
    for (let count = 0; count < 100; count += 1) {
      delta.send({ resourceNamesSubscribe: ['nobody'], responseNonce: deltaNonce });
      ({ nonce: deltaNonce } = await delta.next());
    }
  }, /8: more than 1 requests a second/);

  assert.equal(sds.metrics.sds.refused.request_rate, 2);
  await other.rotate();
});

test('a change of the subscription leaves the answer to the last response free', async (t) => {
  const sds = await start(t, { maxRequestRate: 1 });
  const stream = openSotw(sdsClient(t, sds.target));
  stream.send({ resourceNames: ['default'] });
  let { nonce } = await stream.next();

  // Ten requests may come at once: the stream, and eight changes.
  for (let count = 0; count < 8; count += 1) {
    const resourceNames = [count % 2 === 0 ? 'ROOTCA' : 'default'];
    stream.send({ resourceNames });
    stream.send({ resourceNames, responseNonce: nonce });
    ({ nonce } = await stream.next());
  }

  stream.send({ resourceNames: ['default'], responseNonce: nonce });
  sds.publish(identity());
  await stream.next();
  assert.equal(sds.metrics.sds.refused.request_rate, 0);
});

test('a client that never reads holds one response a stream, and is told the newest when it reads', async (t) => {
  const sds = await start(t);
  const other = await bystander(t, sds);
  const session = http2Client(t, sds);
  const streams: ClientHttp2Stream[] = [];
  for (let index = 0; index < 200; index += 1) {
    const stream = openStream(session);
    // Never resumed: its window fills up.
    stream.pause();
    stream.write(grpcFrame(encodeSotw({ resourceNames: ['default', 'ROOTCA', 'ALL'] })));
    streams.push(stream);
  }
  await eventually(() => assert.ok(sds.server.streams().length === 201));

  const before = process.memoryUsage();
  for (let rotation = 0; rotation < 60; rotation += 1) await other.rotate();
  const grown = process.memoryUsage().external - before.external;

  assert.ok(grown < 40_000_000, `${grown} bytes`);
  const blocked = sds.server.streams().filter(({ state }) => state.isWriting).length;
  assert.ok(blocked > 0, 'somebody is blocked');
});

test('a client that ends its side before it reads is told OK in the end, whatever changed meanwhile', async (t) => {
  const sds = await start(t);
  const other = await bystander(t, sds);
  const session = http2Client(t, sds, { initialWindowSize: 0 });
  await new Promise((resolve) => session.once('remoteSettings', resolve));
  const stream = openStream(session);
  const trailers = new Promise<IncomingHttpHeaders>((resolve, reject) => {
    stream.once('trailers', resolve);
    stream.once('close', () => reject(new Error('no status')));
  });
  stream.resume();
  stream.end(grpcFrame(encodeSotw({ resourceNames: ['default'] })));
  await eventually(() => assert.equal(sds.metrics.sds.sent.certificate, 2));

  await other.rotate();
  await other.rotate();
  session.settings({ initialWindowSize: 65_535 });

  assert.equal((await trailers)['grpc-status'], String(status.OK));
  assert.equal(sds.metrics.sds.sent.certificate, 4);
});

/** A client that does as it likes, below what gRPC would let it do. */
function http2Client(t: TestContext, sds: TestSdsServer, settings: Settings = {}): ClientHttp2Session {
  const session = connectHttp2('http://localhost', { createConnection: () => connect(sds.path), settings });
  session.on('error', () => undefined);
  t.after(() => session.destroy());
  return session;
}

const STREAM_SECRETS = '/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets';

function openStream(session: ClientHttp2Session, path = STREAM_SECRETS, more: object = {}): ClientHttp2Stream {
  const headers = { ':method': 'POST', ':path': path, 'content-type': 'application/grpc', te: 'trailers', ...more };
  const stream = session.request(headers, { endStream: false });
  stream.on('error', () => undefined);
  return stream;
}

function grpcFrame(message: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

test('a client that opens 10,000 streams gets some, a clear status for others, and nobody else is affected', async (t) => {
  const sds = await start(t, { maxStreamsPerConnection: 20_000, maxStreams: 500, maxRequestRate: 2000 });
  const other = await bystander(t, sds);
  const session = http2Client(t, sds);
  await new Promise((resolve) => session.once('remoteSettings', resolve));
  const request = grpcFrame(encodeSotw({ resourceNames: ['default'] }));
  const codes = new Map<string, number>();
  let served = 0;
  for (let count = 0; count < 10_000; count += 1) {
    const stream = openStream(session);
    stream.on('response', (headers) => {
      const code = headers['grpc-status'];
      if (code === undefined) served += 1;
      else codes.set(String(code), (codes.get(String(code)) ?? 0) + 1);
    });
    stream.resume();
    stream.write(request);
  }

  await eventually(() => assert.equal(sds.metrics.sds.refused.stream_limit, 9501));
  // In the end Node cuts the connection, for what still comes in on streams that are over.
  await eventually(() => assert.ok((codes.get(String(status.RESOURCE_EXHAUSTED)) ?? 0) > 1000));
  assert.deepEqual([...codes.keys()], [String(status.RESOURCE_EXHAUSTED)]);
  assert.ok(served <= 499);
  await other.rotate();
  session.destroy();
  await eventually(() => assert.equal(sds.server.streams().length, 1));
});

test('streams beyond those of one connection are refused with a clear status', async (t) => {
  const sds = await start(t, { maxStreamsPerConnection: 20 });
  const other = await bystander(t, sds);
  const client = sdsClient(t, sds.target);
  const streams = Array.from({ length: 30 }, () => openSotw(client));
  for (const stream of streams) stream.send({ resourceNames: ['default'] });

  await eventually(() => assert.equal(sds.metrics.sds.refused.connection_stream_limit, 10));
  const { code, details } = await Promise.race(streams.map(({ ended }) => ended));
  assert.deepEqual([code, details], [status.RESOURCE_EXHAUSTED, 'more than 20 streams on one connection']);
  await other.rotate();
});

test('however many streams beyond the limit an Envoy opens, and says all of itself on each, those that it has go on', async (t) => {
  const clock = new FakeClock();
  const sds = await startSds(t, { clock, sds: { limits: { maxStreamsPerConnection: 1, maxRequestBytes: 16_384 } } });
  sds.publish(identity());
  const client = sdsClient(t, sds.target);
  const served = openSotw(client);
  served.send({ resourceNames: ['default'] });
  const { nonce } = await served.next();
  const node = { id: 'envoy', cluster: 'x'.repeat(10_000) };

  for (let count = 0; count < 300; count += 1) {
    const refused = openSotw(client);
    refused.send({ resourceNames: ['default'], node });
    assert.equal((await refused.ended).code, status.RESOURCE_EXHAUSTED);
  }

  clock.advance(1000);
  assert.equal(sds.metrics.sds.refused.request_size, 0);
  served.send({ resourceNames: ['default'], responseNonce: nonce });
  sds.publish(identity());
  assert.equal(secretsOf(await served.next()).length, 1);
});

test('connections without a stream make room for others; when all have one, a further one is closed', async (t) => {
  const sds = await start(t, { maxConnections: 3 });
  const other = await bystander(t, sds);
  const idle = [0, 1, 2, 3].map(() => connect(sds.path));
  for (const socket of idle) {
    socket.on('error', () => undefined);
    socket.resume();
    t.after(() => socket.destroy());
  }
  await eventually(() => assert.ok(idle.filter((socket) => socket.destroyed).length >= 2));
  const second = openSotw(sdsClient(t, sds.target));
  second.send({ resourceNames: ['default'] });
  await second.next();
  const third = openSotw(sdsClient(t, sds.target));
  third.send({ resourceNames: ['default'] });
  await third.next();

  const socket = connect(sds.path);
  socket.on('error', () => undefined);
  await new Promise((resolve) => socket.once('close', resolve));
  await eventually(() => assert.ok(sds.metrics.sds.refused.connection_limit >= 1));
  await other.rotate();
});

test('requests that are never completed are not kept without end', async (t) => {
  const sds = await start(t, { maxRequestBytes: 16_384 });
  const other = await bystander(t, sds);
  const session = http2Client(t, sds);
  const closed = new Promise((resolve) => session.once('close', resolve));
  for (let index = 0; index < 400; index += 1) {
    const stream = openStream(session);
    // 16,000 bytes are announced, and all but one of them sent.
    stream.write(grpcFrame(randomBytes(16_000)).subarray(0, -1));
  }

  await closed;
  assert.ok(sds.metrics.sds.refused.request_size >= 1);
  await other.rotate();
});

test('many small requests earn a client no room for such as it never completes', async (t) => {
  const sds = await start(t, { maxRequestBytes: 16_384, maxRequestRate: 1000 });
  const other = await bystander(t, sds);
  const session = http2Client(t, sds);
  const closed = new Promise((resolve) => session.once('close', resolve));
  for (let round = 0; round < 10; round += 1) {
    const checks = Array.from({ length: 100 }, () => openStream(session, '/grpc.health.v1.Health/Check').end(grpcFrame(Buffer.alloc(0))));
    await Promise.all(checks.map((stream) => new Promise((resolve) => stream.resume().once('close', resolve))));
  }
  assert.equal(session.closed, false);

  for (let index = 0; index < 100; index += 1) openStream(session).write(grpcFrame(randomBytes(16_000)).subarray(0, -1));

  await closed;
  assert.ok(sds.metrics.sds.refused.request_size >= 1);
  await other.rotate();
});

test('a client may answer and leave at once, again and again, as Envoy does with what it needed for one handshake', async (t) => {
  const clock = new FakeClock();
  const sds = await startSds(t, { clock, sds: { limits: { maxRequestBytes: 16_384, maxRequestRate: 1000 } } });
  sds.publish(identity());
  const session = http2Client(t, sds);
  // As long as what an Envoy says of itself.
  const request = grpcFrame(encodeDelta({ node: { id: 'x'.repeat(10_000) }, resourceNamesSubscribe: ['unknown.example'] }));
  for (let round = 0; round < 200; round += 1) {
    const stream = openStream(session, '/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets');
    stream.write(request);
    await new Promise((resolve) => stream.once('data', resolve));
    const over = new Promise((resolve) => stream.once('close', resolve));
    // Its answer is longer than one frame, and what has not gone out when it leaves never does.
    stream.write(request.subarray(0, -1), () => stream.close(constants.NGHTTP2_CANCEL));
    await over;
    clock.advance(1000);
  }

  await eventually(() => assert.deepEqual(sds.metrics.sds.streams, { sotw: 0, delta: 0 }));
  assert.equal(sds.metrics.sds.refused.request_size, 0);
  assert.equal(session.closed, false);
});

test('types without end on an aggregated stream, and health and reflection asked without reading, stay bounded', async (t) => {
  const sds = await start(t);
  const other = await bystander(t, sds);
  const client = sdsClient(t, sds.target);
  const types = openSotw(client, true);
  for (let index = 0; index < 20; index += 1) types.send({ typeUrl: `type.googleapis.com/a.b.C${index}` });
  assert.equal((await types.ended).code, status.RESOURCE_EXHAUSTED);

  const deltas = openDelta(client, true);
  deltas.call.pause();
  for (let index = 0; index < 1500; index += 1) {
    deltas.call.write(
      encodeDelta({ typeUrl: index % 2 === 0 ? SECRET_TYPE : 'type.googleapis.com/a.b.C', resourceNamesSubscribe: [`name-${index % 7}`] }),
    );
  }
  await other.rotate();
});

for (const [what, path, message] of [
  ['FetchSecrets', '/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets', encodeSotw({})],
  ['a health watch', '/grpc.health.v1.Health/Watch', Buffer.alloc(0)],
  ['a health check', '/grpc.health.v1.Health/Check', Buffer.alloc(0)],
  ['a reflection call', '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo', Buffer.from('3a00', 'hex')],
] as const) {
  test(`${what} that is not read to its end takes the place of a stream, and gives it back`, async (t) => {
    const sds = await start(t, { maxStreams: 100 });
    const other = await bystander(t, sds);
    const session = http2Client(t, sds, { initialWindowSize: 0 });
    await new Promise((resolve) => session.once('remoteSettings', resolve));
    const refused = new Set<string>();
    let count = 0;
    for (let index = 0; index < 150; index += 1) {
      const stream = openStream(session, path);
      stream.on('response', (headers) => {
        if (headers['grpc-status'] === undefined) return;
        count += 1;
        refused.add(`${String(headers['grpc-status'])} ${String(headers['grpc-message'])}`);
      });
      stream.end(grpcFrame(message));
    }

    await eventually(() => assert.equal(count, 51));
    assert.deepEqual([...refused], ['8 more%20than%20100%20streams']);
    assert.equal(sds.metrics.sds.refused.stream_limit, 51);
    assert.equal(sds.metrics.sds.calls, 99);
    await other.rotate();
    session.destroy();
    await eventually(() => assert.equal(sds.metrics.sds.calls, 0));
    await eventually(async () => {
      const stream = openSotw(sdsClient(t, sds.target));
      stream.send({ resourceNames: ['default'] });
      await stream.next();
    });
  });
}

test('A.7 rate limiting, differs: calls beyond the rate of one connection are RESOURCE_EXHAUSTED, and nobody is exempt', async (t) => {
  const clock = new FakeClock();
  const sds = await startSds(t, { clock, sds: { limits: { maxRequestRate: 1 } } });
  sds.publish(identity());
  const opens: Readonly<Record<string, (client: Client) => Promise<number>>> = {
    StreamSecrets: async (client) => {
      const stream = openSotw(client);
      stream.send({ resourceNames: ['default'] });
      const code = await Promise.race([stream.next().then(() => status.OK), stream.ended.then((ended) => ended.code)]);
      stream.call.cancel();
      return code;
    },
    FetchSecrets: async (client) => (await fetchSecrets(client, { resourceNames: ['default'] })).error?.code ?? status.OK,
    Reflection: async (client) => {
      const call = openRaw(client, '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo');
      call.on('error', () => undefined);
      const ended = new Promise<number>((resolve) => call.on('status', ({ code }: { code: number }) => resolve(code)));
      call.resume();
      call.end(Buffer.alloc(0));
      return await ended;
    },
  };
  for (const [method, open] of Object.entries(opens)) {
    const client = sdsClient(t, sds.target);
    // Ten seconds' worth at once. A question by reflection counts, as its call does.
    const atOnce = method === 'Reflection' ? 5 : 10;
    for (let count = 0; count < atOnce; count += 1) assert.equal(await open(client), status.OK, method);

    const refused = sds.metrics.sds.refused.request_rate;
    assert.equal(await open(client), status.RESOURCE_EXHAUSTED, method);
    assert.equal(sds.metrics.sds.refused.request_rate, refused + 1);

    clock.advance(3000);
    assert.equal(await open(client), status.OK, method);
  }
});

test('unary calls that are read give their places back at once', async (t) => {
  const sds = await start(t, { maxStreams: 2, maxStreamsPerConnection: 2 });
  const client = sdsClient(t, sds.target);
  for (let count = 0; count < 50; count += 1) {
    const { error } = await fetchSecrets(client, { resourceNames: [count % 2 === 0 ? 'default' : 'nobody'] });
    assert.equal(error?.code, count % 2 === 0 ? undefined : status.NOT_FOUND);
  }
});

for (const [what, path, message] of [
  ['FetchSecrets', '/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets', encodeSotw({})],
  ['a health watch', '/grpc.health.v1.Health/Watch', Buffer.alloc(0)],
  ['a health check', '/grpc.health.v1.Health/Check', Buffer.alloc(0)],
] as const) {
  test(`${what} whose deadline is over before it is said gives the place of a stream back`, async (t) => {
    const sds = await start(t, { maxStreams: 2 });
    const session = http2Client(t, sds);
    await new Promise((resolve) => session.once('remoteSettings', resolve));
    for (let count = 0; count < 5; count += 1) {
      const stream = openStream(session, path, { 'grpc-timeout': '1m' });
      const answered = new Promise<string>((resolve) => stream.once('response', (headers) => resolve(String(headers['grpc-status']))));
      stream.write(grpcFrame(message));
      stream.resume();
      assert.equal(await answered, String(status.DEADLINE_EXCEEDED));
      // The end of the call comes now.
      const closed = new Promise((resolve) => stream.once('close', resolve));
      stream.end();
      await closed;
    }

    assert.equal((await fetchSecrets(sdsClient(t, sds.target), { resourceNames: ['default'] })).error, undefined);
  });
}

test('compressed requests are refused before anything is inflated', async (t) => {
  const sds = await start(t);
  const other = await bystander(t, sds);
  const session = http2Client(t, sds);
  await new Promise((resolve) => session.once('remoteSettings', resolve));
  const message = gzipSync(Buffer.alloc(2_000_000));
  const bomb = Buffer.concat([Buffer.from([1]), grpcFrame(message).subarray(1)]);
  const before = process.memoryUsage().rss;

  const codes = await Promise.all(
    Array.from({ length: 100 }, () => {
      const stream = openStream(session, STREAM_SECRETS, { 'grpc-encoding': 'gzip' });
      stream.write(Buffer.concat(Array.from({ length: 8 }, () => bomb)));
      stream.resume();
      return new Promise((resolve) => stream.once('response', (headers) => resolve(headers['grpc-status'])));
    }),
  );

  assert.deepEqual(new Set(codes), new Set([String(status.UNIMPLEMENTED)]));
  assert.ok(process.memoryUsage().rss - before < 100_000_000);
  assert.equal(sds.metrics.sds.refused.bad_request, 100);
  await other.rotate();
});

test('questions of reflection count as requests', async (t) => {
  const sds = await start(t, { maxRequestRate: 10 });
  const other = await bystander(t, sds);
  const call = openRaw(sdsClient(t, sds.target), '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo');
  call.on('error', () => undefined);
  call.resume();
  const ended = new Promise<{ code: number; details: string }>((resolve) => call.on('status', resolve));
  for (let count = 0; count < 150; count += 1) call.write(Buffer.from('3a00', 'hex'));

  const { code, details } = await ended;
  assert.deepEqual([code, details], [status.RESOURCE_EXHAUSTED, 'more than 10 requests a second']);
  assert.equal(sds.metrics.sds.refused.request_rate, 1);
  await other.rotate();
});
