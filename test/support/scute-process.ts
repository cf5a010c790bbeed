import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type Child, type ChildOptions, type Exit, startChild, type WaitOptions } from './child.ts';
import { eventually } from './eventually.ts';

/** What to start: the sources, or what is shipped. */
export type ScuteEntry = 'source' | 'bundle';

export interface ScuteOptions {
  /** A configuration as an object, or YAML text; passed with `-c` in a file of its own. */
  readonly config?: object | string | undefined;
  /** The command and its flags. `run` by default. */
  readonly args?: readonly string[] | undefined;
  readonly env?: Readonly<Record<string, string>> | undefined;
  readonly entry?: ScuteEntry | undefined;
  /** The most files that it may have open; that of the test if left out. */
  readonly openFiles?: number | undefined;
  /** More options of Node. */
  readonly nodeArgs?: readonly string[] | undefined;
}

/** One line of the JSON log. */
export type LogLine = Readonly<Record<string, unknown>> & { readonly message: string };

/** A running `scute`. */
export interface ScuteProcess extends AsyncDisposable {
  readonly child: Child;
  /** The configuration file, to be changed for a reload. Undefined if it was started with flags alone. */
  readonly configFile: string | undefined;
  readonly exited: Promise<Exit>;
  /** All lines of the log so far. */
  log(): readonly LogLine[];
  /** The first line of the log that fits. */
  logged(fits: (line: LogLine) => boolean, options?: WaitOptions): Promise<LogLine>;
  /** Where a listener was bound: `127.0.0.1:41234`, `unix:///run/app.sock`. */
  address(listener: string): Promise<string>;
  /** The same, of a TCP listener. */
  port(listener: string): Promise<number>;
  /** Resolves when an identity is there and `listeners` are bound. */
  ready(...listeners: readonly string[]): Promise<void>;
  /** Ends it with SIGTERM and gives its exit code. */
  stop(options?: { readonly signal?: NodeJS.Signals; readonly withinMs?: number }): Promise<Exit>;
}

const root = fileURLToPath(new URL('../../', import.meta.url));
const entries: Readonly<Record<ScuteEntry, string>> = { source: join(root, 'src/main.ts'), bundle: join(root, 'dist/scute.js') };
/** Instead of either: in the image's file system, the image's own program. */
const OTHER_PROGRAM = process.env['SCUTE_TEST_PROGRAM'];
/** Many processes start at once on a machine with few cores. */
const START_WITHIN_MS = 90_000;

/** Starts the real command line as a child process. Whoever starts it ends it: `stop`, or `await using`. */
export async function startScute({
  config,
  args = ['run'],
  env = {},
  entry = 'source',
  openFiles,
  nodeArgs = [],
}: ScuteOptions): Promise<ScuteProcess> {
  const folder = config === undefined ? undefined : await mkdtemp(join(tmpdir(), 'scute-config-'));
  const configFile = folder === undefined ? undefined : join(folder, 'scute.yaml');
  // JSON is YAML.
  if (configFile !== undefined)
    await writeFile(configFile, typeof config === 'string' ? config : JSON.stringify(config, undefined, 2), { mode: 0o600 });

  const options: ChildOptions = { env: { PATH: process.env['PATH'] ?? '', ...env } };
  const argv = ['--disable-sigusr1', '--disable-warning=ExperimentalWarning', ...nodeArgs, OTHER_PROGRAM ?? entries[entry], ...args];
  const command = [process.execPath, ...argv, ...(configFile === undefined ? [] : ['-c', configFile])] as const;
  const limited = ['/bin/sh', '-c', 'ulimit -n "$0" && exec "$@"', String(openFiles), ...command] as const;
  const child = await startChild(openFiles === undefined ? command : limited, options);
  const exited = (async () => {
    const exit = await child.exited;
    if (folder !== undefined) await rm(folder, { recursive: true, force: true });
    return exit;
  })();

  const logged: ScuteProcess['logged'] = async (fits, waiting = {}) => {
    const { text } = await child.line(
      (line) => {
        const parsed = parseLogLine(line);
        return parsed !== undefined && fits(parsed);
      },
      { withinMs: START_WITHIN_MS, ...waiting },
    );
    return parseLogLine(text) as LogLine;
  };

  const address: ScuteProcess['address'] = async (listener) => {
    const line = await logged(({ message, listener: name }) => message === 'listening' && name === listener);
    return String(line['address']);
  };

  return {
    child,
    configFile,
    exited,
    log: () => child.lines().flatMap((line) => parseLogLine(line) ?? []),
    logged,
    address,
    async port(listener) {
      const bound = await address(listener);
      const port = Number(/:(\d+)$/.exec(bound)?.[1]);
      if (!(port > 0)) throw new Error(`listener ${listener} has no port: ${bound}`);
      return port;
    },
    async ready(...listeners) {
      await logged(({ message }) => message === 'identity updated');
      for (const listener of listeners) await address(listener);
    },
    async stop(how) {
      await child.stop(how);
      return exited;
    },
    async [Symbol.asyncDispose]() {
      await child.stop();
      await exited;
    },
  };
}

/** As `startScute`, but ended with the test, which fails if it does not end with exit code 0. */
export async function useScute(t: TestContext, options: ScuteOptions): Promise<ScuteProcess> {
  const scute = await startScute(options);
  t.after(async () => {
    const { code, signal } = await scute.stop();
    if (code !== 0) throw new Error(`scute ended with ${signal ?? code}\n${scute.child.lines().slice(-30).join('\n')}`);
  });
  return scute;
}

/** Resolves when `/readyz` of a metrics listener answers 200. */
export async function readyz(port: number, options: { readonly withinMs?: number } = {}): Promise<void> {
  await eventually(
    async () => {
      const response = await fetch(`http://127.0.0.1:${port}/readyz?verbose`);
      const text = await response.text();
      if (response.status !== 200) throw new Error(`not ready (${response.status}): ${text}`);
    },
    { withinMs: START_WITHIN_MS, ...options },
  );
}

function parseLogLine(line: string): LogLine | undefined {
  if (!line.startsWith('{')) return undefined;
  try {
    const parsed: unknown = JSON.parse(line);
    return typeof parsed === 'object' && parsed !== null && 'message' in parsed && typeof parsed.message === 'string'
      ? (parsed as LogLine)
      : undefined;
  } catch {
    return undefined;
  }
}
