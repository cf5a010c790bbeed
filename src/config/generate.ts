/**
 * Writes what is generated from the schema: `configs/scute.schema.json`, the tables of `docs/configuration.md` and the schemas of the charts' values; and
 * copies into the charts what Helm must find there. `npm run gen` runs this.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';
import { durationOrOffPattern, durationPattern } from './fields.ts';
import { helmValueSchemas, type ValueSchema } from './helm-values.ts';
import { policySchema } from './policy/policy-text.ts';
import { ENVIRONMENT_KEYS } from './policy/precedence.ts';
import { createConfigSchema } from './schema.ts';

const root = join(import.meta.dirname, '..', '..');
const START = '<!-- generated from src/config/schema.ts by `npm run gen`; do not edit below -->';

interface JsonSchema {
  readonly type?: string;
  readonly description?: string;
  readonly default?: unknown;
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly pattern?: string;
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly required?: readonly string[];
  readonly items?: JsonSchema;
  readonly anyOf?: readonly JsonSchema[];
}

/** Each generated file with what it must hold: a path from the root of the project, and the text. */
export async function generate(): Promise<ReadonlyMap<string, string>> {
  const configSchema = createConfigSchema({ groupId: () => undefined });
  const schema = z.toJSONSchema(configSchema, { io: 'input' }) as JsonSchema;
  const titled = { $id: 'scute.schema.json', title: 'Scute configuration', ...schema };
  const written = await readFile(join(root, 'docs/configuration.md'), 'utf8');
  const introduction = written.split(START)[0] ?? '';
  return new Map([
    ['configs/scute.schema.json', `${JSON.stringify(titled, undefined, 2)}\n`],
    ['docs/configuration.md', `${introduction}${START}\n\n${referenceOf(schema)}`],
    ...[...chartSchemas(configSchema)].map(([path, values]) => [path, `${JSON.stringify(values, undefined, 2)}\n`] as const),
    ...(await Promise.all(CHART_COPIES.map(async ([from, to]) => [to, await readFile(join(root, from), 'utf8')] as const))),
  ]);
}

/** A chart reads no file outside of its own folder. */
const CHART_COPIES = [
  ['deploy/prometheus/rules.yaml', 'deploy/helm/scute/files/rules.yaml'],
  ['deploy/grafana/scute.json', 'deploy/helm/scute/files/scute.json'],
] as const;

function chartSchemas(configSchema: z.ZodType): ReadonlyMap<string, ValueSchema> {
  const [config, policy] = [configSchema, policySchema('/')].map(
    (schema) => z.toJSONSchema(schema, { io: 'input', target: 'draft-7' }) as ValueSchema,
  );
  if (config === undefined || policy === undefined) throw new Error('there are two schemas');
  return helmValueSchemas(config, policy);
}

function referenceOf(schema: JsonSchema): string {
  const variables = Object.entries(ENVIRONMENT_KEYS).map(([variable, path]) => `| \`${variable}\` | \`${path.join('.')}\` |`);
  const environment = ['## Environment', '', '| variable | key |', '|---|---|', ...variables, ''];
  return [...environment, ...sections('', schema)].join('\n');
}

/** Where a list holds several kinds of things, the one that has keys. */
function keyed(items: JsonSchema | undefined): JsonSchema | undefined {
  return items?.properties === undefined ? items?.anyOf?.find(({ properties }) => properties !== undefined) : items;
}

/** One table an object, the objects within it after it. `shown` are the rules that have a table. */
function sections(path: string, schema: JsonSchema, shown = new Set<string>()): string[] {
  const lines = [path === '' ? '## Keys' : `## \`${path}\``, '', '| key | type | default | meaning |', '|---|---|---|---|'];
  const within: string[] = [];
  for (const [key, field] of Object.entries(schema.properties ?? {})) {
    const isRequired = schema.required?.includes(key) === true;
    lines.push(`| \`${key}\` | ${typeOf(field)} | ${isRequired ? 'required' : defaultOf(field)} | ${cell(field.description ?? '')} |`);
    const ofList = keyed(field.items);
    const inner = ofList ?? keyed(field) ?? field;
    // Rules are the same everywhere.
    const isRule = ofList !== undefined && ofList !== field.items;
    const isShown = isRule && shown.has(JSON.stringify(inner));
    if (isRule) shown.add(JSON.stringify(inner));
    const innerPath = `${path === '' ? '' : `${path}.`}${key}${ofList === undefined ? '' : '[]'}`;
    // The limits of a listener are those at the top level once more.
    if (inner.properties !== undefined && !isShown && !innerPath.endsWith('].limits')) within.push(...sections(innerPath, inner, shown));
  }
  return [...lines, '', ...within];
}

function typeOf(field: JsonSchema): string {
  if (field.const !== undefined) return `\`${JSON.stringify(field.const).replaceAll('"', '')}\``;
  if (field.enum !== undefined) return field.enum.map((value) => `\`${String(value)}\``).join(', ');
  if (field.anyOf !== undefined) return field.anyOf.map(typeOf).join(' or ');
  if (field.type === 'array') return `list of ${listed(field.items ?? {})}`;
  if (field.pattern === durationPattern) return 'duration';
  if (field.pattern === durationOrOffPattern) return 'duration or `off`';
  switch (field.type) {
    case 'object':
      return 'section';
    case 'integer':
      return 'whole number';
    case 'boolean':
      return 'true or false';
    default:
      return 'text';
  }
}

function listed(items: JsonSchema): string {
  if (items.anyOf !== undefined) return items.anyOf.map(listed).join(' and ');
  return items.type === 'object' ? 'sections' : typeOf(items);
}

function defaultOf({ default: value }: JsonSchema): string {
  if (value === undefined || (typeof value === 'object' && value !== null && !Array.isArray(value))) return '';
  return `\`${typeof value === 'string' ? value : JSON.stringify(value)}\``;
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|');
}

if (import.meta.main) {
  for (const [path, text] of await generate()) await writeFile(join(root, path), text);
}
