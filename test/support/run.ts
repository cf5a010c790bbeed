/**
 * `npm test`: all tests but those with parts that are not ours; `npm run test:parts` (`--parts`): those. Or the tests whose
 * files are named. Other arguments that begin with `-` go to the test runner.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, globSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..', '..');
const OURS = ['src/**/*.test.ts', 'test/**/*.test.ts'];
/** Real programs that are not ours: slow to install, and some to run. */
const PARTS = ['test/interop/**/*.test.ts'];
/** Helpers are not tests, and dependencies bring tests of their own. */
const EXCLUDED = ['test/support/**', '**/node_modules/**'];
/** For one test; a file may take longer. It only says that it never ends: the machine may be busy with other things. */
const TEST_TIMEOUT_MS = 600_000;
/** The machine is shared with the processes that the tests start. */
const CONCURRENCY = 2;

async function main(args: readonly string[]): Promise<number> {
  const parts = args.includes('--parts');
  const options = args.filter((arg) => arg.startsWith('-') && arg !== '--parts');
  const wanted = args.filter((arg) => !arg.startsWith('-'));
  const files = wanted.length > 0 ? findTests(wanted.map(patternOf)) : parts ? findTests(PARTS) : findTests(OURS, PARTS);
  if (files.length === 0) {
    process.stderr.write(`no test file matches ${wanted.join(' ')}\n`);
    return 1;
  }

  const setup = 'test/interop/setup.ts';
  if (files.some((file) => file.startsWith('test/interop/')) && existsSync(join(root, setup))) {
    const code = await run([setup]);
    if (code !== 0) return code;
  }
  // The bundle is tested as it is shipped, so never one of yesterday.
  if (files.some((file) => file.startsWith('test/'))) {
    const code = await run(['test/support/build.ts']);
    if (code !== 0) return code;
  }

  const folder = await mkdtemp(join(tmpdir(), 'scute-test-'));
  try {
    const report = join(folder, 'report.tap');
    const reporters = [
      '--test-reporter=spec',
      '--test-reporter-destination=stdout',
      '--test-reporter=tap',
      `--test-reporter-destination=${report}`,
    ];
    const code = await run([
      '--test',
      `--test-concurrency=${CONCURRENCY}`,
      `--test-timeout=${TEST_TIMEOUT_MS}`,
      ...reporters,
      ...options,
      ...files,
    ]);
    process.stdout.write(describeSkipped(await readFile(report, 'utf8').catch(() => '')));
    return code;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Of a path, a folder or a glob. */
function patternOf(path: string): string {
  return path.endsWith('.ts') ? path : `${path.replace(/\/$/, '')}/**/*.test.ts`;
}

function findTests(patterns: readonly string[], but: readonly string[] = []): string[] {
  return globSync(patterns, { cwd: root, exclude: [...EXCLUDED, ...but] }).toSorted();
}

/** Runs Node on `args` with this terminal, and resolves to the exit code. */
async function run(args: readonly string[]): Promise<number> {
  const child = spawn(process.execPath, args, { cwd: root, stdio: 'inherit' });
  const [code, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null];
  return code ?? 128 + constants.signals[signal ?? 'SIGKILL'];
}

/** A skipped test must not look like a passed one: each is named, with the reason. */
function describeSkipped(tap: string): string {
  const skipped = [...tap.matchAll(/^ *ok \d+ - (.*) # SKIP ?(.*)$/gm)].map(
    ([, name, reason]) => `  ${name}: ${reason === '' ? 'no reason given' : reason}`,
  );
  return skipped.length === 0 ? '' : `\n${skipped.length} skipped:\n${skipped.join('\n')}\n`;
}

process.exitCode = await main(process.argv.slice(2));
