/**
 * The program as a script with V8's code cache beside it, for the image and the executable. A cache fits one V8, to the build of it; another
 * ignores it. It is code as much as the script is.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import { promisify } from 'node:util';
import { build, transform } from 'esbuild';
import { placesOf, type Place } from './places.ts';
import { AROUND, digestOf } from './program.ts';

const root = join(import.meta.dirname, '..', '..');
const run = promisify(execFile);

/** What `test/support/build.ts` puts before the bundle, which a script has no use for. */
const OF_MODULES = [
  '#!/usr/bin/env -S node --disable-sigusr1\n',
  "import { createRequire as scuteCreateRequire } from 'node:module';\n",
  'const require = scuteCreateRequire(import.meta.url);\n',
];
/** With what most use. */
const WARM_CONFIGURATION = {
  workloadApi: { endpoint: 'unix:///nonexistent/scute/agent.sock' },
  inbound: [
    {
      name: 'http',
      listen: '127.0.0.1:0',
      to: '127.0.0.1:9',
      protocol: 'http',
      allow: [{ peer: 'spiffe://example.org/*', paths: ['/**'] }],
    },
    { name: 'tcp', listen: '127.0.0.1:0', to: '127.0.0.1:9', allow: ['spiffe://example.org/web'] },
  ],
  outbound: [{ name: 'out', listen: '127.0.0.1:0', to: '127.0.0.1:9', expect: ['spiffe://example.org/db'] }],
  metrics: { listen: '127.0.0.1:0' },
};
/** The first two are the same as a rule; one that is not does not decide. */
const MOST_RUNS = 6;
const RUN_WITHIN_MS = 300_000;

/**
 * Sources whose functions are in the cache too, called or not: most of each are what a sidecar calls between its listeners and its first answer. What
 * does not serve, and what many never use, would only be read at each start and lie in memory.
 */
const SERVING = [
  /^src\/(?:app|services)\.ts$/,
  /^src\/(?:http1|identity|lib|transport|workload-api)\//,
  /^src\/forward\/(?!http2)[^/]+$/,
  /^src\/policy\/(?:judge|policy|rule)\.ts$/,
  /^src\/proxy\/(?!tokens|web-)/,
  /^src\/spiffe\/(?!bundle-document|crl|jwt-bundle|name-constraints)/,
  /^src\/telemetry\/(?!events\/\w+-)/,
  /^src\/tls\/(?!web-)/,
  /^node_modules\/@bufbuild\/protobuf\/dist\/esm\/wire\/binary/,
  /^node_modules\/@grpc\/grpc-js\/src\/(?:backoff|call-|channel|client|compression-filter|connectivity|filter|internal-channel)/,
  /^node_modules\/@grpc\/grpc-js\/src\/(?:load-balancer-(?:child|pick)|load-balancing|metadata|picker|resolv|retrying|stream-|subchannel|transport|uri)/,
  /^node_modules\/pino\//,
];

/**
 * Makes of `bundle` (with its source map, from `test/support/build.ts`) the program as a script and its cache, `scute.cjs` and `scute.cache` in
 * `folder`, for the Node that `node` starts: a command, for another processor an emulator before it. Resolves to the digest of both, which is the same each time.
 */
export async function writeProgram(bundle: string, folder: string, node: readonly [string, ...string[]]): Promise<string> {
  const { code, map } = await asScript(bundle);
  const places = SERVING.flatMap((pattern) => {
    const found = placesOf(map, (source) => pattern.test(relative(root, resolve(dirname(bundle), source))));
    if (found.length === 0) throw new Error(`the program has no source ${pattern.source}: what serves is elsewhere`);
    return found;
  });
  const program = join(folder, 'scute.cjs');
  await writeFile(program, code, 'latin1');
  return makeCodeCache(node, program, join(folder, 'scute.cache'), places);
}

/** A script of CommonJS in ASCII, and its source map. */
async function asScript(bundle: string): Promise<{ readonly code: string; readonly map: string }> {
  let text = await readFile(bundle, 'utf8');
  for (const line of OF_MODULES) {
    if (!text.includes(line)) throw new Error(`${bundle} has no line ${line.trim()}`);
    // Without it, but no line less: the source map counts them.
    text = text.replace(line, '\n');
  }
  const map = await readFile(`${bundle}.map`);
  const [before, after] = AROUND;
  return transform(`${text}\n//# sourceMappingURL=data:application/json;base64,${map.toString('base64')}`, {
    format: 'cjs',
    platform: 'node',
    target: 'node26',
    minifyWhitespace: true,
    lineLimit: 160,
    // They are among the licences.
    legalComments: 'none',
    define: { 'import.meta.url': 'SCUTE_URL' },
    banner: `${before}"use strict";const SCUTE_URL=require("node:url").pathToFileURL(__filename).href;`,
    footer: after,
    sourcemap: 'external',
    sourcesContent: false,
    sourcefile: bundle,
  });
}

/** One of our small files beside the program, as a script with values for names that it declares. */
export async function bundleScript(source: string, outfile: string, constants: Readonly<Record<string, unknown>> = {}): Promise<void> {
  const define = Object.fromEntries(Object.entries(constants).map(([name, value]) => [name, JSON.stringify(value)]));
  await build({
    entryPoints: [source],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    target: 'node26',
    define,
    logLevel: 'warning',
  });
}

async function makeCodeCache(
  node: readonly [string, ...string[]],
  program: string,
  cache: string,
  ahead: readonly Place[],
): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'scute-warm-'));
  try {
    const warm = join(folder, 'warm.cjs');
    const configuration = join(folder, 'scute.json');
    await bundleScript(join(import.meta.dirname, 'warm.ts'), warm);
    await writeFile(configuration, JSON.stringify(WARM_CONFIGURATION));
    const places = join(folder, 'places.json');
    await writeFile(places, JSON.stringify(ahead));
    const seen = new Set<string>();
    for (let times = 0; times < MOST_RUNS; times += 1) {
      const [command, ...args] = node;
      // The seed of all that V8 draws, and one thread for its collector, which else notes at any moment how old a function is. Neither is part of
      // what V8 compares, as --hash-seed is.
      const argv = ['--random-seed=1', '--single-threaded-gc', '--disable-sigusr1', warm, program, cache, configuration, places];
      await run(command, [...args, ...argv], { timeout: RUN_WITHIN_MS, env: {} });
      const digest = digestOf(await readFile(program), await readFile(cache));
      if (seen.has(digest)) return digest;
      seen.add(digest);
    }
    throw new Error(`${MOST_RUNS} runs of ${program} made as many code caches, no two alike`);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
