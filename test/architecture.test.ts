import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { test } from 'node:test';

const root = join(import.meta.dirname, '..');

/** What the files of a folder may import beside each other: folders and files of ours, Node's modules, packages. `docs/architecture.md` says why. */
interface Layer {
  readonly ours: readonly string[];
  readonly outside: readonly string[];
}

const PURE = ['lib', 'spiffe', 'jwt', 'policy', 'http1', 'http2', 'proxy-protocol', 'identity'];
const ADAPTER = [...PURE, 'config', 'transport', 'telemetry'];

const LAYERS: Readonly<Record<string, Layer>> = {
  lib: { ours: [], outside: ['node:perf_hooks'] },
  spiffe: { ours: ['lib'], outside: ['node:crypto'] },
  jwt: { ours: ['lib', 'spiffe'], outside: ['node:crypto', 'jose'] },
  policy: { ours: ['lib', 'spiffe'], outside: [] },
  http1: { ours: [], outside: [] },
  http2: { ours: ['http1'], outside: [] },
  'proxy-protocol': { ours: ['lib'], outside: [] },
  identity: { ours: ['lib', 'spiffe'], outside: [] },
  config: {
    ours: PURE,
    outside: [
      'node:crypto',
      'node:fs',
      'node:fs/promises',
      'node:net',
      'node:path',
      'node:timers/promises',
      'node:worker_threads',
      'yaml',
      'zod',
    ],
  },
  transport: {
    ours: ['lib'],
    outside: [
      'node:crypto',
      'node:dns/promises',
      'node:fs',
      'node:fs/promises',
      'node:net',
      'node:path',
      'node:perf_hooks',
      'node:stream',
      'node:tls',
      'node:v8',
      'node:vm',
    ],
  },
  telemetry: {
    ours: [...PURE, 'config'],
    outside: ['node:fs', 'node:fs/promises', 'node:perf_hooks', 'node:tty', 'pino', 'pino-pretty', 'prom-client'],
  },
  gen: { ours: [], outside: ['@bufbuild/protobuf'] },
  'workload-api': {
    ours: [...ADAPTER, 'gen'],
    outside: ['node:crypto', 'node:fs/promises', 'node:net', '@bufbuild/protobuf', '@grpc/grpc-js'],
  },
  devdomain: {
    ours: [...ADAPTER, 'gen', 'grpc'],
    outside: [
      'node:crypto',
      'node:fs/promises',
      'node:net',
      'node:path',
      'node:util',
      '@bufbuild/protobuf',
      '@grpc/grpc-js',
      '@peculiar/asn1-schema',
      '@peculiar/asn1-x509',
      '@peculiar/x509',
      'reflect-metadata',
      'zod',
    ],
  },
  grpc: { ours: ['lib', 'http2', 'gen'], outside: ['node:net', 'node:stream', '@bufbuild/protobuf', '@grpc/grpc-js'] },
  'ext-authz': { ours: [...ADAPTER, 'gen'], outside: ['node:crypto', '@bufbuild/protobuf'] },
  sds: { ours: [...ADAPTER, 'gen', 'grpc', 'ext-authz'], outside: ['node:crypto', 'node:net', '@bufbuild/protobuf', '@grpc/grpc-js'] },
  https: { ours: [...ADAPTER, 'tls'], outside: ['node:http'] },
  credentials: { ours: [...ADAPTER, 'tls', 'https', 'forward'], outside: ['oauth4webapi'] },
  federation: { ours: [...ADAPTER, 'tls', 'https'], outside: ['node:fs/promises', 'node:http'] },
  files: {
    ours: ADAPTER,
    outside: ['node:child_process', 'node:crypto', 'node:fs', 'node:fs/promises', 'node:http', 'node:os', 'node:path', 'asn1js', 'pkijs'],
  },
  helper: { ours: ['lib', 'config'], outside: ['node:path'] },
  tls: { ours: ADAPTER, outside: ['node:crypto'] },
  admin: {
    ours: ADAPTER,
    outside: ['node:crypto', 'node:fs/promises', 'node:http', 'node:net', 'node:os', 'node:path', 'node:stream', 'esbuild'],
  },
  fleet: { ours: ['lib', 'config', 'transport', 'telemetry', 'admin'], outside: ['node:http', 'node:https'] },
  // Runs in browsers.
  dashboard: { ours: ['admin', 'fleet'], outside: ['preact'] },
  forward: { ours: [...ADAPTER, 'tls'], outside: ['node:crypto', 'node:http', 'node:http2', 'node:stream', 'node:util', 'http-proxy'] },
  proxy: { ours: [...ADAPTER, 'tls', 'forward'], outside: [] },
  application: { ours: ['lib', 'config', 'telemetry'], outside: ['node:child_process', 'node:os'] },
  systemd: { ours: ['lib', 'identity', 'telemetry'], outside: ['node:child_process'] },
  inspect: { ours: [...ADAPTER, 'workload-api', 'tls', 'admin'], outside: ['node:crypto'] },
  'services.ts': { ours: [...ADAPTER, 'workload-api', 'tls', 'ext-authz', 'sds', 'federation', 'credentials', 'proxy'], outside: [] },
  'checks.ts': { ours: [...ADAPTER, 'tls', 'admin', 'proxy'], outside: [] },
  'live-config.ts': { ours: [...ADAPTER, 'admin'], outside: [] },
  'app.ts': {
    ours: [...ADAPTER, 'tls', 'sds', 'federation', 'files', 'admin', 'proxy', 'services.ts', 'checks.ts', 'live-config.ts'],
    outside: [],
  },
  'run-app.ts': { ours: ['config', 'app.ts'], outside: [] },
  'harness.ts': { ours: [...ADAPTER, 'workload-api', 'tls', 'admin', 'forward'], outside: [] },
  cli: {
    ours: [
      'lib',
      'application',
      'systemd',
      'spiffe',
      'http1',
      'policy',
      'identity',
      'config',
      'sds',
      'devdomain',
      'admin',
      'federation',
      'files',
      'helper',
      'fleet',
      'inspect',
      'tls',
      'workload-api',
      'app.ts',
      'run-app.ts',
      'harness.ts',
      'package.json',
    ],
    outside: [
      'node:events',
      'node:fs',
      'node:fs/promises',
      'node:http',
      'node:net',
      'node:os',
      'node:path',
      'node:tty',
      'commander',
      'yaml',
      'zod',
    ],
  },
  'main.ts': { ours: ['cli'], outside: ['node:os', 'node:timers/promises'] },
};

/** Some modules are for some files of a folder only. */
const NARROWED: readonly { readonly module: RegExp; readonly folder: string; readonly files: readonly string[] }[] = [
  { module: /^node:fs/, folder: 'config', files: ['load.ts', 'file-watch.ts', 'whole-file.ts', 'target-directory.ts', 'generate.ts'] },
  { module: /^node:timers/, folder: 'config', files: ['in-turns.ts'] },
  { module: /^node:worker_threads$/, folder: 'config', files: ['policy/policy-worker-file.ts', 'policy/policy-worker.ts'] },
  { module: /^node:net$/, folder: 'config', files: ['units.ts'] },
  { module: /^yaml$/, folder: 'config', files: ['yaml.ts'] },
  { module: /^(?:node:net|@grpc\/grpc-js)$/, folder: 'sds', files: ['server.ts', 'connection.ts', 'stream.ts'] },
  { module: /^(?:@peculiar\/|reflect-metadata$)/, folder: 'devdomain', files: ['x509.ts'] },
  { module: /^node:v[8m]$/, folder: 'transport', files: ['garbage.ts'] },
  { module: /^node:perf_hooks$/, folder: 'transport', files: ['peer-chains.ts'] },
  { module: /^node:https?$/, folder: 'fleet', files: ['prometheus.ts'] },
  { module: /^node:child_process$/, folder: 'files', files: ['notify-command.ts', 'notify-child.ts'] },
  { module: /^node:http$/, folder: 'files', files: ['notify-http.ts'] },
  { module: /^(?:asn1js|pkijs)$/, folder: 'files', files: ['pkcs12.ts'] },
  // What is shipped has neither.
  { module: /^(?:node:path|esbuild)$/, folder: 'admin', files: ['dashboard-files.ts'] },
  // Its types stand beside it.
  { module: /^http-proxy\b/, folder: 'forward', files: ['http2-engine.ts', 'http-proxy.d.ts'] },
  { module: /^node:(?:http2?|stream)$/, folder: 'forward', files: ['http2-engine.ts', 'http-proxy.d.ts'] },
  { module: /^node:util$/, folder: 'forward', files: ['undeprecated-extend.ts'] },
];

const sources = globSync('src/**/*.{ts,tsx}', { cwd: root })
  .filter((file) => !file.endsWith('.test.ts'))
  .toSorted();

/** `spiffe` for `src/spiffe/verify.ts`, `app.ts` for `src/app.ts`, `package.json` for that. */
function placeOf(file: string): string {
  const parts = file.split('/');
  return (parts[0] === 'src' ? parts[1] : parts[0]) ?? '';
}

/** The modules that a file names in `import`, `export … from` and `import()`. */
function importsOf(file: string): string[] {
  const text = readFileSync(join(root, file), 'utf8');
  const named = /(?:^|[\s;}])(?:import|export)\s(?:[^'";]*?\sfrom\s+)?['"]([^'"]+)['"]|\bimport\(\s*'([^']+)'/g;
  return [...text.matchAll(named)].map(([, plain, dynamic]) => plain ?? dynamic ?? '');
}

/** `@grpc/grpc-js` for `@grpc/grpc-js/build/x`; Node's modules as they are. */
function packageOf(specifier: string): string {
  if (specifier.startsWith('node:')) return specifier;
  return specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');
}

test('the sources and their imports are found', () => {
  assert.ok(sources.length > 50);
  assert.ok(importsOf('src/main.ts').includes('./cli/guard.ts'));
  assert.ok(importsOf('src/main.ts').includes('./cli/program.ts'));
  assert.ok(importsOf('src/cli/commands/run.ts').includes('../../run-app.ts'));
});

test('no files import each other in a circle', () => {
  const within = new Map(
    sources.map((file) => [
      file,
      importsOf(file)
        .filter((specifier) => specifier.startsWith('.'))
        .map((specifier) => normalize(join(dirname(file), specifier))),
    ]),
  );
  const done = new Set<string>();
  const circles: string[] = [];
  const visit = (file: string, way: readonly string[]): void => {
    if (way.includes(file)) circles.push([...way.slice(way.indexOf(file)), file].join(' → '));
    if (done.has(file) || way.includes(file)) return;
    for (const imported of within.get(file) ?? []) visit(imported, [...way, file]);
    done.add(file);
  };
  for (const file of sources) visit(file, []);
  assert.deepEqual(circles, []);
});

test('every folder has its place in the table', () => {
  assert.deepEqual(
    [...new Set(sources.map(placeOf))].filter((place) => LAYERS[place] === undefined),
    [],
  );
});

test('a file imports from its own folder and from what its row of the table names, and nothing else', () => {
  const wrong: string[] = [];
  for (const file of sources) {
    const place = placeOf(file);
    const layer = LAYERS[place];
    if (layer === undefined) continue;
    for (const specifier of importsOf(file)) {
      const allowed = specifier.startsWith('.')
        ? [place, ...layer.ours].includes(placeOf(normalize(join(dirname(file), specifier))))
        : layer.outside.includes(packageOf(specifier));
      if (!allowed) wrong.push(`${file} imports ${specifier}`);
    }
  }
  assert.deepEqual(wrong, []);
});

test('the table allows no module and no folder that nobody there imports', () => {
  const needless = Object.entries(LAYERS).flatMap(([place, { ours, outside }]) => {
    const files = sources.filter((file) => placeOf(file) === place);
    const imported = new Set(
      files.flatMap((file) =>
        importsOf(file).map((specifier) =>
          specifier.startsWith('.') ? placeOf(normalize(join(dirname(file), specifier))) : packageOf(specifier),
        ),
      ),
    );
    // Whole rows of the table are allowed together.
    const rows = new Set(ADAPTER);
    return [...outside, ...ours.filter((name) => !rows.has(name))].filter((name) => !imported.has(name)).map((name) => `${place}: ${name}`);
  });
  assert.deepEqual(needless, []);
});

test('files, sockets and parsers stay in the few files of a folder that are for them', () => {
  const wrong = sources.flatMap((file) =>
    importsOf(file)
      .filter((specifier) =>
        NARROWED.some(
          ({ module, folder, files }) =>
            module.test(specifier) && file.startsWith(`src/${folder}/`) && !files.some((name) => file === `src/${folder}/${name}`),
        ),
      )
      .map((specifier) => `${file} imports ${specifier}`),
  );
  assert.deepEqual(wrong, []);
});

test('what runs in browsers has of the rest of Scute the types of the API alone', () => {
  const wrong = sources
    .filter((file) => placeOf(file) === 'dashboard')
    .flatMap((file) =>
      importsOf(file)
        .filter((specifier) => specifier.startsWith('.'))
        .map((specifier) => normalize(join(dirname(file), specifier)))
        .filter((target) => !/^src\/(?:dashboard\/|(?:admin|fleet)\/api-types\.ts$)/.test(target))
        .map((target) => `${file} imports ${target}`),
    );
  assert.deepEqual(wrong, []);
});

test('decisions are pure: no clock, timer, randomness, console or process in the pure folders, but for lib/clock.ts', () => {
  const impure = /\bDate\.now\(|\bnew Date\(\)|\bset(?:Timeout|Interval|Immediate)\(|\bMath\.random\(|\bconsole\.|\bprocess\.|\bfetch\(/;
  const wrong = sources.filter(
    (file) => PURE.includes(placeOf(file)) && file !== 'src/lib/clock.ts' && impure.test(readFileSync(join(root, file), 'utf8')),
  );
  assert.deepEqual(wrong, []);
});

test('only the command line sees the process that it runs in', () => {
  const may = new Set(['cli', 'main.ts', 'config', 'telemetry']);
  const wrong = sources.filter(
    (file) =>
      !may.has(placeOf(file)) && /\bprocess\.(?:argv|env|exit|exitCode|on|once|stdin)\b/.test(readFileSync(join(root, file), 'utf8')),
  );
  assert.deepEqual(wrong, []);
});

test('no command but `scute dev` and `scute demo` can load the embedded trust domain and what it stands on', () => {
  const reached = new Set(['src/main.ts']);
  for (const file of reached) {
    for (const specifier of importsOf(file)) {
      const target = normalize(join(dirname(file), specifier));
      if (specifier.startsWith('.') && !['src/cli/commands/dev.ts', 'src/cli/commands/demo.ts'].includes(target)) reached.add(target);
    }
  }

  assert.ok(reached.has('src/cli/commands/run.ts') && reached.has('src/tls/self-test.ts') && reached.has('src/workload-api/client.ts'));
  assert.deepEqual(
    [...reached].filter((file) => placeOf(file) === 'devdomain' || importsOf(file).some((name) => name.startsWith('@peculiar/'))),
    [],
  );
});
