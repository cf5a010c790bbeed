import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { startDevDomain } from '../../support/dev-domain.ts';
import { startScute, useScute } from '../../support/scute-process.ts';
import { needs } from '../parts.ts';
import { runJava, startJava } from '../peers.ts';
import { temporaryFolder } from '../stage.ts';

const WEB = 'spiffe://example.org/web';
const AUDIENCE = 'spiffe://example.org/db';

// Over a Unix socket, grpc-java has the socket's path for an authority.
test('java-spiffe is served by the command "scute dev", which rotates by itself', needs('java-spiffe'), async (t) => {
  const socket = join(await temporaryFolder(t), 'web.sock');
  const trustDomains = [
    {
      name: 'example.org',
      intermediates: 1,
      svidLife: '1m',
      rotateEvery: '2s',
      federatesWith: ['other.example'],
      workloads: [{ socket, ids: [WEB] }],
    },
    { name: 'other.example' },
  ];
  const dev = await startScute({ config: { trustDomains }, args: ['dev'] });
  t.after(() => dev.stop());
  await dev.child.line(/^READY$/);

  const fetched = await runJava('fetch', `unix:${socket}`, AUDIENCE);
  const watcher = await startJava(t, 'watch', `unix:${socket}`);
  const serials = [(await watcher.next('serial'))['serial'], (await watcher.next('serial'))['serial']];

  const names = ['example.org', 'other.example'];
  assert.deepEqual(fetched, {
    id: WEB,
    jwt: WEB,
    validated: WEB,
    bundles: { 'example.org': 1, 'other.example': 1 },
    x509Bundles: names,
    jwtBundles: names,
  });
  assert.notEqual(serials[0], serials[1]);
});

test('grpc-java is given secrets by SDS over a Unix socket, and each rotation', needs('java-spiffe'), async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: [WEB] } });
  const socket = join(await temporaryFolder(t), 'sds.sock');
  const scute = await useScute(t, { config: { workloadApi: { endpoint: spiffe.endpoint('web') }, sds: { listen: `unix://${socket}` } } });
  await scute.ready('sds');
  const client = await startJava(t, 'sds', socket, 'default', 'ROOTCA');

  const first = await client.next('secrets');
  await spiffe.rotate('example.org');
  const second = await client.next('secrets');

  assert.deepEqual((first['secrets'] as string[]).toSorted(), ['ROOTCA VALIDATION_CONTEXT', 'default TLS_CERTIFICATE']);
  assert.deepEqual((second['secrets'] as string[]).includes('default TLS_CERTIFICATE'), true);
  assert.notEqual(first['version'], second['version']);
});
