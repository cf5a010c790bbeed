/** What peers over HTTP/2 do that mean harm, whatever the application speaks. */
import assert from 'node:assert/strict';
import type { ClientHttp2Session } from 'node:http2';
import type { InboundStage } from '../data-path.ts';
import { eventually } from '../eventually.ts';
import {
  ACK,
  CANCEL,
  CONTINUATION,
  DATA,
  END_HEADERS,
  END_STREAM,
  frame,
  GET,
  GOAWAY,
  headers,
  HEADERS,
  hpack,
  indexedField,
  PING,
  POST,
  PRIORITY,
  PROTOCOL_ERROR,
  PUSH_PROMISE,
  REFUSED_STREAM,
  RST_STREAM,
  settings,
  SETTINGS,
  uint32,
  WINDOW_UPDATE,
  type Field,
  type FrameWire,
} from './http2-frames.ts';
import { request, startFrames } from './http2-stage.ts';
import { byTranslation } from './translation.ts';

export const withPseudo = (name: string, value: string): Field[] => GET.map(([each, old]) => [each, each === name ? value : old]);
export const repeat = (count: number, make: (index: number) => Buffer): Buffer =>
  Buffer.concat(Array.from({ length: count }, (_, index) => make(index)));
export const pingPong = frame(PING, 0, 0, Buffer.alloc(8));
const without = (name: string): Field[] => GET.filter(([each]) => each !== name);

/** Heads whose stream is reset. */
export const MALFORMED_HEADS: readonly (readonly [string, readonly Field[]])[] = [
  ['no :method', without(':method')],
  ['no :scheme', without(':scheme')],
  ['no :path', without(':path')],
  ['neither :authority nor Host', without(':authority')],
  ['a pseudo-header field after another', [...without(':path'), ['a', 'b'], [':path', '/']]],
  [':path twice', [...GET, [':path', '/b']]],
  [':method twice', [...GET, [':method', 'GET']]],
  ['an unknown pseudo-header field', [...GET, [':foo', 'a']]],
  ['one of responses', [...GET, [':status', '200']]],
  ['extended CONNECT, which was never offered', [...withPseudo(':method', 'CONNECT'), [':protocol', 'websocket']]],
  ['CONNECT with a path', withPseudo(':method', 'CONNECT')],
  ['two Hosts', [...without(':authority'), ['host', 'a'], ['host', 'a']]],
  ['an upper-case name', [...GET, ['Accept', 'a']]],
  ['Connection', [...GET, ['connection', 'close']]],
  ['Connection that names ours', [...GET, ['connection', 'x-forwarded-client-cert']]],
  ['Keep-Alive', [...GET, ['keep-alive', 'a']]],
  ['Proxy-Connection', [...GET, ['proxy-connection', 'a']]],
  ['H2.TE', [...GET, ['transfer-encoding', 'chunked']]],
  ['Upgrade', [...GET, ['upgrade', 'websocket']]],
  ['TE other than trailers', [...GET, ['te', 'gzip']]],
  ['a space in :path', withPseudo(':path', '/a b')],
  ['a request line in :path', withPseudo(':path', '/ HTTP/1.1\r\nhost: b\r\n\r\nGET /hidden')],
  ['NUL in :path', withPseudo(':path', '/\0')],
  ['an empty :path', withPseudo(':path', '')],
  ['an absolute :path', withPseudo(':path', 'http://api/')],
  ['* of GET', withPseudo(':path', '*')],
  ['a request line in :method', withPseudo(':method', 'GET / HTTP/1.1\r\nhost: b\r\n\r\nGET')],
  ['a space in :authority', withPseudo(':authority', 'a b')],
  ['a line in :authority', withPseudo(':authority', 'a\r\nx: y')],
  ['a user in :authority', withPseudo(':authority', 'user@api')],
  ['an empty :authority', withPseudo(':authority', '')],
  ['a bad :scheme', withPseudo(':scheme', 'ht tp')],
  ['H2.CL: a length and no body', [...GET, ['content-length', '5']]],
  ['two lengths', [...GET, ['content-length', '0'], ['content-length', '0']]],
  ['a length that is none', [...GET, ['content-length', '+0']]],
  ['a list of lengths', [...GET, ['content-length', '0, 0']]],
];

/** Heads that are answered with 400, and why. */
export const BAD_HEADS: readonly (readonly [string, readonly Field[], RegExp])[] = [
  ['Host other than :authority', [...GET, ['host', 'b']], /:authority and Host are not the same/],
  ['a fragment', withPseudo(':path', '/a#b'), /the request target has a byte/],
  ['obs-text in :path', withPseudo(':path', '/\xe9'), /the request target has a byte/],
  ['a method in lower case', withPseudo(':method', 'get'), /the method is not one/],
  ['TRACE', withPseudo(':method', 'TRACE'), /the method is not one/],
  [
    'CONNECT',
    [
      [':method', 'CONNECT'],
      [':authority', 'api:443'],
    ],
    /the method is not one/,
  ],
  ['another scheme', withPseudo(':scheme', 'ftp'), /the scheme is neither/],
  ['what reads as Content-Length', [...GET, ['content_length', '0']], /reads as Content-Length/],
  ['what reads as Transfer-Encoding', [...GET, ['transfer_encoding', 'chunked']], /reads as Transfer-Encoding/],
];

/** Each head is refused on its stream: by a reset, or by a response that says why. Says which stream is the next. */
export async function refuseHeads(line: FrameWire, malformed: typeof MALFORMED_HEADS, bad: typeof BAD_HEADS): Promise<number> {
  let id = -1;
  for (const [name, fields] of malformed) {
    line.send(headers((id += 2), fields));
    const outcome = await line.streamOver(id);
    assert.deepEqual([outcome.status, outcome.ended, outcome.reset], [undefined, false, PROTOCOL_ERROR], name);
  }
  for (const [name, fields, reason] of bad) {
    line.send(headers((id += 2), fields));
    const outcome = await line.streamOver(id);
    assert.deepEqual([outcome.status, outcome.ended, outcome.reset], [400, true, undefined], name);
    assert.match(outcome.body, reason, name);
  }
  return id + 2;
}

/** A request on a stream that trailers are to end. */
export function startOfPost(id: number): Buffer {
  return Buffer.concat([headers(id, POST, END_HEADERS), frame(DATA, 0, id, Buffer.from('abc'))]);
}

/** Bad trailers break their request, and so do `more`. Says which stream is the next. */
export async function refuseTrailers(line: FrameWire, more: readonly (readonly Field[])[]): Promise<number> {
  const malformed: (readonly Field[])[] = [
    [[':path', '/']],
    [['transfer-encoding', 'chunked']],
    [['connection', 'close']],
    [['X', 'a']],
    ...more,
  ];
  const bad: (readonly Field[])[] = [[['content-length', '3']], [['host', 'b']], [['content_length', '3']]];
  let id = -1;
  for (const fields of malformed) {
    line.send(startOfPost((id += 2)), headers(id, fields));
    assert.equal((await line.streamOver(id)).reset, PROTOCOL_ERROR, JSON.stringify(fields));
  }
  for (const fields of bad) {
    line.send(startOfPost((id += 2)), headers(id, fields));
    const outcome = await line.streamOver(id);
    assert.deepEqual([outcome.status, outcome.ended], [400, true], JSON.stringify(fields));
  }
  // Trailers that do not end the stream.
  line.send(startOfPost((id += 2)), headers(id, [['a', 'b']], END_HEADERS));
  assert.equal((await line.streamOver(id)).reset, PROTOCOL_ERROR);
  return id + 2;
}

/** What ends a connection: a name, the reason that is counted where frames are Scute's own, and the bytes. */
export type Flood = readonly [name: string, reason: string, bytes: Buffer];

export const FLOODS: readonly Flood[] = [
  [
    'rapid reset (CVE-2023-44487)',
    'reset_flood',
    repeat(3000, (index) => Buffer.concat([headers(index * 2 + 1, GET), frame(RST_STREAM, 0, index * 2 + 1, uint32(CANCEL))])),
  ],
  [
    'resets that it has us do (CVE-2025-8671)',
    'reset_flood',
    repeat(3000, (index) => Buffer.concat([headers(index * 2 + 1, POST, END_HEADERS), frame(WINDOW_UPDATE, 0, index * 2 + 1, uint32(0))])),
  ],
  // Ours counts them among the resets that it is made to do, 1,000 at once; Node's library takes 100 invalid frames.
  ['malformed requests', 'reset_flood', repeat(byTranslation(1500, 500), (index) => headers(index * 2 + 1, [...GET, ['connection', 'a']]))],
  [
    'CONTINUATION (CVE-2024-27316)',
    'header_flood',
    Buffer.concat([frame(HEADERS, 0, 1, hpack(GET)), repeat(3000, () => frame(CONTINUATION, 0, 1, hpack([['a', 'b']])))]),
  ],
  ['empty CONTINUATION', 'header_flood', Buffer.concat([frame(HEADERS, 0, 1, hpack(GET)), repeat(3000, () => frame(CONTINUATION, 0, 1))])],
  ['empty DATA (CVE-2019-9518)', 'control_flood', Buffer.concat([headers(1, POST, END_HEADERS), repeat(3000, () => frame(DATA, 0, 1))])],
  ['PING (CVE-2019-9512)', 'control_flood', repeat(20_000, () => pingPong)],
  ['SETTINGS (CVE-2019-9515)', 'control_flood', repeat(20_000, () => settings([4, 65_535]))],
  [
    'PRIORITY (CVE-2019-9513)',
    'control_flood',
    repeat(20_000, (index) => frame(PRIORITY, 0, 1 + 2 * (index % 1000), Buffer.of(0, 0, 0, 0, 1))),
  ],
  ['frames of no known type', 'control_flood', repeat(20_000, () => frame(99, 0, 0, Buffer.from('x')))],
  ['many settings at once', 'control_flood', settings(...Array.from({ length: 1000 }, () => [4, 65_535] as const))],
  ['PUSH_PROMISE', 'frame', frame(PUSH_PROMISE, END_HEADERS, 1, Buffer.concat([uint32(2), hpack(GET)]))],
  ['a window that overflows', 'flow_control', frame(WINDOW_UPDATE, 0, 0, uint32(0x7fffffff))],
  ['an initial window that is none', 'flow_control', settings([4, 0xffffffff])],
  ['DATA for nobody', 'frame', frame(DATA, 0, 0, Buffer.from('x'))],
  ['DATA before its stream', 'stream', frame(DATA, 0, 5, Buffer.from('x'))],
  ['a stream of the server’s', 'stream', headers(2, GET)],
  ['a frame that is too large', 'frame', frame(DATA, 0, 1, Buffer.alloc(20_000))],
  ['HPACK that is none', 'compression', frame(HEADERS, END_HEADERS | END_STREAM, 1, Buffer.alloc(5, 0xff))],
  ['a SETTINGS acknowledgement with a payload', 'frame', frame(SETTINGS, ACK, 0, Buffer.alloc(6))],
];

/** Each ends its own connection with a reason, and not that of `client`; `check` has more to say of each. */
export async function sendFloods(
  stage: InboundStage,
  client: ClientHttp2Session,
  floods: readonly Flood[],
  isUnread: (flood: Flood) => boolean,
  check: (flood: Flood, closed: string) => Promise<void> | void = () => undefined,
): Promise<void> {
  const before = process.memoryUsage.rss();
  let lastSeen = 1;
  for (const flood of floods) {
    const [name, , bytes] = flood;
    const line = await startFrames(stage);
    // What is owed to it must not pile up.
    if (isUnread(flood)) line.socket.pause();
    line.send(bytes);
    const closed = await stage.sidecar.connection(({ connection }) => Number(connection) > lastSeen);
    lastSeen = Number(closed['connection']);
    const text = `${name}: ${JSON.stringify(closed)}`;
    assert.equal(closed['close_reason'], 'protocol_error', text);
    assert.ok(String(closed['detail']).length > 5, name);
    await check(flood, text);
    line.socket.destroy();
    assert.equal((await request(client, { ':path': '/' })).status, 200, name);
  }
  assert.equal(await stage.sidecar.metric('scute_tcp_close_total', { reason: 'protocol_error' }), floods.length);
  assert.ok(process.memoryUsage.rss() - before < 200 * 1024 * 1024);
}

/** A head that names one entry of the dynamic table 12,000 times: 46 MB. */
export function bomb(stream: number): Buffer {
  return frame(
    HEADERS,
    END_HEADERS | END_STREAM,
    stream,
    Buffer.concat([hpack(GET), indexedField('a', 'x'.repeat(3900)), Buffer.alloc(12_000, 0xbe)]),
  );
}

/** A head with so many fields of no value. */
export function headOf(fields: number, stream: number): Buffer {
  return headers(stream, [...GET, ...Array.from({ length: fields }, (_, index): Field => [`x${index.toString(36)}`, ''])]);
}

/** Opens 15 streams where 10 may be open; those beyond are refused. */
export async function openTooMany(stage: InboundStage): Promise<FrameWire> {
  const line = await startFrames(
    stage,
    repeat(15, (index) => headers(index * 2 + 1, GET)),
  );
  await eventually(() => assert.equal(line.frames().filter(({ type }) => type === RST_STREAM).length, 5));
  assert.ok(line.frames().some(({ type, payload }) => type === SETTINGS && payload.includes(Buffer.of(0, 3, 0, 0, 0, 10))));
  for (let index = 10; index < 15; index++) assert.equal(line.stream(index * 2 + 1).reset, REFUSED_STREAM);
  return line;
}

/** 200 requests that are reset at once, where five may be open, end nothing. */
export async function resetMany(stage: InboundStage): Promise<void> {
  const line = await startFrames(stage);

  for (let index = 0; index < 200; index++) line.send(headers(index * 2 + 1, GET), frame(RST_STREAM, 0, index * 2 + 1, uint32(0)));
  line.send(pingPong);

  await line.until(({ type, flags }) => type === PING && flags === ACK);
  assert.ok(!line.frames().some(({ type }) => type === GOAWAY));
  await eventually(async () => assert.equal(await stage.sidecar.metric('scute_http_requests_total', { result: 'downstream_closed' }), 200));
}

/** A whole request on stream 1, in two parts that come one after the other: once for each place to cut it. `check` follows. */
export async function sendInTwo(stage: InboundStage, bytes: Buffer, check: (cut: number) => void): Promise<void> {
  for (let cut = 1; cut < bytes.length; cut += 3) {
    const line = await startFrames(stage);
    line.send(bytes.subarray(0, cut));
    await new Promise((resolve) => setImmediate(resolve));
    line.send(bytes.subarray(cut));
    assert.equal((await line.streamOver(1)).status, 200);
    line.socket.destroy();
    check(cut);
  }
}
