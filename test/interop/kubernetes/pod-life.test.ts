import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { startDevDomain } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { presented } from '../../support/data-path.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { outcome, tlsClient } from '../../support/tls-peer.ts';
import { startWebServer } from '../../support/web-server.ts';
import { needs } from '../parts.ts';
import { freePort } from '../stage.ts';
import { playPod, type PlayedPod, type PlayOptions } from './kubelet.ts';
import { manifestsOf, podOf, prepareCharts, type Manifest } from './stage.ts';

// What a kubelet and a container runtime do is played: that they do so themselves, restarts, cgroups, users, seccomp, the CSI driver, network policies and
// admission by a real API server are not shown here.

/** Answers on 127.0.0.1:PORT; /healthz with 200 while the file READY is there. At SIGTERM it ends. */
const SERVER = `
import { existsSync } from 'node:fs';
import { createServer } from 'node:http';
const [, , port, ready] = process.argv;
const server = createServer((request, response) => {
  response.statusCode = request.url === '/healthz' && !existsSync(ready) ? 503 : 200;
  response.setHeader('connection', 'close');
  response.end('hello from the application');
}).listen(Number(port), '127.0.0.1');
process.once('SIGTERM', () => server.close(() => process.exit(0)));
`;

/** Asks for http://127.0.0.1:PORT/ once, says what came, and ends. */
const TASK = `
const [, , port] = process.argv;
const response = await fetch('http://127.0.0.1:' + port + '/');
console.log(response.status, await response.text());
process.exitCode = response.ok ? 0 : 1;
`;

const IMAGE = `registry.example/app@sha256:${'a'.repeat(64)}`;

interface Stage {
  readonly folder: string;
  readonly port: number;
  readonly ready: string;
  readonly play: (pod: {
    readonly kind?: string;
    readonly container: object;
    readonly config: object;
    readonly scute?: object;
    /** Of the workload itself. */
    readonly more?: object;
    readonly sleep?: PlayOptions['sleep'];
  }) => Promise<{ readonly played: PlayedPod; readonly manifests: readonly Manifest[] }>;
  readonly spiffe: Awaited<ReturnType<typeof startDevDomain>>;
}

async function stage(t: TestContext): Promise<Stage> {
  const folder = await temporaryFolder(t);
  await writeFile(join(folder, 'server.mjs'), SERVER);
  await writeFile(join(folder, 'task.mjs'), TASK);
  // The name of its socket is the one that the CSI driver has.
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { 'spire-agent': ['spiffe://example.org/app'] } });
  const metricsPort = await freePort();
  return {
    folder,
    port: await freePort(),
    ready: join(folder, 'ready'),
    spiffe,
    async play({ kind = 'Deployment', container, config, scute = {}, more = {}, sleep }) {
      const charts = await prepareCharts(t);
      const template = { spec: { containers: [{ name: 'app', image: IMAGE, ...container }] } };
      const values = {
        'scute-sidecar': { metricsPort, preStopSleep: 1 },
        workloads: {
          api: null,
          web: null,
          life: { kind, template, scute: { config: { drainTimeout: '20s', ...config }, ...scute }, ...more },
        },
      };
      const manifests = manifestsOf(await charts.render('helm4', 'default', { values }));
      const pod = manifests.flatMap((each) => podOf(each) ?? [])[0] ?? assert.fail();
      return { manifests, played: await playPod(t, pod, manifests, { workloadApi: spiffe.endpoint('spire-agent'), sleep }) };
    },
  };
}

test(
  'a server starts after Scute has its identity, is ready by its own probe, serves while it sleeps, and ends before Scute',
  needs('helm4'),
  async (t) => {
    const { folder, port, ready, spiffe, play } = await stage(t);
    await spiffe.withdraw('spire-agent');
    const listen = await freePort();
    const asleep = Promise.withResolvers<number>();
    const wake = Promise.withResolvers<void>();
    const inbound = { name: 'life', listen: `[::]:${listen}`, to: `127.0.0.1:${port}`, allow: ['spiffe://example.org/web'] };
    const { played } = await play({
      container: {
        command: [process.execPath, join(folder, 'server.mjs')],
        args: [String(port), ready],
        readinessProbe: { httpGet: { path: '/healthz', port } },
      },
      config: { inbound: [inbound] },
      sleep(seconds) {
        asleep.resolve(seconds);
        return wake.promise;
      },
    });
    const asPeer = async (id: string): Promise<string> => {
      const socket = tlsClient(t, `127.0.0.1:${listen}`, presented(await spiffe.issue(id)));
      socket.write('GET / HTTP/1.1\r\nHost: life\r\nConnection: close\r\n\r\n');
      return (await outcome(socket)).text;
    };

    const scute = await eventually(async () => played.container('scute') ?? assert.fail());
    await scute.line(/Workload API stream failed/);
    assert.deepEqual(played.events, ['scute started']);
    assert.equal(await played.ready(), false);

    await spiffe.restore('spire-agent');
    await played.started;
    assert.deepEqual(played.events, ['scute started', 'scute has come up', 'app started']);
    assert.equal(await played.ready(), false);
    await writeFile(ready, '');
    await eventually(async () => assert.equal(await played.ready(), true));
    assert.match(await asPeer('spiffe://example.org/web'), /hello from the application/);
    assert.doesNotMatch(await asPeer('spiffe://example.org/other'), /hello/);

    const deleted = played.delete();
    assert.equal(await asleep.promise, 1);
    assert.match(await asPeer('spiffe://example.org/web'), /hello from the application/);
    wake.resolve();
    const exits = await deleted;

    assert.deepEqual(played.events.slice(3), ['app sleeps before its end', 'app ended', 'scute ended']);
    assert.deepEqual(
      [...exits.values()],
      [
        { code: 0, signal: null },
        { code: 0, signal: null },
      ],
    );
  },
);

for (const kind of ['StatefulSet', 'DaemonSet'])
  test(`a pod of a ${kind} comes up by its own start-up probe, serves its peers, and ends before Scute`, needs('helm4'), async (t) => {
    const { folder, port, ready, spiffe, play } = await stage(t);
    const listen = await freePort();
    const { played } = await play({
      kind,
      container: {
        command: [process.execPath, join(folder, 'server.mjs')],
        args: [String(port), ready],
        startupProbe: { httpGet: { path: '/', port }, periodSeconds: 1, failureThreshold: 300 },
        readinessProbe: { httpGet: { path: '/healthz', port } },
      },
      config: { inbound: [{ listen: `[::]:${listen}`, to: `127.0.0.1:${port}`, allow: ['spiffe://example.org/web'] }] },
    });

    await played.started;
    assert.equal(await played.ready(), false);
    await writeFile(ready, '');
    await eventually(async () => assert.equal(await played.ready(), true));
    const socket = tlsClient(t, `127.0.0.1:${listen}`, presented(await spiffe.issue('spiffe://example.org/web')));
    socket.write('GET / HTTP/1.1\r\nHost: life\r\nConnection: close\r\n\r\n');
    assert.match((await outcome(socket)).text, /hello from the application/);
    await played.delete();

    const came = ['scute started', 'scute has come up', 'app started', 'app has come up'];
    assert.deepEqual(played.events, [...came, 'app sleeps before its end', 'app ended', 'scute ended']);
  });

test(
  'a gateway leads its peers to one server of the public web, goes on while it sleeps, and ends when asked',
  needs('helm4'),
  async (t) => {
    const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { 'spire-agent': ['spiffe://example.org/gateway'] } });
    const server = await startWebServer(t);
    const charts = await prepareCharts(t);
    const port = await freePort();
    const values = {
      'scute-sidecar': { metricsPort: await freePort() },
      gateway: { port, to: server.origin, allow: [{ peer: 'spiffe://example.org/web', methods: ['GET'], paths: ['/v1/**'] }] },
    };
    const between = await freePort();
    // The world's authorities know nothing of the server of a test, and this machine has one loopback for all.
    const text = (await charts.render('helm4', 'gateway', { values }))
      .replace('webPki: true', `webPki: { caFile: ${server.caFile} }`)
      .replaceAll('127.0.0.1:9443', `127.0.0.1:${between}`);
    assert.ok(text.includes(server.caFile) && text.includes(String(between)));
    const manifests = manifestsOf(text);
    const pod = manifests.flatMap((each) => podOf(each) ?? [])[0] ?? assert.fail();
    const asleep = Promise.withResolvers<number>();
    const wake = Promise.withResolvers<void>();
    const played = await playPod(t, pod, manifests, {
      workloadApi: spiffe.endpoint('spire-agent'),
      sleep(seconds) {
        asleep.resolve(seconds);
        return wake.promise;
      },
    });
    const asked = async (id: string, path: string): Promise<string> => {
      const socket = tlsClient(t, `127.0.0.1:${port}`, presented(await spiffe.issue(id)));
      socket.write(`GET ${path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n`);
      return (await outcome(socket)).text;
    };

    await played.started;
    await eventually(async () => assert.equal(await played.ready(), true));
    assert.match(await asked('spiffe://example.org/web', '/v1/rates'), /^HTTP\/1\.1 200 [^]*hello$/);
    assert.match(await asked('spiffe://example.org/web', '/v2/rates'), /^HTTP\/1\.1 403 /);
    assert.doesNotMatch(await asked('spiffe://example.org/other', '/v1/rates'), /hello/);
    const deleted = played.delete();
    assert.equal(await asleep.promise, 5);
    assert.match(await asked('spiffe://example.org/web', '/v1/last'), /hello$/);
    wake.resolve();
    const exits = await deleted;

    assert.deepEqual(
      server.requests.map(({ url, headers, clientCertificate }) => [url, headers.host, clientCertificate]),
      ['/v1/rates', '/v1/last'].map((url) => [url, `localhost:${server.port}`, false]),
    );
    assert.deepEqual(played.events, ['scute started', 'scute has come up', 'scute sleeps before its end', 'scute ended']);
    assert.deepEqual(exits.get('scute'), { code: 0, signal: null });
  },
);

const JOBS = { Job: {}, CronJob: { schedule: '0 3 * * *' } };

for (const [kind, more] of Object.entries(JOBS))
  test(`a ${kind} calls through Scute with its identity, and completes without help`, needs('helm4'), async (t) => {
    const { folder, port, spiffe, play } = await stage(t);
    const listen = await freePort();
    const server = await playServer(t, spiffe, folder, listen);
    const { played } = await play({
      kind,
      more,
      container: { command: [process.execPath, join(folder, 'task.mjs')], args: [String(port)] },
      config: { outbound: [{ listen: `127.0.0.1:${port}`, to: `127.0.0.1:${listen}`, expect: ['spiffe://example.org/app'] }] },
    });

    const exits = await played.completed;

    assert.match(played.container('app')?.stdout() ?? '', /^200 hello from the application$/m);
    assert.deepEqual(played.events, ['scute started', 'scute has come up', 'app started', 'app ended', 'scute ended']);
    assert.deepEqual(
      [...exits],
      [
        ['app', { code: 0, signal: null }],
        ['scute', { code: 0, signal: null }],
      ],
    );
    await server();
  });

/** A pod with a server, to be called by another. Gives the way to end it. */
async function playServer(t: TestContext, spiffe: Stage['spiffe'], folder: string, listen: number): Promise<() => Promise<void>> {
  const charts = await prepareCharts(t);
  const port = await freePort();
  const ready = join(folder, 'server-ready');
  await writeFile(ready, '');
  const container = { name: 'app', image: IMAGE, command: [process.execPath, join(folder, 'server.mjs')], args: [String(port), ready] };
  const config = { inbound: [{ listen: `[::]:${listen}`, to: `127.0.0.1:${port}`, allow: ['spiffe://example.org/app'] }] };
  const values = {
    'scute-sidecar': { metricsPort: await freePort(), preStopSleep: 0 },
    workloads: { api: null, web: null, server: { template: { spec: { containers: [container] } }, scute: { config } } },
  };
  const manifests = manifestsOf(await charts.render('helm4', 'default', { values }));
  const pod = manifests.flatMap((each) => podOf(each) ?? [])[0] ?? assert.fail();
  const played = await playPod(t, pod, manifests, { workloadApi: spiffe.endpoint('spire-agent') });
  await played.started;
  return async () => void (await played.delete());
}

test('with /livez an application starts without an identity', needs('helm4'), async (t) => {
  const { folder, port, ready, spiffe, play } = await stage(t);
  await spiffe.withdraw('spire-agent');
  const { played } = await play({
    container: { command: [process.execPath, join(folder, 'server.mjs')], args: [String(port), ready] },
    config: { inbound: [{ listen: `[::]:${await freePort()}`, to: `127.0.0.1:${port}`, allow: ['spiffe://example.org/web'] }] },
    scute: { startupPath: '/livez' },
  });

  await played.started;

  assert.deepEqual(played.events, ['scute started', 'scute has come up', 'app started']);
  assert.equal(await played.ready(), false);
  await played.delete();
});

test('without a socket in the volume Scute stays up, is not ready, and says which path it waits for', needs('helm4'), async (t) => {
  const { folder, port, ready, spiffe, play } = await stage(t);
  await spiffe.stop(AbortSignal.abort());
  const { played } = await play({
    container: { command: [process.execPath, join(folder, 'server.mjs')], args: [String(port), ready] },
    config: { inbound: [{ listen: `[::]:${await freePort()}`, to: `127.0.0.1:${port}`, allow: ['spiffe://example.org/web'] }] },
  });
  const scute = await eventually(async () => played.container('scute') ?? assert.fail());

  await scute.line(/Workload API stream failed.*spire-agent\.sock|spire-agent\.sock.*Workload API stream failed/);

  assert.deepEqual(played.events, ['scute started']);
  assert.equal(await played.ready(), false);
  const exits = await played.delete();
  assert.deepEqual(exits.get('scute'), { code: 0, signal: null });
});

test('a ConfigMap that changes is in force without another pod', needs('helm4'), async (t) => {
  const { folder, port, ready, spiffe, play } = await stage(t);
  await writeFile(ready, '');
  const listen = await freePort();
  const { played, manifests } = await play({
    container: { command: [process.execPath, join(folder, 'server.mjs')], args: [String(port), ready] },
    config: { inbound: [{ listen: `[::]:${listen}`, to: `127.0.0.1:${port}`, allow: ['spiffe://example.org/web'] }] },
  });
  await played.started;
  const map = manifests.find(({ kind, metadata }) => kind === 'ConfigMap' && metadata.name === 'life-scute');
  const asOther = async (): Promise<string> => {
    const socket = tlsClient(t, `127.0.0.1:${listen}`, presented(await spiffe.issue('spiffe://example.org/other')));
    socket.write('GET / HTTP/1.1\r\nHost: life\r\nConnection: close\r\n\r\n');
    return (await outcome(socket)).text;
  };
  assert.doesNotMatch(await asOther(), /hello/);

  await played.replace('life-scute', {
    'scute.yaml': (map?.data?.['scute.yaml'] ?? '').replace('spiffe://example.org/web', 'spiffe://example.org/other'),
  });

  await eventually(async () => assert.match(await asOther(), /hello from the application/));
  await played.delete();
});
