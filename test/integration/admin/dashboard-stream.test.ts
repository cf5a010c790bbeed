import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { test, type TestContext } from 'node:test';
import type { StreamEvent } from '../../../src/admin/api-types.ts';
import { formatAddress, type Address } from '../../../src/config/units.ts';
import { createAdminParts, LOOPBACK, startService } from '../../support/admin/admin.ts';
import { eventually } from '../../support/eventually.ts';
import { ask } from '../../support/http/http.ts';

const STREAM = '/api/v1/stream';
const MOST_STREAMS = 16;

interface OpenStream {
  readonly socket: Socket;
  readonly head: () => string;
  readonly events: () => readonly StreamEvent[];
  /** It was ended by the other side. */
  readonly ended: Promise<unknown>;
}

/** A page that listens, byte by byte: what it does not read, stays with the server. */
async function listen(t: TestContext, address: Address, headers = ''): Promise<OpenStream> {
  assert.ok(address.kind === 'tcp');
  const socket = connect(address.port, address.host);
  t.after(() => socket.destroy());
  socket.on('error', () => {});
  let text = '';
  socket.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
  const ended = once(socket, 'close');
  socket.write(`GET ${STREAM} HTTP/1.1\r\nHost: ${formatAddress(address)}\r\n${headers}\r\n`);
  const stream: OpenStream = {
    socket,
    head: () => text.split('\r\n\r\n', 1)[0] ?? '',
    events: () => [...text.matchAll(/^data: (.*)$/gm)].map(([, data = '']) => JSON.parse(data) as StreamEvent),
    ended,
  };
  await eventually(() => Promise.resolve(assert.ok(text.includes('\r\n\r\n'))));
  return stream;
}

async function startAdmin(t: TestContext) {
  const parts = await createAdminParts();
  const service = parts.adminServer();
  return { ...parts, service, address: await startService(t, service) };
}

const told = (stream: OpenStream, count: number): Promise<void> =>
  eventually(() => Promise.resolve(assert.equal(stream.events().length, count)));

test('a stream names every topic at first, then those alone that change, and beats when nothing does', async (t) => {
  const { address, clock, readiness } = await startAdmin(t);
  const stream = await listen(t, address);

  await told(stream, 1);
  assert.match(stream.head(), /^HTTP\/1\.1 200 .*\r\ncontent-type: text\/event-stream\r\n/is);
  assert.deepEqual(Object.keys(stream.events()[0]?.revisions ?? {}).toSorted(), [
    'configuration',
    'identity',
    'peers',
    'readiness',
    'refusals',
    'sds',
    'traffic',
    'trust',
  ]);

  readiness.register('identity', () => ({ ok: false, detail: 'none' }));
  clock.advance(500);
  await told(stream, 2);
  assert.deepEqual(stream.events()[1]?.revisions, { readiness: (stream.events()[0]?.revisions.readiness ?? 0) + 1 });

  for (let half = 0; half < 9; half++) clock.advance(500);
  assert.equal(stream.events().length, 2);
  clock.advance(500);
  await told(stream, 3);
  assert.deepEqual(stream.events()[2]?.revisions, {});
});

test('under traffic a page is told each second, and of all else at once', async (t) => {
  const { status, metrics, clock, readiness, adminServer } = await createAdminParts();
  const listener = { name: 'in', direction: 'inbound' } as const;
  const { counters } = metrics.listener(listener);
  const to = { kind: 'tcp', host: '127.0.0.1', port: 1 } as const;
  const listeners = () => [{ listener, address: to, to, identity: { by: 'default' } as const, counters }];
  const address = await startService(t, adminServer(LOOPBACK, { ...status, listeners }));
  const stream = await listen(t, address);
  await told(stream, 1);

  for (let half = 0; half < 7; half++) {
    counters.downstreamReadBytes += 1;
    clock.advance(500);
  }
  await told(stream, 5);
  readiness.register('identity', () => ({ ok: false, detail: 'none' }));
  clock.advance(500);
  await told(stream, 6);

  const topics = stream.events().map(({ revisions }) => Object.keys(revisions).join());
  assert.deepEqual(topics.slice(1), ['traffic', 'traffic', 'traffic', 'traffic', 'readiness']);
});

test('without a stream nothing is looked at, and the last one takes its timer with it', async (t) => {
  const { address, clock } = await startAdmin(t);
  const before = clock.armed;

  const one = await listen(t, address);
  const other = await listen(t, address);
  await told(other, 1);
  assert.equal(clock.armed, before + 1);

  one.socket.destroy();
  other.socket.destroy();
  await eventually(() => Promise.resolve(assert.equal(clock.armed, before)));
});

test('who does not read is sent no backlog: when it reads again, it gets the newest state once', async (t) => {
  const { address, clock, readiness } = await startAdmin(t);
  let detail = 0;
  readiness.register('busy', () => ({ ok: true, detail: String(detail) }));
  const stream = await listen(t, address);
  await told(stream, 1);
  stream.socket.pause();

  // Far more than the kernel and the stream would hold, were each change kept.
  const changes = 100_000;
  for (let change = 0; change < changes; change++) {
    detail += 1;
    clock.advance(500);
    if (change % 1000 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  stream.socket.resume();

  await eventually(() => Promise.resolve(assert.equal(stream.events().at(-1)?.revisions.readiness, changes + 1)));
  assert.ok(stream.events().length < changes, `${stream.events().length} events`);
});

test('of a thousand streams sixteen are open, the others are refused and counted, and probes are answered', async (t) => {
  const { address, clock, metrics, service } = await startAdmin(t);
  const streams: OpenStream[] = [];
  for (let opened = 0; opened < MOST_STREAMS; opened++) streams.push(await listen(t, address));

  for (let more = 0; more < 1000 - MOST_STREAMS; more++) {
    const { status, body } = await ask(address, STREAM);
    assert.equal(status, 503);
    assert.equal((JSON.parse(body) as { error: string }).error, 'too_many_streams');
    // Beats: what is silent for 15 seconds is closed, and the machine may be busy.
    if (more % 50 === 0) clock.advance(5000);
  }
  assert.equal(metrics.statusRefusals.admin.too_many_streams, 1000 - MOST_STREAMS);
  assert.equal((await ask(address, '/livez')).status, 200);

  // Strangers that only connect push each other out, and no stream.
  assert.ok(address.kind === 'tcp');
  for (let idle = 0; idle < 200; idle++) {
    const socket = connect(address.port, address.host);
    t.after(() => socket.destroy());
    socket.on('error', () => {});
    await once(socket, 'connect');
  }
  assert.equal((await ask(address, '/livez')).status, 200);
  assert.ok(service.connections() <= 128, `${service.connections()} connections`);
  assert.ok(streams.every(({ socket }) => !socket.closed));

  streams[0]?.socket.destroy();
  await eventually(async () => assert.match((await listen(t, address)).head(), /^HTTP\/1\.1 200 /));
});

test('a stream is for pages of our own, with no question after it', async (t) => {
  const { address, metrics } = await startAdmin(t);

  for (const [header, reason] of [
    ['Origin: http://attacker.example', 'foreign_origin'],
    ['Sec-Fetch-Site: cross-site', 'cross_site'],
  ] as const) {
    const refused = await listen(t, address, `${header}\r\n`);
    assert.match(refused.head(), /^HTTP\/1\.1 403 /);
    assert.equal(metrics.statusRefusals.admin[reason], 1);
  }
  const head = await ask(address, STREAM, { method: 'HEAD' });
  assert.deepEqual([head.status, head.headers['content-type'], head.body], [200, 'text/event-stream', '']);
  assert.equal((await ask(address, `${STREAM}?since=1`)).status, 400);

  const stream = await listen(t, address);
  stream.socket.write('GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n');
  await stream.ended;
});

test('one connection holds one stream at most, however many it asks for in one breath', async (t) => {
  const { address, metrics, service } = await startAdmin(t);
  assert.ok(address.kind === 'tcp');
  const greedy = connect(address.port, address.host).on('error', () => undefined);
  t.after(() => greedy.destroy());
  greedy.write(`GET ${STREAM} HTTP/1.1\r\nHost: localhost\r\n\r\n`.repeat(MOST_STREAMS + 1));
  greedy.resume();
  await once(greedy, 'close');

  assert.equal(metrics.statusRefusals.admin.too_many_streams, 0);
  await eventually(() => Promise.resolve(assert.equal(service.connections(), 0)));
  assert.match((await listen(t, address)).head(), /^HTTP\/1\.1 200 /);
});

test('an open page does not delay a stop, whether it reads or not', async (t) => {
  const { address, service, clock, readiness } = await startAdmin(t);
  let detail = 0;
  readiness.register('busy', () => ({ ok: true, detail: String(detail) }));
  const reading = await listen(t, address);
  const deaf = await listen(t, address);
  deaf.socket.pause();
  for (let change = 0; change < 50_000; change++) {
    detail += 1;
    clock.advance(500);
    if (change % 1000 === 0) await new Promise((resolve) => setImmediate(resolve));
  }

  // No deadline: it has to end by itself.
  await service.stop(new AbortController().signal);

  await reading.ended;
  await eventually(() => Promise.resolve(assert.equal(service.connections(), 0)));
});
