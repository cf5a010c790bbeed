import assert from 'node:assert/strict';
import { test } from 'node:test';
import { API, presented, startExampleDomain } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { answerOk } from '../../support/http/h2c-application.ts';
import { startCaller, startH2cOutbound, startSplicedOut } from '../../support/http/h2c-outbound.ts';
import {
  CANCEL,
  CONTINUATION,
  DATA,
  END_HEADERS,
  END_STREAM,
  frame,
  framesIn,
  frameWire,
  GET,
  headers,
  HEADERS,
  hpack,
  PING,
  PREFACE,
  PUSH_PROMISE,
  RST_STREAM,
  settings,
  uint32,
  WINDOW_UPDATE,
  type Field,
} from '../../support/http/http2-frames.ts';
import { request } from '../../support/http/http2-stage.ts';
import { dial } from '../../support/tcp.ts';
import { tlsServer } from '../../support/tls-peer.ts';

const OK: readonly Field[] = [[':status', '200']];
const repeat = (times: number, make: (index: number) => Buffer): Buffer =>
  Buffer.concat(Array.from({ length: times }, (_, at) => make(at)));
const ping = frame(PING, 0, 0, Buffer.alloc(8));

test('a server that breaks the rules or floods us loses its connection, with a reason, and no other one is touched', async (t) => {
  const faults: readonly [string, string, Buffer][] = [
    ['PING', 'control_flood', repeat(20_000, () => ping)],
    ['SETTINGS', 'control_flood', repeat(20_000, () => settings([4, 65_535]))],
    ['empty DATA', 'control_flood', Buffer.concat([headers(1, OK, END_HEADERS), repeat(3000, () => frame(DATA, 0, 1))])],
    ['CONTINUATION', 'header_flood', Buffer.concat([frame(HEADERS, 0, 1, hpack(OK)), repeat(3000, () => frame(CONTINUATION, 0, 1))])],
    ['PUSH_PROMISE', 'frame', frame(PUSH_PROMISE, END_HEADERS, 1, Buffer.concat([uint32(2), hpack(GET)]))],
    ['HPACK that is none', 'compression', frame(HEADERS, END_HEADERS, 1, Buffer.alloc(5, 0xff))],
    ['a stream that was never opened', 'stream', headers(99, OK)],
    ['a stream of its own', 'stream', headers(2, OK)],
    ['a window that overflows', 'flow_control', frame(WINDOW_UPDATE, 0, 0, uint32(0x7fffffff))],
    ['a frame that is too large', 'frame', Buffer.concat([headers(1, OK, END_HEADERS), frame(DATA, 0, 1, Buffer.alloc(20_000))])],
    [
      'more DATA than the window',
      'flow_control',
      Buffer.concat([headers(1, OK, END_HEADERS), repeat(80, () => frame(DATA, 0, 1, Buffer.alloc(16_000)))]),
    ],
  ];
  const spiffe = await startExampleDomain(t);
  let say: Buffer = Buffer.alloc(0);
  const server = await tlsServer(
    t,
    presented(await spiffe.issue(API)),
    (socket) => {
      let all = Buffer.alloc(0);
      let seen = 0;
      socket.write(settings());
      socket.on('end', () => socket.end());
      socket.on('data', (chunk: Buffer) => {
        all = Buffer.concat([all, chunk]);
        const frames = framesIn(all.subarray(PREFACE.length));
        for (const { type, stream, payload } of frames.slice(seen)) {
          if (type === HEADERS) socket.write(payload.includes('/bad') ? say : headers(stream, OK));
        }
        seen = frames.length;
      });
    },
    { ALPNProtocols: ['h2'] },
  );
  const { address, sidecar } = await startH2cOutbound(t, server.address, { spiffe });
  const other = await startCaller(t, address);
  assert.equal((await request(other, { ':path': '/' })).status, 200);
  const counts = new Map<string, number>();
  for (const [name, reason, bytes] of faults) {
    say = bytes;
    const client = await startCaller(t, address);
    const stream = client.request({ ':path': '/bad' });
    // Not read from: what is owed to it must not pile up.
    stream.pause();
    stream.on('error', () => undefined);
    counts.set(reason, (counts.get(reason) ?? 0) + 1);
    await eventually(async () =>
      assert.equal(
        await sidecar.metric('scute_http2_faults_total', { direction: 'outbound', peer: 'dst', reason }),
        counts.get(reason),
        name,
      ),
    );
    client.destroy();
    assert.equal((await request(await startCaller(t, address), { ':path': '/' })).status, 200, name);
  }
  assert.equal((await request(other, { ':path': '/' })).status, 200);
  assert.equal(await sidecar.metric('scute_http2_faults_total', { peer: 'src' }), 0);
});

test('an application that breaks the rules or floods us loses its own connection, with a reason', async (t) => {
  const faults: readonly [string, string, Buffer][] = [
    [
      'rapid reset',
      'reset_flood',
      repeat(3000, (at) => Buffer.concat([headers(at * 2 + 1, GET), frame(RST_STREAM, 0, at * 2 + 1, uint32(CANCEL))])),
    ],
    ['malformed requests', 'reset_flood', repeat(3000, (at) => headers(at * 2 + 1, [...GET, ['connection', 'a']]))],
    ['CONTINUATION', 'header_flood', Buffer.concat([frame(HEADERS, 0, 1, hpack(GET)), repeat(3000, () => frame(CONTINUATION, 0, 1))])],
    ['PING', 'control_flood', repeat(20_000, () => ping)],
    ['HPACK that is none', 'compression', frame(HEADERS, END_HEADERS | END_STREAM, 1, Buffer.alloc(5, 0xff))],
    ['a stream of the server’s', 'stream', headers(2, GET)],
    ['DATA for nobody', 'frame', frame(DATA, 0, 0, Buffer.from('x'))],
  ];
  const { address, sidecar } = await startSplicedOut(t, answerOk);
  const other = await startCaller(t, address);
  for (const [name, reason, bytes] of faults) {
    const before = await sidecar.metric('scute_http2_faults_total', { peer: 'src', reason });
    const line = frameWire(await dial(t, address), bytes);
    assert.notEqual(await line.over(), 0, name);
    await eventually(async () =>
      assert.equal(await sidecar.metric('scute_http2_faults_total', { direction: 'outbound', peer: 'src', reason }), before + 1, name),
    );
    assert.equal((await request(other, { ':path': '/' })).status, 200, name);
  }
  await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_open_connections'), 1));
});

test('a server that takes nothing holds up its own application, and no more is kept of it than was allowed', async (t) => {
  const stage = await startSplicedOut(t, (stream, head) => (head[':path'] === '/stalled' ? stream.pause() : answerOk(stream)));
  const stalled = (await startCaller(t, stage.address)).request({ ':method': 'POST', ':path': '/stalled' });
  stalled.on('error', () => undefined);
  stalled.write(Buffer.alloc(20 * 1024 * 1024));
  await eventually(async () => assert.ok((await stage.sidecar.metric('scute_tcp_read_bytes_total', { peer: 'src' })) > 60_000));

  assert.equal((await request(await startCaller(t, stage.address), { ':path': '/' })).status, 200);

  assert.ok((await stage.sidecar.metric('scute_tcp_read_bytes_total', { peer: 'src' })) < 3 * 1024 * 1024);
  stalled.close(CANCEL);
});
