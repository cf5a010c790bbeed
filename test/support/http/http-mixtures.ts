/** Requests that are good and that a sloppy reader takes for others, for more or for fewer: what every application must see of them. */
import { FORGED_NAMES } from './http-corpus.ts';

export interface ExpectedRequest {
  readonly method: string;
  readonly target: string;
  /** Latin-1. */
  readonly body: string;
}

export interface Mixture {
  readonly name: string;
  /** Latin-1, as sent over one connection. */
  readonly bytes: string;
  /** The requests that are whole, in their order. */
  readonly whole: readonly ExpectedRequest[];
  /** What follows them is refused with 400. */
  readonly refused: boolean;
}

type Part = readonly [bytes: string, expected: ExpectedRequest];

const crlf = (...lines: readonly string[]): string => `${lines.join('\r\n')}\r\n\r\n`;
const get = (target: string, ...fields: readonly string[]): Part => bodiless('GET', target, ...fields);
const bodiless = (method: string, target: string, ...fields: readonly string[]): Part => [
  crlf(`${method} ${target} HTTP/1.1`, 'Host: a', ...fields),
  { method, target, body: '' },
];
const withLength = (method: string, target: string, body: string, ...fields: readonly string[]): Part => [
  crlf(`${method} ${target} HTTP/1.1`, 'Host: a', ...fields, `Content-Length: ${body.length}`) + body,
  { method, target, body },
];
const raw = (bytes: string, method: string, target: string, body = ''): Part => [bytes, { method, target, body }];
const after = (before: string, [bytes, expected]: Part, behind = ''): Part => [before + bytes + behind, expected];
/** `chunks` as they are sent, and what they carry. */
const withChunks = (method: string, target: string, chunks: string, body: string, ...fields: readonly string[]): Part => [
  crlf(`${method} ${target} HTTP/1.1`, 'Host: a', 'Transfer-Encoding: chunked', ...fields) + chunks,
  { method, target, body },
];
const inChunk = (body: string): string => `${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`;
const good = (name: string, ...parts: readonly Part[]): Mixture => ({
  name,
  bytes: parts.map(([bytes]) => bytes).join(''),
  whole: parts.map(([, expected]) => expected),
  refused: false,
});
const thenBad = (name: string, parts: readonly Part[], bad: string): Mixture => {
  const before = good(name, ...parts);
  return { ...before, bytes: before.bytes + bad, refused: true };
};

const HIDDEN = 'GET /hidden HTTP/1.1\r\nHost: a\r\nX-Forwarded-Client-Cert: By=x;URI=spiffe://example.org/hidden\r\n\r\n';
const LAST = get('/last');
const H2_PREFACE = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0';
const H2C = ['Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA'];

export const MIXTURES: readonly Mixture[] = [
  // Bodies that look like requests.
  good('a request within a body of known length', withLength('POST', '/a', HIDDEN), LAST),
  good('a request within a chunk', withChunks('POST', '/a', inChunk(HIDDEN), HIDDEN), LAST),
  good('a request within two chunks', withChunks('POST', '/a', `8\r\n${HIDDEN.slice(0, 8)}\r\n${inChunk(HIDDEN.slice(8))}`, HIDDEN), LAST),
  good('the end of chunks within a body', withLength('POST', '/a', `0\r\n\r\n${HIDDEN}`), LAST),
  good('the end of chunks within a chunk', withChunks('POST', '/a', inChunk(`0\r\n\r\n${HIDDEN}`), `0\r\n\r\n${HIDDEN}`), LAST),
  good('white lines within a body', withLength('POST', '/a', '\r\n\r\n\n\r\n'), LAST),
  good('a body of any bytes', withLength('POST', '/a', Array.from({ length: 256 }, (_, byte) => String.fromCharCode(byte)).join('')), LAST),
  good('a body for GET', withLength('GET', '/a', HIDDEN), LAST),
  good('chunks for GET', withChunks('GET', '/a', inChunk(HIDDEN), HIDDEN), LAST),
  good('a body for HEAD', withLength('HEAD', '/a', HIDDEN), LAST),
  good('chunks for HEAD', withChunks('HEAD', '/a', inChunk(HIDDEN), HIDDEN), LAST),
  good('a body for DELETE', withLength('DELETE', '/a', HIDDEN), LAST),
  good('a body for OPTIONS', withLength('OPTIONS', '/a', HIDDEN), LAST),
  good('chunks for PUT', withChunks('PUT', '/a', inChunk(HIDDEN), HIDDEN), LAST),
  good('a body for PATCH', withLength('PATCH', '/a', HIDDEN), LAST),
  good('no body with a length', withLength('POST', '/a', ''), LAST),
  good('no body in chunks', withChunks('POST', '/a', '0\r\n\r\n', ''), LAST),
  good('POST without framing', bodiless('POST', '/a'), LAST),
  good('a long body', withLength('POST', '/a', HIDDEN.repeat(700)), LAST),
  good('a long body in chunks', withChunks('POST', '/a', inChunk(HIDDEN.repeat(700)), HIDDEN.repeat(700)), LAST),
  good('a form', withLength('POST', '/a', 'x=GET%20/&y=0', 'Content-Type: application/x-www-form-urlencoded'), LAST),
  // Framing at the edge of what is allowed.
  good('zeros before a length', raw(`${crlf('POST /a HTTP/1.1', 'Host: a', 'Content-Length: 00005')}hello`, 'POST', '/a', 'hello'), LAST),
  good('no space before a length', raw(`${crlf('POST /a HTTP/1.1', 'Host:a', 'Content-Length:5')}hello`, 'POST', '/a', 'hello'), LAST),
  good('spaces before a length', raw(`${crlf('POST /a HTTP/1.1', 'Host: a', 'Content-Length:   5')}hello`, 'POST', '/a', 'hello'), LAST),
  good('a length in capitals', raw(`${crlf('POST /a HTTP/1.1', 'HOST: a', 'CONTENT-LENGTH: 5')}hello`, 'POST', '/a', 'hello'), LAST),
  good(
    'a coding in capitals',
    raw(`${crlf('POST /a HTTP/1.1', 'Host: a', 'TRANSFER-ENCODING: CHUNKED')}${inChunk('hello')}`, 'POST', '/a', 'hello'),
    LAST,
  ),
  good('the length of a body in another field', withLength('POST', '/a', 'hello', 'X-Content-Length: 50', 'Content-Length-X: 0'), LAST),
  good('a coding in another field', withLength('POST', '/a', 'hello', 'X-Transfer-Encoding: chunked', 'Transfer-Encodin: chunked'), LAST),
  good('framing within values', withLength('POST', '/a', 'hello', 'X: Transfer-Encoding: chunked', 'Y: Content-Length: 0'), LAST),
  good('a content coding', withLength('POST', '/a', 'hello', 'Content-Encoding: chunked'), LAST),
  good('TE', withLength('POST', '/a', 'hello', 'TE: chunked, trailers'), LAST),
  // Chunks at the edge of what is allowed.
  good('zeros before the size of a chunk', withChunks('POST', '/a', '000000000005\r\nhello\r\n000\r\n\r\n', 'hello'), LAST),
  good('sizes in both cases', withChunks('POST', '/a', `0A\r\n0123456789\r\n0a\r\n0123456789\r\n0\r\n\r\n`, '01234567890123456789'), LAST),
  good('an extension', withChunks('POST', '/a', '5;a\r\nhello\r\n0;b\r\n\r\n', 'hello'), LAST),
  good('extensions with values', withChunks('POST', '/a', '5;a=b;c;d=e\r\nhello\r\n0;f=g\r\n\r\n', 'hello'), LAST),
  good('an extension that looks like a size', withChunks('POST', '/a', '5;5\r\nhello\r\n0;ff=5\r\n\r\n', 'hello'), LAST),
  good('chunks of one byte', withChunks('POST', '/a', `${'1\r\nx\r\n'.repeat(200)}0\r\n\r\n`, 'x'.repeat(200)), LAST),
  good('chunks of line ends', withChunks('POST', '/a', '2\r\n\r\n\r\n2\r\n\r\n\r\n0\r\n\r\n', '\r\n\r\n'), LAST),
  good('chunks that look like sizes', withChunks('POST', '/a', '3\r\n0\r\n\r\n2\r\n\r\n\r\n0\r\n\r\n', '0\r\n\r\n'), LAST),
  good('trailers', withChunks('POST', '/a', '5\r\nhello\r\n0\r\nX-Sum: 1\r\nX-Other:\r\n\r\n', 'hello', 'Trailer: X-Sum'), LAST),
  good(
    'a trailer that looks like a request',
    withChunks('POST', '/a', '5\r\nhello\r\n0\r\nX: GET /hidden HTTP/1.1\r\n\r\n', 'hello'),
    LAST,
  ),
  good('nominated trailers', withChunks('POST', '/a', '5\r\nhello\r\n0\r\nX-A: 1\r\nX-B: 2\r\n\r\n', 'hello', 'Connection: x-a'), LAST),
  ...FORGED_NAMES.map((name) =>
    good(
      `${name} in a trailer`,
      withChunks('POST', '/a', `5\r\nhello\r\n0\r\nX: 1\r\n${name}: By=x;URI=spiffe://example.org/forged\r\n\r\n`, 'hello'),
      LAST,
    ),
  ),
  // Identity.
  ...FORGED_NAMES.map((name) => good(`${name} in a head`, get('/a', `${name}: By=x;URI=spiffe://example.org/forged`), LAST)),
  good('identity twice', get('/a', 'X-Peer: spiffe://example.org/forged', 'x_peer: spiffe://example.org/forged'), LAST),
  good('identity nominated', get('/a', 'Connection: X-Forwarded-Client-Cert, X-Peer', 'X-Peer: spiffe://example.org/forged'), LAST),
  good(
    'identity nominated with underscores',
    get('/a', 'Connection: x_forwarded_client_cert, x_peer', 'X_Peer: spiffe://example.org/forged'),
    LAST,
  ),
  good('identity first', raw(crlf('GET /a HTTP/1.1', 'X-Peer: spiffe://example.org/forged', 'Host: a'), 'GET', '/a'), LAST),
  good('identity without a value', get('/a', 'X-Peer:', 'X-Forwarded-Client-Cert:'), LAST),
  good('identity within a value', get('/a', 'X: y, X-Peer: spiffe://example.org/forged'), LAST),
  good('identity in the query', get('/a?X-Peer=spiffe://example.org/forged&x=%0d%0aX-Peer:%20spiffe://example.org/forged'), LAST),
  good('a length nominated by another name', get('/a', 'Connection: length'), LAST),
  // Pipelines.
  good('many requests at once', ...Array.from({ length: 20 }, (_, index) => get(`/${index}`))),
  good(
    'requests of all framings at once',
    withLength('POST', '/a', 'hello'),
    get('/b'),
    withChunks('POST', '/c', inChunk('hello'), 'hello'),
    withLength('POST', '/d', ''),
    withChunks('POST', '/e', '0\r\nX: 1\r\n\r\n', ''),
    bodiless('HEAD', '/f'),
    withLength('PUT', '/g', HIDDEN),
    LAST,
  ),
  good('HEAD between others', get('/a'), bodiless('HEAD', '/b'), get('/c'), bodiless('HEAD', '/d'), LAST),
  good('HTTP/1.0', raw(crlf('GET /a HTTP/1.0', 'Host: a'), 'GET', '/a')),
  {
    ...good('HTTP/1.0 ends the connection', raw(crlf('GET /a HTTP/1.0', 'Host: a'), 'GET', '/a')),
    bytes: `${crlf('GET /a HTTP/1.0', 'Host: a')}${HIDDEN}`,
  },
  {
    ...good('close ends the connection', get('/a', 'Connection: close')),
    bytes: `${crlf('GET /a HTTP/1.1', 'Host: a', 'Connection: close')}${HIDDEN}`,
  },
  {
    ...good('close among others ends the connection', get('/a', 'Connection: keep-alive, CLOSE, x')),
    bytes: `${crlf('GET /a HTTP/1.1', 'Host: a', 'Connection: keep-alive, CLOSE, x')}${HIDDEN}`,
  },
  {
    ...good('HTTP/1.0 with keep-alive ends the connection', raw(crlf('GET /a HTTP/1.0', 'Host: a'), 'GET', '/a')),
    bytes: `${crlf('GET /a HTTP/1.0', 'Host: a', 'Connection: keep-alive')}${HIDDEN}`,
  },
  good('a body for HTTP/1.0', raw(`${crlf('POST /a HTTP/1.0', 'Host: a', 'Content-Length: 5')}hello`, 'POST', '/a', 'hello')),
  good('an empty line ahead of the first request', after('\r\n', get('/a')), LAST),
  good('an empty line ahead of each request', ...Array.from({ length: 5 }, (_, index) => after('\r\n', get(`/${index}`)))),
  good('an empty line after a body', withLength('POST', '/a', 'hello'), after('\r\n', LAST)),
  good('an empty line after chunks', withChunks('POST', '/a', inChunk('hello'), 'hello'), after('\r\n', LAST)),
  good('an empty line after the last request', get('/a'), after('', LAST, '\r\n')),
  thenBad('two empty lines between requests', [get('/a')], `\r\n\r\n${HIDDEN}`),
  thenBad('two empty lines after a body', [withLength('POST', '/a', 'hello')], `\r\n\r\n${HIDDEN}`),
  thenBad('a line feed between requests', [get('/a')], `\n${HIDDEN}`),
  thenBad('a carriage return between requests', [get('/a')], `\r${HIDDEN}`),
  thenBad('an empty line and a space between requests', [get('/a')], `\r\n ${HIDDEN}`),
  thenBad('a body that is longer than said', [withLength('POST', '/a', 'hello')], ` world${HIDDEN}`),
  thenBad('a body without framing', [bodiless('POST', '/a')], `hello${HIDDEN}`),
  thenBad('a body after none', [withLength('POST', '/a', '')], `0\r\n\r\n${HIDDEN}`),
  thenBad('two ends of chunks', [withChunks('POST', '/a', inChunk('hello'), 'hello')], `0\r\n\r\n${HIDDEN}`),
  thenBad(
    'a good request and one with both framings',
    [get('/a')],
    `POST /hidden HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
  ),
  thenBad('a good request and HTTP/0.9', [get('/a')], 'GET /hidden\r\n'),
  thenBad('a good request and HTTP/2', [get('/a')], H2_PREFACE),
  thenBad('a good request and a fold', [withLength('POST', '/a', 'hello')], `GET /hidden HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n`),
  thenBad('a good request and a bare line feed', [get('/a')], `GET /hidden HTTP/1.1\nHost: a\n\n`),
  thenBad('a good request and a body without a head', [get('/a')], `0\r\n\r\n`),
  thenBad('a good request and half a head', [get('/a')], 'GET /hidden HTTP/1.1\r\nHost: a\r\n'),
  thenBad('good requests and an absolute form of another', [get('/a'), get('/b')], `GET http://b/hidden HTTP/1.1\r\nHost: a\r\n\r\n`),
  thenBad('good requests and CONNECT', [get('/a'), get('/b')], `CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n${HIDDEN}`),
  thenBad('good requests and two Hosts', [get('/a'), get('/b')], `GET /hidden HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n`),
  // Upgrades that are none.
  good('h2c', get('/a', ...H2C), LAST),
  good('h2c with a body', withLength('POST', '/a', H2_PREFACE, ...H2C), LAST),
  good('h2c in chunks', withChunks('POST', '/a', inChunk(H2_PREFACE), H2_PREFACE, ...H2C), LAST),
  thenBad('h2c and its preface', [get('/a', ...H2C)], H2_PREFACE),
  good('h2c in capitals', get('/a', 'CONNECTION: UPGRADE', 'UPGRADE: H2C', 'HTTP2-SETTINGS: AAMAAABkAAQAoAAAAAIAAAAA'), LAST),
  good('h2c with underscores', get('/a', 'Connection: upgrade, http2_settings', 'Upgrade: h2c', 'HTTP2_Settings: AAMA'), LAST),
  good('h2c that is not nominated', get('/a', 'Upgrade: h2c', 'HTTP2-Settings: AAMA'), LAST),
  good('h2', get('/a', 'Connection: Upgrade', 'Upgrade: h2'), LAST),
  good('TLS', get('/a', 'Connection: Upgrade', 'Upgrade: TLS/1.0'), LAST),
  good('TLS and HTTP', bodiless('OPTIONS', '*', 'Connection: Upgrade', 'Upgrade: TLS/1.0, HTTP/1.1'), LAST),
  good('websocket that is not nominated', get('/a', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13'), LAST),
  good('websocket and h2c', get('/a', 'Connection: Upgrade', 'Upgrade: websocket, h2c', 'Sec-WebSocket-Version: 13'), LAST),
  good('websocket twice', get('/a', 'Connection: Upgrade', 'Upgrade: websocket', 'Upgrade: websocket'), LAST),
  good('a protocol that is not configured', get('/a', 'Connection: Upgrade', 'Upgrade: tcp'), LAST),
  good('websocket by POST', withLength('POST', '/a', HIDDEN, 'Connection: Upgrade', 'Upgrade: websocket'), LAST),
  good('websocket with a body', withLength('GET', '/a', HIDDEN, 'Connection: Upgrade', 'Upgrade: websocket'), LAST),
  good('an upgrade without a value', get('/a', 'Connection: Upgrade', 'Upgrade:'), LAST),
  good('nothing but the nomination', get('/a', 'Connection: Upgrade'), LAST),
  // Expectations.
  good('a body that does not wait', withLength('POST', '/a', HIDDEN, 'Expect: 100-continue'), LAST),
  good('chunks that do not wait', withChunks('POST', '/a', inChunk(HIDDEN), HIDDEN, 'Expect: 100-continue'), LAST),
  good('an expectation in capitals', withLength('POST', '/a', HIDDEN, 'EXPECT: 100-CONTINUE'), LAST),
  good('an expectation without a body', get('/a', 'Expect: 100-continue'), LAST),
  good('an expectation of no body', withLength('POST', '/a', '', 'Expect: 100-continue'), LAST),
  good('an expectation twice', withLength('POST', '/a', HIDDEN, 'Expect: 100-continue', 'Expect: 100-continue'), LAST),
  good('an expectation that is nominated', withLength('POST', '/a', HIDDEN, 'Connection: expect', 'Expect: 100-continue'), LAST),
  good(
    'an expectation of HTTP/1.0',
    raw(`${crlf('POST /a HTTP/1.0', 'Host: a', 'Expect: 100-continue', 'Content-Length: 5')}hello`, 'POST', '/a', 'hello'),
  ),
  // Targets and hosts.
  good('two slashes', get('//b/hidden'), LAST),
  good('three slashes', get('///b/hidden'), LAST),
  good('an authority within a path', get('/@b/http://b/hidden'), LAST),
  good('an absolute form within a path', get('/http://b/hidden'), LAST),
  good('dots', get('/a/../../hidden'), LAST),
  good('encoded dots', get('/a/%2e%2e/hidden'), LAST),
  good('an encoded line end', get('/a%0d%0aX-Peer:%20b%0d%0a'), LAST),
  good('an encoded NUL', get('/a%00b'), LAST),
  good('an encoded space', get('/a%20HTTP/1.1'), LAST),
  good('a bad encoding', get('/a%zz'), LAST),
  good('half an encoding', get('/a%'), LAST),
  good('a backslash', get('/a\\..\\b'), LAST),
  good('characters that have no place in a URI', get('/a"<>^`{|}'), LAST),
  good('a parameter', get('/a;b=c'), LAST),
  good('an empty query', get('/a?'), LAST),
  good('question marks', get('/a??b?c'), LAST),
  good('a query with a request', get('/a?x=GET+/hidden+HTTP/1.1'), LAST),
  good('a long target', get(`/${'a'.repeat(6000)}`), LAST),
  // Absolute forms.
  ...(
    [
      ['GET', 'http://a/b?c=d', 'a', '/b?c=d'],
      ['GET', 'https://a/b', 'a', '/b'],
      ['GET', 'HTTP://A/b', 'a', '/b'],
      ['GET', 'http://a', 'a', '/'],
      ['GET', 'http://a?b', 'a', '/?b'],
      ['GET', 'http://a/', 'A:80', '/'],
      ['GET', 'http://a:80/', 'a', '/'],
      ['GET', 'https://a:443/b', 'a', '/b'],
      ['GET', 'https://a/b', 'a:443', '/b'],
      ['GET', 'http://a:/b', 'a', '/b'],
      ['GET', 'http://a:8080/b', 'a:8080', '/b'],
      ['GET', 'http://[::1]:80/b', '[::1]', '/b'],
      ['GET', 'http://[FE80::1]/b', '[fe80::1]', '/b'],
      ['GET', 'http://a//b/hidden', 'a', '//b/hidden'],
      ['GET', 'http://a/http://b/hidden', 'a', '/http://b/hidden'],
      ['GET', 'http://a/../hidden', 'a', '/../hidden'],
      ['GET', 'http://a/@b', 'a', '/@b'],
      ['OPTIONS', 'http://a', 'a', '*'],
      ['OPTIONS', 'http://a/', 'a', '/'],
      ['OPTIONS', 'http://a?b', 'a', '/?b'],
      ['HEAD', 'http://a/b', 'a', '/b'],
    ] as const
  ).map(([method, absolute, host, target]) =>
    good(`${method} ${absolute} of ${host}`, raw(crlf(`${method} ${absolute} HTTP/1.1`, `Host: ${host}`), method, target), LAST),
  ),
  good(
    'a body for an absolute form',
    raw(`${crlf('POST http://a/b HTTP/1.1', 'X-Peer: f', 'Host: a', `Content-Length: ${HIDDEN.length}`)}${HIDDEN}`, 'POST', '/b', HIDDEN),
    LAST,
  ),
  good('an absolute form of HTTP/1.0', raw(crlf('GET http://a/b HTTP/1.0'), 'GET', '/b')),
  good('no Host for HTTP/1.0', raw(crlf('GET /a HTTP/1.0'), 'GET', '/a')),
  good('an empty Host for HTTP/1.0', raw(crlf('GET /a HTTP/1.0', 'Host:'), 'GET', '/a')),
  good('an empty Host', raw(crlf('GET /a HTTP/1.1', 'Host:'), 'GET', '/a'), LAST),
  good('an empty Host with spaces', raw(crlf('GET /a HTTP/1.1', 'Host: \t '), 'GET', '/a'), LAST),
  good('OPTIONS *', bodiless('OPTIONS', '*'), LAST),
  good('OPTIONS * with a body', withLength('OPTIONS', '*', HIDDEN), LAST),
  ...['a:80', 'a.example:8443', '127.0.0.1', '[::1]', '[::1]:80', 'a.', 'A', 'a_b', 'a%41', 'a:', 'a:00080', '1', '-', '..'].map((host) =>
    good(`Host: ${host}`, raw(crlf('GET /a HTTP/1.1', `Host: ${host}`), 'GET', '/a'), LAST),
  ),
  good(
    'X-Forwarded-Host',
    get('/a', 'X-Forwarded-Host: b', 'Forwarded: host=b', 'X-Original-URL: /hidden', 'X-Rewrite-URL: /hidden'),
    LAST,
  ),
  good('overrides of the method', withLength('POST', '/a', 'hello', 'X-HTTP-Method-Override: DELETE', 'X-Method: PUT'), LAST),
  ...['PROPFIND', 'M-SEARCH', 'PURGE', 'LOCK', 'QUERY', 'UNSUBSCRIBE'].map((method) =>
    good(method, withLength(method, '/a', HIDDEN), LAST),
  ),
  // Fields.
  good('white space around values', get('/a', 'X: \t y \t', 'Y:\t', 'Z:'), LAST),
  good('obs-text in a value', get('/a', 'X: \xe9\xff\x80'), LAST),
  good('colons in a value', get('/a', 'X: :', 'Y::', 'Z: a: b'), LAST),
  good('every character of a name', get('/a', "!#$%&'*+-.^_`|~09azAZ: y"), LAST),
  good('a field twice', get('/a', 'X: y', 'X: z'), LAST),
  good('cookies twice', get('/a', 'Cookie: a=b', 'Cookie: c=d; X-Peer=x'), LAST),
  good('ninety fields', get('/a', ...Array.from({ length: 90 }, (_, index) => `X-${index}: y`)), LAST),
  good('nine hundred fields', get('/a', ...Array.from({ length: 900 }, (_, index) => `X-${index}: y`)), LAST),
  good('a long value', get('/a', `X: ${'y'.repeat(7000)}`), LAST),
  good('fields of the connection', get('/a', 'Keep-Alive: timeout=5', 'Proxy-Connection: close', 'Connection: x-y', 'X-Y: z'), LAST),
  good('empty members of Connection', get('/a', 'Connection: ,,keep-alive ,, '), LAST),
  good('Connection twice', get('/a', 'Connection: x-a', 'connection: x-b', 'X-A: 1', 'X-B: 2'), LAST),
];
