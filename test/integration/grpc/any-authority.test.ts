import assert from 'node:assert/strict';
import { connect, type Socket } from 'node:net';
import { test, type TestContext } from 'node:test';
import { startDevDomain } from '../../support/dev-domain.ts';
import {
  ACK,
  CONTINUATION,
  DATA,
  END_HEADERS,
  END_STREAM,
  type Field,
  frame,
  frameWire,
  type FrameWire,
  GOAWAY,
  HEADERS,
  headers,
  hpack,
  PING,
  SETTINGS,
} from '../../support/http/http2-frames.ts';
import { startSds } from '../../support/sds.ts';

const COMPRESSION_ERROR = 9;
const PROTOCOL_ERROR = 1;
const FRAME_SIZE_ERROR = 6;
/** A message of gRPC without a field. */
const NO_FIELDS = Buffer.alloc(5);

const HEALTH = '/grpc.health.v1.Health/Check';
const CHECK = '/envoy.service.auth.v3.Authorization/Check';
const VALIDATE = '/SpiffeWorkloadAPI/ValidateJWTSVID';

const AUTHORITIES: readonly (readonly [what: string, fields: readonly Field[]])[] = [
  ['a host', [[':authority', 'localhost']]],
  ["the socket's path, as grpc-java has it", [[':authority', '/run/x.sock']]],
  ["the socket's path as it is written in a URL, as grpc-go has it", [[':authority', '%2Frun%2Fx.sock']]],
  ['an empty one', [[':authority', '']]],
  ['none', []],
  ['none, and a Host', [['host', 'localhost']]],
  ['none, and a path for a Host', [['host', '/run/x.sock']]],
  [
    'two that differ',
    [
      [':authority', '/run/x.sock'],
      ['host', 'localhost'],
    ],
  ],
  ['a user and a space', [[':authority', 'me@/run/my socket']]],
  ['bytes that are no text', [[':authority', '/run/\x01\x7f\xe9\xff.sock']]],
  ['a path as long as they come', [[':authority', `/${'x'.repeat(106)}`]]],
];

/** A client of a Unix socket that has no library. */
async function client(t: TestContext, path: string): Promise<FrameWire<Socket>> {
  const socket = connect(path);
  t.after(() => socket.destroy());
  await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject));
  return frameWire(socket);
}

function call(stream: number, path: string, authority: readonly Field[]): Buffer {
  const pseudo = authority.filter(([name]) => name.startsWith(':'));
  const others = authority.filter(([name]) => !name.startsWith(':'));
  const fields: Field[] = [
    [':method', 'POST'],
    [':scheme', 'http'],
    ...pseudo,
    [':path', path],
    ...others,
    ['te', 'trailers'],
    ['content-type', 'application/grpc'],
    ['workload.spiffe.io', 'true'],
  ];
  return Buffer.concat([headers(stream, fields, END_HEADERS), frame(DATA, END_STREAM, stream, NO_FIELDS)]);
}

/** The three servers of gRPC that we have, and a call to each that is answered whatever it says. */
async function servers(t: TestContext): Promise<readonly (readonly [what: string, path: string, method: string])[]> {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: ['spiffe://example.org/web'] } });
  const sds = await startSds(t, { listeners: new Map() });
  return [
    ['the Workload API', new URL(spiffe.endpoint('web')).pathname, VALIDATE],
    ['SDS', sds.path, HEALTH],
    ['ext_authz', sds.path, CHECK],
  ];
}

test('every server of gRPC answers whatever :authority a client sends', async (t) => {
  for (const [server, path, method] of await servers(t)) {
    const wire = await client(t, path);
    let stream = -1;
    for (const [what, authority] of AUTHORITIES) {
      stream += 2;
      wire.send(call(stream, method, authority));
      const { status, ended, reset } = await wire.streamOver(stream);
      assert.deepEqual([status, ended, reset], [200, true, undefined], `${server}: ${what}`);
    }
  }
});

test('what else is wrong with a request is still refused, and other calls of the connection go on', async (t) => {
  for (const [server, path, method] of await servers(t)) {
    const wire = await client(t, path);
    const upperCase: Field[] = [
      [':authority', '/run/x.sock'],
      ['X-Upper', 'case'],
    ];
    const twice: Field[] = [
      [':authority', '/run/x.sock'],
      [':authority', '/run/x.sock'],
    ];
    wire.send(call(1, method, upperCase), call(3, method, twice), call(5, method, [[':authority', '/run/x.sock']]));

    assert.equal((await wire.streamOver(1)).reset, PROTOCOL_ERROR, server);
    assert.equal((await wire.streamOver(3)).reset, PROTOCOL_ERROR, server);
    assert.equal((await wire.streamOver(5)).status, 200, server);
  }
});

test('a client that breaks the protocol is told why, its connection ends, and others go on', async (t) => {
  const broken: readonly (readonly [what: string, frames: readonly Uint8Array[], code: number])[] = [
    ['an index that there is not', [frame(HEADERS, END_STREAM | END_HEADERS, 1, Buffer.of(0xff, 0x20))], COMPRESSION_ERROR],
    ['a head that never ends', [frame(HEADERS, 0, 1), ...Array<Buffer>(20).fill(frame(CONTINUATION, 0, 1))], COMPRESSION_ERROR],
    [
      'another frame within a head',
      [frame(HEADERS, 0, 1, hpack([[':method', 'GET']])), frame(PING, 0, 0, Buffer.alloc(8))],
      PROTOCOL_ERROR,
    ],
    ['more padding than there is', [frame(HEADERS, END_HEADERS | 8, 1, Buffer.of(200, 1, 2))], PROTOCOL_ERROR],
    ['a head on no stream', [headers(0, [[':method', 'GET']])], PROTOCOL_ERROR],
    ['a head longer than a frame may be', [frame(HEADERS, END_HEADERS, 1, Buffer.alloc(20_000))], FRAME_SIZE_ERROR],
    ['the rest of a head that has not begun', [frame(CONTINUATION, END_HEADERS, 1)], PROTOCOL_ERROR],
  ];
  for (const [server, path, method] of await servers(t)) {
    const other = await client(t, path);
    for (const [what, frames, code] of broken) {
      const wire = await client(t, path);
      // While a write is under way, Node ends a connection without a word.
      await wire.until(({ type, flags }) => type === SETTINGS && flags === ACK);
      wire.send(...frames);
      assert.equal(await wire.over(), code, `${server}: ${what}: ${JSON.stringify(wire.frames())}`);
    }
    other.send(call(1, method, [[':authority', '/run/x.sock']]));
    assert.equal((await other.streamOver(1)).status, 200, server);
    assert.equal(
      other.frames().some(({ type }) => type === GOAWAY),
      false,
    );
  }
});
