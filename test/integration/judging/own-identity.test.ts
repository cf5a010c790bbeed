// What ghostunnel has no test for: SVID expiry while streaming, clock jump forward and back, agent gone for longer than SVID life
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { API, presented, startInbound, startOutbound, WEB } from '../../support/data-path.ts';
import { startDevDomainWith } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { closed, dialling, ping, startEcho } from '../../support/tcp.ts';
import { outcome, tlsClient } from '../../support/tls-peer.ts';

const HOUR_MS = 3_600_000;

/**
 * A sidecar whose clock moves by hand, with an SVID of one hour. What the agent gives next lives for ten: the TLS library has
 * a clock of its own, which nobody moves, so that whatever is to be accepted must be valid now and then.
 */
async function stage(t: TestContext) {
  const clock = new FakeClock();
  const spiffe = await startDevDomainWith(t, { clock: new FakeClock() }, [
    { name: 'example.org', svidLife: '10h', workloads: { web: [WEB], api: [API] } },
  ]);
  const short = await spiffe.issue(API, { lifeMs: HOUR_MS });
  const answer = spiffe.answers('api').x509Svids;
  const given = answer.get();
  assert.ok(given?.kind === 'message');
  const svids = given.message.svids.map((svid) => ({
    ...svid,
    x509Svid: Buffer.concat(short.chainDer),
    x509SvidKey: short.key.export({ type: 'pkcs8', format: 'der' }),
  }));
  answer.set({ kind: 'message', message: { ...given.message, svids } });
  const application = await startEcho(t);
  const stage = await startInbound(t, application.address, { spiffe, sidecar: { clock }, listener: { limits: { idleTimeout: 'off' } } });
  return { ...stage, clock };
}

/** Moves on in steps in which the streams of the Workload API get their turn. */
async function pass(clock: FakeClock, ms: number): Promise<void> {
  for (let left = ms; left > 0; left -= 60_000) {
    clock.advance(Math.min(left, 60_000));
    await new Promise(setImmediate);
  }
}

test('when our SVID expires, listeners refuse and readiness says why; open connections go on; all heals with a new one', async (t) => {
  const { spiffe, clock, sidecar, address, connect } = await stage(t);
  const open = await connect();
  await ping(open);

  clock.advance(HOUR_MS + 1000);

  assert.deepEqual(sidecar.app.notReady(), ['identity_valid']);
  assert.equal(await closed(dialling(t, address)), 'ECONNRESET');
  assert.equal(await sidecar.metric('scute_accept_refused_total', { reason: 'identity_not_ready' }), 1);
  const answer = await fetch(`http://${sidecar.address('metrics')}/readyz?verbose`);
  assert.equal(answer.status, 503);
  assert.match(await answer.text(), new RegExp(`in: our SVID ${API} expired at`));
  await ping(open);

  await spiffe.rotate();
  await sidecar.ready();
  const again = tlsClient(t, address, presented(await spiffe.issue(WEB)));
  await ping(again);
  await ping(open);
});

test('an SVID of a peer that expires after the handshake does not end its connection, but admits nobody any more', async (t) => {
  const { spiffe, clock, sidecar, address } = await stage(t);
  const svid = await spiffe.issue(WEB, { lifeMs: 60_000 });
  const open = tlsClient(t, address, presented(svid));
  await ping(open);

  clock.advance(120_000);
  await spiffe.rotate();
  await eventually(() => assert.equal(sidecar.log().filter(({ message }) => message === 'identity updated').length, 2));

  assert.equal((await outcome(tlsClient(t, address, presented(svid)))).text, '');
  await ping(open);
  assert.equal((await sidecar.connection())['reason'], 'expired');
  assert.equal(await sidecar.metric('scute_tcp_open_connections'), 1);
});

test('a jump of the clock beyond the end of our SVID closes nothing, refuses new connections, and a jump back heals', async (t) => {
  const { clock, sidecar, address, connect } = await stage(t);
  const open = await connect();
  await ping(open);

  clock.jump(2 * HOUR_MS);
  assert.deepEqual(sidecar.app.notReady(), ['identity_valid']);
  assert.equal(await closed(dialling(t, address)), 'ECONNRESET');
  await ping(open);

  clock.jump(-2 * HOUR_MS);
  assert.deepEqual(sidecar.app.notReady(), []);
  await ping(await connect());
  await ping(open);
});

test('a jump of the clock to before our SVID begins refuses new connections too', async (t) => {
  const { clock, sidecar, address } = await stage(t);

  clock.jump(-24 * HOUR_MS);

  assert.deepEqual(sidecar.app.notReady(), ['identity_valid']);
  assert.equal(await closed(dialling(t, address)), 'ECONNRESET');
});

test('an agent that has nothing new for longer than the life of our SVID: connections go on, and all heals when it has', async (t) => {
  const { spiffe, clock, sidecar, address, connect } = await stage(t);
  const open = await connect();
  await ping(open);
  spiffe.endStreams('api');

  await pass(clock, HOUR_MS + 60_000);
  assert.deepEqual(sidecar.app.notReady(), ['identity_valid']);
  await ping(open);

  await spiffe.rotate();
  await eventually(async () => {
    await pass(clock, 60_000);
    assert.deepEqual(sidecar.app.notReady(), []);
  });
  await ping(tlsClient(t, address, presented(await spiffe.issue(WEB))));
  await ping(open);
});

test('an outbound listener with an expired SVID refuses before it connects to anybody', async (t) => {
  const clock = new FakeClock();
  const spiffe = await startDevDomainWith(t, { clock: new FakeClock() }, [{ name: 'example.org', workloads: { web: [WEB] } }]);
  const server = await startEcho(t);
  const { sidecar, address } = await startOutbound(t, server.address, { spiffe, sidecar: { clock } });

  clock.advance(HOUR_MS + 1000);

  assert.equal(await closed(dialling(t, address)), 'ECONNRESET');
  assert.equal(await sidecar.metric('scute_accept_refused_total', { reason: 'identity_not_ready' }), 1);
  assert.equal(server.connections.size, 0);
});

test('before the first SVID, listeners are bound and refuse; then they serve', async (t) => {
  const spiffe = await startDevDomainWith(t, {}, [{ name: 'example.org', workloads: { api: [API] } }]);
  await spiffe.withdraw('api');
  const application = await startEcho(t);
  const { sidecar, address, connect } = await startInbound(t, application.address, { spiffe, sidecar: { unready: true } });

  assert.equal(await closed(dialling(t, address)), 'ECONNRESET');
  await spiffe.restore('api');
  await sidecar.ready();

  await ping(await connect());
});
