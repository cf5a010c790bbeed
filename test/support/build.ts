/** Bundles the program into `dist/scute.js`, and beside it what no sidecar needs. `npm run build` runs this. */
import { chmod, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { build, type BuildOptions, type Plugin } from 'esbuild';
import { bundleDashboard } from '../../src/admin/dashboard-files.ts';

const root = join(import.meta.dirname, '..', '..');

export interface Bundle {
  readonly path: string;
  readonly bytes: number;
  /** The files that it and what stands beside it were made of, from the working directory. */
  readonly inputs: readonly string[];
}

/** Beside the bundle: the writer of certificates, which `scute dev` and `scute demo` alone load. It would be a quarter of what `scute run` parses. */
const WRITER = { source: join(root, 'src', 'devdomain', 'x509.ts'), beside: 'scute-dev.cjs' };
/** And the dashboard as it goes to browsers, which is loaded when the first one asks. */
const DASHBOARD = { source: join(root, 'src', 'admin', 'dashboard-files.ts'), beside: 'scute-dashboard.cjs' };
/** And the log's form for terminals. */
const PRETTY = { source: join(root, 'src', 'telemetry', 'log', 'pretty.ts'), beside: 'scute-pretty.cjs' };
/** And what writes PKCS#12, for sets of files that ask for it. */
const STORES = { source: join(root, 'src', 'files', 'pkcs12.ts'), beside: 'scute-pkcs12.cjs' };

/** Beside the bundle: the parser of policy files, for a thread of its own. */
const WORKER = 'scute-policy.cjs';
const WORKER_SOURCE = join(root, 'src', 'config', 'policy', 'policy-worker.ts');

/** What the program loads from beside it, on use. Whatever ships the program ships these. */
export const BESIDE: readonly string[] = [...[WRITER, DASHBOARD, STORES, PRETTY].map(({ beside }) => beside), WORKER];

/** Beside the bundle: what the npm package's command starts, which knows an old Node and gives Node its options. */
export const START = 'scute-start.cjs';
const START_SOURCE = join(root, 'src', 'cli', 'start.ts');

/**
 * Makes every import of one of Node's own modules a `require` that runs when the importing file does. As imports they
 * would all load at the start; and node:http, as an import, reads all its exports, of which some load undici (60 ms).
 */
const builtinsWhenNeeded: Plugin = {
  name: 'builtins-when-needed',
  setup(bundler) {
    bundler.onResolve({ filter: /^node:/ }, ({ path, namespace }) =>
      namespace === 'builtin' ? { path, external: true } : { path, namespace: 'builtin' },
    );
    bundler.onLoad({ filter: /.*/, namespace: 'builtin' }, ({ path }) => ({
      contents: `module.exports = require(${JSON.stringify(path)})`,
      loader: 'js',
    }));
  },
};

/** Makes an import of a source that stands apart a `require` of its own bundle, when the importing file runs. */
const withoutWhatIsApart: Plugin = {
  name: 'without-what-is-apart',
  setup(bundler) {
    bundler.onResolve({ filter: /\/(?:x509|dashboard-files|pkcs12|pretty)\.ts$/ }, ({ path, resolveDir }) => {
      const apart = [WRITER, DASHBOARD, STORES, PRETTY].find(({ source }) => source === join(resolveDir, path));
      return apart && { path: apart.beside, namespace: 'apart' };
    });
    bundler.onLoad({ filter: /.*/, namespace: 'apart' }, ({ path }) => ({
      contents: `module.exports = require('./${path}')`,
      loader: 'js',
    }));
    bundler.onResolve({ filter: /.*/, namespace: 'apart' }, ({ path }) => ({ path, external: true }));
  },
};

/** `require` of the executable, which has no folder, gives texts of what is within (`build/executable/launch.ts`). */
const withTheWorkerBeside: Plugin = {
  name: 'with-the-worker-beside',
  setup(bundler) {
    bundler.onLoad({ filter: /\/policy-worker-file\.ts$/ }, () => ({
      contents: `import { Worker } from 'node:worker_threads';
        export function startPolicyWorker(options) {
          const text = require.asset?.('${WORKER}');
          return text === undefined ? new Worker(new URL('./${WORKER}', import.meta.url), options) : new Worker(text, { ...options, eval: true });
        }`,
      loader: 'js',
    }));
  },
};

/** Scute's own messages are English: the translations of zod's would be a sixth of the bundle, parsed at every start. */
const oneLanguage: Plugin = {
  name: 'one-language',
  setup(bundler) {
    bundler.onLoad({ filter: /zod\/v4\/locales\/index\.js$/ }, () => ({
      contents: "export { default as en } from './en.js';",
      loader: 'js',
    }));
  },
};

/** Of commander, for commands that are programs of their own: there are none, and it costs a millisecond of each start. */
const withoutOtherPrograms: Plugin = {
  name: 'without-other-programs',
  setup(bundler) {
    bundler.onResolve({ filter: /^node:child_process$/ }, ({ importer }) =>
      importer.endsWith('/commander/lib/command.js') ? { path: 'child_process', namespace: 'none' } : undefined,
    );
    bundler.onLoad({ filter: /.*/, namespace: 'none' }, () => ({ contents: 'module.exports = {};', loader: 'js' }));
  },
};

/**
 * Parts of packages that Scute has no use for: prom-client pushes metrics with an HTTP client, gathers those of a cluster, of Node and of quantiles,
 * and has exemplars from a tracing library, pino writes files itself and from worker threads, http-proxy follows redirects and forwards WebSockets.
 * Whoever came to need one would fail at once.
 */
const UNUSED =
  /(?:pino\/lib\/transport|sonic-boom\/index)\.js$|prom-client\/lib\/(?:cluster|defaultMetrics|pushgateway|summary)\.js$|@opentelemetry\/api\/.*\.c?js$|follow-redirects\/index\.js$|http-proxy\/passes\/(?:ws-incoming|web-outgoing)\.js$/;

const withoutTheUnused: Plugin = {
  name: 'without-the-unused',
  setup(bundler) {
    bundler.onLoad({ filter: UNUSED }, () => ({
      // Pino asks of each destination whether it is an instance of what it writes files with.
      contents: 'module.exports = class Unused { constructor() { throw new Error("not in the bundle"); } };',
      loader: 'js',
    }));
  },
};

/** Of all bundles. Minified: there is less to parse at the start, which is most of what a start costs. Lines are short, so that a stack trace leads somewhere. */
const COMMON = {
  bundle: true,
  platform: 'node',
  // Older than what runs, so that an old Node gets as far as the sentence that says so.
  target: 'node20',
  minify: true,
  lineLimit: 160,
  legalComments: 'eof',
  logLevel: 'warning',
  metafile: true,
} satisfies BuildOptions;

/** Writes the bundle to `outfile`, executable, and beside it what stands apart; with `sourceMap`, also the bundle's, as `outfile.map`. */
export async function buildBundle(outfile = join(root, 'dist', 'scute.js'), { sourceMap = false } = {}): Promise<Bundle> {
  await mkdir(dirname(outfile), { recursive: true });
  await rm(outfile, { force: true });
  const beside = (name: string): string => join(dirname(outfile), name);
  const dashboard = await bundleDashboard();
  const page = JSON.stringify(dashboard.files);
  await writeFile(beside(DASHBOARD.beside), `exports.dashboardFiles = () => Promise.resolve(${page});\n`);
  const apart = [
    ...[WRITER, STORES, PRETTY].map(({ source, beside: name }) => ({ entryPoints: [source], outfile: beside(name) })),
    { entryPoints: [WORKER_SOURCE], outfile: beside(WORKER), plugins: [oneLanguage] },
    { entryPoints: [START_SOURCE], outfile: beside(START), banner: { js: '#!/usr/bin/env node' }, target: 'node8' },
  ];
  const made = [];
  for (const options of apart) made.push(await build({ ...COMMON, format: 'cjs', ...options }));
  await chmod(beside(START), 0o755);
  const program = await build({
    ...COMMON,
    entryPoints: [join(root, 'src', 'main.ts')],
    outfile,
    format: 'esm',
    sourcemap: sourceMap && 'external',
    sourcesContent: false,
    // grpc-js loads it for services that we do not use.
    external: ['@grpc/proto-loader'],
    banner: {
      js: [
        // The option closes the moment before main.ts takes SIGUSR1 away from the inspector.
        '#!/usr/bin/env -S node --disable-sigusr1',
        // Packages in CommonJS call require for Node's own modules.
        "import { createRequire as scuteCreateRequire } from 'node:module';",
        'const require = scuteCreateRequire(import.meta.url);',
      ].join('\n'),
    },
    plugins: [withoutOtherPrograms, builtinsWhenNeeded, withoutWhatIsApart, withTheWorkerBeside, oneLanguage, withoutTheUnused],
  });
  await chmod(outfile, 0o755);
  const inputs = new Set([...dashboard.inputs, ...[...made, program].flatMap(({ metafile }) => Object.keys(metafile.inputs))]);
  return { path: outfile, bytes: (await readFile(outfile)).length, inputs: [...inputs].toSorted() };
}

if (import.meta.main) {
  const { path, bytes } = await buildBundle();
  process.stdout.write(`${path}: ${Math.round(bytes / 1024)} KiB\n`);
}
