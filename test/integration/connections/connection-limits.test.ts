// ghostunnel: server-max-concurrent-conns, server-semaphore-churn, server-connection-churn
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { startInbound, startOutboundToApi, startPair } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { openSockets } from '../../support/open-files.ts';
import { closed, dial, dialling, ping, readAll, startEcho, startTcpServer } from '../../support/tcp.ts';
import { outcome, tlsClient } from '../../support/tls-peer.ts';

/** A byte there and back. */
test('a connection beyond the limit waits, and gets in when one closes', async (t) => {
  const application = await startEcho(t);
  const { sidecar, connect } = await startInbound(t, application.address, { listener: { limits: { maxConnections: 2 } } });
  const [first, second] = [await connect(), await connect()];
  await Promise.all([ping(first), ping(second)]);

  const third = tlsWaiting(connect());
  await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_waiting_connections'), 1));
  assert.equal(application.connections.size, 2);
  first.destroy();

  await ping(await third);
  assert.equal(await sidecar.metric('scute_tcp_open_connections'), 2);
  second.destroy();
});

/** The connection that it will be. It must not be missed if it fails meanwhile. */
function tlsWaiting<T>(connecting: Promise<T>): Promise<T> {
  connecting.catch(() => undefined);
  return connecting;
}

test('a connection beyond the limit that was in its handshake already waits too, and is judged anew', async (t) => {
  const application = await startEcho(t);
  const {
    sidecar,
    connect,
    with: settings,
  } = await startInbound(t, application.address, {
    listener: { limits: { maxConnections: 1 } },
  });
  // All three begin before any of them is open.
  const sockets = await Promise.all([connect(), connect(), connect()]);
  await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_open_connections'), 1));
  for (const socket of sockets) socket.on('error', () => undefined).write('!');
  const served = await Promise.race(
    sockets.map(async (socket) => {
      await once(socket, 'data');
      return socket;
    }),
  );
  const waiting = sockets.filter((socket) => socket !== served);
  const ends = waiting.map((socket) => outcome(socket));

  await sidecar.reload(settings({ allow: ['spiffe://example.org/somebody-else'], limits: { maxConnections: 1 } }));

  assert.deepEqual(
    (await Promise.all(ends)).map(({ text }) => text),
    ['', ''],
  );
  await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_open_connections'), 0));
  await eventually(async () => assert.equal(await sidecar.metric('scute_tls_handshaking_connections'), 0));
  assert.equal(application.connections.size, 0);
});

test('beyond those that may wait, connections are reset, and counted', async (t) => {
  const application = await startEcho(t);
  const { sidecar, address, connect } = await startInbound(t, application.address, {
    listener: { limits: { maxConnections: 1, maxWaiting: 2 } },
  });
  const only = await connect();
  await ping(only);
  const waiting = [tlsWaiting(connect()), tlsWaiting(connect())];
  await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_waiting_connections'), 2));

  const refused = await closed(dialling(t, address));

  assert.equal(refused, 'ECONNRESET');
  assert.equal(await sidecar.metric('scute_accept_refused_total', { reason: 'connection_limit' }), 1);
  only.destroy();
  const next = await Promise.race(waiting);
  next.destroy();
  for (const socket of await Promise.all(waiting)) socket.destroy();
});

test('a raised limit lets those in who wait', async (t) => {
  const application = await startEcho(t);
  const {
    sidecar,
    connect,
    with: settings,
  } = await startInbound(t, application.address, {
    listener: { limits: { maxConnections: 1 } },
  });
  await ping(await connect());
  const second = tlsWaiting(connect());
  await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_waiting_connections'), 1));

  await sidecar.reload(settings({ limits: { maxConnections: 2 } }));

  await ping(await second);
});

test('places are given back however a connection ends', async (t) => {
  let served = 0;
  const application = await startTcpServer(t, (socket) => {
    served += 1;
    if (served % 4 === 0) socket.resetAndDestroy();
    else if (served % 4 === 1) socket.end('bye');
    else socket.pipe(socket);
  });
  const { sidecar, address, connect, web } = await startInbound(t, application.address, {
    listener: { limits: { maxConnections: 3, maxHandshakes: 4, maxWaiting: 100, handshakeTimeout: '300ms' } },
  });
  const stranger = { ...web, ...(await strangerOf(t)) };

  await Promise.all(
    Array.from({ length: 200 }, async (_, number) => {
      switch (number % 6) {
        case 0: {
          const socket = tlsClient(t, address, web);
          socket.once('secureConnect', () => socket.destroy());
          await outcome(socket);
          return;
        }
        case 1: {
          const socket = tlsClient(t, address, web);
          socket.end('hello');
          await outcome(socket);
          return;
        }
        case 2:
          await outcome(tlsClient(t, address, stranger));
          return;
        case 3: {
          const socket = dialling(t, address);
          socket.end('garbage, not TLS at all');
          await closed(socket);
          return;
        }
        case 4: {
          const socket = await dial(t, address);
          socket.write('\x16\x03\x01');
          socket.resetAndDestroy();
          return;
        }
        default:
          await closed(dialling(t, address));
      }
    }),
  );

  for (const gauge of ['scute_tcp_open_connections', 'scute_tls_handshaking_connections', 'scute_tcp_waiting_connections']) {
    await eventually(async () => assert.equal(await sidecar.metric(gauge), 0, gauge));
  }
  // All three places can still be had at once.
  served = 1;
  const sockets = [];
  for (let i = 0; i < 3; i++) {
    served = 1;
    const socket = await connect();
    await ping(socket);
    sockets.push(socket);
  }
  assert.equal(await sidecar.metric('scute_tcp_open_connections'), 3);
});

async function strangerOf(t: Parameters<typeof startInbound>[0]) {
  const { presented, startExampleDomain, WEB } = await import('../../support/data-path.ts');
  return presented(await (await startExampleDomain(t)).issue(WEB));
}

test('three hundred short connections add up in every counter, and leave no socket open', async (t) => {
  const application = await startEcho(t);
  const { inbound, outbound, address } = await startPair(t, application.address);
  const churn = async (count: number): Promise<void> => {
    for (let i = 0; i < count; i++) {
      const caller = await dial(t, address);
      caller.end('hello');
      assert.equal((await readAll(caller)).toString(), 'hello');
    }
  };
  await churn(5);
  await eventually(async () => assert.equal(await inbound.metric('scute_tcp_open_connections'), 0));
  const before = openSockets();

  await Promise.all(Array.from({ length: 5 }, () => churn(59)));

  for (const sidecar of [inbound, outbound]) {
    await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_open_connections'), 0));
    assert.equal(await sidecar.metric('scute_tcp_open_total'), 300);
    assert.equal(await sidecar.metric('scute_tcp_close_total', { reason: 'finished' }), 300);
    assert.equal(await sidecar.metric('scute_tcp_close_total'), 300);
    assert.equal(await sidecar.metric('scute_tls_handshakes_total', { reason: 'ok' }), 300);
    for (const peer of ['src', 'dst']) {
      assert.equal(await sidecar.metric('scute_tcp_read_bytes_total', { peer }), 1500);
      assert.equal(await sidecar.metric('scute_tcp_write_bytes_total', { peer }), 1500);
    }
  }
  await eventually(() => assert.ok(openSockets() <= before + 4, `${openSockets()} sockets are open, ${before} were before`));
});

test('a server that greets first is heard through an outbound listener, also when places for handshakes are scarce', async (t) => {
  const { sidecar, address } = await startOutboundToApi(t, (socket) => socket.end('220 ready'), {
    listener: { limits: { maxHandshakes: 1, maxWaiting: 100 } },
  });

  const greetings = await Promise.all(
    Array.from({ length: 20 }, async () => {
      const caller = await dial(t, address);
      const greeting = await readAll(caller);
      caller.end();
      return greeting.toString();
    }),
  );

  assert.deepEqual(new Set(greetings), new Set(['220 ready']));
  assert.equal(greetings.length, 20);
  await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_open_connections'), 0));
});
