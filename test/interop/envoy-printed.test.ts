import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http';
import { request } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { runCommandLine } from '../../src/cli/program.ts';
import type { IssuedPem } from '../../src/devdomain/dev-domain.ts';
import { startDevDomain } from '../support/dev-domain.ts';
import { useScute } from '../support/scute-process.ts';
import { startEnvoyProcess } from './envoy-process.ts';
import { needs } from './parts.ts';
import { freePort, temporaryFolder } from './stage.ts';

const WEB = 'spiffe://example.org/web';
const API = 'spiffe://example.org/api';

/** Envoy with what `scute envoy` prints, and Scute to serve its secrets. */
async function startPrinted(t: TestContext, inbound: readonly object[]): Promise<{ readonly web: IssuedPem }> {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { api: [API] } });
  const folder = await temporaryFolder(t);
  const base = { workloadApi: { endpoint: spiffe.endpoint('api') }, sds: { listen: `unix://${join(folder, 'sds.sock')}` } };
  const scute = await useScute(t, { config: base });
  await scute.address('sds');
  const file = join(folder, 'scute.yaml');
  await writeFile(file, JSON.stringify({ ...base, inbound }));
  let printed = '';
  const io = {
    env: {},
    stdout: (text: string) => (printed += text),
    stderr: (text: string) => (printed += text),
    onHangup: () => () => undefined,
  };
  assert.equal(await runCommandLine(['envoy', '-c', file], io, new AbortController().signal), 0, printed);
  const envoy = await startEnvoyProcess(t, printed);
  assert.equal(await envoy.stat(/update_rejected/), 0);
  return { web: await spiffe.issue(WEB) };
}

/** An application that answers with the fields that it got, and agrees to WebSocket. */
async function startApplication(t: TestContext): Promise<string> {
  const server: Server = createServer((asked, answer) => answer.end(JSON.stringify(asked.headers)));
  server.on('upgrade', (_, socket) => socket.end('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n'));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

function ask(port: number, web: IssuedPem, headers: Readonly<Record<string, string>>) {
  const options = {
    host: '127.0.0.1',
    port,
    rejectUnauthorized: false,
    cert: web.chainPem,
    key: web.keyPem,
    headers,
    agent: false,
  } as const;
  return request(options);
}

async function fieldsSeen(port: number, web: IssuedPem, headers: Readonly<Record<string, string>>): Promise<IncomingHttpHeaders> {
  const asked = ask(port, web, headers);
  asked.end();
  const [response] = (await once(asked, 'response')) as [AsyncIterable<Buffer>];
  const body: Buffer[] = [];
  for await (const chunk of response) body.push(chunk);
  return JSON.parse(Buffer.concat(body).toString()) as IncomingHttpHeaders;
}

test('a peer of the Envoy that `scute envoy` makes cannot forge a SPIFFE ID, and opens a WebSocket', needs('envoy'), async (t) => {
  const [to, port] = [await startApplication(t), await freePort()];
  const http = { spiffeIdHeader: 'x-peer' };
  const { web } = await startPrinted(t, [{ name: 'scute', listen: `127.0.0.1:${port}`, to, allow: [WEB], protocol: 'http', http }]);
  const forged = 'spiffe://example.org/admin';

  const seen = await fieldsSeen(port, web, {
    'x-peer': forged,
    x_peer: forged,
    'x-forwarded-client-cert': `URI=${forged}`,
    x_forwarded_client_cert: `URI=${forged}`,
  });
  assert.equal(seen['x-peer'], WEB);
  assert.match(seen['x-forwarded-client-cert']?.toString() ?? '', /URI=spiffe:\/\/example\.org\/web$/);
  assert.doesNotMatch(JSON.stringify(seen), /admin/);

  const key = { 'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==', 'sec-websocket-version': '13' };
  const upgrade = ask(port, web, { connection: 'upgrade', upgrade: 'websocket', ...key });
  upgrade.end();
  const [response, socket] = (await once(upgrade, 'upgrade')) as [{ readonly statusCode: number }, { destroy(): void }];
  socket.destroy();
  assert.equal(response.statusCode, 101);
});
