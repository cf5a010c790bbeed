/** What comes to an outbound listener before the first SVID: applications start together with their sidecar. */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import type { TLSSocket } from 'node:tls';
import { status } from '@grpc/grpc-js';
import { API, WEB } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { wire, type Wire } from '../../support/http/http-stage.ts';
import { createTestAuthority } from '../../support/pki/pki.ts';
import { startSidecar, type Sidecar } from '../../support/sidecar.ts';
import { closed, dial, dialling } from '../../support/tcp.ts';
import { tlsServer } from '../../support/tls-peer.ts';
import { FakeWorkloadApi, svidEntry } from '../../support/workload-api.ts';

const authority = createTestAuthority();
const entry = svidEntry(authority, authority.issue({ id: WEB }), WEB);
const REQUEST = 'GET / HTTP/1.1\r\nHost: api\r\n\r\n';
const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const HTTP = { protocol: 'http' };

interface Stage {
  readonly api: FakeWorkloadApi;
  readonly clock: FakeClock;
  readonly sidecar: Sidecar;
  /** A client of the outbound listener, connected. */
  readonly client: () => Promise<Wire>;
  /** One that may be reset before it knows that it is connected. */
  readonly refusedClient: () => Wire;
  readonly reload: (listener: object) => Promise<void>;
}

/** A sidecar that has been told nothing yet, before a server that answers each request, or echoes what is none. */
async function startEarly(t: TestContext, listener: object): Promise<Stage> {
  const api = await FakeWorkloadApi.start();
  t.after(() => api[Symbol.asyncDispose]());
  const { chainPem, keyPem } = authority.issue({ id: API });
  const serve = (socket: TLSSocket): void => {
    socket.on('data', (chunk: Buffer) => socket.write(chunk.includes('HTTP/1.1') ? OK : chunk));
    socket.on('end', () => socket.end());
  };
  const server = await tlsServer(t, { cert: chainPem, key: keyPem }, serve);
  const clock = new FakeClock();
  const config = (more: object): object => ({
    workloadApi: { endpoint: api.endpoint },
    outbound: [{ name: 'out', listen: '127.0.0.1:0', to: server.address, expect: [API], ...listener, ...more }],
  });
  const sidecar = await startSidecar(t, config({}), { unready: true, clock });
  return {
    api,
    clock,
    sidecar,
    client: async () => wire(await dial(t, sidecar.address('out'))),
    refusedClient: () => wire(dialling(t, sidecar.address('out'))),
    reload: (more) => sidecar.reload(config(more)),
  };
}

async function heard(sidecar: Sidecar, bytes: number): Promise<void> {
  await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_read_bytes_total', { peer: 'src' }), bytes));
}

async function waiting(sidecar: Sidecar, count: number): Promise<void> {
  await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_waiting_connections'), count));
}

async function waits(sidecar: Sidecar): Promise<Readonly<Record<string, number>>> {
  const results = ['came', 'timeout', 'limit', 'left', 'withdrawn', 'stopping'];
  const counts = await Promise.all(results.map((result) => sidecar.metric('scute_identity_waits_total', { result })));
  return Object.fromEntries(results.map((result, index) => [result, counts[index] ?? 0]).filter(([, count]) => count !== 0));
}

const ACCEPTED = { 'over HTTP': [HTTP, REQUEST, 'ok'], 'of bytes': [{}, 'hello', 'hello'] } as const;

for (const [what, [protocol, said, answer]] of Object.entries(ACCEPTED)) {
  test(`with an agent that comes after 5 seconds no first connection ${what} fails, however short handshakes must be`, async (t) => {
    const listener = { ...protocol, limits: { handshakeTimeout: '1s', connectTimeout: '1s', maxHandshakes: 2 } };
    const { api, clock, sidecar, client } = await startEarly(t, listener);
    const clients = await Promise.all(Array.from({ length: 50 }, client));
    for (const { socket } of clients) socket.write(said);
    if (protocol === HTTP) await heard(sidecar, 50 * said.length);
    else await waiting(sidecar, 50);

    clock.advance(5000);
    api.setX509([entry]);

    for (const each of clients) await each.until(answer);
    assert.deepEqual(await waits(sidecar), { came: 50 });
    assert.equal(await sidecar.metric('scute_accept_refused_total'), 0);
    assert.equal(await sidecar.metric('scute_tcp_waiting_connections'), 0);
  });

  test(`an agent that does not know us yet does not end the wait of connections ${what}`, async (t) => {
    const { api, clock, sidecar, client } = await startEarly(t, protocol);
    api.failWith('FetchX509SVID', status.PERMISSION_DENIED, { times: 1 });
    await eventually(() => assert.ok(sidecar.log().some(({ message }) => message === 'no identity')));
    const early = await client();
    early.socket.write(said);
    if (protocol === HTTP) await heard(sidecar, said.length);
    else await waiting(sidecar, 1);

    api.setX509([entry]);
    // Until it asks again, which is not what is waited for here: the request is.
    await eventually(async () => {
      clock.advance(100);
      assert.deepEqual(await waits(sidecar), { came: 1 });
    });
    await early.until(answer);
  });

  test(`nothing ${what} waits once there was an identity and it was withdrawn`, async (t) => {
    const { api, sidecar, refusedClient } = await startEarly(t, protocol);
    api.setX509([entry]);
    await sidecar.ready();
    api.failWith('FetchX509SVID', status.PERMISSION_DENIED);
    await eventually(() => assert.deepEqual(sidecar.app.notReady(), ['identity']));

    // The clock stands still: who waited would wait for ever.
    const late = refusedClient();
    late.socket.write(said);
    const { text } = await late.over();
    assert.match(text, protocol === HTTP ? /^HTTP\/1\.1 503 [^]*scute: there is no SVID to present\n$/ : /^$/);
    assert.doesNotMatch(text, /Retry-After/);
    assert.deepEqual(await waits(sidecar), {});
  });

  test(`an SVID that is not the one that the listener presents does not end the wait of connections ${what}; that none is left does`, async (t) => {
    const { api, sidecar, client } = await startEarly(t, { ...protocol, identity: { hint: 'database' } });
    const early = await client();
    early.socket.write(said);
    if (protocol === HTTP) await heard(sidecar, said.length);
    else await waiting(sidecar, 1);
    api.setX509([entry]);
    await eventually(async () => assert.equal(await sidecar.metric('scute_identity_generation'), 1));
    assert.deepEqual(await waits(sidecar), {});

    api.failWith('FetchX509SVID', status.PERMISSION_DENIED);

    const { text } = await early.over();
    assert.match(text, protocol === HTTP ? /^HTTP\/1\.1 503 / : /^$/);
    assert.deepEqual(await waits(sidecar), { withdrawn: 1 });
  });
}

test('a request for which no identity comes in time is a 503 that says when to ask again; not a millisecond before', async (t) => {
  const { clock, sidecar, client } = await startEarly(t, { ...HTTP, identityWait: '3s' });
  const early = await client();
  early.socket.write(REQUEST);
  await heard(sidecar, REQUEST.length);

  clock.advance(2999);
  assert.deepEqual(await waits(sidecar), {});
  clock.advance(1);

  const { text, error } = await early.over();
  assert.match(text, /^HTTP\/1\.1 503 Service Unavailable\r\n[^]*\r\nRetry-After: 1\r\n[^]*scute: there is no SVID to present yet\n$/);
  assert.equal(error, undefined);
  assert.deepEqual(await waits(sidecar), { timeout: 1 });
  const [line] = sidecar.log().filter(({ message }) => message === 'request finished');
  assert.deepEqual([line?.['result'], line?.['status'], line?.['duration_ms']], ['identity_not_ready', 503, 3000]);
});

test('a connection of bytes for which no identity comes in time is reset, and said to be for that', async (t) => {
  const { clock, sidecar, client } = await startEarly(t, { identityWait: '3s' });
  const early = await client();
  early.socket.write('hello');
  await waiting(sidecar, 1);

  clock.advance(3000);

  assert.equal(await closed(early.socket), 'ECONNRESET');
  assert.equal(await sidecar.metric('scute_accept_refused_total', { reason: 'identity_not_ready' }), 1);
  assert.equal(await sidecar.metric('scute_file_descriptors', { use: 'outbound' }), 0);
  assert.deepEqual(await waits(sidecar), { timeout: 1 });
});

test('identityWait of no time is a refusal at once, and a reload gives those that come later more', async (t) => {
  const { api, sidecar, client, reload } = await startEarly(t, { ...HTTP, identityWait: '0s' });
  const refused = await client();
  refused.socket.write(REQUEST);
  assert.match((await refused.over()).text, /^HTTP\/1\.1 503 [^]*Retry-After: 1\r\n/);

  await reload({ identityWait: '10m' });
  const [line] = sidecar.log().filter(({ message }) => message === 'configuration reloaded');
  assert.deepEqual(line?.['differences'], ['outbound out: identityWait 0s to 10m']);
  const early = await client();
  early.socket.write(REQUEST);
  await heard(sidecar, 2 * REQUEST.length);
  api.setX509([entry]);
  await early.until('ok');
});

test('as many wait as maxWaiting says: further connections are reset at once, and further requests a 503', async (t) => {
  const limits = { maxWaiting: 3 };
  const bytes = await startEarly(t, { limits });
  const held = await Promise.all(Array.from({ length: 3 }, bytes.client));
  await waiting(bytes.sidecar, 3);
  assert.equal(await closed(bytes.refusedClient().socket), 'ECONNRESET');
  assert.equal(await bytes.sidecar.metric('scute_accept_refused_total', { reason: 'waiting_limit' }), 1);
  assert.deepEqual(await waits(bytes.sidecar), { limit: 1 });
  // Who leaves makes room.
  held[0]?.socket.resetAndDestroy();
  await waiting(bytes.sidecar, 2);
  assert.deepEqual(await waits(bytes.sidecar), { limit: 1, left: 1 });
  const next = await bytes.client();
  await waiting(bytes.sidecar, 3);
  bytes.api.setX509([entry]);
  next.socket.write('hello');
  await next.until('hello');

  const requests = await startEarly(t, { ...HTTP, limits });
  const asking = await Promise.all(Array.from({ length: 3 }, requests.client));
  for (const { socket } of asking) socket.write(REQUEST);
  await heard(requests.sidecar, 3 * REQUEST.length);
  const fourth = await requests.client();
  fourth.socket.write(REQUEST);
  assert.match((await fourth.over()).text, /^HTTP\/1\.1 503 [^]*Retry-After: 1\r\n/);
  asking[0]?.socket.resetAndDestroy();
  await eventually(async () => assert.deepEqual(await waits(requests.sidecar), { limit: 1, left: 1 }));
});

test('a client that has said all and waits for its answer is served', async (t) => {
  const { api, sidecar, client } = await startEarly(t, {});
  const early = await client();
  early.socket.end('hello');
  await waiting(sidecar, 1);
  api.setX509([entry]);

  const { text, error } = await early.over();
  assert.deepEqual([text, error], ['hello', undefined]);
  assert.equal(await sidecar.metric('scute_tcp_waiting_bytes', { direction: 'outbound' }), 0);
});

test('what waits when Scute stops is refused, if it is bytes; a request is under way, and cut at the end of the drain', async (t) => {
  const { sidecar, client } = await startEarly(t, {});
  const early = await client();
  await waiting(sidecar, 1);
  const stopping = new AbortController();
  const stopped = sidecar.stop(stopping.signal);
  assert.equal(await closed(early.socket), 'ECONNRESET');
  assert.equal(await stopped, 0);
  assert.ok(sidecar.log().some(({ reason }) => reason === 'draining'));

  const http = await startEarly(t, HTTP);
  const asking = await http.client();
  asking.socket.write(REQUEST);
  await heard(http.sidecar, REQUEST.length);
  const deadline = new AbortController();
  const forced = http.sidecar.stop(deadline.signal);
  deadline.abort();
  assert.equal(await closed(asking.socket), 'ECONNRESET');
  assert.equal(await forced, 1);
});
