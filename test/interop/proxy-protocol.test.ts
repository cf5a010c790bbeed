import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test, type TestContext } from 'node:test';
import { connect, type TLSSocket } from 'node:tls';
import type { DevDomain } from '../../src/devdomain/dev-domain.ts';
import { startDevDomain } from '../support/dev-domain.ts';
import { needs } from './parts.ts';
import { startHaproxy, startNginx } from './proxies.ts';
import { startEcho, startInbound, type RunningSide } from './stage.ts';

const WEB = 'spiffe://example.org/web';
const API = 'spiffe://example.org/api';

function startDomain(t: TestContext): Promise<DevDomain> {
  return startDevDomain(t, { name: 'example.org', workloads: { web: [WEB], api: [API] } });
}

async function connectAs(t: TestContext, spiffe: DevDomain, id: string, port: number, servername?: string): Promise<TLSSocket> {
  const { chainPem: cert, keyPem: key } = await spiffe.issue(id);
  const socket = connect({ port, host: '127.0.0.1', cert, key, rejectUnauthorized: false, ...(servername && { servername }) });
  socket.on('error', () => undefined);
  t.after(() => socket.destroy());
  await once(socket, 'secureConnect');
  return socket;
}

async function answer(socket: TLSSocket, message: string): Promise<string> {
  let reply = '';
  socket.setEncoding('latin1').on('data', (chunk: string) => (reply += chunk));
  socket.end(message);
  await once(socket, 'close');
  return reply;
}

async function startBehindBalancer(t: TestContext, spiffe: DevDomain): Promise<RunningSide> {
  const echo = await startEcho(t);
  const listener = { proxyProtocol: { acceptFrom: ['127.0.0.1'] } };
  return startInbound(t, { endpoint: spiffe.endpoint('api'), to: echo.address, allow: [WEB], listener, file: { log: { level: 'debug' } } });
}

for (const option of ['send-proxy', 'send-proxy-v2', 'send-proxy-v2 proxy-v2-options crc32c,unique-id,ssl']) {
  test(`HAProxy with ${option} in front tells who the client is`, needs('haproxy'), async (t) => {
    const spiffe = await startDomain(t);
    const { scute, address } = await startBehindBalancer(t, spiffe);
    const port = await startHaproxy(t, { to: address, server: option });
    const client = await connectAs(t, spiffe, WEB, port);
    const from = `127.0.0.1:${client.localPort}`;

    assert.equal(await answer(client, 'hello'), 'HELLO');

    const line = await scute.logged((each) => each.message === 'connection closed' && each['peer_id'] === WEB);
    assert.equal(line['downstream_address'], from);
    assert.match(String(line['via']), /^127\.0\.0\.1:\d+$/);
    assert.notEqual(line['via'], from);
  });
}

for (const option of ['send-proxy', 'send-proxy-v2']) {
  test(`health checks of HAProxy with ${option} find Scute up`, needs('haproxy'), async (t) => {
    const spiffe = await startDomain(t);
    const { scute, address } = await startBehindBalancer(t, spiffe);
    // Down after one bad check: then nothing would be forwarded.
    const port = await startHaproxy(t, { to: address, server: `${option} check check-send-proxy inter 50ms fall 1 rise 100` });
    const checks = new Set<unknown>();
    await scute.logged((line) => /health check/.test(String(line['detail'])) && checks.add(line['connection']).size === 5);

    assert.equal(await answer(await connectAs(t, spiffe, WEB, port), 'hello'), 'HELLO');
    await scute.logged((line) => line['peer_id'] === WEB);
  });
}

test('HAProxy that sends no header is refused', needs('haproxy'), async (t) => {
  const spiffe = await startDomain(t);
  const { scute, address } = await startBehindBalancer(t, spiffe);
  const port = await startHaproxy(t, { to: address });

  await assert.rejects(connectAs(t, spiffe, WEB, port));

  await scute.logged((line) => line.message === 'connection closed' && line['reason'] === 'bad_proxy_header');
});

for (const send of ['conn', 'tls', 'tls-full']) {
  test(`HAProxy as the application reads what is sent in mode ${send}`, needs('haproxy'), async (t) => {
    const spiffe = await startDomain(t);
    const told = '"%[src]:%[src_port] to %[dst]:%[dst_port] authority %[fc_pp_authority]"';
    const application = await startHaproxy(t, {
      to: '127.0.0.1:1',
      bind: 'accept-proxy',
      mode: 'http',
      frontend: [`http-request return status 200 content-type text/plain lf-string ${told}`],
    });
    const { address } = await startInbound(t, {
      endpoint: spiffe.endpoint('api'),
      to: `127.0.0.1:${application}`,
      allow: [WEB],
      listener: { proxyProtocol: { send } },
    });
    const client = await connectAs(t, spiffe, WEB, Number(address.split(':')[1]), 'api.example');
    const from = `127.0.0.1:${client.localPort}`;

    const reply = await answer(client, 'GET / HTTP/1.0\r\n\r\n');

    const authority = send === 'conn' ? '' : 'api.example';
    assert.ok(reply.endsWith(`${from} to ${address} authority ${authority}`), reply);
  });
}

test('an address goes from one HAProxy to the other through Scute', needs('haproxy'), async (t) => {
  const spiffe = await startDomain(t);
  const application = await startHaproxy(t, {
    to: '127.0.0.1:1',
    bind: 'accept-proxy',
    mode: 'http',
    frontend: ['http-request return status 200 content-type text/plain lf-string "%[src]:%[src_port] to %[dst]:%[dst_port]"'],
  });
  const { address } = await startInbound(t, {
    endpoint: spiffe.endpoint('api'),
    to: `127.0.0.1:${application}`,
    allow: [WEB],
    listener: { proxyProtocol: { send: 'tls', acceptFrom: ['127.0.0.1'] } },
  });
  const balancer = await startHaproxy(t, { to: address, server: 'send-proxy-v2' });
  const client = await connectAs(t, spiffe, WEB, balancer);
  const from = `127.0.0.1:${client.localPort}`;

  const reply = await answer(client, 'GET / HTTP/1.0\r\n\r\n');

  assert.ok(reply.endsWith(`${from} to 127.0.0.1:${balancer}`), reply);
});

test('nginx as the application reads what is sent', needs('nginx'), async (t) => {
  const spiffe = await startDomain(t);
  const application = await startNginx(t, (own) => [
    `listen 127.0.0.1:${own} proxy_protocol;`,
    'return 200 "$proxy_protocol_addr:$proxy_protocol_port to $proxy_protocol_server_addr:$proxy_protocol_server_port";',
  ]);
  const { address } = await startInbound(t, {
    endpoint: spiffe.endpoint('api'),
    to: `127.0.0.1:${application}`,
    allow: [WEB],
    listener: { proxyProtocol: { send: 'tls-full' } },
  });
  const client = await connectAs(t, spiffe, WEB, Number(address.split(':')[1]));
  const from = `127.0.0.1:${client.localPort}`;

  const reply = await answer(client, 'GET / HTTP/1.0\r\n\r\n');

  assert.ok(reply.endsWith(`${from} to ${address}`), reply);
});
