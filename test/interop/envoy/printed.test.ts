import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { IncomingHttpHeaders } from 'node:http';
import { join } from 'node:path';
import { test } from 'node:test';
import { startDevDomain } from '../../support/dev-domain.ts';
import { useScute } from '../../support/scute-process.ts';
import { dial, readAll, startTcpServer } from '../../support/tcp.ts';
import { ask, printedBootstrap, requestOver, startApplication } from './printed.ts';
import { startEnvoyProcess } from './process.ts';
import { startTlsEcho, visit } from './stage.ts';
import { needs } from '../parts.ts';
import { exchange, freePort, startEcho, temporaryFolder } from '../stage.ts';

const WEB = 'spiffe://example.org/web';
const API = 'spiffe://example.org/api';
const INTERNAL = 'spiffe://example.org/internal';
const BATCH = 'spiffe://partner.example/batch';

/** The same configuration for a Scute beside the Envoy that has the addresses of its listeners. */
function besideEnvoy({ inbound, outbound }: { readonly inbound: readonly object[]; readonly outbound: readonly object[] }): object {
  const elsewhere = { listen: '127.0.0.1:0' };
  return {
    inbound: inbound.map((listener) => ({ ...listener, ...elsewhere })),
    outbound: outbound.map((listener) => ({ ...listener, ...elsewhere })),
  };
}

test('a peer of the Envoy that `scute envoy` makes cannot forge a SPIFFE ID, and opens a WebSocket', needs('envoy'), async (t) => {
  const [to, port] = [await startApplication(t), await freePort()];
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { api: [API] } });
  const listen = `unix://${join(await temporaryFolder(t), 'sds.sock')}`;
  const base = { workloadApi: { endpoint: spiffe.endpoint('api') }, sds: { listen } };
  const http = { spiffeIdHeader: 'x-peer' };
  const inbound = [{ name: 'scute', listen: `127.0.0.1:${port}`, to, allow: [WEB], protocol: 'http', http }];
  const scute = await useScute(t, { config: base });
  await scute.address('sds');
  await startEnvoyProcess(t, await printedBootstrap(t, { ...base, inbound }));
  const web = await spiffe.issue(WEB);
  const forged = 'spiffe://example.org/admin';

  const { fields: seen } = await ask(port, web, {
    'x-peer': forged,
    x_peer: forged,
    'x-forwarded-client-cert': `URI=${forged}`,
    x_forwarded_client_cert: `URI=${forged}`,
  });
  assert.equal(seen['x-peer'], WEB);
  assert.match(seen['x-forwarded-client-cert']?.toString() ?? '', /URI=spiffe:\/\/example\.org\/web$/);
  assert.doesNotMatch(JSON.stringify(seen), /admin/);

  const key = { 'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==', 'sec-websocket-version': '13' };
  const upgrade = requestOver(port, web, { connection: 'upgrade', upgrade: 'websocket', ...key });
  upgrade.end();
  const [response, socket] = (await once(upgrade, 'upgrade')) as [{ readonly statusCode: number }, { destroy(): void }];
  socket.destroy();
  assert.equal(response.statusCode, 101);
});

test('what `scute envoy` prints makes Envoy do what the listeners do', needs('envoy'), async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { api: [API] } });
  const listen = `unix://${join(await temporaryFolder(t), 'sds.sock')}`;
  const [echo, inbound, outbound] = [await startEcho(t), await freePort(), await freePort()];
  const base = { workloadApi: { endpoint: spiffe.endpoint('api') }, sds: { listen } };
  const scute = await useScute(t, { config: base });
  await scute.address('sds');

  const printed = await printedBootstrap(t, {
    ...base,
    inbound: [
      { name: 'in', listen: `127.0.0.1:${inbound}`, to: echo.address, allow: [API, 'spiffe://example.org/ns/*/sa/web'] },
      { name: 'closed', listen: '127.0.0.1:0', to: echo.address, allow: [] },
    ],
    outbound: [{ name: 'out', listen: `127.0.0.1:${outbound}`, to: `127.0.0.1:${inbound}`, expect: [API] }],
  });
  const envoy = await startEnvoyProcess(t, printed);

  assert.match(printed, /# inbound closed admits nobody/);
  assert.equal(await exchange(outbound, 'hello'), 'HELLO');
  assert.equal((await visit(inbound, await spiffe.issue('spiffe://example.org/ns/x/sa/web'))).reply, 'HELLO');
  assert.equal((await visit(inbound, await spiffe.issue(WEB))).reply, '');
  assert.equal(await envoy.stat(/update_rejected/), 0);
});

test(
  'what `scute envoy` prints for TCP and HTTP, ports and Unix sockets, two identities and two trust domains serves all of it',
  needs('envoy'),
  async (t) => {
    const spiffe = await startDevDomain(
      t,
      { name: 'example.org', federatesWith: ['partner.example'], workloads: { api: [API, { id: INTERNAL, hint: 'internal' }, WEB] } },
      { name: 'partner.example' },
    );
    const folder = await temporaryFolder(t);
    const path = (name: string): string => join(folder, `${name}.sock`);
    const [toIn, toWeb, toPartners] = [await freePort(), await freePort(), await freePort()];
    const [out, outWeb, outPartner, outImpostor] = [await freePort(), await freePort(), await freePort(), await freePort()];
    const { address: tcpApplication } = await startTcpServer(t, (socket) => socket.pipe(socket), path('application'));
    const batch = await spiffe.issue(BATCH);
    const impostor = await spiffe.issue(BATCH, { signedBy: 'example.org' });
    const listeners = {
      inbound: [
        { name: 'in', listen: `127.0.0.1:${toIn}`, to: tcpApplication, allow: [WEB] },
        {
          name: 'web',
          listen: `127.0.0.1:${toWeb}`,
          to: await startApplication(t),
          allow: ['spiffe://example.org/**'],
          identity: { hint: 'internal' },
          protocol: 'http',
          http: { spiffeIdHeader: 'x-peer' },
        },
        {
          name: 'partners',
          listen: `127.0.0.1:${toPartners}`,
          to: await startApplication(t, path('web')),
          allow: ['spiffe://partner.example/**'],
          identity: { id: API },
          protocol: 'http',
        },
        { name: 'local', listen: `unix://${path('local')}`, to: (await startEcho(t)).address, allow: [WEB] },
      ],
      outbound: [
        { name: 'out', listen: `127.0.0.1:${out}`, to: `127.0.0.1:${toIn}`, expect: [API], identity: { id: WEB } },
        { name: 'out-web', listen: `127.0.0.1:${outWeb}`, to: `localhost:${toWeb}`, expect: [INTERNAL], identity: { id: WEB } },
        { name: 'out-local', listen: `unix://${path('out')}`, to: `unix://${path('local')}`, expect: [API], identity: { id: WEB } },
        { name: 'out-partner', listen: `127.0.0.1:${outPartner}`, to: await startTlsEcho(t, batch), expect: [BATCH] },
        { name: 'out-impostor', listen: `127.0.0.1:${outImpostor}`, to: await startTlsEcho(t, impostor), expect: [BATCH] },
      ],
    };
    const base = {
      workloadApi: { endpoint: spiffe.endpoint('api') },
      sds: { listen: `127.0.0.1:${await freePort()}`, unsafeTcp: true, matchers: [{ secret: 'ROOTCA', listener: 'in' }] },
    };
    const scute = await useScute(t, { config: { ...base, ...besideEnvoy(listeners) } });
    await scute.address('sds');

    const envoy = await startEnvoyProcess(t, await printedBootstrap(t, { ...base, ...listeners }));

    const [web, other] = [await spiffe.issue(WEB), await spiffe.issue('spiffe://example.org/other')];
    assert.equal(await exchange(out, 'hello'), 'hello');
    assert.equal((await visit(toIn, other)).reply, '', 'the list is the one of Scute');
    assert.equal(await exchange(outPartner, 'hello'), 'HELLO');
    assert.equal(await exchange(outImpostor, 'hello'), '', 'a server of another trust domain than its SPIFFE ID says');
    const local = await dial(t, `unix://${path('out')}`);
    local.end('hello');
    assert.equal((await readAll(local)).toString(), 'HELLO');

    const direct = await fetch(`http://127.0.0.1:${outWeb}/`);
    assert.equal(((await direct.json()) as IncomingHttpHeaders)['x-peer'], WEB);
    assert.equal((await ask(toWeb, other)).fields['x-peer'], 'spiffe://example.org/other');
    assert.equal((await ask(toWeb, other)).certificate.subjectaltname, `URI:${INTERNAL}`);
    assert.match(
      (await ask(toPartners, batch)).fields['x-forwarded-client-cert']?.toString() ?? '',
      /URI=spiffe:\/\/partner\.example\/batch$/,
    );
    for (const [port, peer] of [
      [toWeb, batch],
      [toPartners, web],
      [toPartners, impostor],
    ] as const)
      await assert.rejects(ask(port, peer));
    assert.equal(await envoy.stat(/update_rejected/), 0);
  },
);
