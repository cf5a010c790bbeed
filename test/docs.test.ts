import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { generate } from '../src/config/generate.ts';
import { formatIssues } from '../src/config/issue.ts';
import { loadConfig } from '../src/config/load.ts';

const root = join(import.meta.dirname, '..');
const documents = globSync('{*,docs/*,deploy/**/*}.md', { cwd: root }).toSorted();

/** The text of a document without its code blocks. */
function proseOf(document: string): string {
  return readFileSync(join(root, document), 'utf8').replace(/```[\s\S]*?```/g, '');
}

test('the JSON Schema and the reference of the configuration are what the schema gives (npm run gen)', async () => {
  for (const [path, text] of await generate()) assert.equal(readFileSync(join(root, path), 'utf8'), text, path);
});

interface JsonSchema {
  readonly description?: string;
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly items?: JsonSchema;
}

/** Every key of the configuration with its path. */
function fieldsOf(schema: JsonSchema, path = ''): { readonly path: string; readonly key: string; readonly field: JsonSchema }[] {
  const own = Object.entries(schema.properties ?? {}).flatMap(([key, field]) => [
    { path: `${path}${key}`, key, field },
    ...fieldsOf(field, `${path}${key}.`),
  ]);
  return schema.items === undefined ? own : [...own, ...fieldsOf(schema.items, path)];
}

const fields = fieldsOf(JSON.parse(readFileSync(join(root, 'configs/scute.schema.json'), 'utf8')));

test('every field of the configuration has a description', () => {
  assert.ok(fields.length > 60);
  assert.deepEqual(
    fields.filter(({ field }) => field.description === undefined).map(({ path }) => path),
    [],
  );
});

for (const file of globSync('configs/*.yaml', { cwd: root }).toSorted()) {
  test(`the example ${file} is a valid configuration`, async () => {
    const loaded = await loadConfig({ file: join(root, file), flags: {}, env: { SPIFFE_ENDPOINT_SOCKET: 'unix:///run/spire/agent.sock' } });

    assert.ok(loaded.ok, loaded.ok ? '' : formatIssues(loaded.error));
  });
}

test('configs/full.yaml has every key that there is', () => {
  const text = readFileSync(join(root, 'configs/full.yaml'), 'utf8');
  const keys = [...new Set(fields.map(({ key }) => key))];

  assert.deepEqual(
    keys.filter((key) => !new RegExp(`(^|[\\s{])${key}:`, 'm').test(text)),
    [],
  );
});

test('links between documents lead to files that are there', () => {
  assert.ok(documents.length > 0);
  const broken = documents.flatMap((document) =>
    [...proseOf(document).matchAll(/\]\(([^)#\s]+)(?:#[^)]*)?\)/g)]
      .map(([, target]) => target ?? '')
      .filter((target) => !/^[a-z]+:/.test(target) && !existsSync(join(root, dirname(document), target)))
      .map((target) => `${document}: ${target}`),
  );
  assert.deepEqual(broken, []);
});

test('files that the documents name in code are there', () => {
  const broken = documents.flatMap((document) =>
    [...proseOf(document).matchAll(/`((?:src|test|configs|docs|deploy|bench|proto)\/[\w./-]*\w)`/g)]
      .map(([, path]) => path ?? '')
      .filter((path) => !existsSync(join(root, path)))
      .map((path) => `${document}: ${path}`),
  );
  assert.deepEqual(broken, []);
});
