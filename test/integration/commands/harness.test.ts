/** `scute harness` as the public conformance suite uses it: a process that knows SPIFFE_ENDPOINT_SOCKET and nothing else. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { status } from '@grpc/grpc-js';
import { ownSvid, present } from '../../support/both-roles.ts';
import { startChild, type Child } from '../../support/child.ts';
import { eventually } from '../../support/eventually.ts';
import { createTestAuthority } from '../../support/pki/pki.ts';
import { dial, startTcpServer } from '../../support/tcp.ts';
import { outcome, tlsClient, tlsServer, type Presented } from '../../support/tls-peer.ts';
import { FakeWorkloadApi } from '../../support/workload-api.ts';

const MAIN = fileURLToPath(new URL('../../../src/main.ts', import.meta.url));
const PEER = 'spiffe://example.org/peer';
const root = createTestAuthority();
const own = ownSvid(root, 'spiffe://example.org/own');
const good = present(root.issue({ id: PEER }));
const stranger = present(createTestAuthority().issue({ id: PEER }));

interface Harness {
  readonly child: Child;
  readonly x509: string;
  /** The status and the body of an answer of the control port. */
  readonly ask: (method: 'GET' | 'POST', path: string, body?: object) => Promise<Answer>;
}

interface Answer {
  readonly code: number;
  readonly answer: Readonly<Record<string, unknown>>;
}

async function start(t: TestContext, endpoint: string | undefined): Promise<Child> {
  const env = { PATH: process.env['PATH'] ?? '', ...(endpoint !== undefined && { SPIFFE_ENDPOINT_SOCKET: endpoint }) };
  const child = await startChild([process.execPath, '--disable-sigusr1', MAIN, 'harness'], { env });
  t.after(() => child.stop());
  return child;
}

/** The ports, as soon as they are announced. */
async function announced(child: Child): Promise<Harness> {
  const portOf = async (name: string): Promise<string> => {
    const { text } = await child.line(new RegExp(`^${name}=\\d+$`));
    return `127.0.0.1:${text.slice(name.length + 1)}`;
  };
  const [x509, control] = await Promise.all([portOf('SPIFFE_X509_PORT'), portOf('SPIFFE_CONTROL_PORT')]);
  return {
    child,
    x509,
    ask: async (method, path, body) => {
      const content = body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } };
      const response = await fetch(`http://${control}${path}`, { method, ...content });
      return { code: response.status, answer: (await response.json()) as Record<string, unknown> };
    },
  };
}

/** A harness that is ready, at a Workload API that gives it an SVID. */
async function startReady(t: TestContext): Promise<Harness & { readonly api: FakeWorkloadApi }> {
  const api = await FakeWorkloadApi.start();
  t.after(() => api[Symbol.asyncDispose]());
  api.setX509([own.entry]);
  const child = await start(t, api.endpoint);
  await child.line(/^READY$/);
  return { ...(await announced(child)), api };
}

const said = async (t: TestContext, x509: string, peer: Presented | undefined): Promise<string> =>
  (await outcome(tlsClient(t, x509, peer))).text;

test('the contract lines are printed, READY last and not before the first SVID', async (t) => {
  await using api = await FakeWorkloadApi.start();
  const child = await start(t, api.endpoint);
  const { x509, ask } = await announced(child);
  await eventually(() => assert.equal(api.openStreams('FetchX509SVID'), 1));
  assert.equal((await ask('GET', '/v1/info')).code, 200);
  assert.equal(await said(t, x509, good), '');
  assert.doesNotMatch(child.stdout(), /READY/);

  api.setX509([own.entry]);
  await child.line(/^READY$/);

  assert.match(child.stdout(), /^SPIFFE_HARNESS_VERSION=1\nSPIFFE_X509_PORT=\d+\nSPIFFE_CONTROL_PORT=\d+\nREADY\n$/);
  assert.equal(await said(t, x509, good), `${PEER}\n`);
});

test('the X.509 port says who an accepted client is, and nothing to others', async (t) => {
  const { x509, api } = await startReady(t);

  assert.equal(await said(t, x509, good), `${PEER}\n`);
  assert.equal(await said(t, x509, stranger), '');
  assert.equal(await said(t, x509, undefined), '');
  assert.equal(await said(t, x509, present(root.issue({ id: 'spiffe://example.org' }))), '');

  // Rotated: the next connection is shown the new SVID.
  const next = ownSvid(root, 'spiffe://example.org/next');
  api.setX509([next.entry]);
  await eventually(async () => {
    const socket = tlsClient(t, x509, good);
    let seen: Buffer | undefined;
    socket.once('secureConnect', () => {
      seen = socket.getPeerX509Certificate()?.raw;
    });
    await outcome(socket);
    assert.deepEqual(seen, next.leaf.der);
  });
});

test('dial answers 200 with the ID of the server, 422 if that was refused, and 500 if there was nothing to judge', async (t) => {
  const { ask } = await startReady(t);
  const dialFrom = (address: string): Promise<Answer> => ask('POST', '/v1/x509/dial', { address });
  const clients: unknown[] = [];
  const accepted = await tlsServer(t, good, (socket) => {
    clients.push(socket.getPeerX509Certificate()?.raw);
    socket.end();
  });
  const refused = await tlsServer(t, stranger, (socket) => socket.end());
  const garbage = await startTcpServer(t, (socket) => socket.end('this is no TLS\n'));
  const gone = await startTcpServer(t, (socket) => socket.end());
  await gone.close();

  assert.deepEqual(await dialFrom(accepted.address), { code: 200, answer: { status: 'ok', spiffe_id: PEER } });
  await eventually(() => assert.deepEqual(clients, [own.leaf.der]));
  const { code, answer } = await dialFrom(refused.address);
  assert.deepEqual([code, answer['status']], [422, 'rejected']);
  assert.match(String(answer['message']), /^untrusted_chain: /);
  for (const address of [garbage.address, gone.address, 'nowhere', '']) {
    const failed = await dialFrom(address);
    assert.deepEqual([failed.code, failed.answer['status']], [500, 'error'], address);
  }
  assert.equal((await ask('POST', '/v1/x509/dial', {})).code, 500);
});

test('info names the implementation', async (t) => {
  const { ask } = await startReady(t);

  const { code, answer } = await ask('GET', '/v1/info');
  assert.deepEqual([code, answer['sdk'], answer['language']], [200, 'scute', 'typescript']);
  assert.match(String(answer['sdk_version']), /^\d+\.\d+\.\d+/);
});

test('SIGTERM ends it at once, whatever is under way', async (t) => {
  const { child, x509, ask } = await startReady(t);
  const silentClient = await dial(t, x509);
  const silentServer = await startTcpServer(t, () => undefined);
  const dialled = ask('POST', '/v1/x509/dial', { address: silentServer.address }).catch(() => undefined);
  await eventually(() => assert.equal(silentServer.connections.size, 1));
  // Admitted, answered, and never closed by the client.
  const lasting = tlsClient(t, x509, good);
  await once(lasting, 'data');
  assert.ok(!silentClient.destroyed);

  const beganMs = performance.now();
  const { code, signal } = await child.stop();

  assert.deepEqual([code, signal], [0, null]);
  const tookMs = performance.now() - beganMs;
  assert.ok(tookMs < 4500, `took ${tookMs} ms`);
  await dialled;
});

test('EP-1, EP-2: the endpoint is found in SPIFFE_ENDPOINT_SOCKET, and every call carries the header', async (t) => {
  const { api } = await startReady(t);

  assert.ok(api.calls.length > 0);
  assert.ok(api.calls.every(({ hadHeader }) => hadHeader));
});

test('EP-1: without SPIFFE_ENDPOINT_SOCKET it ends, and says what is missing', async (t) => {
  const child = await start(t, undefined);

  assert.equal((await child.exited).code, 1);
  assert.equal(child.stdout(), '');
  assert.match(child.stderr(), /SPIFFE_ENDPOINT_SOCKET/);
});

test('EP-3: a TCP endpoint works', async (t) => {
  await using api = await FakeWorkloadApi.start({ tcp: true });
  api.setX509([own.entry]);

  const child = await start(t, api.endpoint);
  await child.line(/^READY$/);

  assert.equal(await said(t, (await announced(child)).x509, good), `${PEER}\n`);
});

for (const [id, tcp, spoil] of [
  ['EP-4/unix-authority', false, (endpoint: string) => endpoint.replace('unix://', 'unix://localhost')],
  ['EP-4/tcp-path', true, (endpoint: string) => `${endpoint}/foo`],
] as const)
  test(`${id}: the endpoint is refused without a single call, and the same server is found where it is`, async (t) => {
    await using api = await FakeWorkloadApi.start({ tcp });
    api.setX509([own.entry]);

    const refused = await start(t, spoil(api.endpoint));
    assert.equal((await refused.exited).code, 1);
    assert.doesNotMatch(refused.stdout(), /READY/);
    assert.deepEqual(api.calls, []);

    await (await start(t, api.endpoint)).line(/^READY$/);
  });

for (const [id, code] of [
  ['EP-5', status.UNAVAILABLE],
  ['EP-6', status.PERMISSION_DENIED],
] as const)
  test(`${id}: after three answers ${status[code]} it becomes ready, and did not ask in a tight loop`, async (t) => {
    await using api = await FakeWorkloadApi.start();
    api.setX509([own.entry]);
    api.failWith('FetchX509SVID', code, { times: 3 });

    await (await start(t, api.endpoint)).line(/^READY$/);

    const times = api.callsOf('FetchX509SVID').map(({ atMs }) => atMs);
    assert.equal(times.length, 4);
    assert.ok(((times[3] ?? 0) - (times[0] ?? 0)) / 3 >= 50);
  });

test('EP-8: a socket that appears after the start is picked up', async (t) => {
  await using api = await FakeWorkloadApi.prepare();
  api.setX509([own.entry]);
  const child = await start(t, api.endpoint);
  await child.line(/Workload API stream failed/);
  assert.doesNotMatch(child.stdout(), /READY/);

  await api.listen();

  await child.line(/^READY$/);
});
