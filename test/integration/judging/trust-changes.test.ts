// ghostunnel: client-/server-auto-reload-certificate, server-ca-bundle-reload, client-/server-rejects-invalid-san-or-ca, server-allow-all;
// and what it has no test for: CA removed with a live peer, federated bundle removed with a live peer, PermissionDenied mid-stream,
// default SVID changes identity, root rotation overlap
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { test, type TestContext } from 'node:test';
import type { DevDomain } from '../../../src/devdomain/dev-domain.ts';
import {
  API,
  presented,
  startExampleDomain,
  startInbound,
  startOutbound,
  startOutboundToApi,
  startPair,
  WEB,
} from '../../support/data-path.ts';
import { startDevDomain } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { startSidecar } from '../../support/sidecar.ts';
import { closed, dial, dialling, ping, startEcho, startTcpServer } from '../../support/tcp.ts';
import { outcome, tlsClient, tlsServer } from '../../support/tls-peer.ts';

test('a new root comes, signs, and the old one goes: connections under the new one never notice', async (t) => {
  const application = await startEcho(t);
  const { spiffe, inbound, outbound, address } = await startPair(t, application.address);
  const callThrough = async (): Promise<Socket> => {
    const caller = await dial(t, address);
    await ping(caller);
    return caller;
  };

  const old = await callThrough();
  await spiffe.prepareRoot('example.org');
  const during = await callThrough();
  await spiffe.activateRoot('example.org');
  for (const sidecar of [inbound, outbound]) {
    // First the bundle, then the SVIDs.
    await eventually(() => assert.equal(sidecar.log().filter(({ message }) => message === 'identity updated').length, 3));
  }
  const young = await callThrough();
  await Promise.all([ping(old), ping(during)]);
  const [oldEnd, duringEnd] = [closed(old), closed(during)];
  await spiffe.retireRoots('example.org');

  assert.deepEqual([await oldEnd, await duringEnd], ['ECONNRESET', 'ECONNRESET']);
  await ping(young);
  await ping(await callThrough());
  const reasons = [...inbound.log(), ...outbound.log()].flatMap((line) => line['close_reason'] ?? []);
  // Whichever of the two sidecars hears first closes; the other may see only that.
  assert.ok(reasons.includes('authority_removed'), JSON.stringify(reasons));
});

test('a peer whose authority is gone loses its connection and is not admitted again', async (t) => {
  const application = await startEcho(t);
  const { spiffe, sidecar, connect } = await startInbound(t, application.address);
  const client = await connect();
  await ping(client);
  const ended = closed(client);

  await spiffe.rotateRoot('example.org');
  await ping(client);
  await spiffe.retireRoots('example.org');

  assert.equal(await ended, 'ECONNRESET');
  assert.equal((await sidecar.connection())['close_reason'], 'authority_removed');
  assert.equal((await outcome(await connect())).text, '');
  assert.equal((await sidecar.connection((line) => line['verdict'] === 'deny'))['reason'], 'untrusted_chain');
});

test('a server whose authority is gone loses its connection and is not reached again', async (t) => {
  const { spiffe, sidecar, address } = await startOutboundToApi(t, (socket) => socket.pipe(socket));
  const caller = await dial(t, address);
  await ping(caller);
  const ended = closed(caller);

  await spiffe.rotateRoot('example.org');
  await spiffe.retireRoots('example.org');

  assert.equal(await ended, 'ECONNRESET');
  assert.equal((await sidecar.connection())['close_reason'], 'authority_removed');
  assert.equal(await closed(dialling(t, address)), 'ECONNRESET');
  assert.equal((await sidecar.connection((line) => line['verdict'] === 'deny'))['reason'], 'untrusted_chain');
});

test('a revoked peer loses its connection, with that reason', async (t) => {
  const application = await startEcho(t);
  const { spiffe, sidecar, address } = await startInbound(t, application.address);
  const svid = await spiffe.issue(WEB);
  const client = tlsClient(t, address, presented(svid));
  await ping(client);
  const ended = closed(client);

  await spiffe.revoke('example.org', svid.serial);

  assert.equal(await ended, 'ECONNRESET');
  assert.equal((await sidecar.connection())['close_reason'], 'revoked');
});

const PARTNER = 'spiffe://partner.test/caller';

function startFederation(t: TestContext): Promise<DevDomain> {
  return startDevDomain(
    t,
    { name: 'example.org', federatesWith: ['partner.test'], workloads: { api: [API], web: [WEB] } },
    { name: 'partner.test', federatesWith: ['example.org'] },
  );
}

test('a peer of a trust domain that is no longer federated with loses its connection; our own stay', async (t) => {
  const application = await startEcho(t);
  const spiffe = await startFederation(t);
  const { sidecar, address, connect } = await startInbound(t, application.address, { spiffe, listener: { allow: [WEB, PARTNER] } });
  const foreign = presented(await spiffe.issue(PARTNER));
  const [theirs, ours] = [tlsClient(t, address, foreign), await connect()];
  await Promise.all([ping(theirs), ping(ours)]);
  const ended = closed(theirs);

  await spiffe.setFederation('example.org', []);

  assert.equal(await ended, 'ECONNRESET');
  await ping(ours);
  const line = await sidecar.connection((found) => found['peer_id'] === PARTNER);
  assert.equal(line['close_reason'], 'authority_removed');
  await outcome(tlsClient(t, address, foreign));
  assert.equal((await sidecar.connection((found) => found['verdict'] === 'deny'))['reason'], 'unknown_trust_domain');

  await spiffe.setFederation('example.org', ['partner.test']);
  await eventually(async () => ping(tlsClient(t, address, foreign)).then(() => undefined));
});

test('when the identity is withdrawn, connections are closed and refused on both sides, and all heals when it is back', async (t) => {
  const application = await startEcho(t);
  const spiffe = await startExampleDomain(t);
  const { sidecar, address, connect } = await startInbound(t, application.address, { spiffe });
  const server = await tlsServer(t, presented(await spiffe.issue(API)), (socket) => socket.pipe(socket));
  const out = await startOutbound(t, server.address, { spiffe });
  const [client, caller] = [await connect(), await dial(t, out.address)];
  await Promise.all([ping(client), ping(caller)]);
  const ends = [closed(client), closed(caller)];

  await spiffe.withdraw('api');
  await spiffe.withdraw('web');

  assert.deepEqual(await Promise.all(ends), ['ECONNRESET', 'ECONNRESET']);
  for (const { sidecar: each, address: where } of [{ sidecar, address }, out]) {
    assert.equal((await each.connection())['close_reason'], 'identity_withdrawn');
    assert.equal(await closed(dialling(t, where)), 'ECONNRESET');
    assert.equal(await each.metric('scute_accept_refused_total', { reason: 'identity_not_ready' }), 1);
    assert.deepEqual(each.app.notReady(), ['identity']);
  }

  await spiffe.restore('api');
  await spiffe.restore('web');
  await Promise.all([sidecar.ready(), out.sidecar.ready()]);
  await ping(await connect());
  await ping(await dial(t, out.address));
});

test('when the default SVID becomes another identity, connections under the old one are closed and new ones are under the new one', async (t) => {
  const application = await startEcho(t);
  const spiffe = await startExampleDomain(t);
  const other = await startDevDomain(t, { name: 'example.org', workloads: { other: ['spiffe://example.org/renamed', API] } });
  const { sidecar, connect } = await startInbound(t, application.address, { spiffe });
  const client = await connect();
  await ping(client);
  const ended = closed(client);
  assert.equal(client.getPeerCertificate().subjectaltname, `URI:${API}`);

  // The agent now says something else, under another authority.
  const told = other.answers('other').x509Svids.get();
  assert.ok(told !== undefined);
  spiffe.answers('api').x509Svids.set(told);

  assert.equal(await ended, 'ECONNRESET');
  await sidecar.connection();
  const again = await connect();
  assert.equal(again.getPeerCertificate().subjectaltname, 'URI:spiffe://example.org/renamed');
});

test('an identity that is withdrawn in the middle of a handshake admits nobody', async (t) => {
  const application = await startEcho(t);
  const spiffe = await startExampleDomain(t);
  const other = await startDevDomain(t, { name: 'example.org', workloads: { other: ['spiffe://example.org/renamed'] } });
  const { sidecar, address, web } = await startInbound(t, application.address, { spiffe });
  // Passes the ClientHello on, and the rest only later.
  const { promise: held, resolve: hold } = Promise.withResolvers<() => void>();
  const relay = await startTcpServer(t, (socket) => {
    const relayTo = async (): Promise<void> => {
      const onward = await dial(t, address);
      onward.pipe(socket);
      onward.on('close', () => socket.destroy());
      socket.once('data', (hello: Buffer) => {
        onward.write(hello);
        socket.pause();
        hold(() => socket.pipe(onward));
      });
    };
    void relayTo();
  });
  const client = tlsClient(t, relay.address, web);
  const ended = outcome(client);
  const letGo = await held;

  const told = other.answers('other').x509Svids.get();
  const answer = spiffe.answers('api').x509Svids;
  const ours = answer.get();
  assert.ok(told?.kind === 'message' && ours?.kind === 'message');
  // The peer would still be trusted: only our own name is another.
  const authority = ours.message.svids[0]?.bundle ?? Buffer.alloc(0);
  const svids = told.message.svids.map((svid) => ({ ...svid, bundle: Buffer.concat([svid.bundle, authority]) }));
  answer.set({ kind: 'message', message: { ...told.message, svids } });
  await eventually(() => assert.equal(sidecar.log().filter(({ message }) => message === 'identity updated').length, 2));
  letGo();
  client.write('!');

  assert.equal((await ended).text, '');
  const line = await sidecar.connection();
  assert.deepEqual([line['verdict'], line['reason']], ['deny', 'identity_not_ready']);
  assert.equal(application.connections.size, 0);
});

test('of two SVIDs, each listener presents the one that its configuration names, by SPIFFE ID or by hint', async (t) => {
  const application = await startEcho(t);
  const spiffe = await startDevDomain(t, {
    name: 'example.org',
    workloads: {
      api: [
        { id: API, hint: 'internal' },
        { id: 'spiffe://example.org/api-outside', hint: 'external' },
      ],
    },
  });
  const listener = (name: string, identity?: object): object => ({
    name,
    listen: '127.0.0.1:0',
    to: application.address,
    allow: [WEB],
    ...(identity && { identity }),
  });
  const sidecar = await startSidecar(t, {
    workloadApi: { endpoint: spiffe.endpoint('api') },
    inbound: [
      listener('default'),
      listener('by-id', { id: 'spiffe://example.org/api-outside' }),
      listener('by-hint', { hint: 'external' }),
    ],
  });
  const web = presented(await spiffe.issue(WEB));
  const names: string[] = [];

  for (const name of ['default', 'by-id', 'by-hint']) {
    const client = tlsClient(t, sidecar.address(name), web);
    await ping(client);
    names.push(client.getPeerCertificate().subjectaltname ?? '');
    client.destroy();
  }

  assert.deepEqual(names, [`URI:${API}`, 'URI:spiffe://example.org/api-outside', 'URI:spiffe://example.org/api-outside']);
});

test('a listener whose SVID the agent does not give refuses, is named as not ready, and does not keep the others from serving', async (t) => {
  const application = await startEcho(t);
  const spiffe = await startExampleDomain(t);
  const listener = { listen: '127.0.0.1:0', to: application.address, allow: [WEB] };
  const sidecar = await startSidecar(
    t,
    {
      workloadApi: { endpoint: spiffe.endpoint('api') },
      inbound: [
        { name: 'good', ...listener },
        { name: 'bad', ...listener, identity: { hint: 'no such hint' } },
      ],
    },
    { unready: true },
  );
  await eventually(() => assert.deepEqual(sidecar.app.notReady(), ['identity']));
  const web = presented(await spiffe.issue(WEB));

  assert.equal(await closed(dialling(t, sidecar.address('bad'))), 'ECONNRESET');
  await eventually(() => ping(tlsClient(t, sidecar.address('good'), web)));

  const answer = await fetch(`http://${sidecar.address('metrics')}/readyz?verbose`);
  assert.equal(answer.status, 503);
  assert.match(await answer.text(), /bad: the Workload API gives no SVID with the hint "no such hint"/);
});

test('twenty transfers go through ten rotations and one change of the root without an error', async (t) => {
  const application = await startEcho(t);
  const { spiffe, inbound, outbound, address } = await startPair(t, application.address);
  const block = randomBytes(64 * 1024);
  const ROUNDS = 60;
  const expected = createHash('sha256');
  for (let i = 0; i < ROUNDS; i++) expected.update(block);
  const hash = expected.digest('hex');
  let stop = false;

  const rotating = (async () => {
    for (let i = 0; i < 10; i++) {
      await spiffe.rotate();
      if (i === 5) await spiffe.rotateRoot('example.org');
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    stop = true;
  })();
  const streams = Array.from({ length: 20 }, async () => {
    const caller = await dial(t, address);
    const heard = createHash('sha256');
    caller.on('data', (chunk: Buffer) => heard.update(chunk));
    const ended = once(caller, 'end');
    for (let i = 0; i < ROUNDS; i++) {
      if (!caller.write(block)) await once(caller, 'drain');
      if (!stop) await new Promise((resolve) => setTimeout(resolve, 20));
    }
    caller.end();
    await ended;
    return heard.digest('hex');
  });

  assert.deepEqual(new Set(await Promise.all(streams)), new Set([hash]));
  await rotating;
  for (const sidecar of [inbound, outbound]) {
    await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_close_total', { reason: 'finished' }), 20));
    assert.equal(await sidecar.metric('scute_tcp_close_total'), 20);
  }
});

test('a peer of the right name from another authority is refused, in both directions', async (t) => {
  const application = await startEcho(t);
  const impostors = await startExampleDomain(t);
  const { sidecar, address } = await startInbound(t, application.address);
  const server = await tlsServer(t, presented(await impostors.issue(API)), (socket) => socket.pipe(socket));
  const out = await startOutbound(t, server.address, { spiffe: await startExampleDomain(t) });

  assert.equal((await outcome(tlsClient(t, address, presented(await impostors.issue(WEB))))).text, '');
  assert.equal(await closed(dialling(t, out.address)), 'ECONNRESET');

  for (const each of [sidecar, out.sidecar]) {
    const line = await each.connection();
    assert.deepEqual([line['verdict'], line['reason'], line['peer_id']], ['deny', 'untrusted_chain', undefined]);
  }
  assert.equal(application.connections.size, 0);
});
