import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { presented, startExampleDomain, WEB } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { answerOn, connectClient } from '../../support/http/http2-stage.ts';
import { wire } from '../../support/http/http-stage.ts';
import { useScute } from '../../support/scute-process.ts';
import { dial } from '../../support/tcp.ts';
import { tlsClient } from '../../support/tls-peer.ts';

/** Every limit of the sidecar is a part of this. */
const FROZEN_MS = 2500;

test('a process that was stopped reads what has come before its timers judge', async (t) => {
  const spiffe = await startExampleDomain(t);
  let held: ServerResponse | undefined;
  const kept = new Set<Socket>();
  const application = createServer((request, response) => {
    kept.add(request.socket);
    if (request.url === '/held') held = response;
    else request.on('data', () => undefined).on('end', () => response.end('ok'));
  });
  application.keepAliveTimeout = 0;
  application.listen(0, '127.0.0.1');
  await once(application, 'listening');
  t.after(() => {
    application.closeAllConnections();
    application.close();
  });
  const scute = await useScute(t, {
    config: {
      workloadApi: { endpoint: spiffe.endpoint('api') },
      inbound: [
        {
          name: 'in',
          listen: '127.0.0.1:0',
          to: `127.0.0.1:${(application.address() as AddressInfo).port}`,
          allow: [WEB],
          protocol: 'http',
          http: { headTimeout: '1s', responseTimeout: '1s', upstreamIdleTimeout: 'off' },
          limits: { handshakeTimeout: '1s', connectTimeout: '1s', idleTimeout: '10s' },
        },
      ],
      metrics: { listen: '127.0.0.1:0' },
    },
  });
  await scute.ready('in', 'metrics');
  const address = await scute.address('in');
  const metrics = await scute.address('metrics');
  const web = presented(await spiffe.issue(WEB));
  const open = async () => {
    const socket = tlsClient(t, address, web);
    await once(socket, 'secureConnect');
    return wire(socket);
  };
  const get = (path: string): string => `GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`;
  const post = 'POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab';

  // One in each state that has a time: in the handshake, within a head, before a response, between requests.
  const rested = await Promise.all([open(), open(), open(), open()]);
  for (const line of rested) line.socket.write(get('/'));
  for (const line of rested) await line.until('ok');
  const http2 = await connectClient(t, address, web);
  assert.equal((await answerOn(http2.request({ ':path': '/' }))).status, 200);
  const idle = [...kept];
  const waiting = await open();
  waiting.socket.write(get('/held'));
  await eventually(() => assert.ok(held !== undefined));
  const late = await open();
  const raw = await dial(t, address);
  await eventually(async () => assert.match(await (await fetch(`http://${metrics}/metrics`)).text(), /handshaking_connections\{.*\} 1\n/));
  late.socket.write('GET /late HTTP/1.1\r\nHo');
  // It has read that when it has answered this.
  await fetch(`http://${metrics}/livez`);

  scute.child.signal('SIGSTOP');
  held?.end('ok');
  late.socket.write('st: a\r\n\r\n');
  const begun = tlsClient(t, address, web, { socket: raw });
  const secured = once(begun, 'secureConnect');
  for (const socket of idle) socket.destroy();
  await wait(FROZEN_MS);
  for (const [index, line] of rested.entries()) line.socket.write(index % 2 === 0 ? get('/again') : post);
  const again = answerOn(http2.request({ ':path': '/again' }));
  const posted = http2.request({ ':path': '/post', ':method': 'POST' });
  posted.end('ab');
  const postedAnswer = answerOn(posted);
  // What was said reaches the kernel, which has nobody to give it to.
  await wait(50);
  scute.child.signal('SIGCONT');

  await waiting.until(/200 OK[^]*ok/);
  await late.until(/200 OK[^]*ok/);
  await secured;
  const fresh = wire(begun);
  fresh.socket.write(get('/fresh'));
  await fresh.until(/200 OK[^]*ok/);
  for (const line of rested) await line.until(/200 OK[^]*200 OK[^]*ok/);
  assert.equal((await again).status, 200);
  assert.equal((await postedAnswer).status, 200);
});
