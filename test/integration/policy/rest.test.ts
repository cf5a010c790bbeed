/** What is left of a policy when another one comes. */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { startInbound, WEB } from '../../support/data-path.ts';
import { eventually } from '../../support/eventually.ts';
import { startFullBacklog } from '../../support/full-backlog.ts';
import { startFrameApplication, startSpliced } from '../../support/http/h2c-application.ts';
import { HEADERS, settings } from '../../support/http/http2-frames.ts';
import { request, startClient } from '../../support/http/http2-stage.ts';
import { HpackDecoder } from '../../../src/http2/hpack/decoder.ts';
import { startHttpInbound, startRawApplication, wire } from '../../support/http/http-stage.ts';
import { ask } from '../../support/http/http.ts';
import type { Sidecar } from '../../support/sidecar.ts';
import { startTcpServer } from '../../support/tcp.ts';

async function page(sidecar: Sidecar, path: string): Promise<string> {
  const address = sidecar.app.addresses().get('metrics');
  assert.ok(address !== undefined);
  return (await ask(address, path)).body;
}

test('a rule that is taken out of the policy takes its series with it, and one that stays keeps its count', async (t) => {
  const { address } = await startTcpServer(t, (socket) => socket.end('x'));
  const stage = await startInbound(t, address);
  const connections = async (rule: string): Promise<void> => {
    const before = await stage.sidecar.metric('scute_authorization_total', { rule });
    await wire(await stage.connect()).over();
    await eventually(async () => assert.equal(await stage.sidecar.metric('scute_authorization_total', { rule }), before + 1));
  };
  const rules = async (): Promise<readonly string[]> =>
    [...(await page(stage.sidecar, '/metrics')).matchAll(/^scute_authorization_total\{.*rule="([^"]*)"\} [1-9]/gm)].map(
      ([, rule]) => rule ?? '',
    );

  await connections(WEB);
  for (let year = 2100; year < 2104; year++) {
    const notAfter = `${year}-01-01T00:00:00Z`;
    await stage.sidecar.reload(stage.with({ allow: [{ peer: WEB, notAfter }, 'spiffe://example.org/*/**'] }));
    await connections(`${WEB} until ${year}-01-01T00:00:00.000Z`);
    assert.deepEqual(await rules(), [`${WEB} until ${year}-01-01T00:00:00.000Z`]);
  }
  await stage.sidecar.reload(stage.with({ allow: ['spiffe://example.org/*'] }));
  await connections('spiffe://example.org/*');
  await stage.sidecar.reload(stage.with({ allow: ['spiffe://example.org/*', 'spiffe://example.org/more'] }));
  await connections('spiffe://example.org/*');
  await stage.sidecar.reload(stage.with({ allow: ['spiffe://example.org/*', 'spiffe://example.org/more'], deny: [WEB] }));
  await connections(`deny ${WEB}`);
  await stage.sidecar.reload(stage.with({ allow: [WEB] }));
  await connections(WEB);
  assert.deepEqual(await rules(), [WEB]);
});

test('a listener of bytes that is given rules for requests keeps its whole policy until the restart, and says so', async (t) => {
  const { address } = await startTcpServer(t, (socket) => socket.end('bytes'));
  const stage = await startInbound(t, address);
  const verbose = (): Promise<string> => page(stage.sidecar, '/readyz?verbose');
  assert.match(await verbose(), /^\[\+\]configuration_applied ok$/m);

  await stage.sidecar.reload(
    stage.with({ protocol: 'http', allow: [{ peer: WEB, paths: ['/items/**'] }], deny: ['spiffe://example.org/more'] }),
  );

  const [warning] = stage.sidecar.log().filter(({ message }) => message === 'some settings take effect only after a restart');
  assert.deepEqual(warning?.['settings'], [
    'inbound in: protocol, http, alpn',
    'inbound in: its rules for requests, and with them all that changed in its policy',
  ]);
  assert.match(await verbose(), /^\[!\]configuration_applied .*only after a restart: inbound in: .*; and 1 more$/m);
  const line = wire(await stage.connect());
  assert.equal((await line.over()).text, 'bytes', 'by the policy before');

  await stage.sidecar.reload(stage.with({}));
  assert.match(await verbose(), /^\[\+\]configuration_applied ok$/m);
});

/** An application that answers the first request, closes the connection under the second when it is told to, and keeps what comes after. */
async function startClosing(t: TestContext) {
  let close: (() => void) | undefined;
  const later: string[] = [];
  const application = await startRawApplication(t, (received, socket) => {
    if (!received.endsWith('\r\n\r\n')) return undefined;
    if (received.includes('/first')) return OK;
    if (close !== undefined) {
      later.push(received);
      return OK;
    }
    close = () => void socket.end();
    return undefined;
  });
  return {
    address: application.address,
    later,
    /** Resolves when the second request has come, to the way to close its connection. */
    second: () =>
      eventually(() => {
        assert.ok(close !== undefined);
        return Promise.resolve(close);
      }),
  };
}

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const OVERRIDES = { 'X-HTTP-Method-Override': 'DELETE', x_original_url: '/admin', 'X-Other': '1' };

test('a request that is sent once more when the first rule has come takes no other method or path with it', async (t) => {
  const application = await startClosing(t);
  const stage = await startHttpInbound(t, application.address);
  const line = wire(await stage.connect());
  line.socket.write('GET /first HTTP/1.1\r\nHost: a\r\n\r\n');
  await line.until('ok');
  const fields = Object.entries(OVERRIDES).map(([name, value]) => `${name}: ${value}\r\n`);
  line.socket.write(`GET /second HTTP/1.1\r\nHost: a\r\n${fields.join('')}\r\n`);
  const close = await application.second();
  await stage.sidecar.reload(stage.with({ allow: [{ peer: WEB, methods: ['GET'] }] }));
  close();
  await line.until(/ok[^]*ok/);

  assert.equal(application.later.length, 1);
  assert.match(application.later[0] ?? '', /^GET \/second HTTP\/1\.1\r\nX-Forwarded-Client-Cert: .*\r\nHost: a\r\nX-Other: 1\r\n\r\n$/);
});

test('so does one over HTTP/2', async (t) => {
  const application = await startClosing(t);
  const stage = await startHttpInbound(t, application.address);
  const client = await startClient(t, stage);
  await request(client, { ':path': '/first', ':authority': 'a' });
  const lower = Object.entries(OVERRIDES).map(([name, value]) => [name.toLowerCase(), value]);
  const answer = request(client, { ':path': '/second', ':authority': 'a', ...Object.fromEntries(lower) });
  const close = await application.second();
  await stage.sidecar.reload(stage.with({ allow: [{ peer: WEB, methods: ['GET'] }] }));
  close();
  assert.equal((await answer).status, 200);

  assert.equal(application.later.length, 1);
  assert.match(application.later[0] ?? '', /^GET \/second HTTP\/1\.1\r\n[^]*x-other: 1\r\n/i);
  assert.doesNotMatch(application.later[0] ?? '', /override|original/i);
});

test('one over HTTP/2 that waits for its connection to the application takes no other method or path with it when the first rule has come', async (t) => {
  const { port, accept, received } = await startFullBacklog(t);
  const stage = await startHttpInbound(t, `127.0.0.1:${port}`, { listener: { limits: { connectTimeout: '1h' } } });
  const client = await startClient(t, stage);
  const lower = Object.entries(OVERRIDES).map(([name, value]) => [name.toLowerCase(), value]);
  const answer = request(client, { ':path': '/', ':authority': 'a', ...Object.fromEntries(lower) });
  const rest = request(client, { ':path': '/rest', ':authority': 'a' });
  // Heads are read in their order.
  assert.equal((await request(client, { ':method': 'BREW', ':path': '/', ':authority': 'a' })).status, 400);
  await stage.sidecar.reload(stage.with({ allow: [{ peer: WEB, methods: ['GET'] }] }));
  accept();

  const head = await received(/x-other/i);
  assert.match(head, /^GET \/ HTTP\/1\.1\r\n[^]*x-other: 1\r\n/i);
  assert.doesNotMatch(head, /override|original/i);
  client.destroy();
  await Promise.all([answer, rest]);
});

test('one over HTTP/2 that waits for an application over HTTP/2 takes no other method or path with it when the first rule has come', async (t) => {
  const application = await startFrameApplication(t, () => undefined, Buffer.alloc(0));
  const stage = await startSpliced(t, application.address);
  const client = await startClient(t, stage);
  const lower = Object.entries(OVERRIDES).map(([name, value]) => [name.toLowerCase(), value]);
  const answer = request(client, { ':path': '/', ':authority': 'a', ...Object.fromEntries(lower) });
  await eventually(() => assert.equal(application.connections.length, 1));
  // Heads are read in their order.
  assert.equal((await request(client, { ':method': 'BREW', ':path': '/', ':authority': 'a' })).status, 400);
  await stage.sidecar.reload(stage.with({ allow: [{ peer: WEB, methods: ['GET'] }] }));
  application.connections[0]?.send(settings());

  const head = await eventually(() => {
    const found = application.connections[0]?.frames().find(({ type }) => type === HEADERS);
    assert.ok(found !== undefined);
    return found.payload;
  });
  const fields = new HpackDecoder({ maxTableSize: 4096, maxFieldSectionSize: 10_000, maxFields: 100 }).decode(head, 0, head.length);
  assert.ok(fields !== 'too_large');
  const names = fields.map(([name]) => name);
  assert.ok(names.includes('x-other'));
  assert.ok(!names.some((name) => /override|original/.test(name)), names.join());
  client.destroy();
  await answer;
});
