import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createRandom } from '../../test/support/random.ts';
import { foldName } from '../http1/fields.ts';
import { buildIdentityFields, type IdentityOptions } from '../http1/identity-fields.ts';
import { Http2Head } from './head.ts';
import type { HpackField } from './hpack/field.ts';
import { FieldFilter } from './identity.ts';
import { readRequestFields, readRequestTrailers } from './request-fields.ts';

const CALLER = { peerId: 'spiffe://example.org/web', ownId: 'spiffe://example.org/api', leafSha256: 'ab'.repeat(32) };
const LIMITS = { maxHeadBytes: 100_000, maxFields: 60 };
const OPTIONS: readonly IdentityOptions[] = (['sanitize-set', 'sanitize', 'unsafe-forward', 'unsafe-append'] as const).flatMap((xfcc) =>
  [undefined, 'X-Peer'].map((spiffeIdHeader) => ({ xfcc, spiffeIdHeader })),
);

const PSEUDO: readonly HpackField[] = [
  [':method', 'GET'],
  [':method', 'POST'],
  [':method', 'OPTIONS'],
  [':method', 'QUERY'],
  [':scheme', 'https'],
  [':scheme', 'http'],
  [':path', '/'],
  [':path', '/a/b?c=%2f'],
  [':authority', 'api'],
  [':authority', 'API:8443'],
  [':authority', '[::1]:5'],
];
const ODD_PSEUDO: readonly HpackField[] = [
  [':method', 'CONNECT'],
  [':method', 'TRACE'],
  [':method', 'get'],
  [':method', 'G T'],
  [':scheme', 'ftp'],
  [':scheme', ''],
  [':path', '*'],
  [':path', ''],
  [':path', 'http://a/'],
  [':path', '/a#b'],
  [':path', '/\xe9'],
  [':path', '/ HTTP/1.1'],
  [':authority', ''],
  [':authority', 'a@b'],
  [':authority', 'a b'],
  [':authority', 'a/b'],
  [':status', '200'],
  [':protocol', 'websocket'],
];
const FIELDS: readonly HpackField[] = [
  ['accept', '*/*'],
  ['te', 'trailers'],
  ['cookie', 'a=1'],
  ['x-empty', ''],
  ['x-obs', 'caf\xe9'],
  ['x-tab', 'a\tb'],
  ['content-type', 'application/grpc'],
  ['content-length', '5'],
  ['content-length', '0'],
  ['host', 'api'],
  ['expect', '100-Continue'],
  ['trailer', 'x-sum'],
  ['authorization', 'Bearer x', true],
  ['x-forwarded-client-cert', 'forged'],
  ['x_forwarded.client-cert', 'forged'],
  ['x-peer', 'forged'],
  ['x.peer', 'forged'],
  ['x-http-method-override', 'DELETE'],
  ['x-original-url', '/admin'],
  ['http2-settings', 'a'],
];
const ODD_FIELDS: readonly HpackField[] = [
  ['te', 'gzip'],
  ['connection', 'close'],
  ['keep-alive', 'a'],
  ['proxy-connection', 'a'],
  ['transfer-encoding', 'chunked'],
  ['upgrade', 'h2c'],
  ['content-length', '1, 1'],
  ['content-length', ''],
  ['content-length', '00000000000000001'],
  ['content_length', '5'],
  ['transfer_encoding', 'chunked'],
  ['transfer-encoding', ''],
  ['expect', 'more'],
  ['host', 'other'],
  ['host', ''],
  ['Accept', 'a'],
  ['', 'a'],
  ['a b', 'c'],
  ['a:', 'b'],
  ['\xe9', 'a'],
  ['a', ' b'],
  ['a', 'b '],
  ['a', '\t'],
  ['a', 'b\r\nc: d'],
  ['a', 'b\0'],
  ['a', 'b\x7f'],
  ['a', 'b\n'],
  [':path', '/late'],
];

/** Names that `Http2Head` needs for HTTP/1.1 alone, or writes otherwise. */
const OTHERWISE = new Set([
  'host',
  'cookie',
  'transfer-encoding',
  'content-length',
  'te',
  'trailer',
  'expect',
  ':method',
  ':scheme',
  ':path',
  ':authority',
]);

test('what is taken for an application over HTTP/2 is what is taken for one over HTTP/1.1, with the same fields', () => {
  const random = createRandom(7);
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;
  const head = new Http2Head(LIMITS);
  let taken = 0;
  let refused = 0;
  for (let time = 0; time < 30_000; time++) {
    const guards = random() < 0.5;
    const options = pick(OPTIONS);
    const identity = buildIdentityFields(options, CALLER, () => guards);
    const list: HpackField[] = [];
    for (const name of [':method', ':scheme', ':path', ':authority']) {
      if (random() < 0.02) continue;
      list.push(pick((random() < 0.04 ? ODD_PSEUDO : PSEUDO).filter(([each]) => each === name || random() < 0.01)));
    }
    for (let count = Math.floor(random() * 6); count > 0; count--) list.push(pick(random() < 0.08 ? ODD_FIELDS : FIELDS));
    const fields = list.filter((field) => field !== undefined);
    const hasBody = random() < 0.5;

    const flat = fields.flatMap(([name, value]) => [name, value]);
    const problem = head.read(flat, hasBody);
    const ours = readRequestFields(fields, new FieldFilter(identity), LIMITS);
    const isRefused = 'detail' in ours || (!hasBody && (ours.announced ?? 0) > 0);
    assert.equal(isRefused, problem !== undefined, `${JSON.stringify(fields)}: ${JSON.stringify(problem)} and ${JSON.stringify(ours)}`);
    if ('detail' in ours || isRefused) {
      refused++;
      continue;
    }
    taken++;
    assert.deepEqual([ours.method, ours.target, ours.host], [head.method, head.target, head.host]);
    const theirs: string[][] = [];
    const written = head.forApplication(identity);
    for (let at = 0; at < written.length; at += 2) theirs.push([(written[at] ?? '').toLowerCase(), written[at + 1] ?? '']);
    assert.deepEqual(
      ours.fields.filter(([name]) => !OTHERWISE.has(name)).map(([name, value]) => [name, value]),
      theirs.filter(([name = '']) => !OTHERWISE.has(name)),
      JSON.stringify(fields),
    );
    // What must not be put into a table by anybody stays so.
    assert.equal(ours.fields.filter(([, , never]) => never === true).length, fields.filter(([, , never]) => never === true).length);
  }
  assert.ok(taken > 5000 && refused > 5000, `${taken} taken, ${refused} refused`);
});

test('trailers are taken or refused as for HTTP/1.1', () => {
  const random = createRandom(8);
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;
  const head = new Http2Head(LIMITS);
  let taken = 0;
  for (let time = 0; time < 10_000; time++) {
    const identity = buildIdentityFields(pick(OPTIONS), CALLER, () => time % 2 === 0);
    const fields = Array.from({ length: Math.floor(random() * 4) }, () => pick(random() < 0.2 ? ODD_FIELDS : FIELDS));
    const theirs = head.trailersForApplication(
      fields.flatMap(([name, value]) => [name, value]),
      identity,
    );
    const ours = readRequestTrailers(fields, new FieldFilter(identity), LIMITS);
    assert.equal('detail' in ours, 'detail' in theirs, `${JSON.stringify(fields)}: ${JSON.stringify(theirs)} and ${JSON.stringify(ours)}`);
    if ('detail' in ours || 'detail' in theirs) continue;
    taken++;
    assert.deepEqual(
      ours.flatMap(([name, value]) => [name, value]),
      theirs,
      JSON.stringify(fields),
    );
  }
  assert.ok(taken > 2000, String(taken));
});

test('a head beyond the limits is refused with a 431, and what is malformed goes before', () => {
  const filter = new FieldFilter(buildIdentityFields({ xfcc: 'sanitize-set', spiffeIdHeader: undefined }, CALLER, () => false));
  const get: HpackField[] = [
    [':method', 'GET'],
    [':scheme', 'https'],
    [':path', '/'],
    [':authority', 'api'],
  ];
  const read = (fields: HpackField[]) => readRequestFields([...get, ...fields], filter, { maxHeadBytes: 100, maxFields: 3 });
  assert.deepEqual(read([['a', 'b'.repeat(100)]]), { status: 431, detail: 'the head is too long', isMalformed: false });
  assert.deepEqual(
    read([
      ['a', ''],
      ['b', ''],
      ['c', ''],
    ]),
    { status: 431, detail: 'the head has too many fields', isMalformed: false },
  );
  assert.ok(
    'method' in
      read([
        ['a', ''],
        ['b', ''],
      ]),
  );
  assert.deepEqual(
    read([
      ['a', 'b'.repeat(100)],
      ['C', ''],
    ]),
    { status: 400, detail: 'a field has no valid name', isMalformed: true },
  );
});

const CONNECT: readonly HpackField[] = [
  [':method', 'CONNECT'],
  [':protocol', 'websocket'],
  [':scheme', 'https'],
  [':path', '/chat?room=1'],
  [':authority', 'api:443'],
];

function readConnect(list: readonly HpackField[], upgrades: readonly string[] | 'not offered' = []) {
  const filter = new FieldFilter(buildIdentityFields({ xfcc: 'sanitize-set', spiffeIdHeader: 'X-Peer' }, CALLER, () => false));
  return readRequestFields(list, filter, { maxHeadBytes: 1000, maxFields: 4 }, upgrades === 'not offered' ? undefined : upgrades);
}

test('an extended CONNECT is a request with a method, a path and a host, for who was offered it', () => {
  const read = readConnect([...CONNECT, ['x-peer', 'forged'], ['content-type', 'application/grpc'], ['host', 'API:443']]);
  assert.ok('method' in read);
  const { method, target, host, protocol, announced, isGrpc, fields } = read;
  // What is answered as gRPC wants it has the status of a success.
  assert.deepEqual(
    [method, target, host, protocol, announced, isGrpc],
    ['CONNECT', '/chat?room=1', 'api:443', 'websocket', undefined, false],
  );
  assert.deepEqual(
    fields.map(([name, value]) => `${name}: ${value}`),
    [
      ...CONNECT.map(([name, value]) => `${name}: ${value}`),
      `x-forwarded-client-cert: By=${CALLER.ownId};Hash=${CALLER.leafSha256};URI=${CALLER.peerId}`,
      `x-peer: ${CALLER.peerId}`,
      'content-type: application/grpc',
    ],
  );
  assert.deepEqual(readConnect(CONNECT, 'not offered'), {
    status: 400,
    detail: 'there is a pseudo-header field that is unknown, or twice',
    isMalformed: true,
  });
  assert.deepEqual(readConnect([CONNECT[0] as HpackField, CONNECT[4] as HpackField]), {
    status: 400,
    detail: 'the method is not one that is forwarded',
    isMalformed: false,
  });
});

test('the protocol of an extended CONNECT is one that may be asked for, in any case, and written as it is known', () => {
  for (const [asked, protocol] of [
    ['websocket', 'websocket'],
    ['WebSocket', 'websocket'],
    ['TCP', 'tcp'],
    ['spdy/3.1', 'SPDY/3.1'],
  ] as const) {
    const read = readConnect(
      CONNECT.map((field) => (field[0] === ':protocol' ? [':protocol', asked] : field)),
      ['tcp', 'SPDY/3.1'],
    );
    assert.ok('method' in read, asked);
    assert.equal(read.protocol, protocol);
    assert.deepEqual(read.fields[1], [':protocol', protocol]);
  }
  for (const asked of ['h2c', 'connect-udp', 'SPDY/3', 'tcp/1', 'websocket/13', 'tcp'])
    assert.deepEqual(readConnect(CONNECT.map((field) => (field[0] === ':protocol' ? [':protocol', asked] : field))), {
      status: 501,
      detail: 'the protocol is not one that may be asked for',
      isMalformed: false,
    });
});

test('an extended CONNECT that is not one to the letter is refused', () => {
  const without = (name: string): HpackField[] => CONNECT.filter(([each]) => each !== name);
  const instead = (name: string, value: string): HpackField[] => CONNECT.map((field) => (field[0] === name ? [name, value] : field));
  for (const [list, detail] of [
    [instead(':method', 'GET'), /:protocol, and the method is not CONNECT/],
    [instead(':method', 'connect'), /:protocol, and the method is not CONNECT/],
    [without(':method'), /the method/],
    [without(':scheme'), /the scheme/],
    [without(':path'), /the request target/],
    [without(':authority'), /without :authority/],
    [[...without(':authority'), ['host', 'api']], /without :authority/],
    [[...CONNECT, [':protocol', 'websocket']], /unknown, or twice/],
    [[...CONNECT, ['accept', '*/*'], [':protocol', 'websocket']], /unknown, or twice|no valid name/],
    [[...without(':protocol'), [':Protocol', 'websocket']], /unknown, or twice/],
    [instead(':protocol', ''), /no name of a protocol/],
    [instead(':protocol', 'web socket'), /no name of a protocol/],
    [instead(':protocol', 'websocket, tcp'), /no name of a protocol/],
    [instead(':protocol', 'websocket\r\nx: y'), /no name of a protocol/],
    [instead(':protocol', 'a/b/c'), /no name of a protocol/],
    [instead(':scheme', ''), /the scheme/],
    [instead(':path', ''), /the request target/],
    [instead(':path', '*'), /not a path/],
    [instead(':path', 'https://api/'), /not a path/],
    [instead(':authority', ''), /not one valid Host/],
    [instead(':authority', 'a@b'), /not one valid Host/],
    [[...CONNECT, ['upgrade', 'websocket']], /the connection alone/],
    [[...CONNECT, ['connection', 'upgrade']], /the connection alone/],
  ] as const) {
    const read = readConnect(list);
    assert.ok('detail' in read && read.isMalformed && read.status === 400, JSON.stringify(list));
    assert.match(read.detail, detail, JSON.stringify(list));
  }
  for (const [list, detail] of [
    [[...CONNECT, ['host', 'other']], ':authority and Host are not the same'],
    [[...CONNECT, ['content-length', '0']], 'a CONNECT has no Content-Length'],
    [[...CONNECT, ['content-length', '5']], 'a CONNECT has no Content-Length'],
    [[...CONNECT, ['content_length', '5']], 'a field reads as Content-Length and is none'],
    [instead(':scheme', 'wss'), 'the scheme is neither https nor http'],
    [instead(':path', '/a#b'), 'the request target has a byte that it may not have'],
  ] as const)
    assert.deepEqual(readConnect(list as readonly HpackField[]), { status: 400, detail, isMalformed: false }, JSON.stringify(list));
  const many: HpackField[] = ['a', 'b', 'c', 'd'].map((name) => [name, '']);
  assert.ok('method' in readConnect([...CONNECT, ...many.slice(0, 3)]));
  assert.deepEqual(readConnect([...CONNECT, ...many]), { status: 431, detail: 'the head has too many fields', isMalformed: false });
});

test('identity fields are folded as applications read names', () => {
  const filter = new FieldFilter(buildIdentityFields({ xfcc: 'sanitize-set', spiffeIdHeader: 'X-Peer' }, CALLER, () => true));
  filter.renew();
  for (const name of ['x-peer', 'x_peer', 'x.peer', 'x~peer', 'x-forwarded_client.cert', 'x_http_method_override'])
    assert.ok(filter.isOurs(name), foldName(name));
  for (const name of ['x-pee', 'xpeer', 'x-peers']) assert.ok(!filter.isOurs(name), name);
});
