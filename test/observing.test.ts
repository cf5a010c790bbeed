import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { below } from './support/documents.ts';
import { fleetMetrics, ODD_ONES } from './support/admin/fleet-generator.ts';
import { namesIn, seriesNames } from './support/admin/metric-names.ts';
import { metricsInUse } from './support/admin/metrics-in-use.ts';
import { dashboardQueries, readDashboard, readRules, readRuleTests } from './support/admin/observing.ts';

const described = await metricsInUse().describe();
const series = seriesNames(described);
const { alerts, records } = readRules();
const recorded = new Set(records.map(({ record }) => record));

/** What an expression names that is neither a series nor a rule. */
const unknownIn = (expression: string): readonly string[] => namesIn(expression).filter((name) => !series.has(name) && !recorded.has(name));

/** Labels that an expression selects or keeps, and that neither a metric of ours nor a scrape has. */
function unknownLabelsIn(expression: string): readonly string[] {
  const OF_SCRAPES = ['job', 'instance', 'namespace', 'alertname', 'alertstate'];
  const known = new Set([...described.flatMap(({ labels }) => labels), 'le', ...OF_SCRAPES]);
  const selected = [...expression.matchAll(/(\w+)\s*(?:=~|!~|!=|=)\s*"/g)].map(([, label = '']) => label);
  const listed = [...expression.matchAll(/\b(?:by|without|on)\s*\(([^)]*)\)/g)].flatMap(([, list = '']) =>
    list.split(',').map((label) => label.trim()),
  );
  return [...selected, ...listed].filter((label) => !known.has(label));
}

test('rules name only metrics, rules and labels that there are', () => {
  assert.ok(alerts.length > 15 && records.length > 3);
  for (const { expr } of [...alerts, ...records]) {
    assert.ok(namesIn(expr).length > 0 || /\bup\b/.test(expr), expr);
    assert.deepEqual([...unknownIn(expr), ...unknownLabelsIn(expr)], [], expr);
  }
});

test('each recording rule is of use to an alarm, another rule or a panel', () => {
  const used = new Set([...[...alerts, ...records].map(({ expr }) => expr), ...dashboardQueries()].flatMap(namesIn));

  assert.deepEqual(
    records.filter(({ record }) => !used.has(record)),
    [],
  );
});

test('each alarm says what, why it matters and what to do, and leads to its place in the runbook', () => {
  for (const { alert, annotations, labels } of alerts) {
    const [what, why, action, ...more] = annotations.description.split('\n');
    assert.match(annotations.summary, /^\S.{10,}[^.]$/, alert);
    assert.match(what ?? '', /^\S.{10,}\.$/, alert);
    assert.match(why ?? '', /^Why it matters: [A-Z].{10,}\.$/, alert);
    assert.match(action ?? '', /^What to do: [A-Z].{10,}\.$/, alert);
    assert.deepEqual(more, [], alert);
    assert.equal(annotations.runbook_url, `docs/runbook.md#${alert.toLowerCase()}`);
    assert.match(below('docs/runbook.md', alert), new RegExp(`^\n\`${labels.severity}\`\\. \\S`), alert);
  }
});

test('the runbook is about the alarms that there are', () => {
  const headings = [...readFileSync(join(import.meta.dirname, '../docs/runbook.md'), 'utf8').matchAll(/^## (.*)$/gm)].map(
    ([, heading]) => heading,
  );

  assert.deepEqual(
    headings,
    alerts.map(({ alert }) => alert),
  );
});

test('each alarm has a test in which it does not fire, fires, and ends, of series that there are', () => {
  const tests = readRuleTests();
  for (const { alert } of alerts) {
    const courses = tests
      .map(({ promql_expr_test: asked }) =>
        asked
          .filter(({ expr }) => expr.includes(`alertname="${alert}"`))
          .map(({ exp_samples: samples }) => (samples.length > 0 ? 'fires' : 'silent')),
      )
      .map((course) => course.join(' '));
    assert.ok(courses.includes('silent fires silent'), alert);
  }
  for (const { name, input_series: input } of tests) {
    for (const { series: one } of input) {
      const [, metric = '', labels = ''] = /^(\w+)\{(.*)\}$/.exec(one) ?? [];
      assert.ok(series.has(metric) || metric === 'up', `${name}: ${metric}`);
      const given = [...labels.matchAll(/(\w+)="/g)]
        .map(([, label = '']) => label)
        .filter((label) => label !== 'job' && label !== 'instance');
      assert.deepEqual(
        given.toSorted(),
        [...(described.find((each) => each.name === metric)?.labels ?? [])].toSorted(),
        `${name}: ${metric}`,
      );
    }
  }
});

test('the dashboard names only metrics, rules and labels that there are', () => {
  const queries = dashboardQueries();
  assert.ok(queries.length > 50);
  for (const query of queries) {
    assert.ok(namesIn(query).length > 0 || query.startsWith('ALERTS'), query);
    assert.deepEqual([...unknownIn(query), ...unknownLabelsIn(query)], [], query);
  }
});

test('the dashboard is about certificates, rotations, handshakes, refusals, traffic, durations, SDS and the process, of the sidecars chosen', () => {
  const { panels, templating } = readDashboard();
  const rows = panels.filter(({ type }) => type === 'row').map(({ title }) => title);
  assert.deepEqual(rows, [
    'At a glance',
    'Certificates',
    'Rotations',
    'Handshakes',
    'Refusals',
    'Traffic',
    'Durations',
    'SDS',
    'Files',
    'Application',
    'Process',
  ]);

  assert.deepEqual(
    templating.list.map(({ name }) => name),
    ['datasource', 'job', 'namespace', 'instance'],
  );
  for (const { query } of templating.list.slice(1)) assert.deepEqual(unknownIn(typeof query === 'string' ? query : query.query), []);
  for (const { title, targets = [] } of panels)
    for (const { expr } of targets) assert.match(expr, /job=~"\$job"[^}]*,instance=~"\$instance"/, title);
});

test('the panels of the dashboard do not cover one another', () => {
  const { panels } = readDashboard();
  assert.equal(new Set(panels.map(({ id }) => id)).size, panels.length);
  for (const one of panels) {
    assert.ok(one.gridPos.x + one.gridPos.w <= 24, one.title);
    for (const other of panels) {
      if (one === other) continue;
      const [a, b] = [one.gridPos, other.gridPos];
      const apart = a.x + a.w <= b.x || b.x + b.w <= a.x || a.y + a.h <= b.y || b.y + b.h <= a.y;
      assert.ok(apart, `${one.title} and ${other.title}`);
    }
  }
});

test('the generator plays metrics that there are, with their labels, each sidecar in time but those that are stuck', () => {
  const sidecars = 2 * ODD_ONES.stuck;
  const nowMs = Date.parse('2026-11-30T12:00:00Z');
  const lines = [...fleetMetrics({ sidecars }, nowMs, nowMs + 5 * 3600_000)].join('').split('\n');
  const samples = lines.flatMap((line) => {
    const [, name = '', labels = '', value = ''] = /^(\w+)\{(.*)\} (\S+)$/.exec(line) ?? [];
    return name === ''
      ? []
      : [
          {
            name,
            labels: new Map([...labels.matchAll(/(\w+)="([^"]*)"/g)].map(([, label = '', text = '']) => [label, text])),
            value: Number(value),
          },
        ];
  });

  const OF_TARGETS = ['job', 'instance', 'cluster', 'namespace', 'pod', 'node'];
  for (const { name, labels } of samples) {
    assert.deepEqual(
      [...labels.keys()].filter((label) => !OF_TARGETS.includes(label)),
      described.find((each) => each.name === name)?.labels,
      name,
    );
  }
  const lasts = samples.filter(({ name }) => name === 'scute_x509_svid_expiration_timestamp_seconds');
  const expired = lasts.filter(({ value }) => value * 1000 <= nowMs + 5 * 3600_000);
  assert.equal(new Set(lasts.map(({ labels }) => labels.get('instance'))).size, sidecars);
  assert.equal(expired.length, (sidecars / ODD_ONES.stuck) * 2, 'two SVIDs each');
  assert.ok(lasts.every((one) => expired.includes(one) || one.value * 1000 > nowMs + 5 * 3600_000 + 1800_000 - 1000));
});
