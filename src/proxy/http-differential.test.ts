import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BAD_BODIES, SMUGGLING } from '../../test/support/http-corpus.ts';
import { MIXTURES } from '../../test/support/http-mixtures.ts';
import { readWithLlhttp, type ReadRequest } from '../../test/support/llhttp.ts';
import { buildIdentityFields, rewriteHead, rewriteTrailers } from './headers.ts';
import { BodyScanner } from './http-body.ts';
import { BlockReader, Fields } from './http-fields.ts';
import { RequestHead } from './http-head.ts';

const LIMITS = { maxHeadBytes: 8192, maxFields: 50 };
const identity = buildIdentityFields(
  { xfcc: 'sanitize-set', spiffeIdHeader: 'X-Peer' },
  { peerId: 'spiffe://example.org/web', ownId: 'spiffe://example.org/api', leafSha256: '0'.repeat(64) },
);
const OURS = identity.lines
  .toString('latin1')
  .trimEnd()
  .split(/: |\r\n/);

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
  'PATCH /\xe9'.replace('\xe9', '%e9') + ' HTTP/1.1\r\nHost: a\r\nX-Latin: \xe9\xff\r\nContent-Length: 0\r\n\r\n',
];

interface Read {
  readonly request: ReadRequest;
  /** How many bytes are of this request. */
  readonly end: number;
  readonly forwarded: Buffer;
}

/** What Scute takes the bytes for; undefined if it refuses them or waits for more. */
function readWithScute(bytes: Buffer): Read | undefined {
  const head = new RequestHead(LIMITS);
  const outcome = head.read(bytes, 0);
  if (outcome.kind !== 'whole') return undefined;
  const fields: string[] = [];
  for (let field = 0; field < head.fields.count; field++) fields.push(head.fields.name(field), head.fields.value(field));
  const forwarded = [rewriteHead(head, identity)];
  const scanner = new BodyScanner();
  scanner.begin(head.framing);
  let end = scanner.scan(bytes, outcome.next);
  forwarded.push(bytes.subarray(outcome.next, end));
  let body = scanner.contentBytes > 0 && head.framing.kind === 'length' ? bytes.toString('latin1', outcome.next, end) : '';
  if (head.framing.kind === 'chunked') body = dechunk(bytes.toString('latin1', outcome.next, end));
  if (scanner.state === 'trailers') {
    const reader = new BlockReader(LIMITS.maxHeadBytes);
    const trailers = new Fields(LIMITS.maxFields);
    if (reader.read(bytes, end) !== 'whole' || trailers.parse(reader.bytes, reader.start, reader.end) !== undefined) return undefined;
    for (let field = 0; field < trailers.count; field++) fields.push(trailers.name(field), trailers.value(field));
    const rewritten = rewriteTrailers(trailers, reader.start, identity, head.nominated);
    if (rewritten === undefined) return undefined;
    forwarded.push(rewritten);
    end = reader.next;
    scanner.finish();
  }
  if (scanner.state !== 'done') return undefined;
  const { method, target, minorVersion } = head;
  return { request: { method, target, minorVersion, fields, body }, end, forwarded: Buffer.concat(forwarded) };
}

/** The content of chunks that were found to be well formed. */
function dechunk(chunks: string): string {
  let body = '';
  for (let at = 0; at < chunks.length;) {
    const lineEnd = chunks.indexOf('\r\n', at);
    if (lineEnd === -1) return body;
    const size = Number.parseInt(chunks.slice(at, lineEnd), 16);
    body += chunks.slice(lineEnd + 2, lineEnd + 2 + size);
    at = lineEnd + 2 + size + 2;
  }
  return body;
}

function check(bytes: Buffer): boolean {
  const read = readWithScute(bytes);
  if (read === undefined) return false;
  const text = JSON.stringify(bytes.toString('latin1'));
  const names = read.request.fields.filter((_, index) => index % 2 === 0).map((name) => name.toLowerCase());
  // llhttp takes what follows such a head for no request at all; what the application is sent has no Upgrade, or only that of a WebSocket.
  if (!names.includes('upgrade')) {
    const raw = readWithLlhttp(bytes.subarray(0, read.end));
    assert.deepEqual(raw, { messages: [read.request], problem: undefined }, text);
  }

  const seen = readWithLlhttp(Buffer.concat([read.forwarded, Buffer.from('GET /next HTTP/1.1\r\nHost: next\r\n\r\n')]));
  const [first, second] = seen.messages;
  assert.ok(first !== undefined, text);
  const seenNames = first.fields.filter((_, index) => index % 2 === 0);
  const folded = seenNames.map((name) => name.toLowerCase().replace(/[^a-z0-9]/g, '-'));
  assert.equal(folded.filter((name) => name === 'x-forwarded-client-cert').length, 1, text);
  assert.equal(folded.filter((name) => name === 'x-peer').length, 1, text);
  for (let index = 0; index < OURS.length; index += 2) {
    assert.equal(first.fields[seenNames.indexOf(OURS[index] ?? '') * 2 + 1], OURS[index + 1], text);
  }
  assert.deepEqual([first.method, first.target, first.body], [read.request.method, read.request.target, read.request.body], text);
  if (folded.includes('upgrade')) return true;
  // HTTP/1.0 and `Connection: close` end the connection, and llhttp then reads no further.
  if (folded.includes('connection')) return true;
  assert.equal(second?.target, '/next', text);
  assert.equal(seen.problem, undefined, text);
  return true;
}

/** A small generator of random numbers that gives the same ones each time (xorshift32). */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

const PIECES = [
  '\r\n', '\n', '\r', ' ', '\t', ':', ';', ',', '=', '"', '\0', '\x0b', '\x7f', '\x85', '\xa0', '0', '1', '5', 'a', 'F', '_', '-', '#', '%', '/', '*',
  '\r\n\r\n', '\r\n ', '0\r\n\r\n', 'chunked', 'Transfer-Encoding: chunked\r\n', 'Content-Length: 5\r\n', 'Content_Length: 1\r\n', 'Connection: close\r\n',
  'Host: b\r\n', 'X-Peer: f\r\n', 'x.peer: f\r\n', 'GET / HTTP/1.1\r\n', 'HTTP/1.0', 'Upgrade: websocket\r\n', 'Connection: upgrade\r\n', 'Connection: x-peer\r\n',
]; // prettier-ignore

function mutate(text: string, others: readonly string[], next: (below: number) => number): string {
  let mutated = text;
  for (let times = 1 + next(3); times > 0; times--) {
    const at = next(mutated.length + 1);
    const piece = PIECES[next(PIECES.length)] ?? '';
    switch (next(6)) {
      case 0:
        mutated = mutated.slice(0, at) + piece + mutated.slice(at);
        break;
      case 1:
        mutated = mutated.slice(0, at) + mutated.slice(at + 1 + next(3));
        break;
      case 2:
        mutated = mutated.slice(0, at) + piece + mutated.slice(at + piece.length);
        break;
      case 3:
        mutated = mutated.slice(0, at) + String.fromCharCode(next(256)) + mutated.slice(at + 1);
        break;
      case 4: {
        // A line more, or twice.
        const lines = mutated.split('\r\n');
        const from = next(lines.length);
        lines.splice(next(lines.length + 1), 0, lines[from] ?? '');
        mutated = lines.join('\r\n');
        break;
      }
      default: {
        const other = others[next(others.length)] ?? '';
        mutated = mutated.slice(0, at) + other.slice(next(other.length + 1));
      }
    }
  }
  return mutated;
}

test('what is good is read as llhttp reads it', () => {
  for (const request of GOOD) assert.equal(check(Buffer.from(request, 'latin1')), true, request);
});

test('whatever is accepted, llhttp accepts with the same fields and the same end', () => {
  const seeds = [
    ...GOOD,
    ...GOOD,
    ...GOOD,
    ...SMUGGLING.map(([, request]) => request),
    ...BAD_BODIES.map(([, request]) => request),
    ...MIXTURES.map(({ bytes }) => bytes),
  ];
  const next = random(Number(process.env['SCUTE_FUZZ_SEED'] ?? 20_261_123));
  const rounds = Number(process.env['SCUTE_FUZZ_ROUNDS'] ?? 20_000);
  let accepted = 0;
  for (let round = 0; round < rounds; round++) {
    const request = mutate(seeds[next(seeds.length)] ?? '', seeds, next);
    if (check(Buffer.from(request, 'latin1'))) accepted++;
  }
  // The mutations are near enough to the good ones to say something.
  assert.ok(accepted > rounds / 20, `${accepted} of ${rounds} were accepted`);
});
