/** Messages that are nearly good: built by a grammar that knows what is nasty, or good ones with a few bytes changed. */
import { BAD_BODIES, FORGED_NAMES, SMUGGLING } from '../support/http/http-corpus.ts';
import { MIXTURES } from '../support/http/http-mixtures.ts';
import type { Draws } from './random.ts';

const CORPUS: readonly string[] = [
  ...SMUGGLING.map(([, bytes]) => bytes),
  ...BAD_BODIES.map(([, bytes]) => bytes),
  ...MIXTURES.map(({ bytes }) => bytes).filter((bytes) => bytes.length < 2000),
];

/** Bytes and words that readers differ on. */
const NASTY: readonly string[] = [
  '\r\n', '\n', '\r', ' ', '\t', ':', ';', ',', '=', '"', '\0', '\x0b', '\x0c', '\x7f', '\x80', '\x85', '\xa0', '\xff', '0', '1', '5', 'a', 'F',
  '_', '-', '+', '#', '%', '/', '*', '.', '\\', '\r\n\r\n', '\n\n', '\r\r\n', '\r\n ', '\r\n\t', '0\r\n\r\n', '0\r\n', '5\r\nhello\r\n', '0x', '00',
  'ffffffffffffffff', '18446744073709551616', 'chunked', 'identity', 'gzip', 'close', 'keep-alive', 'upgrade', 'HTTP/1.0', 'HTTP/1.1', 'HTTP/2.0',
  'Transfer-Encoding: chunked\r\n', 'Transfer-Encoding:\tchunked\r\n', 'Content-Length: 5\r\n', 'Content-Length: 0\r\n', 'Content_Length: 1\r\n',
  'Connection: close\r\n', 'Connection: upgrade\r\n', 'Connection: keep-alive\r\n', 'Connection: x-peer\r\n', 'Host: b\r\n', 'X-Peer: f\r\n',
  'x.peer: f\r\n', 'Upgrade: websocket\r\n', 'Upgrade: h2c\r\n', 'Expect: 100-continue\r\n', 'Trailer: X\r\n', 'TE: trailers\r\n', ': x\r\n', 'X\r\n',
  'GET / HTTP/1.1\r\n', 'GET / HTTP/1.1\r\nHost: a\r\n\r\n', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'HTTP/1.1 200 OK\r\n', 'HTTP/1.1 100 Continue\r\n\r\n',
  'HTTP/1.1 204 No Content\r\n\r\n', 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n', 'HTTP/1.0 200 OK\r\n\r\n', ';a=b', ';a="b"', ';a', ' ;a',
]; // prettier-ignore

const METHODS = [
  'GET',
  'GET',
  'GET',
  'POST',
  'POST',
  'PUT',
  'HEAD',
  'DELETE',
  'OPTIONS',
  'PATCH',
  'QUERY',
  'M-SEARCH',
  'PROPFIND',
  'PURGE',
  'SOURCE',
];
const ODD_METHODS = ['CONNECT', 'TRACE', 'get', 'PRI', 'FOO', 'GETT', 'DESCRIBE', ''];
const TARGETS = ['/', '/a', '/a/b?c=d&e', '//a', '/%20%zz', '/a;b=c', '/?', '/a"<>\\^`{|}', '/http://b/', '/~._-'];
const ODD_TARGETS = ['*', 'http://a/', 'a:80', '/a b', '/#f', '', 'a', '/\xe9', '/\0', '?'];
/** Of targets in absolute form, with a Host that names the same, or nearly. */
const AUTHORITIES = [
  ['http://a', 'a'],
  ['http://A:80', 'a'],
  ['https://a:443', 'A:443'],
  ['HTTPS://a.example:8443', 'a.example:8443'],
  ['http://[::1]:8080', '[::1]:8080'],
  ['http://a', 'a:443'],
  ['http://a', 'b'],
  ['http://a', ''],
  ['http://u@a', 'a'],
] as const;
const HOP_BY_HOP = ['Keep-Alive', 'Proxy-Connection', 'TE', 'keep_alive'];
const NAMES = [
  'Accept',
  'X',
  'x-long-name-of-a-field',
  'Cookie',
  'User-Agent',
  'Content-Type',
  'ETag',
  'Date',
  'Via',
  "!#$%&'*+-.^_`|~",
  '0',
];
const VALUES = [
  '',
  'a',
  'a b',
  '*/*',
  'a=b; c="d, e"',
  '\xe9\xff\x80',
  ':',
  ',',
  '; ,',
  'x'.repeat(100),
  'Transfer-Encoding: chunked',
  'chunked',
  '5',
];
const LENGTHS = [
  '+5',
  '-5',
  '5 5',
  '5,5',
  '5, 5',
  '0x5',
  '',
  '5.0',
  '\t5',
  '5\t',
  '5 ',
  '18446744073709551621',
  '0000000000000005',
  '1_0',
  '５',
];
const CODINGS = ['chunked', 'chunked', 'Chunked', 'CHUNKED', 'chunked ', ' chunked', '\tchunked', 'identity', 'gzip, chunked', 'chunked, chunked', 'xchunked', 'chunked,', 'chunked;q=1', '']; // prettier-ignore
const CONNECTIONS = ['close', 'keep-alive', 'Close', 'close, x', 'x', 'upgrade', 'keep-alive, Upgrade', ', ,x', '', 'x-peer', 'a b', 'close;', 'transfer-encoding', 'content-length', 'keep-alive, etag, Date', 'set-cookie']; // prettier-ignore
const UPGRADES = ['websocket', 'WebSocket', 'tcp', 'TCP', 'SPDY/3.1', 'spdy/3.1', 'h2c', 'TLS/1.0', 'websocket, h2c', 'tcp, websocket', 'tcp/1', '']; // prettier-ignore
const STATUSES = ['200 OK', '200 OK', '200 OK', '200', '200 ', '201 Created', '204 No Content', '206 Partial', '301 Moved', '304 Not Modified', '400 Bad', '404 Not Found', '426 Upgrade Required', '500 \xe9\t!', '503 a:b']; // prettier-ignore
const ODD_STATUSES = [
  '100 Continue',
  '101 Switching',
  '103 Early Hints',
  '199 x',
  '20 OK',
  '2000 OK',
  '600 x',
  '099 x',
  '999 x',
  '200OK',
  'OK',
  '200 O\0K',
  '+20 OK',
];
const INTERIM = ['100 Continue', '102 Processing', '103 Early Hints', '100', '199 x'];
const ENDS = ['\n', '\r', '\r\r\n', '\n\r', '', '\r\n\r\n', '\r\n '];

const NOT_ASKED = 400;

/** A pipeline of requests, in Latin-1. */
export function generateRequests(draws: Draws): string {
  if (draws.once(4)) return mutate(draws.of(CORPUS), CORPUS, draws);
  let bytes = '';
  for (let count = 1 + draws.below(draws.once(2) ? 1 : 4); count > 0; count--) bytes += request(draws);
  return draws.once(3) ? mutate(bytes, CORPUS, draws) : bytes;
}

/** What an application says on one connection, and the methods of what it was asked. */
export function generateResponses(draws: Draws): { readonly bytes: string; readonly asked: readonly string[] } {
  const asked: string[] = [];
  let bytes = '';
  for (let count = 1 + draws.below(draws.once(2) ? 1 : 4); count > 0; count--) {
    const method = draws.of(['GET', 'GET', 'GET', 'POST', 'HEAD']);
    asked.push(method);
    while (draws.once(5)) bytes += response(draws, draws.of(INTERIM), 'interim');
    bytes += response(draws, draws.once(15) ? draws.of(ODD_STATUSES) : draws.of(STATUSES), method);
  }
  // There may be more to it than was asked for.
  while (asked.length < 5) asked.push('GET');
  return { bytes: draws.once(3) ? mutate(bytes, [bytes, ...RESPONSE_SEEDS], draws) : bytes, asked };
}

const RESPONSE_SEEDS = [
  'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello',
  'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n',
  'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n',
  'HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok',
  'HTTP/1.1 200 OK\r\n\r\nuntil the end',
  'HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n',
];

function request(draws: Draws): string {
  const method = draws.once(NOT_ASKED) ? draws.of(ODD_METHODS) : draws.of(METHODS);
  const target = method === 'OPTIONS' && draws.once(3) ? '*' : draws.once(60) ? draws.of(ODD_TARGETS) : draws.of(TARGETS);
  const [origin, itsHost] = draws.once(10) ? draws.of(AUTHORITIES) : ['', undefined];
  const version = draws.once(12)
    ? draws.of(['HTTP/1.0', 'HTTP/1.0', 'HTTP/1.0', 'HTTP/1.2', 'HTTP/2.0', 'http/1.1', 'HTTP/1.10'])
    : 'HTTP/1.1';
  const space = draws.once(200) ? draws.of(['  ', '\t', '', '\x0b']) : ' ';
  const lines = fields(draws);
  const host = draws.once(40)
    ? draws.of(['a b', '', '', 'a,b', 'a@b', '[::1', 'a:b'])
    : (itsHost ?? draws.of(['a', 'a.example:80', '[::1]:8080']));
  if (!draws.once(version === 'HTTP/1.0' ? 3 : 150)) insert(lines, field(draws, 'Host', host), draws);
  if (draws.once(150)) insert(lines, field(draws, 'Host', 'b'), draws);
  if (draws.once(12)) insert(lines, field(draws, draws.of(FORGED_NAMES), 'spiffe://example.org/forged'), draws);
  if (draws.once(10)) insert(lines, field(draws, 'Upgrade', draws.of(UPGRADES)), draws);
  if (draws.once(20)) insert(lines, 'Connection: Upgrade\r\n', draws);
  if (draws.once(20)) insert(lines, field(draws, 'Expect', draws.of(['100-continue', '100-continue', '100-Continue', 'x'])), draws);
  const before = draws.once(12) ? draws.of(['\r\n', '\r\n', '\r\n', '\r\n\r\n', '\n', '\r']) : '';
  const path = origin !== '' && draws.once(3) ? draws.of(['', '?', '?a']) : target;
  return `${before}${method}${space}${origin}${path}${space}${version}${end(draws)}${framed(lines, draws, draws.once(2) || method === 'POST')}`;
}

function response(draws: Draws, status: string, asked: string): string {
  const version = draws.once(10) ? draws.of(['HTTP/1.0', 'HTTP/1.0', 'HTTP/1.0', 'HTTP/1.2', 'HTTP/2', 'http/1.1', 'ICY']) : 'HTTP/1.1';
  const lines = fields(draws);
  if (draws.once(status.startsWith('426') ? 2 : 25)) insert(lines, field(draws, 'Upgrade', draws.of(UPGRADES)), draws);
  if (draws.once(5)) insert(lines, field(draws, draws.of(HOP_BY_HOP), draws.of(['timeout=5', 'close', 'keep-alive', 'trailers'])), draws);
  // Mostly as it should be.
  const hasBody =
    asked === 'interim' || status.startsWith('204') || status.startsWith('304') || asked === 'HEAD' ? draws.once(8) : !draws.once(8);
  return `${version} ${status}${end(draws)}${framed(lines, draws, hasBody)}`;
}

/** The lines, with framing somewhere among them, the empty line and a body. */
function framed(lines: string[], draws: Draws, hasBody: boolean): string {
  if (!hasBody) return `${lines.join('')}${end(draws)}`;
  const content = draws.of([
    '',
    'hello',
    'x',
    'hello\r\nworld',
    '0\r\n\r\n',
    'GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n',
    'HTTP/1.1 200 OK\r\n\r\n',
    'x'.repeat(draws.below(300)),
  ]);
  const kind = draws.below(20);
  let body = content;
  if (kind < 9 || kind === 19) {
    const odd = draws.once(20) ? draws.of(LENGTHS) : String(Math.max(content.length + (draws.once(15) ? draws.below(7) - 3 : 0), 0));
    insert(lines, field(draws, 'Content-Length', draws.once(15) ? odd.padStart(odd.length + draws.below(6), '0') : odd), draws);
    while (draws.once(40)) insert(lines, field(draws, 'Content-Length', odd), draws);
    if (draws.once(40)) insert(lines, field(draws, 'Content-Length', `${odd},${draws.of(['', ' ', '\t'])}${odd}`), draws);
  }
  if (kind >= 9) {
    body = chunks(content, draws);
    insert(lines, field(draws, 'Transfer-Encoding', draws.once(8) ? draws.of(CODINGS) : 'chunked'), draws);
  }
  return `${lines.join('')}${end(draws)}${body}`;
}

function chunks(content: string, draws: Draws): string {
  let bytes = '';
  for (let at = 0; at < content.length;) {
    const size = 1 + draws.below(content.length - at);
    bytes += `${chunkSize(size, draws)}${extension(draws)}${end(draws)}${content.slice(at, at + size)}${end(draws)}`;
    at += size;
  }
  const trailers = draws.once(5) ? fields(draws) : [];
  if (draws.once(30)) trailers.push(field(draws, draws.of([...FORGED_NAMES, 'Content-Length', 'Transfer-Encoding', 'Host']), '5'));
  return `${bytes}${chunkSize(0, draws)}${extension(draws)}${end(draws)}${trailers.join('')}${end(draws)}`;
}

function chunkSize(size: number, draws: Draws): string {
  if (draws.once(150))
    return draws.of([`0x${size.toString(16)}`, `+${size}`, ` ${size}`, `${size} `, '', `-${size}`, `${size}_`, `${size + 1}`]);
  const text = size.toString(16).padStart(draws.once(20) ? draws.below(16) : 1, '0');
  return draws.once(2) ? text.toUpperCase() : text;
}

function extension(draws: Draws): string {
  if (!draws.once(12)) return '';
  return draws.once(5)
    ? draws.of([';', ';a=', '; a', ' ;a', ';a=b=c', ';"a"', ';a="b"', ';\0', ';a\n', ';='])
    : draws.of([';a', ';a=b', ';a;b=c', ';5=ff']);
}

function fields(draws: Draws): string[] {
  const lines: string[] = [];
  while (!draws.once(3)) lines.push(field(draws, draws.of(NAMES), draws.of(VALUES)));
  if (draws.once(6)) lines.push(field(draws, 'Connection', draws.of(CONNECTIONS)));
  return lines;
}

function field(draws: Draws, name: string, value: string): string {
  const spelt = draws.once(6)
    ? draws.of([name.toUpperCase(), name.toLowerCase(), name.replaceAll('-', '_'), ` ${name}`, `${name} `])
    : name;
  const before = draws.once(15) ? draws.of(['', '  ', '\t', ' \t']) : ' ';
  const after = draws.once(25) ? draws.of([' ', '\t', '\r', '\0', '\x0b']) : '';
  return `${spelt}:${before}${value}${after}${end(draws)}`;
}

function insert(lines: string[], line: string, draws: Draws): void {
  lines.splice(draws.below(lines.length + 1), 0, line);
}

function end(draws: Draws): string {
  return draws.once(500) ? draws.of(ENDS) : '\r\n';
}

function mutate(text: string, others: readonly string[], draws: Draws): string {
  let mutated = text;
  for (let times = 1 + draws.below(3); times > 0; times--) {
    const at = draws.below(mutated.length + 1);
    const piece = draws.of(NASTY);
    switch (draws.below(7)) {
      case 0:
        mutated = mutated.slice(0, at) + piece + mutated.slice(at);
        break;
      case 1:
        mutated = mutated.slice(0, at) + mutated.slice(at + 1 + draws.below(3));
        break;
      case 2:
        mutated = mutated.slice(0, at) + piece + mutated.slice(at + piece.length);
        break;
      case 3:
        mutated = mutated.slice(0, at) + String.fromCharCode(draws.below(256)) + mutated.slice(at + 1);
        break;
      case 4: {
        // A line more, twice or elsewhere.
        const lines = mutated.split('\r\n');
        const from = draws.below(lines.length);
        const line = lines[from] ?? '';
        if (draws.once(2)) lines.splice(from, 1);
        lines.splice(draws.below(lines.length + 1), 0, line);
        mutated = lines.join('\r\n');
        break;
      }
      case 5: {
        // A bit.
        const code = mutated.charCodeAt(at);
        if (!Number.isNaN(code)) mutated = mutated.slice(0, at) + String.fromCharCode(code ^ (1 << draws.below(8))) + mutated.slice(at + 1);
        break;
      }
      default: {
        const other = draws.of(others);
        mutated = mutated.slice(0, at) + other.slice(draws.below(other.length + 1));
      }
    }
  }
  return mutated;
}
