// ghostunnel: server-handshake-flood, server-tls-handshake-timeout
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openFileLimit } from '../../../src/transport/file-limit.ts';
import { presented, startExampleDomain, startInbound, startOutbound, WEB } from '../../support/data-path.ts';
import { startChild } from '../../support/child.ts';
import { eventually } from '../../support/eventually.ts';
import { startScute } from '../../support/scute-process.ts';
import { closed, dial, dialling, startEcho, startTcpServer } from '../../support/tcp.ts';
import { outcome, tlsClient } from '../../support/tls-peer.ts';

test('a silent client is cut at the handshake timeout, and counted', async (t) => {
  const application = await startEcho(t);
  const { sidecar, address } = await startInbound(t, application.address, { listener: { limits: { handshakeTimeout: '200ms' } } });

  const startedAt = performance.now();
  assert.equal(await closed(dialling(t, address)), 'ECONNRESET');
  const tookMs = performance.now() - startedAt;

  assert.ok(tookMs > 150 && tookMs < 4500, `${Math.round(tookMs)} ms`);
  assert.equal(await sidecar.metric('scute_tls_handshakes_total', { reason: 'handshake_timeout' }), 1);
  assert.equal((await sidecar.connection())['reason'], 'handshake_timeout');
});

test('a client that sends its handshake byte by byte is cut at the handshake timeout all the same', async (t) => {
  const application = await startEcho(t);
  const { sidecar, address } = await startInbound(t, application.address, { listener: { limits: { handshakeTimeout: '300ms' } } });
  const slow = await dial(t, address);
  // The head of a ClientHello of 16 KiB, and then of it a byte at a time.
  slow.write(Buffer.from([0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3]));
  const dripping = setInterval(() => slow.write('\0'), 20);
  t.after(() => clearInterval(dripping));

  assert.match((await closed(slow)) ?? '', /ECONNRESET|EPIPE/);

  assert.equal(await sidecar.metric('scute_tls_handshakes_total', { reason: 'handshake_timeout' }), 1);
});

for (const [what, bytes] of [
  ['an HTTP request', 'GET / HTTP/1.1\r\nHost: x\r\n\r\n'],
  ['zeros', Buffer.alloc(4096)],
  ['a TLS record that is too long', Buffer.concat([Buffer.from([0x16, 3, 3, 0xff, 0xff]), Buffer.alloc(70_000)])],
  ['a TLS alert', Buffer.from([0x15, 3, 3, 0, 2, 2, 40])],
  ['an SSL 2 hello', Buffer.from([0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10, ...Array.from({ length: 60 }, () => 1)])],
  ['nothing but an end', ''],
] as const) {
  test(`${what} instead of a handshake is answered by the end of the connection, and counted as protocol_error`, async (t) => {
    const application = await startEcho(t);
    const { sidecar, address } = await startInbound(t, application.address);

    const socket = dialling(t, address);
    socket.end(bytes);
    await closed(socket);

    await eventually(async () => assert.equal(await sidecar.metric('scute_tls_handshakes_total', { reason: 'protocol_error' }), 1));
    assert.equal(await sidecar.metric('scute_tcp_open_total'), 0);
    assert.equal(application.connections.size, 0);
  });
}

const FLOOD = `
  const net = require('node:net');
  const [port, silent, garbage] = process.argv.slice(1).map(Number);
  let connected = 0, ended = 0;
  const tell = () => process.stdout.write(connected + ' connected ' + ended + ' ended\\n');
  for (let i = 0; i < silent + garbage; i++) {
    const socket = net.connect({ port, host: '127.0.0.1' }, () => {
      if (i >= silent) socket.write('GET / HTTP/1.1\\r\\n\\r\\n');
      if (++connected === silent + garbage) tell();
    });
    socket.on('error', () => {});
    socket.on('close', () => { if (++ended === silent + garbage) tell(); });
    socket.resume();
  }
`;

test('thousands of silent clients and of garbage at once do not keep good ones waiting, and all are gone after the timeout', async (t) => {
  // Each connection may need two files of the proxy's, and strangers have half of them. 10,000 if the limit of this machine is above 40,500.
  const count = Math.min(10_000, Math.floor((openFileLimit() - 500) / 4));
  const silent = count - 500;
  const spiffe = await startExampleDomain(t);
  const application = await startEcho(t);
  const scute = await startScute({
    config: {
      workloadApi: { endpoint: spiffe.endpoint('api') },
      inbound: [{ name: 'in', listen: '127.0.0.1:0', to: application.address, allow: [WEB], limits: { handshakeTimeout: '6s' } }],
      metrics: { listen: '127.0.0.1:0' },
    },
  });
  t.after(() => scute.stop());
  await scute.ready('in', 'metrics');
  const [port, metrics] = [await scute.port('in'), await scute.port('metrics')];
  const web = presented(await spiffe.issue(WEB));
  const halves = [Math.ceil(silent / 2), Math.floor(silent / 2)];

  const flooders = await Promise.all(halves.map((half) => startChild([process.execPath, '-e', FLOOD, String(port), String(half), '250'])));
  for (const flooder of flooders) t.after(() => flooder.stop());
  await Promise.all(flooders.map((flooder) => flooder.line(/connected/)));
  const times: number[] = [];
  for (let i = 0; i < 20; i++) {
    const startedAt = performance.now();
    const client = tlsClient(t, `127.0.0.1:${port}`, web);
    client.end('good');
    assert.deepEqual(await outcome(client), { text: 'good', error: undefined });
    times.push(performance.now() - startedAt);
  }
  const waiting = await seriesSum(metrics, 'scute_tcp_waiting_connections');
  await Promise.all(flooders.map((flooder) => flooder.line(/ (\d+) ended/)));

  // Behind a silent one a good client would wait for most of the 6 s.
  const median = times.toSorted((a, b) => a - b)[times.length / 2] ?? Infinity;
  assert.ok(median < 3000, `good clients took ${times.map(Math.round).join(', ')} ms`);
  assert.ok(waiting > silent / 2, `${waiting} of ${silent} silent clients were waiting at that time: the flood came too early`);
  await eventually(async () => {
    assert.equal(await seriesSum(metrics, 'scute_tcp_waiting_connections'), 0);
    assert.equal(await seriesSum(metrics, 'scute_tls_handshaking_connections'), 0);
  });
  const refused = await seriesSum(metrics, 'scute_accept_refused_total');
  assert.equal((await seriesSum(metrics, 'scute_tls_handshakes_total', 'handshake_timeout')) + refused, silent);
  assert.equal(refused, 0);
  assert.equal(await seriesSum(metrics, 'scute_tls_handshakes_total', 'protocol_error'), 500);
  assert.equal(await seriesSum(metrics, 'scute_tls_handshakes_total', 'reason="ok"'), 20);
});

async function seriesSum(port: number, name: string, having = ''): Promise<number> {
  const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  return text
    .split('\n')
    .filter((line) => line.startsWith(`${name}{`) && line.includes(having))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0);
}

test('a server that does not answer the handshake is given up at the handshake timeout', async (t) => {
  const silent = await startTcpServer(t, () => undefined);
  const spiffe = await startExampleDomain(t);
  const { sidecar, address } = await startOutbound(t, silent.address, { spiffe, listener: { limits: { handshakeTimeout: '200ms' } } });

  assert.equal(await closed(dialling(t, address)), 'ECONNRESET');

  const line = await sidecar.connection();
  assert.deepEqual([line['reason'], line['close_reason']], ['handshake_timeout', 'upstream_tls_failed']);
});
