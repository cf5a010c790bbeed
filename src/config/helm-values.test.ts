import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Ajv, type ValidateFunction } from 'ajv';
import { parse } from 'yaml';

const root = join(import.meta.dirname, '../..');
const charts = ['deploy/helm/scute-sidecar', 'deploy/helm/scute'] as const;

const judges: ReadonlyMap<string, ValidateFunction> = new Map(
  charts.map((chart) => {
    const schema = JSON.parse(readFileSync(join(root, chart, 'values.schema.json'), 'utf8')) as object;
    return [chart, new Ajv({ strict: false, allErrors: true }).compile(schema)];
  }),
);

function problemsOf(chart: string, values: unknown): string[] {
  const judge = judges.get(chart);
  assert.ok(judge);
  judge(values);
  return (judge.errors ?? []).map(({ instancePath, message, params }) => `${instancePath} ${message} ${JSON.stringify(params)}`);
}

const files = globSync('deploy/helm/**/{values,*-values}.yaml', { cwd: root }).toSorted();

test('the values of the charts, and those that they are tried with, are what their schemas say', () => {
  assert.ok(files.length > 12);
  for (const file of files) {
    const chart = file.startsWith(`${charts[0]}/`) ? charts[0] : charts[1];
    assert.deepEqual(problemsOf(chart, parse(readFileSync(join(root, file), 'utf8'))), [], file);
  }
});

test('no value and no example of deploy/ sets an unsafe key', () => {
  const texts = globSync('deploy/{helm,kustomize}/**/*.{yaml,tpl}', { cwd: root }).filter((file) => !file.includes('/files/'));
  assert.ok(texts.length > 20);
  for (const file of texts) assert.doesNotMatch(readFileSync(join(root, file), 'utf8'), /\bunsafe/, file);
});

test('a key that is not known is refused wherever it stands, and values of Helm itself are let pass', () => {
  const wrong: readonly object[] = [
    { workload: {} },
    { 'scute-sidecar': { imag: {} } },
    { 'scute-sidecar': { image: { tag: 'latest' } } },
    { workloads: { api: { scute: { confg: {} } } } },
    { workloads: { api: { scute: { config: { inbond: [] } } } } },
    { workloads: { api: { scute: { config: { inbound: [{ listen: '[::]:1', to: '127.0.0.1:1', alow: [] }] } } } } },
    { workloads: { api: { scute: { config: { workloadApi: {} } } } } },
    { workloads: { api: { scute: { config: { metrics: {} } } } } },
    { 'scute-sidecar': { policies: { 'a.yaml': { alow: [] } } } },
    { 'scute-sidecar': { policies: { '../a.yaml': { allow: [] } } } },
  ];
  for (const values of wrong) assert.notDeepEqual(problemsOf(charts[1], values), [], JSON.stringify(values));
  for (const chart of charts) assert.deepEqual(problemsOf(chart, { global: { anything: 1 } }), []);
  assert.deepEqual(problemsOf(charts[1], { workloads: { api: null } }), []);
});

test('the schemas have every key of the configuration but those that the chart fills in', () => {
  const keys = (file: string): Record<string, unknown> => JSON.parse(readFileSync(join(root, file), 'utf8')) as Record<string, unknown>;
  const all = Object.keys(keys('configs/scute.schema.json')['properties'] as object);
  for (const chart of charts) {
    const { config } = keys(`${chart}/values.schema.json`)['definitions'] as { readonly config: { readonly properties: object } };
    assert.deepEqual(
      all.filter((key) => !(key in config.properties)),
      ['workloadApi', 'metrics', 'exec'],
    );
  }
});

test('Go, in which Helm is written, can read every pattern of the schemas', () => {
  for (const chart of charts) {
    const text = readFileSync(join(root, chart, 'values.schema.json'), 'utf8');
    const patterns = [...text.matchAll(/"pattern": ("(?:[^"\\]|\\.)*")/g)].map(([, pattern]) => JSON.parse(pattern ?? '""') as string);
    assert.ok(patterns.length > 20);
    // RE2 has no look-around, no back references and no \u, and repeats a thousand times at most.
    for (const pattern of patterns) {
      assert.doesNotMatch(pattern, /\(\?[=!<]|\\[1-9u]/);
      for (const [, most] of pattern.matchAll(/\{\d*,?(\d+)\}/g)) assert.ok(Number(most) <= 1000, pattern);
    }
  }
});
