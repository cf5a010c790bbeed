/** Requests over connections that are kept while the deny list changes. */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import type { DenyListView } from '../../../src/config/policy/deny-file.ts';
import { EMPTY_DENY_LIST, type DenyList } from '../../../src/policy/deny-list.ts';
import { API, presented, startExampleDomain, startInbound, startOutbound, WEB } from '../../support/data-path.ts';
import { denyListOf, startDenyFile } from '../../support/policy/deny-file.ts';
import { startDevDomain } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { startHttpApplication, wire } from '../../support/http/http-stage.ts';
import { HTTP2_KINDS, type Http2Kind } from '../../support/http/http2-kinds.ts';
import { connectClient, request } from '../../support/http/http2-stage.ts';
import { dial } from '../../support/tcp.ts';
import { tlsClient, tlsServer } from '../../support/tls-peer.ts';

const BAD = 'spiffe://example.org/bad';
const CONNECTIONS = 64;
/** Of each connection, after the change. */
const MORE_REQUESTS = 50;

test('a change of the list under 64 connections that are kept loses no request of those who may, and forwards none of those who may not', async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: [WEB], api: [API], bad: [BAD] } });
  const list = await startDenyFile(t);
  const reached = new Set<string>();
  const application = await startHttpApplication(t, (asked, response) => {
    reached.add(asked.url ?? '');
    response.end('!');
  });
  const { sidecar, address } = await startInbound(t, application.address, {
    spiffe,
    listener: { protocol: 'http', allow: [WEB, BAD] },
    file: list.file,
  });
  const svids = { good: presented(await spiffe.issue(WEB)), bad: presented(await spiffe.issue(BAD)) };
  /** From the line on, the list is in force. */
  const isInForce = (): boolean => sidecar.log().some(({ message }) => message === 'deny list reloaded');
  const lost: string[] = [];
  const forbidden: string[] = [];
  /** Connections that are kept: they have been answered. */
  const kept = new Set<number>();
  let wrongly = 0;

  const keepAsking = async (who: 'good' | 'bad', number: number): Promise<void> => {
    const socket = tlsClient(t, address, svids[who]);
    const ask = (path: string): Promise<string | undefined> =>
      new Promise((resolve) => {
        socket.once('data', (chunk: Buffer) => resolve(chunk.toString()));
        // Between requests it may be ended in order.
        socket.once('end', () => socket.end());
        socket.once('close', () => resolve(undefined));
        socket.write(`GET ${path} HTTP/1.1\r\nHost: api\r\n\r\n`);
      });
    socket.setMaxListeners(0);
    let after = 0;
    for (let count = 0; after < MORE_REQUESTS; count++) {
      const path = `/${who}/${number}/${count}`;
      const isAfter = isInForce();
      if (isAfter) after += 1;
      if (who === 'bad' && isAfter) forbidden.push(path);
      const answer = await ask(path);
      const isOk = answer?.startsWith('HTTP/1.1 200 ') === true;
      if (isOk) kept.add(number);
      if (who === 'good' && !isOk) lost.push(`${path}: ${answer}`);
      if (who === 'bad' && isAfter && isOk) wrongly += 1;
      if (who === 'bad' && !isOk) return;
    }
  };
  const asking = Array.from({ length: CONNECTIONS }, (_, number) => keepAsking(number % 2 === 0 ? 'good' : 'bad', number));
  await eventually(() => assert.equal(kept.size, CONNECTIONS));
  await list.become({ ids: [BAD] });
  await Promise.all(asking);

  assert.deepEqual(lost, []);
  assert.equal(wrongly, 0);
  assert.deepEqual(
    forbidden.filter((path) => reached.has(path)),
    [],
  );
  await eventually(async () =>
    assert.equal(await sidecar.metric('scute_tcp_close_total', { listener: 'in', reason: 'revoked' }), CONNECTIONS / 2),
  );
});

/** A list that is in force without anybody being told: as between its coming and the sweep's. */
function untold(): { readonly view: DenyListView; readonly deny: (id: string) => void } {
  let list: DenyList = EMPTY_DENY_LIST;
  return {
    view: { current: () => list, status: () => undefined, onReload: () => () => undefined },
    deny(id) {
      list = denyListOf({ ids: [id] });
    },
  };
}

const file = { revocations: { file: '/not/read.yaml' } };

async function startBeforeSweep(t: TestContext, kind?: Http2Kind) {
  const { view, deny } = untold();
  let requests = 0;
  const application = await (kind?.startHttpApplication ?? startHttpApplication)(t, (_, response) => {
    requests += 1;
    response.end('!');
  });
  const listener = { protocol: 'http', http: { application: kind?.speaks } };
  const stage = await startInbound(t, application.address, { listener, file, sidecar: { denyList: view } });
  return { ...stage, deny, requests: () => requests };
}

test('a request that comes before the sweep to its connection is refused, and ends it as revoked', async (t) => {
  const { sidecar, connect, deny, requests } = await startBeforeSweep(t);
  const line = wire(await connect());
  line.socket.write('GET / HTTP/1.1\r\nHost: api\r\n\r\n');
  await line.until('200 OK');

  deny(WEB);
  line.socket.write('GET /again HTTP/1.1\r\nHost: api\r\n\r\n');
  await line.until(' 403 ');

  const { text } = await line.over();
  assert.match(text, /HTTP\/1\.1 403 [\s\S]*revoked: spiffe:\/\/example\.org\/web may not do this/);
  assert.equal(requests(), 1);
  const closing = await sidecar.connection();
  assert.deepEqual([closing['close_reason'], closing['reason'], closing['verdict']], ['revoked', 'revoked', 'deny']);
  const refused = sidecar.log().find((each) => each['result'] === 'denied');
  assert.deepEqual([refused?.['reason'], refused?.['path']], ['revoked', '/again']);
});

for (const kind of HTTP2_KINDS)
  test(`over HTTP/2 as well: each request that comes before the sweep is refused, before ${kind.application}`, async (t) => {
    const { address, web, deny, requests } = await startBeforeSweep(t, kind);
    const client = await connectClient(t, address, web);
    assert.equal((await request(client, { ':path': '/' })).status, 200);

    deny(WEB);
    const answers = await Promise.all([1, 2, 3].map((number) => request(client, { ':path': `/${number}` })));

    assert.deepEqual(
      answers.map(({ status }) => status),
      [403, 403, 403],
    );
    assert.equal(requests(), 1);
  });

test('a list that names others lets requests go on, on the same connection', async (t) => {
  const { connect, deny, requests } = await startBeforeSweep(t);
  const line = wire(await connect());
  for (let count = 1; count <= 3; count++) {
    deny(`spiffe://example.org/other-${count}`);
    line.socket.write('GET / HTTP/1.1\r\nHost: api\r\n\r\n');
    await eventually(() => assert.equal(line.text().split('200 OK').length, count + 1));
  }
  assert.equal(requests(), 3);
});

test('a server that is revoked before the sweep is not asked anything more', async (t) => {
  const spiffe = await startExampleDomain(t);
  const { view, deny } = untold();
  let asked = '';
  const server = await tlsServer(t, presented(await spiffe.issue(API)), (socket) =>
    socket.on('data', (chunk: Buffer) => {
      asked += chunk.toString();
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n!');
    }),
  );
  const { sidecar, address } = await startOutbound(t, server.address, {
    spiffe,
    listener: { protocol: 'http' },
    file,
    sidecar: { denyList: view },
  });
  const line = wire(await dial(t, address));
  line.socket.write('GET /first HTTP/1.1\r\nHost: api\r\n\r\n');
  await line.until('200 OK');

  deny(API);
  line.socket.write('GET /second HTTP/1.1\r\nHost: api\r\n\r\n');
  await line.until(' 502 ');

  const { text } = await line.over();
  assert.match(text, /HTTP\/1\.1 502 [\s\S]*revoked: spiffe:\/\/example\.org\/api may not be asked this/);
  assert.ok(asked.includes('/first') && !asked.includes('/second'), asked);
  assert.equal((await sidecar.connection())['close_reason'], 'revoked');
  // Nor is a new connection to it of any use.
  const again = wire(await dial(t, address));
  again.socket.write('GET /third HTTP/1.1\r\nHost: api\r\n\r\n');
  assert.match((await again.over()).text, /HTTP\/1\.1 502 [\s\S]*the server is not who it must be: revoked/);
  assert.ok(!asked.includes('/third'), asked);
});
