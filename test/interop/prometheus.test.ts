import assert from 'node:assert/strict';
import { cp, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { parse, stringify } from 'yaml';
import { runChild } from '../support/child.ts';
import { startDevDomain } from '../support/dev-domain.ts';
import { documentedMetrics } from '../support/admin/documented-metrics.ts';
import { eventually } from '../support/eventually.ts';
import { ODD_ONES, startFleet } from '../support/admin/fleet-generator.ts';
import { metricsInUse } from '../support/admin/metrics-in-use.ts';
import { dashboardQueries, PROMETHEUS_FOLDER, readRules } from '../support/admin/observing.ts';
import { readyz } from '../support/scute-process.ts';
import { needs, part } from './parts.ts';
import { startPrometheusWith } from './prometheus-process.ts';
import { exchange, startEcho, startInbound, startOutbound, temporaryFolder } from './stage.ts';

const WEB = 'spiffe://example.org/web';
const CALLER = 'spiffe://example.org/caller';

async function promtool(args: readonly string[], input?: string): Promise<string> {
  const { code, stdout, stderr } = await runChild([part('promtool'), ...args], { env: {}, ...(input === undefined ? {} : { input }) });
  assert.equal(code, 0, `promtool ${args.join(' ')}\n${stdout}\n${stderr}`);
  return `${stdout}${stderr}`;
}

test('promtool has nothing against metrics of which all are in use', needs('promtool'), async () => {
  const { body } = await metricsInUse().render();

  assert.equal(await promtool(['check', 'metrics'], body), '');
});

test('promtool finds what is wrong with metrics', needs('promtool'), async () => {
  const { code } = await runChild([part('promtool'), 'check', 'metrics'], {
    env: {},
    input: '# TYPE scute_wrong counter\nscute_wrong 1\n',
  });

  assert.notEqual(code, 0);
});

test('Prometheus takes the configurations and the rules', needs('promtool'), async (t) => {
  assert.match(await promtool(['check', 'rules', join(PROMETHEUS_FOLDER, 'rules.yaml')]), /SUCCESS: \d+ rules found/);
  assert.match(await promtool(['check', 'config', join(PROMETHEUS_FOLDER, 'prometheus.yaml')]), /SUCCESS/);

  // Debian's Prometheus is built without Kubernetes: all else of that configuration is looked at.
  const folder = await temporaryFolder(t);
  await cp(PROMETHEUS_FOLDER, folder, { recursive: true });
  const text = await readFile(join(folder, 'kubernetes.yaml'), 'utf8');
  const others = text.replace(/^ {4}kubernetes_sd_configs:\n {6}- role: pod\n/m, '    static_configs: [{ targets: ["127.0.0.1:9090"] }]\n');
  assert.notEqual(others, text);
  await writeFile(join(folder, 'kubernetes.yaml'), others);
  assert.match(await promtool(['check', 'config', join(folder, 'kubernetes.yaml')]), /SUCCESS/);
});

test('the tests of the rules pass', needs('promtool'), async () => {
  assert.match(await promtool(['test', 'rules', join(PROMETHEUS_FOLDER, 'rules.test.yaml')]), /SUCCESS/);
});

test('Prometheus can read each query of the documents and of the dashboard', needs('promtool'), async (t) => {
  const queries = [...documentedMetrics().map(({ example }) => example), ...dashboardQueries()];
  assert.ok(queries.length > 100);
  const file = join(await temporaryFolder(t), 'queries.yaml');
  await writeFile(file, stringify({ groups: [{ name: 'queries', rules: queries.map((expr, n) => ({ record: `query_${n}`, expr })) }] }));

  assert.match(await promtool(['check', 'rules', file]), new RegExp(`SUCCESS: ${queries.length} rules found`));
});

interface Alert {
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly state: string;
}

/** Prometheus with our rules and a job `scute`, which asks twice a second. */
async function startPrometheus(t: TestContext, targets: readonly string[], job: object = {}) {
  const folder = await temporaryFolder(t);
  await cp(PROMETHEUS_FOLDER, folder, { recursive: true });
  const file = join(folder, 'prometheus.yaml');
  const config = parse(await readFile(file, 'utf8')) as { scrape_configs: [{ static_configs: object[] }]; global: object };
  config.global = { scrape_interval: '500ms', evaluation_interval: '500ms' };
  config.scrape_configs[0].static_configs = [{ targets }];
  Object.assign(config.scrape_configs[0], job);
  await writeFile(file, stringify(config));
  const address = await startPrometheusWith(t, file);
  const get = async <T>(path: string): Promise<T> => {
    const response = await fetch(`http://${address}/api/v1/${path}`);
    assert.equal(response.status, 200, path);
    return ((await response.json()) as { readonly data: T }).data;
  };
  return {
    alerts: async (): Promise<readonly Alert[]> => (await get<{ readonly alerts: readonly Alert[] }>('alerts')).alerts,
    rules: () =>
      get<{ readonly groups: readonly { readonly rules: readonly { readonly name: string; readonly health: string }[] }[] }>('rules'),
    values: async (query: string): Promise<ReadonlyMap<string, number>> => {
      const { result } = await get<{ readonly result: readonly { readonly metric: object; readonly value: readonly [number, string] }[] }>(
        `query?query=${encodeURIComponent(query)}`,
      );
      return new Map(result.map(({ metric, value: [, value] }) => [Object.values(metric).join(), Number(value)]));
    },
    value: async (query: string): Promise<number | undefined> => {
      const { result } = await get<{ readonly result: readonly { readonly value: readonly [number, string] }[] }>(
        `query?query=${encodeURIComponent(query)}`,
      );
      return result[0] === undefined ? undefined : Number(result[0].value[1]);
    },
  };
}

test('a caller that only audit lets in becomes an alarm of a real Prometheus', needs('prometheus', 'promtool'), async (t) => {
  const spiffe = await startDevDomain(t, { name: 'example.org', workloads: { web: [WEB], caller: [CALLER] } });
  const echo = await startEcho(t);
  const metrics = { metrics: { listen: '127.0.0.1:0' } };
  const inbound = await startInbound(t, {
    endpoint: spiffe.endpoint('web'),
    to: echo.address,
    allow: ['spiffe://example.org/somebody-else'],
    listener: { policyMode: 'audit' },
    file: metrics,
  });
  const port = await inbound.scute.port('metrics');
  await readyz(port);
  const outbound = await startOutbound(t, { endpoint: spiffe.endpoint('caller'), to: inbound.address, expect: [WEB] });
  const target = `127.0.0.1:${port}`;
  const prometheus = await startPrometheus(t, [target]);
  const scrape = await (await fetch(`http://${target}/metrics`)).text();
  assert.equal(await promtool(['check', 'metrics'], scrape), '');
  // That nothing has passed yet has been seen.
  await eventually(async () => assert.equal(await prometheus.value('count(scute_audit_passed_total == 0)'), 4));
  assert.deepEqual(
    (await prometheus.alerts()).filter(({ state }) => state === 'firing'),
    [],
  );

  assert.equal(await exchange(outbound.port, 'hello'), 'HELLO');

  const alert = await eventually(async () => {
    const firing = (await prometheus.alerts()).find(
      ({ labels, state }) => labels['alertname'] === 'ScuteAuditWouldDeny' && state === 'firing',
    );
    assert.ok(firing);
    return firing;
  });
  const { labels, annotations } = alert;
  assert.deepEqual(
    [labels['severity'], labels['instance'], labels['listener'], labels['direction']],
    ['info', target, 'inbound', 'inbound'],
  );
  assert.equal(annotations['summary'], `inbound on ${target} lets pass what its policy would deny`);
  assert.match(annotations['description'] ?? '', /^About \d+ connections, requests or checks of Envoy passed in 15 minutes/);
  assert.equal(annotations['runbook_url'], 'docs/runbook.md#scuteauditwoulddeny');

  const { alerts, records } = readRules();
  await eventually(async () => {
    const loaded = (await prometheus.rules()).groups.flatMap(({ rules }) => rules);
    assert.deepEqual(
      loaded.map(({ name, health }) => `${name} ${health}`).toSorted(),
      [...records.map(({ record }) => `${record} ok`), ...alerts.map((each) => `${each.alert} ok`)].toSorted(),
    );
  });
  // Not only read, but answered: what matches many with many fails no sooner.
  const answered = await Promise.all(
    [...dashboardQueries(), ...documentedMetrics().map(({ example }) => example)].map(async (query) => [
      query,
      await prometheus.value(query),
    ]),
  );
  const empty = answered.filter(([, value]) => value === undefined).map(([query]) => query);
  for (const metric of ['x509', 'build_info', 'tls_handshake', 'authorization', 'tcp_open', 'eventloop', 'clock'])
    assert.ok(
      answered.some(([query, value]) => String(query).includes(metric) && value !== undefined),
      `nothing is answered about ${metric}: ${empty.join('\n')}`,
    );
  // A share of its life, of an SVID that was just issued.
  const used = await prometheus.value('scute:x509_svid_life:ratio');
  assert.ok(used !== undefined && used > 0 && used < 0.75, String(used));
});

test(
  'a real Prometheus takes ten thousand sidecars that a generator plays, and finds those that are odd',
  needs('prometheus'),
  async (t) => {
    const sidecars = 10_000;
    const { address, server } = await startFleet({ sidecars });
    t.after(() => {
      server.closeAllConnections();
      server.close();
    });
    const job = { honor_labels: true, sample_limit: 0, body_size_limit: '64MB', scrape_interval: '30s', scrape_timeout: '30s' };
    const prometheus = await startPrometheus(t, [address], job);

    await eventually(async () => assert.equal(await prometheus.value('count(scute_build_info)'), sidecars));

    assert.equal(await prometheus.value('count(scute_x509_svid_expiration_timestamp_seconds)'), sidecars + sidecars / ODD_ONES.twoSvids);
    assert.equal(await prometheus.value('count(count by (job, instance) (scute_build_info{job="scute"}))'), sidecars);
    const versions = await prometheus.values('count by (version) (scute_build_info)');
    assert.equal(versions.get('0.0.9'), sidecars / ODD_ONES.oldVersion);
    // Who trusts only the old root.
    const oldAlone = 'count(count by (instance) (scute_x509_authority_expiration_timestamp_seconds) == 1)';
    assert.equal(await prometheus.value(oldAlone), sidecars / ODD_ONES.oldAuthority);
    await eventually(async () =>
      assert.equal(await prometheus.value('count(count by (instance) (scute:x509_svid_life:ratio > 0.75))'), sidecars / ODD_ONES.stuck),
    );
  },
);
