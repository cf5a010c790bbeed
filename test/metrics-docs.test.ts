import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { below, namesUnder } from './support/documents.ts';
import { pageOf } from './support/reference.ts';
import { documentedMetrics, METRICS_DOCUMENT } from './support/admin/documented-metrics.ts';
import { namesIn, seriesNames } from './support/admin/metric-names.ts';
import { metricsInUse } from './support/admin/metrics-in-use.ts';

const root = join(import.meta.dirname, '..');
const READINESS = 'Probes and readiness';
const CHECKS = namesUnder(pageOf(READINESS), READINESS);

test('the metrics of the documents are those that there are, with type and labels', async () => {
  const described = await metricsInUse().describe();

  assert.deepEqual(
    documentedMetrics()
      .map(({ name, type, labels }) => ({ name, type, labels }))
      .toSorted((one, other) => one.name.localeCompare(other.name)),
    described
      .map(({ name, type, labels }) => ({ name, type, labels: [...labels] }))
      .toSorted((one, other) => one.name.localeCompare(other.name)),
  );
});

test('each metric has the unit that its name says, and an example that is about it and names only what is there', async () => {
  const known = seriesNames(await metricsInUse().describe());
  for (const { name, unit, meaning, example } of documentedMetrics()) {
    const [, suffix] = /_(timestamp_seconds|time_seconds|seconds|bytes)(?:_total)?$/.exec(name) ?? [];
    if (suffix !== undefined) assert.equal(unit, suffix.endsWith('_seconds') ? 'seconds since 1970' : suffix, name);
    assert.match(unit, /^\w/, name);
    if (suffix === undefined) assert.doesNotMatch(unit, /^(?:seconds|bytes)/, name);
    assert.match(meaning, /\w/, name);
    const names = namesIn(example);
    assert.ok(
      names.some((each) => each.replace(/_(?:bucket|sum|count)$/, '') === name || each === name),
      `${name}: ${example}`,
    );
    for (const each of names) assert.ok(known.has(each), `${name}: ${each} is not a series`);
  }
});

/** By metric and label: what a render shows. */
function valuesShown(body: string): ReadonlyMap<string, ReadonlySet<string>> {
  const shown = new Map<string, Set<string>>();
  for (const [, name = '', labels = ''] of body.matchAll(/^(\w+)\{(.*)\} \S+$/gm)) {
    for (const [, label = '', value = ''] of labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) {
      const key = `${name} ${label}`;
      shown.set(key, (shown.get(key) ?? new Set()).add(value));
    }
  }
  return shown;
}

test('each label of each metric is in the documents, and a closed set has the values that there are', async () => {
  const rows = below(METRICS_DOCUMENT, 'Labels')
    .split('\n')
    .filter((line) => line.startsWith('|'))
    .map((line) => line.split('|').slice(1, -1));
  const closed = new Map<string, ReadonlySet<string>>();
  const open = new Set<string>();
  for (const [first = '', second = '', third = ''] of rows) {
    const label = /^ `(\w+)` $/.exec(second)?.[1];
    if (label === undefined) {
      for (const [, name = ''] of first.matchAll(/`(\w+)`/g)) open.add(name);
      continue;
    }
    const linked = [...third.matchAll(/\((reference\/[\w-]+\.md)#([\w-]+)\)/g)].flatMap(([, page = '', anchor = '']) =>
      namesAt(`docs/${page}`, anchor),
    );
    const named = [...third.matchAll(/`(\w+)`/g)].map(([, value = '']) => value);
    closed.set(first.startsWith(' all ') ? label : `${/`(\w+)`/.exec(first)?.[1]} ${label}`, new Set([...linked, ...named]));
  }

  const metrics = metricsInUse(CHECKS);
  const shown = valuesShown((await metrics.render()).body);
  const used = new Set<string>();
  for (const { name, type, labels } of await metrics.describe()) {
    for (const label of [...labels, ...(type === 'histogram' ? ['le'] : [])]) {
      const key = closed.has(`${name} ${label}`) ? `${name} ${label}` : label;
      used.add(key);
      const values = closed.get(key);
      if (values === undefined) {
        assert.ok(open.has(label), `${name} has the label ${label}, of which ${METRICS_DOCUMENT} says nothing`);
        continue;
      }
      // Whether there is FIPS is a fact of the build.
      if (key === 'scute_tls_info fips') continue;
      const found = shown.get(`${type === 'histogram' ? `${name}_count` : name} ${label}`);
      const ofMetric = [...values].filter((value) => found?.has(value));
      assert.deepEqual([...(found ?? [])].toSorted(), ofMetric.toSorted(), key);
      if (key !== label) assert.deepEqual([...(found ?? [])].toSorted(), [...values].toSorted(), key);
    }
  }
  assert.deepEqual(
    [...closed.keys(), ...open].filter((key) => !used.has(key)),
    [],
    'of nothing',
  );
});

/** The names below the heading of a page that a link leads to. */
function namesAt(page: string, anchor: string): readonly string[] {
  const headings = [...readFileSync(join(root, page), 'utf8').matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) => heading);
  const heading = headings.find((each) => each.toLowerCase().replaceAll(' ', '-') === anchor);
  assert.ok(heading !== undefined, `${page}#${anchor}`);
  return namesUnder(page, heading);
}

test('the readiness checks of the documents are those that there are', () => {
  const source = ['src/checks.ts', 'src/admin/checks/readiness.ts'].map((file) => readFileSync(join(root, file), 'utf8')).join('\n');
  const registered = [...source.matchAll(/readiness\.register\(\s*'(\w+)'|const NOT_STOPPING = '(\w+)'/g)].map(
    ([, name, last]) => name ?? last ?? '',
  );

  assert.deepEqual(CHECKS.toSorted(), registered.toSorted());
});

test('metrics that the documents name anywhere are there', async () => {
  const known = new Set(
    (await metricsInUse().describe()).flatMap(({ name, type }) => (type === 'histogram' ? [name, `${name}_bucket`] : name)),
  );
  const documents = globSync('{*,docs/**/*,deploy/**/*}.md', { cwd: root });
  const wrong = documents.flatMap((document) =>
    [...readFileSync(join(root, document), 'utf8').matchAll(/\bscute_[a-z0-9_]+\b/g)]
      .map(([name]) => name)
      // `scute_federation_…` is a family.
      .filter((name) => !known.has(name) && !name.endsWith('_'))
      .map((name) => `${document}: ${name}`),
  );
  assert.ok(documents.length > 5);
  assert.deepEqual(wrong, []);
});
