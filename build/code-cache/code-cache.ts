/**
 * The program as a script with V8's code cache beside it, for the image and the executable. A cache fits one V8, to the build of it; another
 * ignores it. It is code as much as the script is.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { build, transform } from 'esbuild';
import { digestOf, readProgram } from './program.ts';

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

/** The bundle that `test/support/build.ts` wrote, as a script of CommonJS in ASCII. */
export async function asScript(bundle: string): Promise<string> {
  let text = await readFile(bundle, 'utf8');
  for (const line of OF_MODULES) {
    if (!text.includes(line)) throw new Error(`${bundle} has no line ${line.trim()}`);
    text = text.replace(line, '');
  }
  const { code } = await transform(text, {
    format: 'cjs',
    platform: 'node',
    target: 'node26',
    minifyWhitespace: true,
    lineLimit: 160,
    // They are among the licences.
    legalComments: 'none',
    define: { 'import.meta.url': 'SCUTE_URL' },
    banner: '"use strict";const SCUTE_URL=require("node:url").pathToFileURL(__filename).href;',
  });
  return code;
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

/**
 * Makes the cache of `program` for the Node that `node` starts (a command, for another processor an emulator before it), which is the
 * same each time. Resolves to the digest of both.
 */
export async function makeCodeCache(node: readonly [string, ...string[]], program: string, cache: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'scute-warm-'));
  try {
    const warm = join(folder, 'warm.cjs');
    const configuration = join(folder, 'scute.json');
    await bundleScript(join(import.meta.dirname, 'warm.ts'), warm);
    await writeFile(configuration, JSON.stringify(WARM_CONFIGURATION));
    const seen = new Set<string>();
    for (let times = 0; times < MOST_RUNS; times += 1) {
      const [command, ...args] = node;
      // The seed of all that V8 draws, and one thread for its collector, which else notes at any moment how old a function is. Neither is part of
      // what V8 compares, as --hash-seed is.
      const argv = ['--random-seed=1', '--single-threaded-gc', '--disable-sigusr1', warm, program, cache, configuration];
      await run(command, [...args, ...argv], { timeout: RUN_WITHIN_MS, env: {} });
      const digest = digestOf(readProgram(program), await readFile(cache));
      if (seen.has(digest)) return digest;
      seen.add(digest);
    }
    throw new Error(`${MOST_RUNS} runs of ${program} made as many code caches, no two alike`);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
