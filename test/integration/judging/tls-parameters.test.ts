// ghostunnel: server-keystore-pem-{rsa,ed25519}, server-max-tls-version; architecture.md 4.4: resumption and renegotiation are off
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TLSSocket } from 'node:tls';
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
import { closed, dial, dialling, ping, readAll, startEcho, startTcpServer } from '../../support/tcp.ts';
import { outcome, tlsClient, tlsServer } from '../../support/tls-peer.ts';

for (const keyType of ['ec-p256', 'ec-p384', 'rsa-2048', 'ed25519'] as const) {
  test(`SVIDs with ${keyType} keys, under authorities with such keys, serve in both roles, with TLS 1.3 and 1.2`, async (t) => {
    const application = await startEcho(t);
    const spiffe = await startDevDomain(t, { name: 'example.org', keyType, intermediates: 1, workloads: { web: [WEB], api: [API] } });
    const { inbound, address } = await startPair(t, application.address, { spiffe });

    const caller = await dial(t, address);
    caller.end('hello');
    assert.equal((await readAll(caller)).toString(), 'hello');
    const older = tlsClient(t, inbound.address('in'), presented(await spiffe.issue(WEB)), { maxVersion: 'TLSv1.2' });
    older.end('hello');
    assert.equal((await outcome(older)).text, 'hello');

    await inbound.connection((line) => line['tls_version'] === 'TLSv1.3');
    await inbound.connection((line) => line['tls_version'] === 'TLSv1.2');
  });
}

test('TLS 1.1 is refused, by the server side and by the client side', async (t) => {
  const application = await startEcho(t);
  const { spiffe, sidecar, address, web } = await startInbound(t, application.address);
  const old = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'ALL:@SECLEVEL=0' } as const;
  const server = await tlsServer(t, presented(await spiffe.issue(API)), (socket) => socket.pipe(socket), old);
  const out = await startOutbound(t, server.address, { spiffe });

  assert.match((await outcome(tlsClient(t, address, web, old))).error ?? '', /PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL|ECONNRESET/);
  assert.equal(await closed(dialling(t, out.address)), 'ECONNRESET');

  assert.equal((await sidecar.connection())['reason'], 'protocol_error');
  assert.equal((await out.sidecar.connection())['close_reason'], 'upstream_tls_failed');
});

test('in TLS 1.2, ciphers without forward secrecy or AEAD are refused', async (t) => {
  const application = await startEcho(t);
  const spiffe = await startDevDomain(t, { name: 'example.org', keyType: 'rsa-2048', workloads: { api: [API] } });
  const { sidecar, address, web } = await startInbound(t, application.address, { spiffe });

  for (const ciphers of ['AES128-GCM-SHA256', 'ECDHE-RSA-AES128-SHA256', 'DHE-RSA-AES128-GCM-SHA256']) {
    assert.notEqual((await outcome(tlsClient(t, address, web, { maxVersion: 'TLSv1.2', ciphers }))).error, undefined, ciphers);
  }

  assert.equal(await sidecar.metric('scute_tls_handshakes_total', { reason: 'protocol_error' }), 3);
  await ping(tlsClient(t, address, web, { maxVersion: 'TLSv1.2', ciphers: 'ECDHE-RSA-AES256-GCM-SHA384' }));
});

test('the hybrid key exchange is used where the peer can, in both roles', async (t) => {
  const application = await startEcho(t);
  const { spiffe, connect } = await startInbound(t, application.address);
  const server = await tlsServer(t, presented(await spiffe.issue(API)), (socket) => socket.end('hello'), { ecdhCurve: 'X25519MLKEM768' });
  const out = await startOutbound(t, server.address, { spiffe });

  const hybrid = await connect({ ecdhCurve: 'X25519MLKEM768' });
  const classic = await connect({ ecdhCurve: 'X25519' });
  const older = await connect({ ecdhCurve: 'P-256' });
  const both = await connect({ ecdhCurve: 'X25519:X25519MLKEM768' });
  const caller = await dial(t, out.address);

  assert.equal((await readAll(caller)).toString(), 'hello');
  for (const socket of [hybrid, classic, older, both]) await ping(socket);
  // Node names ephemeral groups of its own only: the hybrid one shows as none.
  assert.equal((classic.getEphemeralKeyInfo() as { name?: string }).name, 'X25519');
  assert.notEqual((both.getEphemeralKeyInfo() as { name?: string }).name, 'X25519');
});

test('no session is resumed with TLS 1.3: neither from a ticket nor from memory', async (t) => {
  const application = await startEcho(t);
  const { connect } = await startInbound(t, application.address);
  const sessions: Buffer[] = [];
  const first = await connect();
  first.on('session', (session: Buffer) => sessions.push(session));
  await ping(first);
  const kept = first.getSession();
  first.destroy();

  for (const session of [...sessions, kept]) {
    if (session === undefined) continue;
    const again = await connect({ session });
    await ping(again);
    assert.equal(again.isSessionReused(), false);
    again.destroy();
  }
});

test('no session is resumed with TLS 1.2, neither by ticket nor by session id', async (t) => {
  const application = await startEcho(t);
  const { connect } = await startInbound(t, application.address);
  const first = await connect({ maxVersion: 'TLSv1.2' });
  await ping(first);
  const session = first.getSession();
  assert.equal(first.getTLSTicket(), undefined);
  first.destroy();
  assert.ok(session !== undefined);

  const again = await connect({ maxVersion: 'TLSv1.2', session });
  await ping(again);

  assert.equal(again.isSessionReused(), false);
});

test('as a client, Scute resumes no session that a server would', async (t) => {
  const reused: boolean[] = [];
  const { address } = await startOutboundToApi(t, (socket) => {
    reused.push(socket.isSessionReused());
    socket.end('hello');
  });

  for (let i = 0; i < 3; i++) {
    const caller = await dial(t, address);
    await readAll(caller);
    caller.end();
  }

  assert.deepEqual(reused, [false, false, false]);
});

test('renegotiation in TLS 1.2 is refused', async (t) => {
  const application = await startEcho(t);
  const { connect } = await startInbound(t, application.address);
  const client = await connect({ maxVersion: 'TLSv1.2' });
  await ping(client);

  const error = await new Promise<Error | null>((resolve) => {
    client.on('error', resolve);
    client.renegotiate({}, resolve);
  });

  assert.match(error?.message ?? '', /no renegotiation/i);
});

test('SNI is the host of the target if that is a name, what serverName says if it is set, and nothing for an IP address', async (t) => {
  const names: (string | false | null | undefined)[] = [];
  const spiffe = await startExampleDomain(t);
  const server = await tlsServer(t, presented(await spiffe.issue(API)), (socket) => {
    names.push((socket as TLSSocket & { servername?: string | false | null }).servername);
    socket.end();
  });
  const targets = [
    { to: server.address.replace('127.0.0.1', 'localhost') },
    { to: server.address },
    { to: server.address, serverName: 'db.internal' },
  ];

  for (const listener of targets) {
    const { address } = await startOutbound(t, server.address, { spiffe, listener });
    const caller = await dial(t, address);
    await readAll(caller);
    caller.end();
  }

  assert.deepEqual(names, ['localhost', false, 'db.internal']);
});

test('without alpn set, none is negotiated, in either role', async (t) => {
  const application = await startEcho(t);
  const { spiffe, connect } = await startInbound(t, application.address);
  const protocols: unknown[] = [];
  const server = await tlsServer(
    t,
    presented(await spiffe.issue(API)),
    (socket) => {
      protocols.push(socket.alpnProtocol);
      socket.end();
    },
    { ALPNProtocols: ['h2', 'http/1.1'] },
  );
  const { address } = await startOutbound(t, server.address, { spiffe });

  const client = await connect({ ALPNProtocols: ['h2', 'http/1.1'] });
  await ping(client);
  const caller = await dial(t, address);
  await readAll(caller);

  assert.equal(client.alpnProtocol, false);
  assert.deepEqual(protocols, [false]);
});

test('with alpn set, it is negotiated in both roles, and told', async (t) => {
  const application = await startTcpServer(t, (socket) => socket.pipe(socket));
  const { inbound, outbound, address } = await startPair(t, application.address, { inbound: { alpn: ['h2'] }, outbound: { alpn: ['h2'] } });

  const caller = await dial(t, address);
  caller.end('hello');
  assert.equal((await readAll(caller)).toString(), 'hello');

  assert.deepEqual([(await inbound.connection())['alpn'], (await outbound.connection())['alpn']], ['h2', 'h2']);
});

test('a client with no protocol in common is refused during the handshake', async (t) => {
  const application = await startEcho(t);
  const { sidecar, address, web } = await startInbound(t, application.address, { listener: { alpn: ['h2'] } });

  const { error } = await outcome(tlsClient(t, address, web, { ALPNProtocols: ['http/1.1'] }));

  assert.match(error ?? '', /NO_APPLICATION_PROTOCOL|ECONNRESET/);
  assert.equal((await sidecar.connection())['reason'], 'protocol_error');
});

test('a client without a certificate is refused, and never reaches the application', async (t) => {
  const application = await startEcho(t);
  const { sidecar, address } = await startInbound(t, application.address);

  for (const maxVersion of ['TLSv1.3', 'TLSv1.2'] as const) {
    const { text, error } = await outcome(tlsClient(t, address, undefined, { maxVersion }));
    assert.equal(text, '');
    assert.match(error ?? '', /CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE|ECONNRESET/);
  }

  assert.equal(await sidecar.metric('scute_tls_handshakes_total', { reason: 'no_certificate' }), 2);
  assert.equal(await sidecar.metric('scute_tcp_open_total'), 0);
});
