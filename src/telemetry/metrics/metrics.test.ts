import assert from 'node:assert/strict';
import { open } from 'node:fs/promises';
import { test } from 'node:test';
import { metricsInUse } from '../../../test/support/admin/metrics-in-use.ts';
import { createTestAuthority } from '../../../test/support/pki/pki.ts';
import { heldSnapshot, svidOf } from '../../../test/support/pki/snapshots.ts';
import { createMetrics } from './metrics.ts';
import { createTally } from './tally.ts';

test('certificates are told as absolute times of SVIDs and authorities, without serial numbers', async () => {
  const metrics = createMetrics({ version: '1.2.3' });
  const authority = createTestAuthority();
  const svid = svidOf(authority, 'spiffe://example.org/web', { hint: 'internal' });

  metrics.setIdentity(heldSnapshot([svid], [authority]));

  const { body } = await metrics.render();
  const [leaf] = svid.chain;
  assert.ok(leaf);
  const labels = `{spiffe_id="spiffe://example.org/web",hint="internal",issuer_key_id="${leaf.authorityKeyId}"}`;
  assert.ok(body.includes(`scute_x509_svid_expiration_timestamp_seconds${labels} ${leaf.notAfterMs / 1000}\n`));
  assert.ok(body.includes(`scute_x509_svid_not_before_timestamp_seconds${labels} ${leaf.notBeforeMs / 1000}\n`));
  assert.ok(
    body.includes(
      `scute_x509_authority_expiration_timestamp_seconds{trust_domain="example.org",subject_key_id="${svid.authority.subjectKeyId}"} ${svid.authority.notAfterMs / 1000}\n`,
    ),
  );
  assert.ok(!body.includes(leaf.serial));
});

test('the series of a certificate that is gone are gone', async () => {
  const metrics = createMetrics({ version: '1.2.3' });
  const [old, next] = [createTestAuthority(), createTestAuthority()];

  metrics.setIdentity(heldSnapshot([svidOf(old, 'spiffe://example.org/old')], [old], 1));
  metrics.setIdentity(heldSnapshot([svidOf(next, 'spiffe://example.org/new')], [next], 2));

  const { body } = await metrics.render();
  assert.ok(!body.includes('spiffe://example.org/old'));
  assert.equal(body.match(/^scute_x509_svid_expiration_timestamp_seconds\{/gm)?.length, 1);
  assert.equal(body.match(/^scute_x509_authority_expiration_timestamp_seconds\{/gm)?.length, 1);
});

test('of two SVIDs with the same labels the preferred one is shown', async () => {
  const metrics = createMetrics({ version: '1.2.3' });
  const authority = createTestAuthority();
  const first = svidOf(authority, 'spiffe://example.org/web', { notAfter: Date.now() + 60_000 });
  const second = svidOf(authority, 'spiffe://example.org/web', { notAfter: Date.now() + 120_000 });

  metrics.setIdentity(heldSnapshot([first, second], [authority]));

  const { body } = await metrics.render();
  assert.ok(body.includes(`} ${(first.chain[0]?.notAfterMs ?? 0) / 1000}\n`));
  assert.ok(!body.includes(`} ${(second.chain[0]?.notAfterMs ?? 0) / 1000}\n`));
});

test('names follow the Prometheus rules: counters alone end in _total, units are base units, each has a help text', async () => {
  const metrics = createMetrics({
    version: '1.2.3',
    tls: { versions: 'TLSv1.3', groups: 'X25519', ciphers: 'TLS_AES_128_GCM_SHA256', fips: 'false' },
  });
  metrics.listener({ name: 'web', direction: 'inbound' });

  const { body } = await metrics.render();

  const types = [...body.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name = '', type = '']) => ({ name, type }));
  assert.ok(types.length > 30);
  for (const { name, type } of types) {
    assert.match(name, /^(?:scute|process|nodejs)_[a-z0-9_]+$/);
    assert.equal(name.endsWith('_total'), type === 'counter', `${name} is a ${type}`);
    assert.doesNotMatch(
      name,
      /_(?:milliseconds|ms|minutes|hours|days|kilobytes|kb|percent|count|sum|bucket|info_info|counter|gauge|histogram)$/,
    );
    assert.match(body, new RegExp(`^# HELP ${name} \\S.*[^.]$`, 'm'));
  }
});

test('no label has the name of one that Prometheus or Kubernetes gives to a target', async () => {
  const labels = new Set((await createMetrics({ version: '1.2.3' }).describe()).flatMap((metric) => metric.labels));

  assert.ok(labels.size > 15);
  for (const taken of ['job', 'instance', 'cluster', 'namespace', 'pod', 'container', 'service', 'node', 'host'])
    assert.ok(!labels.has(taken), taken);
});

test('every reason is there at 0 before it first happens', async () => {
  const metrics = createMetrics({ version: '1.2.3' });
  metrics.listener({ name: 'web', direction: 'inbound' });

  const { body } = await metrics.render();

  assert.match(body, /^scute_tls_handshakes_total\{direction="inbound",listener="web",result="error",reason="revoked"\} 0$/m);
  assert.match(body, /^scute_connections_drained_total\{direction="inbound",listener="web",reason="authority_removed"\} 0$/m);
  assert.match(body, /^scute_accept_refused_total\{direction="inbound",listener="web",reason="file_limit"\} 0$/m);
  assert.match(body, /^scute_tls_handshake_duration_seconds_count\{direction="inbound",listener="web"\} 0$/m);
});

test('label values are escaped', async () => {
  const metrics = createMetrics({ version: '1.2.3' });
  metrics.listener({ name: 'a"b\\c\nd', direction: 'inbound' });

  const { body } = await metrics.render();

  assert.ok(body.includes(String.raw`listener="a\"b\\c\nd"`));
  assert.ok(body.split('\n').every((line) => line === '' || line.startsWith('#') || /^[a-z0-9_]+(?:\{.*\})? \S+$/.test(line)));
});

test('of a rule that lists a thousand paths the label has the beginning, and no count is lost', async () => {
  const metrics = createMetrics({ version: '1.2.3' });
  const { denied } = metrics.listener({ name: 'web', direction: 'inbound' });
  const beginning = `deny spiffe://example.org/** ${'/items/**,'.repeat(1000)}`;
  denied.add(`${beginning}/one`);
  denied.add(`${beginning}/other`);

  const lines = (await metrics.render()).body.split('\n').filter((line) => line.includes('/items/'));

  assert.deepEqual(
    lines.map((line) => [line.length < 400, line.endsWith(' 2')]),
    [[true, true]],
  );
});

test('no series is told twice, whatever is in use', async () => {
  const { body } = await metricsInUse().render();

  const series = body.split('\n').flatMap((line) => (line === '' || line.startsWith('#') ? [] : line.slice(0, line.lastIndexOf(' '))));
  assert.ok(series.length > 300);
  assert.equal(new Set(series).size, series.length);
});

test('open files are counted', async (t) => {
  const count = async (): Promise<number> => {
    const { body } = await createMetrics({ version: '1.2.3' }).render();
    return Number(/^process_open_fds (\d+)$/m.exec(body)?.[1]);
  };
  const before = await count();
  const files = await Promise.all(Array.from({ length: 100 }, () => open('/dev/null')));
  t.after(() => Promise.all(files.map((file) => file.close())));

  const more = (await count()) - before;
  // The runtime may open or close one of its own meanwhile.
  assert.ok(more >= 95 && more <= 105, String(more));
});

test('two applications in one process do not see one another', async () => {
  const [one, other] = [createMetrics({ version: '1' }), createMetrics({ version: '2' })];
  one.listener({ name: 'web', direction: 'inbound' });

  assert.ok((await one.render()).body.includes('listener="web"'));
  assert.ok(!(await other.render()).body.includes('listener="web"'));
});

test('readiness and dropped log lines are asked for at the scrape', async () => {
  let dropped = 0;
  const metrics = createMetrics({ version: '1.2.3', droppedLogLines: () => dropped });
  metrics.setReadinessSource(() => [{ name: 'identity', ok: dropped > 0, blocks: true }]);
  assert.match((await metrics.render()).body, /^scute_ready\{check="identity",blocks="true"\} 0$/m);

  dropped = 5;

  const { body } = await metrics.render();
  assert.match(body, /^scute_ready\{check="identity",blocks="true"\} 1$/m);
  assert.match(body, /^scute_log_dropped_total 5$/m);
});

test('the process is told with processor time, memory, files and event loop', async () => {
  const { body } = await createMetrics({ version: '1.2.3' }).render();

  for (const name of [
    'process_cpu_seconds_total',
    'process_resident_memory_bytes',
    'process_open_fds',
    'process_max_fds',
    'nodejs_eventloop_lag_seconds',
  ]) {
    const [, value] = new RegExp(`^${name} (\\S+)$`, 'm').exec(body) ?? [];
    assert.ok(Number(value) > 0, `${name} is ${value}`);
  }
});

test('names that are not kept are forgotten, and make room', () => {
  const tally = createTally(['known']);
  for (let name = 0; name < 600; name++) tally.add(String(name));
  const others = new Map(tally.entries()).get('other') ?? 0;
  assert.ok(others > 0);
  tally.keep((name) => name === '7');
  tally.add('new');
  tally.add('7');
  assert.deepEqual(Object.fromEntries(tally.entries()), { known: 0, 7: 2, other: others, new: 1 });
});

test('a tally takes a bounded number of names, and no count is lost', () => {
  const tally = createTally(['known']);

  for (let n = 0; n < 10_000; n += 1) tally.add(`name-${n}`);

  const entries = [...tally.entries()];
  assert.ok(entries.length <= 501);
  assert.equal(
    entries.reduce((sum, [, count]) => sum + count, 0),
    10_000,
  );
  assert.deepEqual(entries[0], ['known', 0]);
});
