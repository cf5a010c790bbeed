import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { runChild } from '../support/child.ts';
import { startScute } from '../support/scute-process.ts';
import { needs } from './parts.ts';
import { runGo, startGo } from './peers.ts';
import { exchange, startEcho, startInbound, startOutbound, temporaryFolder } from './stage.ts';

// What is shipped, with peers that are not ours. The test command has just built it.
const root = fileURLToPath(new URL('../../', import.meta.url));
const WEB = 'spiffe://example.org/web';
const API = 'spiffe://example.org/api';
const OTHER = 'spiffe://example.org/other';

before(async () => {
  if (existsSync(join(root, 'dist/scute.js'))) return;
  const { code, stderr } = await runChild([process.execPath, join(root, 'test/support/build.ts')], { cwd: root });
  assert.equal(code, 0, stderr);
});

test('the bundle serves go-spiffe as a Workload API, and stands before and beside applications', needs('go-spiffe'), async (t) => {
  const folder = await temporaryFolder(t);
  const endpoint = (workload: string): string => `unix://${join(folder, `${workload}.sock`)}`;
  const ids = { web: WEB, api: API, other: OTHER };
  const workloads = Object.entries(ids).map(([name, id]) => ({ socket: join(folder, `${name}.sock`), ids: [id] }));
  const config = { trustDomains: [{ name: 'example.org', svidLife: '5m', rotateEvery: '1s', workloads }] };
  const dev = await startScute({ config, args: ['dev'], entry: 'bundle' });
  t.after(() => dev.stop().then(() => undefined));
  await dev.child.line(/^READY$/);
  const echo = await startEcho(t);
  const inbound = await startInbound(t, { endpoint: endpoint('api'), to: echo.address, allow: [WEB], entry: 'bundle' });
  const server = await startGo(t, 'server', '-socket', endpoint('api'), '-peer', WEB);
  const to = String((await server.first('listening'))['listening']);
  const outbound = await startOutbound(t, { endpoint: endpoint('web'), to, expect: [API], entry: 'bundle' });

  const allowed = await runGo('client', '-socket', endpoint('web'), '-address', inbound.address, '-peer', API);
  const refused = await runGo('client', '-socket', endpoint('other'), '-address', inbound.address, '-peer', API);
  const reply = await exchange(outbound.port, 'hello');

  assert.deepEqual([allowed['reply'], allowed['peerId']], ['HELLO', API]);
  assert.equal(refused['reply'], undefined);
  assert.equal(reply, 'HELLO');
  assert.equal((await server.first('accepted'))['accepted'], WEB);
  assert.equal(echo.connections(), 1);
  assert.deepEqual(await inbound.scute.stop(), { code: 0, signal: null });
  assert.deepEqual(await dev.stop(), { code: 0, signal: null });
});

test('the bundle runs on flags alone', needs('go-spiffe'), async (t) => {
  const folder = await temporaryFolder(t);
  const endpoint = (workload: string): string => `unix://${join(folder, `${workload}.sock`)}`;
  const workloads = Object.entries({ web: WEB, api: API }).map(([name, id]) => ({ socket: join(folder, `${name}.sock`), ids: [id] }));
  const dev = await startScute({ config: { trustDomains: [{ name: 'example.org', workloads }] }, args: ['dev'], entry: 'bundle' });
  t.after(() => dev.stop().then(() => undefined));
  await dev.child.line(/^READY$/);
  const echo = await startEcho(t);

  const flags = ['--inbound', '127.0.0.1:0', '--to', echo.address, '--allow', WEB, '--workload-api', endpoint('api')];
  const scute = await startScute({ args: ['run', ...flags], entry: 'bundle' });
  t.after(() => scute.stop().then(() => undefined));
  await scute.ready('inbound-0');
  const said = await runGo('client', '-socket', endpoint('web'), '-address', await scute.address('inbound-0'), '-peer', API);

  assert.equal(said['reply'], 'HELLO');
  assert.deepEqual(await scute.stop(), { code: 0, signal: null });
});
