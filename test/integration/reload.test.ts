// ghostunnel: server-reload-under-load, server-reload-broken-certificate (here: a broken file), client-/server-allow-uri-san
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { rename, writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import { API, presented, startExampleDomain, startInbound, startOutboundToApi, startPair, WEB } from '../support/data-path.ts';
import { eventually } from '../support/eventually.ts';
import { startScute } from '../support/scute-process.ts';
import { closed, dial, dialling, readAll, startEcho, startTcpServer } from '../support/tcp.ts';
import { outcome, tlsClient } from '../support/tls-peer.ts';

const OTHER = 'spiffe://example.org/other';

test('a peer that a new allow list no longer admits loses its connection, and cannot come back; the others stay', async (t) => {
  const application = await startEcho(t);
  const {
    spiffe,
    sidecar,
    address,
    connect,
    with: settings,
  } = await startInbound(t, application.address, {
    listener: { allow: [WEB, OTHER] },
  });
  const other = presented(await spiffe.issue(OTHER));
  const [losing, staying] = [await connect(), tlsClient(t, address, other)];
  for (const socket of [losing, staying]) {
    socket.write('!');
    await once(socket, 'data');
  }
  const lost = closed(losing);

  await sidecar.reload(settings({ allow: [OTHER] }));

  assert.equal(await lost, 'ECONNRESET');
  assert.equal((await outcome(await connect())).text, '');
  staying.write('!');
  await once(staying, 'data');
  const line = await sidecar.connection((found) => found['close_reason'] === 'policy');
  assert.deepEqual([line['peer_id'], line['detail']], [WEB, `${WEB} is no longer allowed`]);
  assert.equal(await sidecar.metric('scute_authorization_total', { decision: 'deny' }), 1);
});

test('a server that a new list no longer expects loses its connection, and is not reached again', async (t) => {
  const { sidecar, address, with: settings } = await startOutboundToApi(t, (socket) => socket.pipe(socket));
  const caller = await dial(t, address);
  caller.write('!');
  await once(caller, 'data');
  const lost = closed(caller);

  await sidecar.reload(settings({ expect: [OTHER] }));

  assert.equal(await lost, 'ECONNRESET');
  assert.equal(await closed(dialling(t, address)), 'ECONNRESET');
  assert.equal((await sidecar.connection((line) => line['close_reason'] === 'upstream_denied'))['reason'], 'not_allowed');
});

test('an empty allow list admits nobody', async (t) => {
  const application = await startEcho(t);
  const { sidecar, connect } = await startInbound(t, application.address, { listener: { allow: [] } });

  assert.equal((await outcome(await connect())).text, '');

  assert.equal((await sidecar.connection())['reason'], 'not_allowed');
  assert.equal(application.connections.size, 0);
});

test('a broken configuration changes nothing: who was admitted is admitted, who was not is not', async (t) => {
  const application = await startEcho(t);
  const { spiffe, sidecar, address, connect, with: settings } = await startInbound(t, application.address);
  const open = await connect();
  open.write('!');
  await once(open, 'data');

  await sidecar.reload(settings({ allow: [WEB, 'spiffe://not a SPIFFE ID'] }));

  open.write('!');
  await once(open, 'data');
  const again = await connect();
  again.end('again');
  assert.equal((await outcome(again)).text, 'again');
  assert.equal((await outcome(tlsClient(t, address, presented(await spiffe.issue(OTHER))))).text, '');
  assert.equal(await sidecar.metric('scute_config_reloads_total', { result: 'failed' }), 1);
});

test('ten connections stream through five reloads without an error', async (t) => {
  const application = await startEcho(t);
  const { inbound, outbound, address, spiffe } = await startPair(t, application.address);
  const block = randomBytes(256 * 1024);
  const expected = createHash('sha256');
  const ROUNDS = 30;
  for (let i = 0; i < ROUNDS; i++) expected.update(block);
  const hash = expected.digest('hex');
  let rounds = 0;

  const streams = Array.from({ length: 10 }, async () => {
    const caller = await dial(t, address);
    const heard = createHash('sha256');
    caller.on('data', (chunk: Buffer) => heard.update(chunk));
    const ended = once(caller, 'end');
    for (let i = 0; i < ROUNDS; i++) {
      if (!caller.write(block)) await once(caller, 'drain');
      rounds += 1;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    caller.end();
    await ended;
    return heard.digest('hex');
  });
  for (let i = 1; i <= 5; i++) {
    const due = (rounds + 10 * ROUNDS * i) / 7;
    await eventually(() => assert.ok(rounds > due));
    await inbound.reload({
      workloadApi: { endpoint: spiffe.endpoint('api') },
      inbound: [
        {
          name: 'in',
          listen: '127.0.0.1:0',
          to: application.address,
          allow: [WEB, `spiffe://example.org/more-${i}`],
          limits: { maxConnections: 100 + i },
        },
      ],
    });
    await outbound.reload({
      workloadApi: { endpoint: spiffe.endpoint('web') },
      outbound: [{ name: 'out', listen: '127.0.0.1:0', to: inbound.address('in'), expect: [API, `spiffe://example.org/more-${i}`] }],
    });
  }

  assert.deepEqual(new Set(await Promise.all(streams)), new Set([hash]));
  for (const sidecar of [inbound, outbound]) {
    assert.equal(await sidecar.metric('scute_config_reloads_total', { result: 'ok' }), 5);
    await eventually(async () => assert.equal(await sidecar.metric('scute_tcp_close_total', { reason: 'finished' }), 10));
    assert.equal(await sidecar.metric('scute_tcp_close_total'), 10);
  }
});

for (const how of ['a changed file', 'SIGHUP'] as const) {
  test(`the running program takes over a new allow list after ${how}, and keeps it when the file is broken later`, async (t) => {
    const spiffe = await startExampleDomain(t);
    const application = await startTcpServer(t, (socket) => socket.end('hello'));
    const config = (allow: readonly string[]): object => ({
      workloadApi: { endpoint: spiffe.endpoint('api') },
      inbound: [{ name: 'in', listen: '127.0.0.1:0', to: application.address, allow }],
    });
    const scute = await startScute({ config: config([OTHER]) });
    t.after(() => scute.stop());
    await scute.ready('in');
    const address = await scute.address('in');
    const web = presented(await spiffe.issue(WEB));
    const ask = async (): Promise<string> => {
      const client = tlsClient(t, address, web);
      const text = await readAll(client).catch(() => '');
      client.destroy();
      return text.toString();
    };
    const change = async (text: string): Promise<void> => {
      const file = scute.configFile ?? '';
      await writeFile(`${file}.new`, text);
      await rename(`${file}.new`, file);
      if (how === 'SIGHUP') scute.child.signal('SIGHUP');
    };
    assert.equal(await ask(), '');

    await change(JSON.stringify(config([WEB])));
    await scute.logged(({ message }) => message === 'configuration reloaded');
    assert.equal(await ask(), 'hello');

    await change('inbound: [');
    await scute.logged(({ message }) => message.startsWith('configuration not reloaded'));
    assert.equal(await ask(), 'hello');
  });
}
