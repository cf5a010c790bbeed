import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkCase, checkRequests, checkResponses, DIFFERENCES, met } from '../../test/fuzz/http-differential.ts';
import { Draws } from '../../test/fuzz/random.ts';
import { BAD_BODIES, SMUGGLING } from '../../test/support/http/http-corpus.ts';
import { MIXTURES } from '../../test/support/http/http-mixtures.ts';

/** A few seconds; `npm run fuzz` goes on for longer. */
const CASES = 40_000;
const SEED = 20_261_123;

const GOOD = [
  'GET / HTTP/1.1\r\nHost: a\r\n\r\n',
  'GET /a/b?c=d&e=%20 HTTP/1.1\r\nHost: example.org:8080\r\nAccept: */*\r\nCookie: a=b; c="d"\r\nX-Empty:\r\nX-Space: \t x y \t\r\n\r\n',
  'HEAD / HTTP/1.0\r\nHost: [::1]:80\r\nConnection: keep-alive\r\n\r\n',
  'OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close, x-a\r\nX-A: 1\r\n\r\n',
  'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\nhello\r\nworld',
  'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n00a;b=c;d\r\n0123456789\r\n0\r\n\r\n',
  'PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nTrailer: X-T\r\n\r\n5\r\nhello\r\n0;z\r\nX-T: 1\r\nX_Peer: f\r\n\r\n',
  'GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA\r\n\r\n',
  'GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Client-Cert: By=x\r\nx_peer: spiffe://example.org/forged\r\n\r\n',
  '\r\nGET http://a:80?b HTTP/1.1\r\nHost: A\r\n\r\n',
  'OPTIONS https://a HTTP/1.1\r\nHost: a:443\r\n\r\n',
  'GET http://a/ HTTP/1.0\r\n\r\n',
  'GET / HTTP/1.0\r\n\r\n',
  'GET / HTTP/1.1\r\nHost:\r\n\r\n',
  'POST /exec HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n',
  `GET / HTTP/1.1\r\nHost: a\r\n${'X: y\r\n'.repeat(999)}\r\n`,
  'PATCH /%e9 HTTP/1.1\r\nHost: a\r\nX-Latin: \xe9\xff\r\nContent-Length: 0\r\n\r\n',
];

const GOOD_RESPONSES = [
  'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello',
  'HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n',
  'HTTP/1.1 404 Not \xe9 Found\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n',
  'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n',
  'HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n',
  'HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok',
  'HTTP/1.0 200 OK\r\n\r\nuntil the end',
  'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\ncontent-length:5\r\n\r\nhello',
  'HTTP/1.1 200 OK\r\nContent-Length: 5, 5,\t05\r\n\r\nhello',
  'HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n',
  'HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n',
  'HTTP/1.1 200 OK\r\nConnection: keep-alive, X-A\r\nKeep-Alive: timeout=5\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nok',
  'HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade\r\nUpgrade: h2c, websocket, TCP\r\nContent-Length: 0\r\n\r\n',
  `HTTP/1.1 200 OK\r\n${'X: y\r\n'.repeat(999)}Content-Length: 0\r\n\r\n`,
  'HTTP/1.1 200 OK\r\n\r\nuntil the end',
];

test('what is good is read as llhttp reads it', () => {
  for (const request of GOOD) assert.equal(checkRequests(Buffer.from(request, 'latin1'), new Draws(1)), 1, request);
  for (const response of GOOD_RESPONSES) assert.equal(checkResponses(Buffer.from(response, 'latin1'), ['GET'], new Draws(1)), 1, response);
  const head = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n';
  assert.equal(checkResponses(Buffer.from(head.repeat(2), 'latin1'), ['HEAD', 'HEAD'], new Draws(1)), 2);
});

test('what of the smuggling corpus is taken, llhttp takes with the same fields and the same end', () => {
  const corpus = [...SMUGGLING, ...BAD_BODIES];
  for (const [name, bytes] of corpus) assert.equal(checkRequests(Buffer.from(bytes, 'latin1'), new Draws(1)), 0, name);
  for (const { name, bytes, whole } of MIXTURES) {
    assert.equal(checkRequests(Buffer.from(bytes, 'latin1'), new Draws(1)), whole.length, name);
  }
});

test('whatever is taken, llhttp takes with the same fields and the same end, request or response', () => {
  let taken = 0;
  for (let number = SEED; number < SEED + CASES; number++) if (checkCase(number) > 0) taken++;
  // What is generated is near enough to what is good to say something.
  assert.ok(taken > CASES / 4, `${taken} of ${CASES} had messages that were taken`);
  assert.deepEqual([...met].toSorted(), Object.keys(DIFFERENCES).toSorted(), 'a difference that is meant is met');
});
