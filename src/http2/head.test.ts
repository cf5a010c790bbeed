import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FORGED_NAMES, SMUGGLING } from '../../test/support/http/http-corpus.ts';
import { buildIdentityFields } from '../http1/identity-fields.ts';
import { fieldObject, Http2Head, readResponse, responseTrailers } from './head.ts';
import { RequestHead } from '../http1/request-head.ts';

const LIMITS = { maxHeadBytes: 4096, maxFields: 20 };
const identity = buildIdentityFields(
  { xfcc: 'sanitize-set', spiffeIdHeader: 'X-Peer' },
  { peerId: 'spiffe://example.org/web', ownId: 'spiffe://example.org/api', leafSha256: '0'.repeat(64) },
  () => false,
);
const OURS = [
  'X-Forwarded-Client-Cert',
  `By=spiffe://example.org/api;Hash=${'0'.repeat(64)};URI=spiffe://example.org/web`,
  'X-Peer',
  'spiffe://example.org/web',
];

/** A request as it is sent over HTTP/2: pseudo-header fields, then `more`. A value of undefined leaves the field out. */
function list(pseudo: Readonly<Record<string, string | undefined>> = {}, ...more: readonly string[]): string[] {
  const all: Record<string, string | undefined> = { ':method': 'GET', ':scheme': 'https', ':authority': 'api', ':path': '/', ...pseudo };
  return [...Object.entries(all).flatMap(([name, value]) => (value === undefined ? [] : [name, value])), ...more];
}

/** The fields for the application, without ours; or why it is refused. */
function translated(fields: readonly string[], hasBody = false): readonly string[] | string {
  const head = new Http2Head(LIMITS);
  const problem = head.read(fields, hasBody);
  if (problem !== undefined) return `${problem.status} ${problem.detail}`;
  const sent = head.forApplication(identity);
  assert.deepEqual(sent.slice(0, 4), OURS);
  return sent.slice(4);
}

test('a request is what it was over HTTP/1.1: the authority is the host, and ours comes first', () => {
  const head = new Http2Head(LIMITS);

  assert.equal(head.read(list({ ':path': '/a?b' }, 'accept', '*/*', 'x-latin', '\xe9'), false), undefined);

  assert.deepEqual([head.method, head.target, head.host, head.announced], ['GET', '/a?b', 'api', 0]);
  assert.deepEqual(head.forApplication(identity), [...OURS, 'host', 'api', 'accept', '*/*', 'x-latin', '\xe9']);
});

test('pseudo-header fields come once, first, and no others than there are', () => {
  for (const bad of [
    list({ ':method': undefined }),
    list({ ':scheme': undefined }),
    list({ ':path': undefined }),
    list({ ':authority': undefined }),
    list({ ':status': '200' }),
    list({ ':protocol': 'websocket' }),
    list({ ':': '' }),
    list({ ':Path': '/' }),
    [...list(), ':path', '/'],
    [...list(), ':method', 'GET'],
    [...list({ ':path': undefined }), 'a', 'b', ':path', '/'],
    [],
  ])
    assert.match(String(translated(bad)), /^400 /, JSON.stringify(bad));
});

test('what would end its place in the head of HTTP/1.1 is refused wherever it stands', () => {
  for (const byte of ['\0', '\r', '\n', '\r\n', '\x7f', '\x01', '\r\n\r\n', 'a\r\nx: y', ' HTTP/1.1\r\nhost: b\r\n\r\n', '\u010d\u010a']) {
    for (const bad of [
      list({ ':method': `GET${byte}` }),
      list({ ':path': `/${byte}` }),
      list({ ':authority': `api${byte}` }),
      list({ ':scheme': `https${byte}` }),
      list({ ':authority': undefined }, 'host', `api${byte}`),
      list({}, 'a', `b${byte}`),
      list({}, 'a', `b${byte}c`),
      list({}, `a${byte}`, 'b'),
      list({}, 'cookie', `b${byte}c`),
      list({}, 'content-length', `0${byte}`),
      list({}, 'te', `trailers${byte}`),
    ])
      assert.match(String(translated(bad)), /^400 /, JSON.stringify(bad));
    const withTrailer = list({ ':method': 'POST' }, 'trailer', `a${byte}`);
    assert.match(String(translated(withTrailer, true)), /^400 /, JSON.stringify(withTrailer));
  }
});

test('a target is a path, or * of OPTIONS, without spaces or fragments', () => {
  for (const path of ['', 'a', 'http://api/', '/a b', '/a\tb', '/a#b', '/\xe9', '*', '//[', ' /', '/ '])
    assert.match(String(translated(list({ ':path': path }))), path === '//[' ? /^host/ : /^400 /, path);
  assert.deepEqual(translated(list({ ':path': '*', ':method': 'OPTIONS' })), ['host', 'api']);
});

test('the target that is judged is the one that is sent, slashes and dots included', () => {
  for (const path of ['//a//b', '/a/../b', '/http:/x', '/https:/x?http:/y', '/a?b?c', '/%2e%2e/', '/a;b=c', '/?']) {
    const head = new Http2Head(LIMITS);
    assert.equal(head.read(list({ ':path': path }), false), undefined, path);
    assert.equal(head.target, path);
  }
});

test('methods are those of HTTP/1.1: neither CONNECT nor TRACE nor inventions', () => {
  for (const method of ['CONNECT', 'TRACE', 'get', 'GET ', '', 'INVENTED', 'PRI'])
    assert.match(String(translated(list({ ':method': method }))), /^400 /, method);
  assert.match(String(translated([':method', 'CONNECT', ':authority', 'api:443'])), /^400 /);
  for (const method of ['GET', 'HEAD', 'DELETE', 'PROPFIND', 'M-SEARCH'])
    assert.deepEqual(translated(list({ ':method': method })), ['host', 'api']);
});

test('the scheme is that of the web, with or without TLS before the one who asks', () => {
  assert.deepEqual(translated(list({ ':scheme': 'http' })), ['host', 'api']);
  for (const scheme of ['ftp', 'HTTPS', 'https:', '', 'ws']) assert.match(String(translated(list({ ':scheme': scheme }))), /^400 /, scheme);
});

test(':authority and Host agree, and either makes the other', () => {
  assert.deepEqual(translated(list({ ':authority': undefined }, 'host', 'a:80')), ['host', 'a:80']);
  assert.deepEqual(translated(list({ ':authority': 'API' }, 'host', 'api')), ['host', 'API']);
  for (const bad of [
    list({}, 'host', 'b'),
    list({}, 'host', 'api:443'),
    list({}, 'host', ''),
    list({}, 'host', 'api', 'host', 'api'),
    list({ ':authority': undefined }, 'host', 'a', 'host', 'b'),
    list({ ':authority': '' }),
    list({ ':authority': 'user@api' }),
    list({ ':authority': 'a/b' }),
    list({ ':authority': 'api,b' }, 'host', 'api, b'),
    list({}, 'ho_st', 'b', 'host', 'c'),
  ])
    assert.match(String(translated(bad)), /^400 /, JSON.stringify(bad));
});

test('fields of a connection are refused, and so are names and values that are none', () => {
  for (const bad of [
    ['connection', 'close'],
    ['connection', 'x-forwarded-client-cert'],
    ['keep-alive', 'timeout=5'],
    ['proxy-connection', 'keep-alive'],
    ['transfer-encoding', 'chunked'],
    ['upgrade', 'websocket'],
    ['te', 'gzip'],
    ['te', 'trailers, gzip'],
    ['Accept', 'a'],
    ['', 'a'],
    ['a b', 'a'],
    ['a:', 'a'],
    ['a:b', 'a'],
    ['\xe9', 'a'],
    ['a', ' b'],
    ['a', 'b '],
    ['a', '\tb'],
    ['content_length', '0'],
    ['transfer_encoding', 'chunked'],
    ['transfer.encoding', 'chunked'],
  ])
    assert.match(String(translated(list({}, ...bad))), /^400 /, JSON.stringify(bad));
  assert.deepEqual(translated(list({}, 'te', 'trailers', 'http2-settings', 'AAAA', 'a', '')), ['host', 'api', 'a', '']);
});

test('a body is framed by its length or in chunks, never both, and none is not framed as one', () => {
  const post = { ':method': 'POST' };
  assert.deepEqual(translated(list(post), true), ['host', 'api', 'transfer-encoding', 'chunked']);
  assert.deepEqual(translated(list({}), true), ['host', 'api', 'transfer-encoding', 'chunked']);
  assert.deepEqual(translated(list({ ':method': 'DELETE' }), true), ['host', 'api', 'transfer-encoding', 'chunked']);
  assert.deepEqual(translated(list(post, 'content-length', '5'), true), ['host', 'api', 'content-length', '5']);
  assert.deepEqual(translated(list(post)), ['host', 'api', 'content-length', '0']);
  assert.deepEqual(translated(list(post, 'content-length', '0')), ['host', 'api', 'content-length', '0']);
  assert.deepEqual(translated(list({ ':method': 'DELETE' })), ['host', 'api']);
  for (const length of ['5', '00005', '1, 1', '-0', '+1', '0x1', '1e1', '9'.repeat(16), ''])
    assert.match(String(translated(list(post, 'content-length', length))), /^400 /, length);
  for (const length of ['1, 1', '-1', '+1', '0x1', '1e1', '9'.repeat(16), ''])
    assert.match(String(translated(list(post, 'content-length', length), true)), /^400 /, length);
  assert.match(String(translated(list(post, 'content-length', '5', 'content-length', '5'), true)), /^400 /);
});

test('Node reads a Content-Disposition after a Content-Length in another encoding, so the framing comes last', () => {
  const sent = translated(
    list({ ':method': 'POST' }, 'content-length', '5', 'content-disposition', '\xc4\x8d\xc4\x8a', 'cookie', 'a=b'),
    true,
  );

  assert.deepEqual(sent, ['host', 'api', 'content-disposition', '\xc4\x8d\xc4\x8a', 'cookie', 'a=b', 'content-length', '5']);
});

test('crumbs of a cookie are one cookie again', () => {
  const sent = translated(list({}, 'cookie', 'a=1', 'x', 'y', 'cookie', 'b=2', 'cookie', 'c=3'));

  assert.deepEqual(sent, ['host', 'api', 'x', 'y', 'cookie', 'a=1; b=2; c=3']);
});

test('no spelling of a field that says who asks comes through, in heads and trailers', () => {
  const head = new Http2Head(LIMITS);
  for (const name of [...FORGED_NAMES.map((each) => each.toLowerCase()), 'x_peer', 'x.peer', 'x-peer']) {
    assert.deepEqual(translated(list({}, name, 'forged', 'keep', 'me', name, 'forged')), ['host', 'api', 'keep', 'me'], name);
    assert.deepEqual(head.trailersForApplication([name, 'forged', 'keep', 'me'], identity), ['keep', 'me'], name);
  }
});

test('what the configuration lets peers say of callers, they may say over HTTP/2, too', () => {
  const caller = { peerId: 'spiffe://example.org/web', ownId: 'spiffe://example.org/api', leafSha256: '0'.repeat(64) };
  const sent = (xfcc: 'unsafe-forward' | 'unsafe-append', spiffeIdHeader?: string): string[] => {
    const head = new Http2Head({ maxHeadBytes: 4096, maxFields: 4 });
    const fields = list({}, 'x-forwarded-client-cert', 'By=a', 'x', '1', 'x_forwarded_client_cert', 'By=b');
    assert.equal(head.read(fields, false), undefined);
    return head.forApplication(buildIdentityFields({ xfcc, spiffeIdHeader }, caller, () => false));
  };

  assert.deepEqual(sent('unsafe-forward'), ['host', 'api', 'x-forwarded-client-cert', 'By=a', 'x', '1']);
  assert.deepEqual(sent('unsafe-append', 'X-Peer'), [OURS[0], `By=a,${OURS[1]}`, OURS[2], OURS[3], 'host', 'api', 'x', '1']);
});

test('trailers have no fields that frame or that are of a connection, and the limits of a head', () => {
  const head = new Http2Head(LIMITS);
  assert.deepEqual(head.trailersForApplication(['x-sum', '1', 'x-sum', '2'], identity), ['x-sum', '1', 'x-sum', '2']);
  for (const bad of [
    ['content-length', '5'],
    ['host', 'a'],
    ['transfer-encoding', 'chunked'],
    ['connection', 'close'],
    [':path', '/'],
    ['X', 'a'],
    ['a b', 'c'],
    ['a', 'b\r\nc: d'],
    ['a', 'b\0'],
    ['a', ' b'],
  ])
    assert.equal(Reflect.get(head.trailersForApplication(bad, identity), 'status'), 400, JSON.stringify(bad));
  assert.equal(Reflect.get(head.trailersForApplication(['a', 'x'.repeat(4096)], identity), 'status'), 431);
  assert.equal(
    Reflect.get(
      head.trailersForApplication(
        Array.from({ length: 42 }, () => 'a'),
        identity,
      ),
      'status',
    ),
    431,
  );
});

test('a trailer is announced where there may be one', () => {
  assert.deepEqual(translated(list({ ':method': 'POST' }, 'trailer', 'x-sum'), true), [
    'host',
    'api',
    'trailer',
    'x-sum',
    'transfer-encoding',
    'chunked',
  ]);
  assert.deepEqual(translated(list({ ':method': 'POST' }, 'trailer', 'x-sum', 'content-length', '1'), true), [
    'host',
    'api',
    'content-length',
    '1',
  ]);
  assert.deepEqual(translated(list({}, 'trailer', 'x-sum')), ['host', 'api']);
});

test('the limits of a head are those of HTTP/1.1', () => {
  assert.match(String(translated(list({}, 'a', 'x'.repeat(4096)))), /^431 the head is too long/);
  const many = Array.from({ length: 20 }, (_, index) => [`x-${index}`, '1']).flat();
  assert.match(String(translated(list({}, ...many))), /^431 the head has too many fields/);
  assert.equal(translated(list({}, ...many.slice(2))).length, 40);
});

test('what is refused over HTTP/1.1 is refused over HTTP/2, too', () => {
  let refused = 0;
  for (const [name, raw] of SMUGGLING) {
    const fields = asHttp2(raw);
    if (fields === undefined) continue;
    const answer = translated(fields, false);
    // Framing is HTTP/2's own; what was said of it in HTTP/1.1 has no place there at all.
    assert.match(String(answer), /^4\d\d /, `${name}: ${JSON.stringify(raw)}`);
    refused++;
  }
  assert.ok(refused > 60, String(refused));
});

/** The request line and the fields of a raw request as they would stand in HTTP/2, with all that is wrong with them. */
function asHttp2(raw: string): string[] | undefined {
  const [head = ''] = raw.split('\r\n\r\n', 1);
  const [line = '', ...lines] = head.split('\r\n');
  const parts = line.split(' ');
  if (parts.length < 3 || !/^HTTP\/1\.[01]$/.test(parts.at(-1) ?? '')) return undefined;
  const fields = lines.flatMap((each) => {
    const colon = each.indexOf(':');
    return colon === -1 ? [each, ''] : [each.slice(0, colon).toLowerCase(), each.slice(colon + 1).replace(/^ /, '')];
  });
  return [':method', parts[0] ?? '', ':scheme', 'https', ':path', parts.slice(1, -1).join(' '), ...fields];
}

test('whatever is let through is a head that HTTP/1.1 reads as the very same request', () => {
  const pieces = ['a', 'A', ':', ' ', '\t', '\r', '\n', '\0', '/', '#', '?', '\x7f', '\xff', ',', ';', '=', '@', '"', '\\', '-', '_', '.'];
  const names = ['host', 'cookie', 'content-length', 'te', 'trailer', 'x', 'x-peer', 'expect', 'connection', ':path', 'transfer_encoding'];
  let seed = 7;
  const random = (below: number): number => {
    seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
    return Math.floor((seed / 2_147_483_648) * below);
  };
  const pick = (from: readonly string[]): string => from[random(from.length)] ?? '';
  const text = (): string => Array.from({ length: random(4) }, () => pick(pieces)).join('');
  let taken = 0;
  for (let round = 0; round < 20_000; round++) {
    const pseudo: Record<string, string> = {};
    if (random(8) === 0) pseudo[':path'] = `/${text()}`;
    if (random(8) === 0) pseudo[':authority'] = text();
    if (random(16) === 0) pseudo[':method'] = pick(['POST', 'DELETE', 'CONNECT', text()]);
    const more = Array.from({ length: random(3) }, () => [
      random(3) === 0 ? text() : pick(names),
      random(3) === 0 ? text() : pick(['0', 'a', 'api', '12']),
    ]).flat();
    const head = new Http2Head(LIMITS);
    const hasBody = random(2) === 0;
    if (head.read(list(pseudo, ...more), hasBody) !== undefined) continue;
    taken++;
    const sent = head.forApplication(identity);
    const lines = Array.from({ length: sent.length / 2 }, (_, index) => `${sent[index * 2]}: ${sent[index * 2 + 1]}\r\n`).join('');
    const reader = new RequestHead({ maxHeadBytes: 8192, maxFields: 50 });
    const bytes = Buffer.from(`${head.method} ${head.target} HTTP/1.1\r\n${lines}\r\n`, 'latin1');
    const outcome = reader.read(bytes, 0);
    assert.deepEqual(outcome, { kind: 'whole', next: bytes.length }, JSON.stringify(sent));
    assert.deepEqual(
      [reader.method, reader.target, reader.host, reader.fields.count],
      [head.method, head.target, head.host, sent.length / 2],
    );
    assert.equal(reader.framing.kind === 'chunked', hasBody && head.announced === undefined);
    assert.equal(sent.filter((name) => name.toLowerCase() === 'x-forwarded-client-cert').length, 1);
  }
  assert.ok(taken > 2000, String(taken));
});

test('a response keeps its fields but for those of its connection, and those that it names', () => {
  const read = readResponse(
    'GET',
    200,
    [
      'Content-Type',
      'a',
      'Connection',
      'close, X-Hop',
      'X-Hop',
      '1',
      'Keep-Alive',
      'x',
      'Set-Cookie',
      'a',
      'Set-Cookie',
      'b',
      'Upgrade',
      'h2c',
      'Content-Length',
      '5',
    ],
    20,
  );

  assert.deepEqual(read, {
    fields: [':status', '200', 'content-type', 'a', 'set-cookie', 'a', 'set-cookie', 'b', 'content-length', '5'],
    framing: 'length',
    length: 5,
    keepAlive: 'x',
    isLast: false,
    nominated: new Set(['close', 'x-hop']),
  });
});

test('no nomination takes the framing from a response', () => {
  const read = readResponse('GET', 200, ['Connection', 'Content-Length, X-A, transfer-encoding', 'X-A', '1', 'Content-Length', '5'], 20);

  assert.ok(typeof read !== 'string');
  assert.deepEqual([read.fields, read.length], [[':status', '200', 'content-length', '5'], 5]);
});

test('after a 204 or 304 that speaks of chunks, nothing more is asked on its connection', () => {
  for (const status of [204, 304]) {
    const read = readResponse('GET', status, ['Transfer-Encoding', 'chunked', 'X', '1'], 20);
    assert.ok(typeof read !== 'string');
    assert.deepEqual([read.fields, read.framing, read.isLast], [[':status', String(status), 'x', '1'], 'none', true]);
  }
  for (const [status, ...raw] of [[204], [304, 'Content-Length', '5'], [200, 'Transfer-Encoding', 'chunked']] as const)
    assert.equal(Reflect.get(Object(readResponse('GET', status, raw, 20)) as object, 'isLast'), false);
});

test('a response is framed as in HTTP/1.1', () => {
  const framing = (method: string, status: number, ...raw: readonly string[]): string => {
    const read = readResponse(method, status, raw, 20);
    return typeof read === 'string' ? read : `${read.framing} ${read.length}`;
  };
  assert.equal(framing('GET', 200), 'close undefined');
  assert.equal(framing('GET', 200, 'Content-Length', '0'), 'none undefined');
  assert.equal(framing('GET', 200, 'Content-Length', '7'), 'length 7');
  assert.equal(framing('GET', 200, 'Transfer-Encoding', 'Chunked'), 'chunked undefined');
  assert.equal(framing('HEAD', 200, 'Content-Length', '7'), 'none undefined');
  for (const status of [205, 304]) assert.equal(framing('GET', status, 'Content-Length', '7'), 'none undefined');
  assert.deepEqual(readResponse('GET', 204, ['Content-Length', '0'], 20), {
    fields: [':status', '204'],
    framing: 'none',
    length: undefined,
    keepAlive: undefined,
    isLast: false,
    nominated: new Set(),
  });
  for (const [bad, ...raw] of [
    [/not chunked alone/, 'Transfer-Encoding', 'gzip, chunked'],
    [/not chunked alone/, 'Transfer-Encoding', 'chunked', 'Transfer-Encoding', 'chunked'],
    [/not one number/, 'Content-Length', '1', 'Content-Length', '1'],
    [/not one number/, 'Content-Length', '1, 1'],
    [/not one number/, 'Content-Length', ''],
    [/both/, 'Content-Length', '1', 'Transfer-Encoding', 'chunked'],
    [/Connection/, 'Connection', 'a b'],
    [/too many/, ...Array.from({ length: 42 }, () => 'a')],
  ] as const)
    assert.match(framing('GET', 200, ...raw), bad);
  for (const status of [103, 204]) assert.match(framing('GET', status, 'Content-Length', '7'), /has no Content-Length/);
  assert.match(framing('GET', 103, 'Transfer-Encoding', 'chunked'), /has no Transfer-Encoding/);
  assert.match(framing('GET', 103, 'Connection', 'close'), /ends the connection/);
  for (const status of [0, 99, 600, 999]) assert.match(framing('GET', status), /not a number from 100 to 599/);
});

test('trailers of a response leave out what would frame', () => {
  const none = new Set<string>();
  assert.deepEqual(responseTrailers(['content_length', '5', 'Host', 'a', 'X-Sum', '1'], none), ['x-sum', '1']);
  assert.deepEqual(responseTrailers(['X-Sum', '1', 'X-Hop', '2'], new Set(['x-hop'])), ['x-sum', '1']);
  assert.deepEqual(
    responseTrailers(['X-Sum', '1', 'Content-Length', '5', 'Connection', 'close', 'Transfer-Encoding', 'x', 'Trailer', 'y'], none),
    ['x-sum', '1'],
  );
  assert.deepEqual(
    fieldObject(['a', '1', '__proto__', 'x', 'a', '2', 'a', '3']),
    Object.assign(Object.create(null), { a: ['1', '2', '3'], ['__proto__']: 'x' }),
  );
});
