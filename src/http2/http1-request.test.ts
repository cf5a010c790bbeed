import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createRandom } from '../../test/support/random.ts';
import { readWithLlhttp } from '../../test/support/http/llhttp.ts';
import { Fields } from '../http1/fields.ts';
import { buildIdentityFields, valuesOf, type XfccMode } from '../http1/identity-fields.ts';
import { RequestHead } from '../http1/request-head.ts';
import { Http2Head } from './head.ts';
import type { HpackField } from './hpack/field.ts';
import { isChunked, writeRequestHead, writeTrailers } from './http1-request.ts';
import { FieldFilter } from './identity.ts';
import { readRequestFields, readRequestTrailers } from './request-fields.ts';

const LIMITS = { maxHeadBytes: 4096, maxFields: 40 };
const WEB = 'spiffe://example.org/web';
const CALLER = { peerId: WEB, ownId: 'spiffe://example.org/api', leafSha256: 'ab'.repeat(32) };
const identityOf = (xfcc: XfccMode) => buildIdentityFields({ xfcc, spiffeIdHeader: 'X-Peer' }, CALLER, () => true);
const pseudo = (method: string, path = '/'): HpackField[] => [
  [':method', method],
  [':scheme', 'https'],
  [':path', path],
  [':authority', 'api'],
];

function write(list: readonly HpackField[], ends: boolean, xfcc: XfccMode = 'sanitize-set'): string {
  const filter = new FieldFilter(identityOf(xfcc));
  const read = readRequestFields(list, filter, LIMITS);
  assert.ok(!('detail' in read), JSON.stringify(read));
  return writeRequestHead(list, read, filter, ends).toString('latin1');
}

test('a request is a head of HTTP/1.1 with who asks ahead of the rest', () => {
  assert.equal(
    write([...pseudo('GET', '/a?b'), ['x-peer', 'forged'], ['accept', '*/*']], true),
    `GET /a?b HTTP/1.1\r\nX-Forwarded-Client-Cert: By=spiffe://example.org/api;Hash=${'ab'.repeat(32)};URI=${WEB}\r\nX-Peer: ${WEB}\r\nhost: api\r\naccept: */*\r\n\r\n`,
  );
});

test('the framing says what follows, and comes last', () => {
  const tail = (list: readonly HpackField[], ends: boolean): string => write(list, ends, 'sanitize').split('host: api\r\n')[1] ?? '';
  assert.equal(tail([...pseudo('GET')], true), '\r\n');
  assert.equal(tail([...pseudo('POST')], true), 'content-length: 0\r\n\r\n');
  assert.equal(tail([...pseudo('POST')], false), 'transfer-encoding: chunked\r\n\r\n');
  assert.equal(tail([...pseudo('GET')], false), 'transfer-encoding: chunked\r\n\r\n');
  const announced: HpackField[] = [...pseudo('PUT'), ['content-length', '05'], ['trailer', 'a'], ['content-disposition', 'x']];
  assert.equal(tail(announced, false), 'content-disposition: x\r\ncontent-length: 5\r\n\r\n');
  const trailers: HpackField[] = [...pseudo('PUT'), ['trailer', 'a'], ['te', 'trailers'], ['trailer', 'b'], ['cookie', 'a=1'], ['x', 'y']];
  assert.equal(
    tail([...trailers, ['cookie', 'b=2']], false),
    'x: y\r\ncookie: a=1; b=2\r\ntrailer: a, b\r\ntransfer-encoding: chunked\r\n\r\n',
  );
});

test('what is for us stays here, however it is spelt', () => {
  for (const name of ['te', 'expect', 'http2-settings', 'keep_alive', 'proxy.connection', 'http2_settings', 'x_peer', 'x-original-url']) {
    const value = name === 'expect' ? '100-continue' : 'trailers';
    assert.ok(!write([...pseudo('GET'), [name, value]], true).includes(value), name);
  }
});

test('trailers are lines', () => {
  assert.equal(
    writeTrailers([
      ['a', 'b'],
      ['c', ''],
    ]).toString(),
    'a: b\r\nc: \r\n',
  );
});

const NAMES = [
  'accept',
  'cookie',
  'trailer',
  'te',
  'expect',
  'host',
  'content-length',
  'x-peer',
  'x_peer',
  'x-forwarded-client-cert',
  'keep_alive',
];
const MORE_NAMES = ['connection', 'transfer-encoding', 'content_length', 'X', 'x-http-method', 'http2-settings', 'upgrade', 'a b', ''];
const VALUES = ['a', '', 'trailers', '100-continue', '5', '0', 'api', 'b', 'caf\xe9', ' a', 'a\r\nb: c', 'a\tb', 'chunked'];

test('whatever a client says, what goes on is what the other translation sends, and what two readers take for one request (20,000 heads)', () => {
  const random = createRandom(7);
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;
  const other = new Http2Head(LIMITS);
  let taken = 0;
  for (let round = 0; round < 20_000; round++) {
    const xfcc = pick<XfccMode>(['sanitize-set', 'sanitize', 'unsafe-forward', 'unsafe-append']);
    const identity = identityOf(xfcc);
    const filter = new FieldFilter(identity);
    const list = pseudo(pick(['GET', 'POST', 'PUT', 'HEAD', 'OPTIONS']), pick(['/', '/a?b=c', '/%2e%2e/', '/a#b', '*']));
    for (let left = Math.floor(random() * 5); left > 0; left--) {
      list.push([random() < 0.85 ? pick(NAMES) : pick(MORE_NAMES), pick(VALUES)]);
    }
    const ends = random() < 0.5;
    const read = readRequestFields(list, filter, LIMITS);
    const problem = other.read(list.flat() as string[], !ends);
    const text = JSON.stringify([list, ends]);
    if ('detail' in read || (ends && (read.announced ?? 0) > 0)) {
      assert.ok(problem !== undefined, `the other one takes it: ${text}`);
      continue;
    }
    taken++;
    assert.equal(problem, undefined, text);
    const bytes = writeRequestHead(list, read, filter, ends);
    const expected = other.forApplication(identity);
    const head = new RequestHead({ maxHeadBytes: 8192, maxFields: 60 }, new Fields(60));
    const outcome = head.read(bytes, 0);
    assert.ok(outcome.kind === 'whole' && outcome.next === bytes.length, text);
    const found = Array.from({ length: head.fields.count }, (_, field) => [head.fields.name(field), head.fields.value(field)]).flat();
    const withoutLength = (all: readonly string[]): readonly string[] =>
      all.map((each, at) => (all[at - 1] === 'content-length' ? String(Number(each)) : each));
    assert.deepEqual(found, withoutLength(expected), text);
    assert.deepEqual([head.method, head.target, head.host], [other.method, other.target, other.host], text);
    assert.equal(head.framing.kind === 'chunked', isChunked(read, ends), text);
    assert.deepEqual(valuesOf(head, Buffer.from('expect')), []);
    const second = readWithLlhttp(bytes);
    assert.equal(second.problem, undefined, text);
  }
  assert.ok(taken > 4000, String(taken));
});

test('trailers are those of the other translation (5,000 lists)', () => {
  const random = createRandom(9);
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;
  const identity = identityOf('sanitize-set');
  const other = new Http2Head(LIMITS);
  const filter = new FieldFilter(identity);
  let taken = 0;
  for (let round = 0; round < 5000; round++) {
    const list: HpackField[] = Array.from({ length: 1 + Math.floor(random() * 3) }, () => [
      random() < 0.8 ? pick(NAMES) : pick(MORE_NAMES),
      pick(VALUES),
    ]);
    const read = readRequestTrailers(list, filter, LIMITS);
    const expected = other.trailersForApplication(list.flat() as string[], identity);
    if ('detail' in read || 'detail' in expected) {
      assert.equal('detail' in read, 'detail' in expected, JSON.stringify(list));
      continue;
    }
    taken++;
    assert.deepEqual(writeTrailers(read).toString('latin1'), pairsOf(expected), JSON.stringify(list));
  }
  assert.ok(taken > 500, String(taken));
});

function pairsOf(list: readonly string[]): string {
  let text = '';
  for (let at = 0; at < list.length; at += 2) text += `${list[at]}: ${list[at + 1]}\r\n`;
  return text;
}
