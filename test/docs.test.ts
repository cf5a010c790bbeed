import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { constants } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { test } from 'node:test';
import { parse } from 'yaml';
import * as z from 'zod';
import { FLEET_RESOURCES } from '../src/fleet/api.ts';
import { RESOURCES } from '../src/admin/api/api.ts';
import { CERTIFICATE_KINDS } from '../src/admin/api/certificates.ts';
import { EXIT_FAILED, EXIT_OK, EXIT_READER_LEFT, EXIT_UNAVAILABLE, EXIT_USAGE } from '../src/cli/environment.ts';
import { runCommandLine } from '../src/cli/program.ts';
import { CHECK_ADVICE } from '../src/cli/status-problems.ts';
import { generate } from '../src/config/generate.ts';
import { formatIssues } from '../src/config/issue.ts';
import { policyPageSchema } from '../src/config/policy/policy-page.ts';
import { loadConfig, parseConfig } from '../src/config/load.ts';
import { devConfigSchema } from '../src/devdomain/config.ts';
import { APPLICATION_ENDS } from '../src/telemetry/log/application-records.ts';
import { DENY_REASONS } from '../src/policy/verdict.ts';
import { TOKEN_RESULTS } from '../src/telemetry/log/jwt-records.ts';
import { CLOSE_REASONS, IDENTITY_WAIT_RESULTS, REFUSED_ACCEPT_REASONS, STATUS_REFUSALS } from '../src/telemetry/log/records.ts';
import { ENDPOINT_RESULTS, REFRESH_PROBLEMS } from '../src/telemetry/log/federation-records.ts';
import { NOTIFY_PROBLEMS, SET_PROBLEMS } from '../src/telemetry/log/files-records.ts';
import { PROBE_RESULTS } from '../src/telemetry/log/probe-records.ts';
import { CREDENTIAL_PROBLEMS } from '../src/telemetry/log/credential-records.ts';
import { SDS_MISSING_REASONS, SDS_REFUSAL_REASONS } from '../src/telemetry/log/sds-records.ts';
import { CHECK_DENIALS, CHECK_REFUSALS } from '../src/telemetry/log/ext-authz-records.ts';
import { below, codeBlocks } from './support/documents.ts';
import * as reference from './support/reference.ts';
import { temporaryFolder } from './support/temporary-folder.ts';

const root = join(import.meta.dirname, '..');
const documents = globSync('{*,docs/**/*,deploy/**/*}.md', { cwd: root }).toSorted();

/** The text of a document without its code blocks. */
function proseOf(document: string): string {
  return readFileSync(join(root, document), 'utf8').replace(/```[\s\S]*?```/g, '');
}

test('the JSON Schema and the reference of the configuration are what the schema gives (npm run gen)', async () => {
  for (const [path, text] of await generate()) assert.equal(readFileSync(join(root, path), 'utf8'), text, path);
});

interface JsonSchema {
  readonly description?: string;
  readonly default?: unknown;
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly items?: JsonSchema;
  readonly anyOf?: readonly JsonSchema[];
}

/** Every key of the configuration with its path. */
function fieldsOf(schema: JsonSchema, path = ''): { readonly path: string; readonly key: string; readonly field: JsonSchema }[] {
  const own = Object.entries(schema.properties ?? {}).flatMap(([key, field]) => [
    { path: `${path}${key}`, key, field },
    ...fieldsOf(field, `${path}${key}.`),
  ]);
  const kinds = [...(schema.items === undefined ? [] : [schema.items]), ...(schema.anyOf ?? [])];
  return [...own, ...kinds.flatMap((kind) => fieldsOf(kind, path))];
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

/** What a link within a document may lead to: its headings, and the names of sections that have moved. */
function anchorsOf(document: string): readonly string[] {
  const text = proseOf(document);
  const headings = [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\w -]/g, '')
      .replaceAll(' ', '-'),
  );
  return [...headings, ...[...text.matchAll(/<a id="([^"]*)"><\/a>/g)].map(([, name = '']) => name)];
}

test('links to headings lead to headings that are there, of which each page has one of a name', () => {
  const broken = documents.flatMap((document) =>
    [...proseOf(document).matchAll(/\]\(([^)#\s:]*)#([^)]*)\)/g)]
      .filter(([, target = '', anchor = '']) => {
        const anchors = anchorsOf(target === '' ? document : join(dirname(document), target));
        return anchors.indexOf(anchor) === -1 || anchors.indexOf(anchor) !== anchors.lastIndexOf(anchor);
      })
      .map(([link]) => `${document}: ${link}`),
  );
  assert.deepEqual(broken, []);
});

test('documents that sources, charts, alarms and examples name are there, with their headings', () => {
  const files = globSync('{src,deploy,configs,build,bench,test}/**/*.{ts,tsx,js,json,yaml,tpl,service,socket,cnf,sh,html}', { cwd: root });
  const named = files.flatMap((file) =>
    [
      ...readFileSync(join(root, file), 'utf8').matchAll(
        /\b(docs\/[\w/-]+\.md|(?:README|SECURITY|CONTRIBUTING|CHANGELOG)\.md)(?:#([\w-]+))?/g,
      ),
    ].map(([name, document = '', anchor]) => ({ file, name, document, anchor })),
  );
  assert.ok(named.length > 100);
  assert.deepEqual(
    named
      .filter(
        ({ document, anchor }) => !existsSync(join(root, document)) || (anchor !== undefined && !anchorsOf(document).includes(anchor)),
      )
      .map(({ file, name }) => `${file}: ${name}`),
    [],
  );
});

test('a page of the reference is in its index, is one subject, and says at its end what was not run', () => {
  const index = readFileSync(join(root, 'docs/reference/README.md'), 'utf8');
  const pages = reference.REFERENCE_PAGES.filter((page) => basename(page) !== 'README.md');
  assert.ok(pages.length >= 10 && pages.length <= 16);
  for (const page of pages) {
    const text = readFileSync(join(root, page), 'utf8');
    assert.ok(index.includes(`](${basename(page)})`), page);
    assert.equal(proseOf(page).match(/^# /gm)?.length, 1, page);
    const end = text.split('\n---\n').at(-1) ?? '';
    assert.match(end, /\bNot run: /, page);
    assert.ok(end.length < 600, `${page}: that is its end, and short`);
  }
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

test('sources that the documents name by their folder are there', () => {
  const folders = globSync('src/*/', { cwd: root }).map((folder) => basename(folder));
  const named = documents.flatMap((document) =>
    [...proseOf(document).matchAll(/`([a-z0-9-]+)(\/[\w/-]+\.tsx?)`/g)]
      .filter(([, folder = '']) => folders.includes(folder))
      .map(([, folder = '', file = '']) => ({ document, path: `src/${folder}${file}` })),
  );
  assert.ok(named.length > 20);
  assert.deepEqual(
    named.filter(({ path }) => !existsSync(join(root, path))),
    [],
  );
});

test('every configuration that the documents show is valid', async () => {
  const shown = documents.flatMap((document) =>
    codeBlocks(document)
      .filter(({ info }) => info === 'yaml config')
      .map(({ text }) => ({ document, text })),
  );
  assert.ok(shown.length > 0);
  for (const { document, text } of shown) {
    const loaded = await parseConfig(text, { file: document, flags: {}, env: {} });
    assert.ok(loaded.ok, loaded.ok ? '' : formatIssues(loaded.error));
  }
});

test('the policy file, the list of SPIFFE IDs and the deny list that the documents show are valid', async (t) => {
  const folder = await temporaryFolder(t);
  const shown = reference.REFERENCE_PAGES.flatMap((page) => codeBlocks(page));
  const kinds = { 'yaml policy': 'policy.yaml', 'text ids': 'partners.txt', 'yaml deny': 'revoked.yaml' };
  for (const [kind, name] of Object.entries(kinds)) {
    const [block, ...others] = shown.filter(({ info }) => info === kind);
    assert.ok(block !== undefined && others.length === 0, kind);
    await writeFile(join(folder, name), block.text);
  }
  const config = {
    workloadApi: { endpoint: 'unix:///run/spire/agent.sock' },
    inbound: [{ listen: '127.0.0.1:0', to: '127.0.0.1:1', protocol: 'http', policyFile: 'policy.yaml' }],
    revocations: { file: join(folder, 'revoked.yaml') },
  };
  await writeFile(join(folder, 'scute.yaml'), JSON.stringify(config));

  const { code, said } = await ran('check', '-c', join(folder, 'scute.yaml'));

  assert.equal(code, 0, said);
  assert.match(said, /partners\.txt/);
});

test('the trust domain that the documents show is valid, and has every key', () => {
  const [block] = codeBlocks('docs/dev-domain.md').filter(({ info }) => info === 'yaml dev');
  assert.ok(block !== undefined);
  const parsed = devConfigSchema.safeParse(parse(block.text));
  assert.ok(parsed.success, parsed.error?.message ?? '');

  const schema = z.toJSONSchema(devConfigSchema, { io: 'input', unrepresentable: 'any' }) as JsonSchema;
  const keys = [...new Set(fieldsOf(schema).map(({ key }) => key))];
  assert.ok(keys.length > 15);
  assert.deepEqual(
    keys.filter((key) => !new RegExp(`(^|[\\s{])${key}:`, 'm').test(block.text)),
    [],
  );
});

test('the close, deny and drop reasons of the documents are those that there are', () => {
  const sets: [string, readonly string[]][] = [
    ['Probes of an application on loopback', PROBE_RESULTS],
    ['Why a peer was refused', DENY_REASONS],
    ['Why a connection ended', CLOSE_REASONS],
    ['Why a token was refused', TOKEN_RESULTS.filter((result) => result.startsWith('token_'))],
    ['Why a connection was dropped unread', REFUSED_ACCEPT_REASONS],
    ['How a wait for the first SVID ended', IDENTITY_WAIT_RESULTS],
    ['Why a status request was refused', STATUS_REFUSALS],
    ['Why a secret is not there', SDS_MISSING_REASONS],
    ['Why an SDS client was refused', SDS_REFUSAL_REASONS],
    ['Why a check was denied', CHECK_DENIALS],
    ['Why a check was refused', CHECK_REFUSALS],
    ['Why a bundle was not fetched', REFRESH_PROBLEMS],
    ['Why a token was not fetched', CREDENTIAL_PROBLEMS],
    ['What became of a connection to our bundle endpoint', ENDPOINT_RESULTS],
    ['Why a set was not replaced', SET_PROBLEMS],
    ['Why somebody was not told', NOTIFY_PROBLEMS],
    ['How the application ended', APPLICATION_ENDS],
  ];
  for (const [heading, reasons] of sets) assert.deepEqual(reference.namesUnder(heading).toSorted(), reasons.toSorted(), heading);
});

test('the resources of the API in the documents are those that there are, with their parameters, and so are the kinds of certificates', () => {
  const rows = reference.tableUnder('API');
  const parameters = rows
    .filter(([, , names]) => names !== undefined)
    .map(([name, , names]) => [name?.[0], names?.filter((each) => each !== '5m')]);
  const kinds = rows.filter(([, , names]) => names === undefined).flatMap(([names]) => names ?? []);

  assert.deepEqual(
    new Map(parameters.slice(1).map(([name, names]) => [name, new Set(names)])),
    new Map(Object.entries(RESOURCES).map(([name, names]) => [name, new Set(names.split(', ').filter((each) => each !== ''))])),
  );
  assert.deepEqual(kinds, CERTIFICATE_KINDS);
});

test('scute status has advice for every readiness check of the documents', () => {
  const documented = reference.tableUnder('Probes and readiness').flatMap(([name]) => name ?? []);

  // Only there as long as nothing else is.
  assert.deepEqual(Object.keys(CHECK_ADVICE), [...documented, 'starting']);
});

test('the resources of the fleet in the documents are those that there are, with their parameters, and so are the reasons of its problems', () => {
  const rows = reference.tableUnder('The API of the fleet').filter(([, , names]) => names !== undefined);
  assert.deepEqual(
    new Map(rows.map(([name, , names]) => [name?.[0], new Set(names)])),
    new Map(Object.entries(FLEET_RESOURCES).map(([name, names]) => [name, new Set(names.split(', ').filter((each) => each !== ''))])),
  );
  const reasons = fleetProblemReasons(readFileSync(join(root, 'src/fleet/api-types.ts'), 'utf8'));
  assert.deepEqual(reference.namesUnder('Why Prometheus was not understood').toSorted(), reasons.toSorted());
});

function fleetProblemReasons(source: string): readonly string[] {
  const [, union = ''] = /type FleetProblemReason =([^;]*);/.exec(source) ?? [];
  const reasons = [...union.matchAll(/'(\w+)'/g)].map(([, reason = '']) => reason);
  assert.ok(reasons.length > 10);
  return reasons;
}

interface ApiSchema {
  readonly properties?: Readonly<Record<string, ApiSchema>>;
  readonly required?: readonly string[];
  readonly additionalProperties?: unknown;
  readonly enum?: readonly (string | null)[];
}

/** Both say the same of each object: of `source`, the interfaces; of a list, `<Page>` as its type has it. Returns the definitions. */
function assertSameProperties(schemaFile: string, source: string, page: string): Readonly<Record<string, ApiSchema>> {
  const schema: { readonly $defs: Readonly<Record<string, ApiSchema>> } = JSON.parse(readFileSync(join(root, schemaFile), 'utf8'));
  const types = new Map<string, readonly string[]>();
  for (const [, name = '', above = '', body = ''] of source.matchAll(
    /^export interface (\w+)(?:<T>)?(?: extends (\w+)[^{]*)? \{\n([\s\S]*?)^\}/gm,
  ))
    types.set(name, [...(types.get(above) ?? []), ...[...body.matchAll(/^ {2}readonly (\w+):/gm)].map(([, property = '']) => property)]);
  for (const [, name = ''] of source.matchAll(new RegExp(`^export type (\\w+) = ${page}<`, 'gm'))) types.set(name, types.get(page) ?? []);
  for (const generic of source.matchAll(/^export interface (\w+)<T>/gm)) types.delete(generic[1] ?? '');

  assert.ok(!/^import/m.test(source), 'a page in a browser can use the types');
  const objects = Object.entries(schema.$defs).filter(([, { properties }]) => properties !== undefined);
  assert.deepEqual(
    new Map(objects.map(([name, { properties }]) => [name, new Set(Object.keys(properties ?? {}))])),
    new Map([...types].map(([name, properties]) => [name, new Set(properties)])),
  );
  for (const [name, { properties, required, additionalProperties }] of objects) {
    assert.deepEqual(required, Object.keys(properties ?? {}), name);
    assert.equal(additionalProperties, false, name);
  }
  return schema.$defs;
}

test('the JSON Schema of the API and its types have the same properties, and the sets that there are', () => {
  const source = readFileSync(join(root, 'src/admin/api-types.ts'), 'utf8');
  const definitions = assertSameProperties('configs/api.schema.json', source, 'Page');

  assert.deepEqual(definitions['Certificate']?.properties?.['kind']?.enum, CERTIFICATE_KINDS);
  assert.deepEqual(definitions['Problem']?.properties?.['error']?.enum, STATUS_REFUSALS);
  assert.deepEqual(definitions['Application']?.properties?.['result']?.enum, [...APPLICATION_ENDS, null]);
});

test('the JSON Schema of the API of the fleet and its types have the same properties, and the sets that there are', () => {
  const source = readFileSync(join(root, 'src/fleet/api-types.ts'), 'utf8');
  const definitions = assertSameProperties('configs/fleet-api.schema.json', source, 'FleetPage');
  const reasons = fleetProblemReasons(source);

  assert.deepEqual(definitions['FleetProblem']?.properties?.['reason']?.enum, reasons);
  // It has no streams.
  const refusals = STATUS_REFUSALS.filter((reason) => reason !== 'too_many_streams');
  assert.deepEqual(definitions['FleetRefusal']?.properties?.['error']?.enum, [...reasons, ...refusals]);
});

test('the limits of SDS are in the documents with their defaults, and each is what one reason is about', () => {
  const limits = fields.filter(({ path }) => path.startsWith('sds.limits.'));
  const rows = reference.below('Why an SDS client was refused').matchAll(/^\| `(\w+)` \| `(\w+)`, (\d+) \| ([^|]+) \|/gm);
  const documented = [...rows].map(([, reason = '', limit = '', standard, code = '']) => ({
    reason,
    limit,
    standard: Number(standard),
    code,
  }));

  assert.deepEqual(
    documented.map(({ limit, standard }) => [limit, standard]),
    limits.map(({ key, field }) => [key, field.default]),
  );
  for (const { reason, code } of documented)
    assert.equal(code, reason === 'connection_limit' ? 'none: closed' : 'RESOURCE_EXHAUSTED', reason);
});

test('the limits of checks are in the documents with their defaults', () => {
  const limits = fields.filter(({ path }) => path.startsWith('sds.authorization.'));
  const rows = reference.below('Why a check was refused').matchAll(/^\| `\w+` \| `(\w+)`, (\w+) \|/gm);

  assert.deepEqual(
    [...rows].map(([, limit, standard]) => [limit, standard]),
    limits.map(({ key, field }) => [key, String(field.default)]),
  );
});

test('the messages of the documents are those that are logged', () => {
  const source = [
    'events.ts',
    'application-events.ts',
    'manager-events.ts',
    'sds-events.ts',
    'ext-authz-events.ts',
    'federation-events.ts',
    'files-events.ts',
    'jwt-events.ts',
    'credential-events.ts',
    'probe-events.ts',
  ]
    .map((file) => readFileSync(join(root, 'src/telemetry/events', file), 'utf8'))
    .join('\n');
  const logged = [...source.matchAll(/logger(?:\.\w+|\[level\])\((?:[^;]*?, )?'([^']+)'\)/g)].map(([, message]) => message ?? '');
  const documented = [...reference.below('Messages').matchAll(/`([^`]{7,})`/g)].map(([, message]) => message ?? '');

  assert.ok(reference.below('Log').includes('(`connection closed`)'));
  assert.deepEqual([...new Set([...documented, 'connection closed'])].toSorted(), [...new Set(logged)].toSorted());
});

test('the exit codes of the documents are those that there are', () => {
  const { SIGINT, SIGPIPE, SIGTERM } = constants.signals;
  assert.equal(EXIT_READER_LEFT, 128 + SIGPIPE);
  const documented = [...reference.below('Signals and exit codes').matchAll(/^\| (\d+) \|/gm)].map(([, code]) => Number(code));

  assert.deepEqual(documented, [EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_UNAVAILABLE, 128 + SIGINT, EXIT_READER_LEFT, 128 + SIGTERM]);
});

test('the comparison with Envoy in the README has the figures of the newest run, with their ranges', () => {
  const [, http1, http2] =
    /HTTP\/1\.1 at (.*?) Envoy's work per CPU-second, HTTP\/2 at (.*?) \|/.exec(readFileSync(join(root, 'README.md'), 'utf8')) ?? [];
  const ratioOf = (work: string): string => {
    const [, ratio, range] =
      new RegExp(`^\\| \`${work}\` .*\\*\\*(.*)\\*\\* (.*) \\|$`, 'm').exec(below('docs/performance.md', 'Results')) ?? [];
    return `${ratio} times ${range}`;
  };

  assert.equal(http1, ratioOf('http1'));
  assert.equal(http2?.replace(' ', ' times '), ratioOf('h2-to-http1 64x1'));

  const [, connections, bytes, ours, theirs] =
    /new connections at (.*?) Envoy's, bytes of TCP to the application at (.*?); idle (\d+) MiB, Envoy (\d+) \|/.exec(
      readFileSync(join(root, 'README.md'), 'utf8'),
    ) ?? [];
  const [, scute, envoy] = /^\| `memory idle` \|[^|]+\| ([\d.]+) \| ([\d.]+) \|/m.exec(below('docs/performance.md', 'Results')) ?? [];
  assert.equal(connections, ratioOf('handshake'));
  assert.equal(bytes?.replace(' ', ' times '), ratioOf('bulk-tcp up'));
  assert.deepEqual(
    [ours, theirs],
    [scute, envoy].map((figure) => Math.round(Number(figure)).toString()),
  );
});

async function ran(...args: readonly string[]): Promise<{ readonly code: number; readonly said: string }> {
  let said = '';
  const say = (text: string): void => void (said += text);
  const io = { env: {}, isTerminal: false, stdout: say, stderr: say, onHangup: () => () => undefined };
  const code = await runCommandLine([...args], io, new AbortController().signal);
  return { code, said };
}

/** What `scute … --help` says. */
async function helpOf(...command: readonly string[]): Promise<string> {
  const { code, said } = await ran(...command, '--help');
  assert.equal(code, 0, command.join(' '));
  return said;
}

const FLAG = /--[a-z][a-z-]*/g;

test('commands and flags that the documents show are in the help', async () => {
  const lines = documents.flatMap((document) =>
    codeBlocks(document)
      .filter(({ info }) => info.startsWith('sh'))
      .flatMap(({ text }) => text.replaceAll('\\\n', ' ').split('\n')),
  );
  // After `--` another program is meant.
  const commands = lines.filter((line) => line.startsWith('scute ')).map((line) => line.replace(/ -- .*/, '').split(/\s+/));
  assert.ok(commands.length > 3);
  for (const [, command = '', ...words] of commands) {
    const [within = ''] = ['jwt', 'policy'].includes(command) ? words : [];
    const known = new Set((await helpOf(...[command, within].filter((each) => each !== ''))).match(FLAG));
    for (const word of words.filter((each) => each.startsWith('--'))) assert.ok(known.has(word), `scute ${command} ${word}`);
  }
});

test('every command, and every flag of scute run, is in the documents', async () => {
  const text = documents.map((document) => readFileSync(join(root, document), 'utf8')).join('\n');
  const [, list = ''] = /^Commands:\n([\s\S]*?)\n\n/m.exec(await helpOf()) ?? [];
  const commands = [...list.matchAll(/^ {2}(\w+)/gm)].map(([, name = '']) => name).filter((name) => name !== 'help');

  assert.ok(commands.length > 5);
  for (const command of commands) assert.ok(text.includes(`\`scute ${command}`), command);
  for (const flag of new Set((await helpOf('run')).match(FLAG))) {
    // Written as -c everywhere.
    if (flag !== '--config') assert.ok(new RegExp(`${flag}\\b`).test(text), flag);
  }
});

test('what `/policy` answers is described field by field', () => {
  const text = reference.below('`GET /policy`');
  const named = new Set([...text.matchAll(/`(\w+)`/g)].map(([, name]) => name ?? ''));
  const fieldsOfPage = z.toJSONSchema(policyPageSchema) as JsonSchema;
  const listener = fieldsOfPage.properties?.['listeners']?.items;
  const names = (schema: JsonSchema | undefined): string[] => Object.keys(schema?.properties ?? {});
  const all = [...names(listener), ...names(listener?.properties?.['rules']?.items), ...names(listener?.properties?.['would_deny']?.items)];

  assert.ok(all.length > 30);
  assert.deepEqual(
    all.filter((name) => !named.has(name)),
    ['name', 'direction'],
  );
});
