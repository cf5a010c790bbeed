/** What SDS shows of itself: every series after a known story, and for every reason a way to meet it. */
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { test, type TestContext } from 'node:test';
import { policyOf } from '../../support/policy/policies.ts';
import { status } from '@grpc/grpc-js';
import { describeSds } from '../../../src/sds/status.ts';
import { SDS_MISSING_REASONS, SDS_REFUSAL_REASONS, type SdsRefusalReason } from '../../../src/telemetry/log/sds-records.ts';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { createTestAuthority } from '../../support/pki/pki.ts';
import {
  fetchSecrets,
  openDelta,
  openRaw,
  openSotw,
  sdsClient,
  startSds,
  type TestSdsOptions,
  type TestSdsServer,
} from '../../support/sds.ts';
import { bundleOf, heldSnapshot, svidOf } from '../../support/pki/snapshots.ts';

const WEB = 'spiffe://example.org/web';
const own = createTestAuthority({ trustDomain: 'example.org' });
const partner = createTestAuthority({ trustDomain: 'partner.example' });
const identity = () => heldSnapshot([svidOf(own, WEB)], [own, partner]);

/** All series of SDS as a scrape has them, without those of the histogram's buckets, and without those that are 0. */
async function series({ metrics }: TestSdsServer): Promise<Readonly<Record<string, number>>> {
  const { body } = await metrics.render();
  const found = [...body.matchAll(/^scute_sds_(\S+) (\S+)$/gm)].map(([, name = '', value]) => [name, Number(value)] as const);
  assert.ok(found.length > 30);
  return Object.fromEntries(found.filter(([name, value]) => value !== 0 && !name.includes('_bucket')));
}

test('every metric has the value that the story makes, and gauges are 0 when clients have left', async (t) => {
  const sds = await startSds(t);
  sds.publish(identity());
  assert.deepEqual(await series(sds), {});
  const clients = [sdsClient(t, sds.target), sdsClient(t, sds.target)] as const;
  let bytes = 0;

  // Accepts its certificate, and asks for what is not there; then says something of a response that is not the last one.
  const sotw = openSotw(clients[0]);
  sotw.call.on('data', (response: Buffer) => (bytes += response.length));
  const resourceNames = ['default', 'file-root:/x'];
  sotw.send({ resourceNames, node: { id: 'envoy-1' } });
  const { nonce } = await sotw.next();
  sotw.send({ resourceNames, responseNonce: nonce });
  sotw.send({ resourceNames, responseNonce: 'invented' });
  // Rejects its two bundles, and is told that a third is not there.
  const delta = openDelta(clients[0]);
  delta.call.on('data', (response: Buffer) => (bytes += response.length));
  delta.send({ resourceNamesSubscribe: ['ROOTCA', 'ALL', 'spiffe://nobody.example'], node: { id: 'envoy-2' } });
  const rejected = await delta.next();
  delta.send({ responseNonce: rejected.nonce, errorDetail: { code: 13, message: 'no good' } });
  // Asks once; is refused once; and watches the health.
  await fetchSecrets(clients[1], { resourceNames: ['default'] });
  await fetchSecrets(clients[1], { resourceNames: ['nobody'] });
  const watch = openRaw(clients[1], '/grpc.health.v1.Health/Watch');
  watch.on('error', () => undefined);
  watch.resume();
  watch.end(Buffer.alloc(0));
  await eventually(() => assert.deepEqual([sds.metrics.sds.calls, sds.metrics.sds.stale.sotw, sds.metrics.sds.rejected.delta], [1, 1, 1]));
  // One rotation.
  const begin = performance.now();
  sds.publish(identity());
  await sotw.next();
  await eventually(async () => assert.equal((await series(sds))['push_duration_seconds_count'], 1));
  const elapsed = (performance.now() - begin) / 1000;

  const { push_duration_seconds_sum: latency = 0, ...counts } = await series(sds);
  assert.deepEqual(counts, {
    connections: 2,
    calls: 1,
    'streams{protocol="sotw"}': 1,
    'streams{protocol="delta"}': 1,
    'streams_opened_total{protocol="sotw"}': 1,
    'streams_opened_total{protocol="delta"}': 1,
    'pushes_total{kind="certificate"}': 2,
    'pushes_total{kind="bundle"}': 2,
    removals_total: 1,
    sent_bytes_total: bytes,
    'acks_total{protocol="sotw"}': 1,
    'nacks_total{protocol="delta"}': 1,
    'stale_requests_total{protocol="sotw"}': 1,
    'missing_total{reason="unknown_name"}': 1,
    'missing_total{reason="not_held"}': 1,
    'refused_total{reason="unknown_names"}': 1,
    push_duration_seconds_count: 1,
  });
  assert.ok(latency > 0 && latency <= elapsed, `${latency} of ${elapsed} s`);

  sotw.call.cancel();
  delta.call.end();
  watch.cancel();
  await eventually(async () => {
    const { connections, calls, ...others } = await series(sds);
    assert.deepEqual([connections, calls], [2, undefined]);
    assert.deepEqual(
      Object.keys(others).filter((name) => name.startsWith('streams{')),
      [],
    );
  });
  for (const client of clients) client.close();
  await eventually(async () => assert.equal((await series(sds))['connections'], undefined));
  assert.deepEqual(sds.server.streams(), []);
});

const soonMs = Date.now() + 600_000;
const noAuthorities = { ...identity(), bundles: new Map([[bundleOf(own).trustDomain, { ...bundleOf(own), authorities: [] }]]) };

/** RFC 7633: it may be shown with an OCSP response alone, which Envoy does not have. */
const mustStaple = { oid: '1.3.6.1.5.5.7.1.24', value: Buffer.from('3003020105', 'hex') };

const MISSING: Readonly<Record<string, { readonly name: string; readonly of?: ReturnType<typeof identity> } & TestSdsOptions>> = {
  unknown_name: { name: 'file-root:/x' },
  not_held: { name: 'spiffe://example.org/nobody' },
  not_valid: { name: 'default', of: heldSnapshot([svidOf(own, WEB, { notBefore: soonMs, notAfter: soonMs + 60_000 })], [own]) },
  unusable: { name: 'default', of: heldSnapshot([svidOf(own, WEB, { extensions: [mustStaple] })], [own]) },
  empty_bundle: { name: 'ROOTCA', of: noAuthorities },
  pooled_bundles: { name: 'ALL', sds: { disableSpiffeCertValidation: true } },
  empty_allow_list: { name: 'ROOTCA', policies: () => new Map([['ROOTCA', policyOf()]]) },
  inexpressible: { name: 'ALL', policies: () => new Map([['ALL', policyOf('spiffe://example.org/a', 'spiffe://partner.example/b')]]) },
};

for (const reason of SDS_MISSING_REASONS) {
  test(`a name that is not there: ${reason}, as a metric, in the log and in the dump, once`, async (t) => {
    const { name, of = identity(), ...options } = MISSING[reason] ?? assert.fail('no way to meet it');
    const sds = await startSds(t, options);
    sds.publish(of);
    const [delta, sotw] = [openDelta(sdsClient(t, sds.target)), openSotw(sdsClient(t, sds.target))];

    delta.send({ resourceNamesSubscribe: [name], node: { id: 'envoy-1' } });
    assert.deepEqual((await delta.next()).removedResources, [name]);
    sotw.send({ resourceNames: [name], node: { id: 'envoy-2' } });
    await eventually(async () => assert.equal((await series(sds))[`missing_total{reason="${reason}"}`], 2));

    const others = Object.keys(await series(sds)).filter((key) => key.startsWith('missing_total'));
    assert.deepEqual(others, [`missing_total{reason="${reason}"}`]);
    const lines = sds.log().filter((line) => line['message'] === 'a secret that is asked for is not there');
    assert.equal(lines.length, 1, 'whoever asks');
    assert.deepEqual([lines[0]?.['name'], lines[0]?.['reason'], lines[0]?.['node']], [name, reason, 'envoy-1']);
    assert.ok(String(lines[0]?.['detail']).length > 10);
    const { streams } = describeSds(sds.server) as { streams: { node: string; subscriptions: unknown[] }[] };
    for (const { subscriptions } of streams)
      assert.deepEqual(subscriptions, [{ name, version: null, status: 'none', detail: null, missing: reason }]);
  });
}

interface Refusal {
  readonly limits?: object;
  readonly clock?: FakeClock;
  /** The Workload API has not answered. */
  readonly unready?: boolean;
  /** Does what is refused, and gives the status; undefined where the connection is closed instead. */
  readonly provoke: (t: TestContext, sds: TestSdsServer) => Promise<status | undefined>;
}

const names = (count: number): string[] => Array.from({ length: count }, (_, index) => `name-${index}`);
const ask = async (t: TestContext, sds: TestSdsServer, resourceNames: readonly string[], client = sdsClient(t, sds.target)) => {
  const stream = openSotw(client);
  stream.send({ resourceNames: [...resourceNames] });
  return (await stream.ended).code;
};
/** A stream that is served. */
const serve = async (t: TestContext, sds: TestSdsServer) => {
  const client = sdsClient(t, sds.target);
  const stream = openSotw(client);
  stream.send({ resourceNames: ['default'] });
  await stream.next();
  return client;
};

const REFUSED: Readonly<Record<SdsRefusalReason, Refusal>> = {
  connection_limit: {
    limits: { maxConnections: 1 },
    async provoke(t, sds) {
      await serve(t, sds);
      const socket = connect(sds.path).on('error', () => undefined);
      socket.resume();
      await new Promise((resolve) => socket.once('close', resolve));
      return undefined;
    },
  },
  stream_limit: { limits: { maxStreams: 1 }, provoke: async (t, sds) => ask(t, sds, ['default'], await serve(t, sds)) },
  connection_stream_limit: {
    limits: { maxStreamsPerConnection: 1 },
    provoke: async (t, sds) => ask(t, sds, ['default'], await serve(t, sds)),
  },
  name_limit: { limits: { maxNames: 2 }, provoke: (t, sds) => ask(t, sds, names(3)) },
  request_size: { limits: { maxRequestBytes: 1000 }, provoke: (t, sds) => ask(t, sds, ['x'.repeat(1001)]) },
  // Two names of 6 letters and 64 bytes each are 140.
  subscription_size: { limits: { maxSubscriptionBytes: 139 }, provoke: (t, sds) => ask(t, sds, names(2)) },
  request_rate: {
    limits: { maxRequestRate: 1 },
    clock: new FakeClock(),
    async provoke(t, sds) {
      const client = sdsClient(t, sds.target);
      for (let count = 0; count < 10; count += 1) await fetchSecrets(client, {});
      return ask(t, sds, ['default'], client);
    },
  },
  bad_request: {
    async provoke(t, sds) {
      const stream = openSotw(sdsClient(t, sds.target));
      stream.send({ typeUrl: 'type.googleapis.com/envoy.config.cluster.v3.Cluster' });
      return (await stream.ended).code;
    },
  },
  unknown_names: { provoke: async (t, sds) => (await fetchSecrets(sdsClient(t, sds.target), { resourceNames: ['nobody'] })).error?.code },
  not_ready: { unready: true, provoke: async (t, sds) => (await fetchSecrets(sdsClient(t, sds.target), {})).error?.code },
};
const CODES: Partial<Record<SdsRefusalReason, status | undefined>> = {
  connection_limit: undefined,
  bad_request: status.INVALID_ARGUMENT,
  unknown_names: status.NOT_FOUND,
  not_ready: status.UNAVAILABLE,
};

for (const reason of SDS_REFUSAL_REASONS) {
  test(`a refusal: ${reason}, as a metric, in the log and as a status`, async (t) => {
    const { limits = {}, clock, unready = false, provoke } = REFUSED[reason];
    const sds = await startSds(t, { sds: { limits }, ...(clock && { clock }) });
    if (!unready) sds.publish(identity());

    const code = await provoke(t, sds);

    assert.equal(code, reason in CODES ? CODES[reason] : status.RESOURCE_EXHAUSTED);
    await eventually(async () => {
      const refused = Object.entries(await series(sds)).filter(([name]) => name.startsWith('refused_total'));
      assert.deepEqual(refused, [[`refused_total{reason="${reason}"}`, 1]]);
    });
    const lines = sds.log().filter((line) => line['message'] === 'SDS client refused');
    assert.deepEqual(
      lines.map((line) => [line['level'], line['reason'], line['count']]),
      [['warn', reason, 1]],
    );
    assert.ok(String(lines[0]?.['detail']).length > 10);
  });
}

test('the names of a connection count 64 bytes each besides their letters, and what fits is served', async (t) => {
  const sds = await startSds(t, { sds: { limits: { maxSubscriptionBytes: 140 } } });
  sds.publish(identity());
  const stream = openSotw(sdsClient(t, sds.target));

  stream.send({ resourceNames: ['default', 'name1'] });

  await stream.next();
  assert.equal(sds.metrics.sds.refused.subscription_size, 0);
});
