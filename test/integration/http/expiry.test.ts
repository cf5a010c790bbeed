import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { API, presented, startOutbound, WEB } from '../../support/data-path.ts';
import { startDevDomainWith } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { send, startHttpInbound, startRawApplication, wire } from '../../support/http/http-stage.ts';
import { dial } from '../../support/tcp.ts';
import { tlsClient, tlsServer } from '../../support/tls-peer.ts';

const HOUR_MS = 3_600_000;
const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const LAST = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok';
const GET = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n';

/** A sidecar whose clock moves by hand, with SVIDs of ten hours, before an application that answers what ends with `asked`. */
async function stage(t: TestContext, asked = '\r\n\r\n') {
  const clock = new FakeClock();
  const spiffe = await startDevDomainWith(t, { clock: new FakeClock() }, [
    { name: 'example.org', svidLife: '10h', workloads: { web: [WEB], api: [API] } },
  ]);
  const application = await startRawApplication(t, (received) => (received.endsWith(asked) ? OK : undefined));
  const inbound = await startHttpInbound(t, application.address, {
    spiffe,
    sidecar: { clock },
    listener: { limits: { idleTimeout: 'off' } },
    http: { responseTimeout: 'off', minBodyRate: 'off' },
  });
  const short = presented(await spiffe.issue(WEB, { lifeMs: HOUR_MS }));
  return { ...inbound, clock, short, application };
}

test("when the peer's SVID expires, its next response is the last of the connection, and says so", async (t) => {
  const { address, clock, short, sidecar } = await stage(t);
  const line = wire(tlsClient(t, address, short));
  line.socket.write(GET);
  await line.until('ok');

  clock.advance(HOUR_MS + 2000);
  line.socket.write(GET);

  assert.deepEqual(await line.over(), { text: OK + LAST, error: undefined });
  assert.equal((await sidecar.connection())['close_reason'], 'peer_svid_expired');
});

test("a connection without a request ends soon after the peer's SVID, and one of another peer goes on", async (t) => {
  const stageOf = await stage(t);
  const { address, clock, short, sidecar } = stageOf;
  const line = wire(tlsClient(t, address, short));
  line.socket.write(GET);
  await line.until('ok');
  const other = await send(stageOf, GET);
  await other.until('ok');

  clock.advance(HOUR_MS + 10_000);

  assert.deepEqual(await line.over(), { text: OK, error: undefined });
  assert.equal(await sidecar.metric('scute_connections_drained_total', { reason: 'peer_svid_expired' }), 1);
  other.socket.write(GET);
  await eventually(() => assert.equal(other.text(), OK + OK));
});

test('a request that has come when the connection is about to end is answered, though it was not read yet', async (t) => {
  const { address, clock, short, sidecar } = await stage(t);
  const line = wire(tlsClient(t, address, short));
  line.socket.write(GET);
  await line.until('ok');
  clock.advance(HOUR_MS + 2000);

  // All of it is in the kernel before anything is read, as after a moment in which the machine was busy.
  line.socket.write(GET);
  clock.advance(5000);

  assert.deepEqual(await line.over(), { text: OK + LAST, error: undefined });
  assert.equal((await sidecar.connection())['close_reason'], 'peer_svid_expired');
});

test('a request that is under way when an SVID expires is answered whole', async (t) => {
  const { address, clock, short, application } = await stage(t, '!');
  const line = wire(tlsClient(t, address, short));
  line.socket.write('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n');
  await eventually(() => assert.equal(application.connections(), 1));

  clock.advance(HOUR_MS + 2000);
  line.socket.write('!');

  assert.equal((await line.over()).text, LAST);
});

test('whose response had begun when an SVID expires, and could not say that it is the last, is told with the next one', async (t) => {
  const { address, clock, short } = await stage(t);
  const line = wire(tlsClient(t, address, short));
  line.socket.write('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n');
  await line.until('ok');

  clock.advance(HOUR_MS + 2000);
  line.socket.write('!');
  line.socket.write(GET);

  assert.deepEqual(await line.over(), { text: OK + LAST, error: undefined });
});

test("when the server's SVID expires, the connection to it is made anew, and the application's goes on", async (t) => {
  const clock = new FakeClock();
  const spiffe = await startDevDomainWith(t, { clock: new FakeClock() }, [
    { name: 'example.org', svidLife: '10h', workloads: { web: [WEB], api: [API] } },
  ]);
  const server = await tlsServer(t, presented(await spiffe.issue(API, { lifeMs: HOUR_MS })), (socket) => {
    socket.on('data', () => socket.write(OK));
    socket.on('end', () => socket.end());
  });
  const { address, sidecar } = await startOutbound(t, server.address, {
    spiffe,
    sidecar: { clock },
    listener: { protocol: 'http', limits: { idleTimeout: 'off' } },
  });
  const line = wire(await dial(t, address));
  line.socket.write(GET);
  await line.until('ok');

  clock.advance(HOUR_MS + 2000);
  line.socket.write(GET);

  // By our clock the server has nothing valid to show any more.
  await line.until(/ 502 [\s\S]*the server is not who it must be: expired\n$/);
  assert.equal(await sidecar.metric('scute_tls_handshakes_total', { reason: 'ok' }), 1);
  assert.equal(await sidecar.metric('scute_tls_handshakes_total', { reason: 'expired' }), 1);
});
