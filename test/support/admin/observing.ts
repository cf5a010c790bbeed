/** What `deploy/prometheus` and `deploy/grafana` hold, for the tests that read it. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import * as z from 'zod';

const root = join(import.meta.dirname, '..', '..', '..');
export const PROMETHEUS_FOLDER = join(root, 'deploy/prometheus');

const recordSchema = z.strictObject({ record: z.string(), expr: z.string() });
const alertSchema = z.strictObject({
  alert: z.string(),
  expr: z.string(),
  for: z.string().optional(),
  labels: z.strictObject({ severity: z.enum(['critical', 'warning', 'info']) }),
  annotations: z.strictObject({ summary: z.string(), description: z.string(), runbook_url: z.string() }),
});
const rulesSchema = z.strictObject({
  groups: z.array(z.strictObject({ name: z.string(), rules: z.array(z.union([recordSchema, alertSchema])) })),
});
const ruleTestsSchema = z.object({
  tests: z.array(
    z.object({
      name: z.string(),
      input_series: z.array(z.object({ series: z.string(), values: z.string() })),
      promql_expr_test: z.array(z.object({ expr: z.string(), exp_samples: z.array(z.object({ value: z.number() })) })),
    }),
  ),
});

export type AlertRule = z.infer<typeof alertSchema>;
export type RecordingRule = z.infer<typeof recordSchema>;

function readYaml(name: string): unknown {
  return parse(readFileSync(join(PROMETHEUS_FOLDER, name), 'utf8'));
}

export function readRules(): { readonly alerts: readonly AlertRule[]; readonly records: readonly RecordingRule[] } {
  const rules = rulesSchema.parse(readYaml('rules.yaml')).groups.flatMap((group) => group.rules);
  return { alerts: rules.filter((rule) => 'alert' in rule), records: rules.filter((rule) => 'record' in rule) };
}

export function readRuleTests(): z.infer<typeof ruleTestsSchema>['tests'] {
  return ruleTestsSchema.parse(readYaml('rules.test.yaml')).tests;
}

const targetSchema = z.object({ expr: z.string() });
const dashboardSchema = z.object({
  title: z.string(),
  templating: z.object({ list: z.array(z.object({ name: z.string(), query: z.union([z.string(), z.object({ query: z.string() })]) })) }),
  annotations: z.object({ list: z.array(targetSchema) }),
  panels: z.array(
    z.object({
      id: z.number(),
      type: z.string(),
      title: z.string(),
      gridPos: z.object({ x: z.number(), y: z.number(), w: z.number(), h: z.number() }),
      targets: z.array(targetSchema).optional(),
    }),
  ),
});

export function readDashboard(): z.infer<typeof dashboardSchema> {
  return dashboardSchema.parse(JSON.parse(readFileSync(join(root, 'deploy/grafana/scute.json'), 'utf8')));
}

/** The queries of the dashboard, with what Grafana puts in for its variables. */
export function dashboardQueries(): readonly string[] {
  const { panels, annotations } = readDashboard();
  return [...panels.flatMap(({ targets = [] }) => targets), ...annotations.list].map(({ expr }) =>
    expr.replaceAll(/\$__(?:rate_interval|range)/g, '5m').replaceAll(/\$\w+/g, '.*'),
  );
}
