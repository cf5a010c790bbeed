import assert from 'node:assert/strict';
import { once } from 'node:events';
import { rename, writeFile } from 'node:fs/promises';
import { request } from 'node:https';
import { connect as connectTcp } from 'node:net';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { spiffeRelation, startFederation, webRelation } from '../../support/bundle-endpoint.ts';
import { requireCertificate, requireTrustDomain } from '../../support/pki/bundles.ts';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { createTestAuthority, type TestAuthority } from '../../support/pki/pki.ts';
import { startSidecar, type Sidecar } from '../../support/sidecar.ts';
import { closed, dial, startTcpServer } from '../../support/tcp.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { FakeWorkloadApi, svidEntry } from '../../support/workload-api.ts';

const US = 'spiffe://example.org/us';
const DOMAIN = requireTrustDomain('example.org');

interface Stage {
  readonly api: FakeWorkloadApi;
  readonly own: TestAuthority;
  readonly sidecar: Sidecar;
  readonly port: number;
  readonly url: string;
  readonly clock: FakeClock;
}

async function startStage(t: TestContext, endpoint: object = { profile: 'https_spiffe' }, unready = false): Promise<Stage> {
  const own = createTestAuthority();
  const api = await FakeWorkloadApi.start();
  t.after(() => api[Symbol.asyncDispose]());
  const federated = createTestAuthority({ trustDomain: 'partner.test' });
  if (!unready) api.setX509([svidEntry(own, own.issue({ id: US }), US)], { 'spiffe://partner.test': federated.der });
  const clock = new FakeClock();
  const config = { workloadApi: { endpoint: api.endpoint }, bundleEndpoint: { listen: '127.0.0.1:0', ...endpoint } };
  const sidecar = await startSidecar(t, config, { unready, clock });
  const port = Number(sidecar.address('bundleEndpoint').split(':').at(-1));
  return { api, own, sidecar, port, url: `https://localhost:${port}/`, clock };
}

interface Answer {
  readonly status: number | undefined;
  readonly headers: NodeJS.Dict<string | string[]>;
  readonly body: string;
}

/** One request by a client that trusts anybody. */
function ask(port: number, { method = 'GET', path = '/' } = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = request({ port, host: '127.0.0.1', method, path, rejectUnauthorized: false, agent: false }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (text: string) => (body += text));
      response.on('end', () => resolve({ status: response.statusCode, headers: response.headers, body }));
    });
    asked.on('error', reject).end();
  });
}

interface Bundle {
  readonly spiffe_sequence: number;
  readonly spiffe_refresh_hint: number;
  readonly keys: readonly { readonly use: string; readonly x5c: readonly string[] }[];
}

async function bundleAt(port: number, path = '/'): Promise<Bundle> {
  const { status, headers, body } = await ask(port, { path });
  assert.deepEqual([status, headers['content-type']], [200, 'application/json']);
  return JSON.parse(body) as Bundle;
}

async function tls(t: TestContext, port: number): Promise<TLSSocket> {
  const socket = connectTls({ port, host: '127.0.0.1', rejectUnauthorized: false });
  socket.on('error', () => undefined);
  t.after(() => socket.destroy());
  await once(socket, 'secureConnect');
  return socket;
}

test('what a partner fetches over https_spiffe are the authorities of our own trust domain, and nothing of others', async (t) => {
  const { own, port, url, clock } = await startStage(t);
  const bundleFile = join(await temporaryFolder(t), 'bundle.pem');
  await writeFile(bundleFile, own.pem);
  const partner = await startFederation(t, [spiffeRelation(DOMAIN, url, US, bundleFile)]);

  assert.equal(await partner.refreshed(1), 'updated');

  const document = partner.bundles().get(DOMAIN);
  assert.deepEqual(
    document?.authorities.map(({ sha256 }) => sha256),
    [requireCertificate(own.der).sha256],
  );
  assert.equal(document?.refreshHintMs, 300_000);
  assert.deepEqual(
    (await bundleAt(port)).keys.map(({ use, x5c }) => [use, x5c.length]),
    [['x509-svid', 1]],
  );
  assert.ok(Number(document?.sequence) <= clock.now() / 1000);
});

test('the endpoint shows the SVID as it is rotated, and the bundle with it; the sequence number grows with each change alone', async (t) => {
  const { api, own, sidecar, port, clock } = await startStage(t);
  const before = await bundleAt(port);
  const told = (): number => sidecar.log().filter(({ message }) => message === 'identity updated').length;
  const tell = async (authority: TestAuthority, bundle: Uint8Array): Promise<string> => {
    const [count, leaf] = [told(), authority.issue({ id: US })];
    api.setX509([svidEntry(authority, leaf, US, { bundle })]);
    await eventually(() => assert.ok(told() > count));
    const socket = await tls(t, port);
    assert.equal(socket.getPeerCertificate().raw.compare(leaf.der), 0);
    socket.destroy();
    return JSON.stringify(await bundleAt(port));
  };

  const same = await tell(own, own.der);
  const next = createTestAuthority();
  const both = JSON.parse(await tell(own, Buffer.concat([own.der, next.der]))) as Bundle;
  const alone = JSON.parse(await tell(next, next.der)) as Bundle;

  assert.deepEqual(JSON.parse(same), before);
  assert.deepEqual([before.keys.length, both.keys.length, alone.keys.length], [1, 2, 1]);
  assert.ok(both.spiffe_sequence > before.spiffe_sequence && alone.spiffe_sequence > both.spiffe_sequence);
  assert.equal(await sidecar.metric('scute_bundle_endpoint_sequence'), alone.spiffe_sequence);
  assert.ok(before.spiffe_sequence <= clock.now() / 1000);
});

test('one path is answered, as it is written, and only to GET', async (t) => {
  const { port, sidecar } = await startStage(t, { profile: 'https_spiffe', path: '/bundles/own.json', refreshHint: '90s' });

  assert.equal((await bundleAt(port, '/bundles/own.json')).spiffe_refresh_hint, 90);
  for (const path of [
    '/',
    '/bundles/own.json/',
    '//bundles/own.json',
    '/bundles/./own.json',
    '/bundles%2fown.json',
    '/bundles/own.json?x',
    '/BUNDLES/own.json',
    `https://127.0.0.1:${port}/bundles/own.json`,
    '*',
  ])
    assert.equal((await ask(port, { path })).status, 404, path);
  for (const method of ['HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH']) {
    const { status, headers } = await ask(port, { method, path: '/bundles/own.json' });
    assert.deepEqual([status, headers['allow']], [405, 'GET'], method);
  }
  assert.equal(await sidecar.metric('scute_bundle_endpoint_requests_total', { result: 'served' }), 1);
  assert.equal(await sidecar.metric('scute_bundle_endpoint_requests_total', { result: 'not_found' }), 9);
  assert.equal(await sidecar.metric('scute_bundle_endpoint_requests_total', { result: 'bad_method' }), 6);
});

/** The types of the handshake messages that a server sends in the clear: TLS 1.2 encrypts none of them. */
function handshakeTypes(flight: Buffer): number[] {
  const messages: Buffer[] = [];
  for (let at = 0; at + 5 <= flight.length; at += 5 + flight.readUInt16BE(at + 3)) {
    if (flight[at] !== 22) break;
    messages.push(flight.subarray(at + 5, at + 5 + flight.readUInt16BE(at + 3)));
  }
  const bytes = Buffer.concat(messages);
  const types: number[] = [];
  for (let at = 0; at + 4 <= bytes.length; at += 4 + bytes.readUIntBE(at + 1, 3)) types.push(bytes[at] ?? 0);
  return types;
}

test('no certificate is asked for', async (t) => {
  const { port } = await startStage(t);
  const sent: Buffer[] = [];
  const recorder = await startTcpServer(t, (socket) => {
    const endpoint = connectTcp({ port, host: '127.0.0.1' }).on('error', () => undefined);
    t.after(() => endpoint.destroy());
    endpoint.on('data', (chunk: Buffer) => sent.push(chunk));
    socket.pipe(endpoint).pipe(socket);
  });
  const socket = connectTls({ port: recorder.port, host: '127.0.0.1', rejectUnauthorized: false, maxVersion: 'TLSv1.2' });
  t.after(() => socket.destroy());
  await once(socket, 'secureConnect');

  // ServerHello, Certificate, ServerKeyExchange, ServerHelloDone; a CertificateRequest would be 13.
  assert.deepEqual(handshakeTypes(Buffer.concat(sent)), [2, 11, 12, 14]);
});

test('a connection that asks nothing, or half of something, is cut off after 10 seconds', async (t) => {
  const { port, sidecar, clock } = await startStage(t);
  const silent = await dial(t, `127.0.0.1:${port}`);
  const idle = await tls(t, port);
  const half = await tls(t, port);
  half.write('GET / HTTP/1.1\r\nhost:');
  const ends = Promise.all([silent, idle, half].map(closed));
  const answered = await tls(t, port);
  answered.write('GET / HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n');
  const [first] = (await once(answered, 'data')) as [Buffer];
  assert.match(first.toString(), /connection: close/i);

  clock.advance(10_000);
  await ends;

  assert.equal(await sidecar.metric('scute_bundle_endpoint_requests_total', { result: 'timeout' }), 3);
});

test('beyond 128 connections the oldest goes, and who comes is served', async (t) => {
  const { port, sidecar } = await startStage(t);
  const sockets = await Promise.all(Array.from({ length: 130 }, () => dial(t, `127.0.0.1:${port}`)));
  for (const socket of sockets) socket.resume();

  assert.equal((await bundleAt(port)).keys.length, 1);

  await eventually(async () =>
    assert.equal(await sidecar.metric('scute_bundle_endpoint_requests_total', { result: 'connection_limit' }), 3),
  );
});

test('whatever is said that is no request ends that connection alone', async (t) => {
  const { port } = await startStage(t);
  for (const bytes of [
    '\0\0\0\0',
    'GET / HTTP/9.9\r\n\r\n',
    `GET / HTTP/1.1\r\nx: ${'y'.repeat(20_000)}\r\n\r\n`,
    'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
  ]) {
    const socket = await tls(t, port);
    const end = closed(socket);
    socket.write(bytes);
    await end;
  }
  const plain = await dial(t, `127.0.0.1:${port}`);
  const end = closed(plain.on('end', () => plain.end()));
  plain.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n');
  await end;

  assert.equal((await bundleAt(port)).keys.length, 1);
});

test('without an identity nothing is served, and readiness says so', async (t) => {
  const { api, own, port, sidecar } = await startStage(t, { profile: 'https_spiffe' }, true);

  await assert.rejects(ask(port), { code: 'ECONNRESET' });
  assert.ok(sidecar.app.notReady().includes('identity'));
  api.setX509([svidEntry(own, own.issue({ id: US }), US)]);
  await sidecar.ready();

  assert.equal((await bundleAt(port)).keys.length, 1);
});

test('with https_web the certificate of the files is shown, and changes with them', async (t) => {
  const folder = await temporaryFolder(t);
  const [certFile, keyFile] = [join(folder, 'cert.pem'), join(folder, 'key.pem')];
  const ca = createTestAuthority({ trustDomain: 'web.test' });
  const put = async (certificate: { readonly chainPem: string }, key: { readonly keyPem: string }): Promise<void> => {
    for (const [file, text] of [
      [certFile, certificate.chainPem],
      [keyFile, key.keyPem],
    ] as const) {
      await writeFile(`${file}.new`, text);
      await rename(`${file}.new`, file);
    }
  };
  const issue = () => ca.issue({ uriSans: [], dnsSans: ['localhost'] });
  const [first, second] = [issue(), issue()];
  await put(first, first);
  const { own, port, url, sidecar, clock } = await startStage(t, { profile: 'https_web', certFile, keyFile });
  const caFile = join(folder, 'ca.pem');
  await writeFile(caFile, ca.pem);
  const partner = await startFederation(t, [webRelation(DOMAIN, url, caFile)]);
  assert.equal(await partner.refreshed(1), 'updated');
  assert.deepEqual(
    partner
      .bundles()
      .get(DOMAIN)
      ?.authorities.map(({ sha256 }) => sha256),
    [requireCertificate(own.der).sha256],
  );
  const shown = async (): Promise<Buffer> => {
    const socket = await tls(t, port);
    const { raw } = socket.getPeerCertificate();
    socket.destroy();
    return raw;
  };
  const passes = (message: string): Promise<void> =>
    eventually(() => {
      clock.advance(10_000);
      assert.ok(
        sidecar.log().some((line) => line.message === message),
        message,
      );
    });

  await put(second, first);
  await passes('certificate of the bundle endpoint not reloaded; the old one stays in force');
  assert.equal((await shown()).compare(first.der), 0);
  await put(second, second);
  await passes('certificate of the bundle endpoint reloaded');
  assert.equal((await shown()).compare(second.der), 0);
});

test('with https_web nothing but a 503 is served while the Workload API gives no identity', async (t) => {
  const folder = await temporaryFolder(t);
  const leaf = createTestAuthority({ trustDomain: 'web.test' }).issue({ uriSans: [], dnsSans: ['localhost'] });
  await writeFile(join(folder, 'cert.pem'), leaf.chainPem);
  await writeFile(join(folder, 'key.pem'), leaf.keyPem);
  const files = { certFile: join(folder, 'cert.pem'), keyFile: join(folder, 'key.pem') };
  const { port } = await startStage(t, { profile: 'https_web', ...files }, true);

  const { status, body } = await ask(port);

  assert.deepEqual([status, body], [503, '']);
});

test('files that are missing, or do not belong together, fail the start', async (t) => {
  const folder = await temporaryFolder(t);
  const [one, other] = [createTestAuthority().issue(), createTestAuthority().issue()];
  await writeFile(join(folder, 'cert.pem'), one.chainPem);
  await writeFile(join(folder, 'key.pem'), other.keyPem);

  await assert.rejects(
    startStage(t, { profile: 'https_web', certFile: join(folder, 'none.pem'), keyFile: join(folder, 'key.pem') }),
    /bundleEndpoint: .*none\.pem cannot be read/,
  );
  await assert.rejects(
    startStage(t, { profile: 'https_web', certFile: join(folder, 'cert.pem'), keyFile: join(folder, 'key.pem') }),
    /bundleEndpoint: .*cannot be used: .*key values mismatch/,
  );
});

test('stopping cuts off who is connected, and frees the address', async (t) => {
  const { port, sidecar } = await startStage(t);
  const idle = await tls(t, port);
  const end = closed(idle);

  await sidecar.stop();

  await end;
  await assert.rejects(ask(port), { code: 'ECONNREFUSED' });
});
