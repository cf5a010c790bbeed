import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { API, startExampleDomain, WEB } from '../../support/data-path.ts';
import { startDenyFile } from '../../support/policy/deny-file.ts';
import { startDevDomainWith } from '../../support/dev-domain.ts';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { ask } from '../../support/http/http.ts';
import { deltaSecretsOf, openDelta, openSotw, sdsClient, secretsOf } from '../../support/sds.ts';
import { startScute } from '../../support/scute-process.ts';
import { startSidecar } from '../../support/sidecar.ts';
import { dial, startEcho } from '../../support/tcp.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';

interface Dump {
  readonly sds: {
    readonly address: string;
    readonly streams: readonly {
      readonly node: string;
      readonly protocol: string;
      readonly validation: string;
      readonly subscriptions: readonly {
        readonly name: string;
        readonly version: string | null;
        readonly status: string;
        readonly missing: string | null;
      }[];
    }[];
  };
}

test('a sidecar that only serves SDS: rotation, metrics, and who is subscribed to what', async (t) => {
  const spiffe = await startExampleDomain(t);
  const folder = await temporaryFolder(t);
  const socket = `unix://${join(folder, 'sds.sock')}`;
  const admin = { kind: 'unix', path: join(folder, 'admin.sock') } as const;
  const sidecar = await startSidecar(t, {
    workloadApi: { endpoint: spiffe.endpoint('api') },
    sds: { listen: socket },
    admin: { listen: `unix://${admin.path}` },
  });
  assert.equal(sidecar.address('sds'), socket);
  const stream = openSotw(sdsClient(t, socket));
  stream.send({ resourceNames: ['default', 'file-root:/x'], node: { id: 'envoy-1' } });
  const first = await stream.next();

  await spiffe.rotate();
  const second = await stream.next();
  stream.send({ resourceNames: ['default', 'file-root:/x'], responseNonce: second.nonce, errorDetail: { code: 13, message: 'no good' } });

  assert.notEqual(secretsOf(first)[0]?.certificate?.chain, secretsOf(second)[0]?.certificate?.chain);
  await eventually(async () => assert.equal(await sidecar.metric('scute_sds_nacks_total'), 1));
  assert.equal(await sidecar.metric('scute_sds_streams', { protocol: 'sotw' }), 1);
  assert.equal(await sidecar.metric('scute_sds_connections'), 1);
  assert.equal(await sidecar.metric('scute_sds_pushes_total', { kind: 'certificate' }), 2);
  assert.ok((await sidecar.metric('scute_sds_sent_bytes_total')) > 1000);
  assert.ok((await sidecar.metric('scute_sds_push_duration_seconds_count')) >= 1);
  const { sds } = JSON.parse((await ask(admin, '/config_dump')).body) as Dump;
  assert.equal(sds.address, socket);
  assert.deepEqual(
    sds.streams.map(({ node, protocol, validation, subscriptions }) => ({ node, protocol, validation, subscriptions })),
    [
      {
        node: 'envoy-1',
        protocol: 'sotw',
        validation: 'spiffe',
        subscriptions: [
          { name: 'default', version: second.versionInfo, status: 'rejected', detail: 'no good', missing: null },
          { name: 'file-root:/x', version: null, status: 'none', detail: null, missing: 'unknown_name' },
        ],
      },
    ],
  );
  assert.ok(
    sidecar
      .log()
      .some((line) => line.message === 'secret rejected by the client' && line['detail'] === 'no good' && line['node'] === 'envoy-1'),
  );
});

test('a reload changes the allow list that Envoy is given; one that loses its listener admits nobody', async (t) => {
  const spiffe = await startExampleDomain(t);
  const echo = await startEcho(t);
  const socket = `unix://${join(await temporaryFolder(t), 'sds.sock')}`;
  const config = (allow: readonly string[]) => ({
    workloadApi: { endpoint: spiffe.endpoint('api') },
    inbound: [{ name: 'in', listen: '127.0.0.1:0', to: echo.address, allow }],
    sds: { listen: socket, matchers: [{ secret: 'ROOTCA', listener: 'in' }] },
  });
  const sidecar = await startSidecar(t, config([WEB]));
  const stream = openDelta(sdsClient(t, socket));
  stream.send({ resourceNamesSubscribe: ['ROOTCA'] });
  assert.deepEqual(deltaSecretsOf(await stream.next())[0]?.matchers, [`exact ${WEB}`]);

  await sidecar.reload(config([API]));
  assert.deepEqual(deltaSecretsOf(await stream.next())[0]?.matchers, [`exact ${API}`]);
  await sidecar.reload(config([]));
  assert.deepEqual((await stream.next()).removedResources, ['ROOTCA']);
});

test('a listener and the Envoy beside it go by one policy: a rule of a time ends for both at its second', async (t) => {
  const clock = new FakeClock();
  const spiffe = await startDevDomainWith(t, { clock: new FakeClock() }, [
    { name: 'example.org', svidLife: '100h', workloads: { web: [WEB], api: [API] } },
  ]);
  const socket = `unix://${join(await temporaryFolder(t), 'sds.sock')}`;
  const notAfter = new Date(clock.now() + 3_600_000).toISOString();
  const config = (allow: readonly unknown[], more: object = {}) => ({
    workloadApi: { endpoint: spiffe.endpoint('api') },
    inbound: [{ name: 'in', listen: '127.0.0.1:0', to: '127.0.0.1:1', allow, ...more }],
    sds: { listen: socket, matchers: [{ secret: 'ROOTCA', listener: 'in' }] },
  });
  const sidecar = await startSidecar(t, config([WEB]), { clock });
  const stream = openDelta(sdsClient(t, socket));
  stream.send({ resourceNamesSubscribe: ['ROOTCA'] });
  const matchers = async () => deltaSecretsOf(await stream.next())[0]?.matchers;
  assert.deepEqual(await matchers(), [`exact ${WEB}`]);
  const metrics = sidecar.app.addresses().get('metrics');
  assert.ok(metrics !== undefined);
  const checks = async (): Promise<string> => (await ask(metrics, '/readyz?verbose')).body;
  assert.match(await checks(), /^\[\+\]sds_matchers ok$/m);

  await sidecar.reload(config([{ peer: WEB, notAfter }, API]));
  clock.advance(1000);
  assert.deepEqual(await matchers(), [`exact ${API}`, `exact ${WEB}`]);
  clock.advance(3_600_000);
  assert.deepEqual(await matchers(), [`exact ${API}`]);

  // What cannot be said is withheld, and that is said.
  const denying = config([WEB], { deny: [{ peer: API, notAfter }] });
  await sidecar.reload(denying);
  clock.advance(1000);
  assert.deepEqual((await stream.next()).removedResources, ['ROOTCA']);
  const sentence = `"ROOTCA", of listener in, is withheld: the rule ${JSON.stringify(`deny ${API} until ${notAfter}`)} cannot be said in matchers: they only name whom to admit`;
  assert.ok((await checks()).includes(`[!]sds_matchers warning: ${sentence}\n`));
  const told = sidecar.log().filter(({ message }) => message === 'a policy cannot be said in matchers of Envoy');
  assert.deepEqual(
    told.map((line) => [line['matchers'], line['count']]),
    [[[sentence], 1]],
  );
  await sidecar.reload(config([WEB]));
  clock.advance(1000);
  assert.deepEqual(await matchers(), [`exact ${WEB}`]);
  assert.match(await checks(), /^\[\+\]sds_matchers ok$/m);
});

test('an authority that comes onto the deny list goes out of the bundles of Envoy at once, and back', async (t) => {
  const spiffe = await startExampleDomain(t);
  await spiffe.prepareRoot('example.org');
  const list = await startDenyFile(t);
  const socket = `unix://${join(await temporaryFolder(t), 'sds.sock')}`;
  await startSidecar(t, { workloadApi: { endpoint: spiffe.endpoint('api') }, sds: { listen: socket }, ...list.file });
  const stream = openDelta(sdsClient(t, socket));
  stream.send({ resourceNamesSubscribe: ['ROOTCA'] });
  const sent = async (): Promise<string[]> => {
    const [secret] = deltaSecretsOf(await stream.next());
    return (secret?.spiffe?.['example.org'] ?? '').match(/-----BEGIN[^]*?END CERTIFICATE-----/g) ?? [];
  };
  const before = await sent();
  assert.equal(before.length, 2);
  const [gone = '', stays = ''] = before;

  await list.become({ certificates: [new X509Certificate(gone).fingerprint256] });
  assert.deepEqual(await sent(), [stays]);
  await list.become({});
  assert.deepEqual(await sent(), before);
});

test('a stop ends SDS streams at once, though connections have long to drain', async (t) => {
  const spiffe = await startExampleDomain(t);
  const echo = await startEcho(t);
  const socket = `unix://${join(await temporaryFolder(t), 'sds.sock')}`;
  const sidecar = await startSidecar(t, {
    workloadApi: { endpoint: spiffe.endpoint('api') },
    inbound: [{ name: 'in', listen: '127.0.0.1:0', to: echo.address, allow: [WEB] }],
    outbound: [{ name: 'out', listen: '127.0.0.1:0', to: '127.0.0.1:1', expect: [WEB] }],
    sds: { listen: socket },
  });
  await dial(t, sidecar.address('out')).catch(() => undefined);
  const stream = openSotw(sdsClient(t, socket));
  stream.send({ resourceNames: ['default'] });
  await stream.next();

  const begin = performance.now();
  const stopping = sidecar.stop(AbortSignal.timeout(60_000));
  const { code } = await stream.ended;

  assert.equal(code, status.UNAVAILABLE);
  assert.ok(performance.now() - begin < 20_000);
  await stopping;
});

test('with a drain timeout of zero a stop ends SDS streams too, also of a client that reads nothing, and leaves no socket', async (t) => {
  const spiffe = await startExampleDomain(t);
  const folder = await temporaryFolder(t);
  const socket = `unix://${join(folder, 'sds.sock')}`;
  const scute = await startScute({
    config: { workloadApi: { endpoint: spiffe.endpoint('api') }, sds: { listen: socket }, drainTimeout: '0s', log: { level: 'debug' } },
  });
  t.after(() => scute.stop());
  await scute.ready('sds');
  const client = sdsClient(t, socket);
  const streams = [openSotw(client), openSotw(client, true)] as const;
  for (const stream of streams) {
    stream.send({ resourceNames: ['default'] });
    await stream.next();
  }
  const sleeping = openDelta(sdsClient(t, socket));
  sleeping.call.pause();
  sleeping.send({ resourceNamesSubscribe: ['default', 'ROOTCA', 'ALL'] });
  await scute.logged(({ message, ...line }) => message === 'secret sent' && line['protocol'] === 'delta');

  const begin = performance.now();
  scute.child.signal('SIGTERM');

  for (const { ended } of streams) assert.equal((await ended).code, status.UNAVAILABLE);
  assert.deepEqual(await scute.exited, { code: 0, signal: null });
  assert.ok(performance.now() - begin < 20_000);
  assert.deepEqual(await readdir(folder), []);
});

test('a socket that another process serves keeps Scute from starting', async (t) => {
  const spiffe = await startExampleDomain(t);
  const socket = `unix://${join(await temporaryFolder(t), 'sds.sock')}`;
  const config = { workloadApi: { endpoint: spiffe.endpoint('api') }, sds: { listen: socket } };
  await startSidecar(t, config);

  await assert.rejects(startSidecar(t, config), /SDS cannot listen on unix:.*another process listens there/);
});

test('without an identity Scute is not ready to serve SDS', async (t) => {
  const spiffe = await startExampleDomain(t);
  await spiffe.withdraw('api');
  const socket = `unix://${join(await temporaryFolder(t), 'sds.sock')}`;
  const sidecar = await startSidecar(t, { workloadApi: { endpoint: spiffe.endpoint('api') }, sds: { listen: socket } }, { unready: true });
  assert.deepEqual(
    sidecar.app.notReady().filter((name) => name === 'identity'),
    ['identity'],
  );

  await spiffe.restore('api');

  await sidecar.ready();
});

test('with an SVID that has expired Scute is not ready to serve SDS', async (t) => {
  const spiffe = await startExampleDomain(t);
  const socket = `unix://${join(await temporaryFolder(t), 'sds.sock')}`;
  const clock = new FakeClock();
  const sidecar = await startSidecar(t, { workloadApi: { endpoint: spiffe.endpoint('api') }, sds: { listen: socket } }, { clock });
  const stream = openDelta(sdsClient(t, socket));
  stream.send({ resourceNamesSubscribe: ['default'] });
  await stream.next();
  assert.deepEqual(sidecar.app.notReady(), []);

  clock.advance(2 * 3_600_000);

  assert.deepEqual((await stream.next()).removedResources, ['default']);
  assert.deepEqual(sidecar.app.notReady(), ['identity_valid']);
});
