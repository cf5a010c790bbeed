import { spawn, type ChildProcess } from 'node:child_process';

/** How a program was ended: by itself with a code, or by a signal. */
export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface ChildOptions {
  /** Instead of the test's own. */
  readonly env?: Readonly<Record<string, string>> | undefined;
  readonly cwd?: string | undefined;
  /** Written to its standard input, which is then closed. Without it, standard input stays open for `write`. */
  readonly input?: string | Buffer | undefined;
}

export interface WaitOptions {
  readonly withinMs?: number;
  /** Lines before this one were seen already. */
  readonly after?: number;
}

/** A line of output; `next` is what to pass as `after` to see only later ones. */
export interface OutputLine {
  readonly text: string;
  readonly next: number;
}

/** A running program, and everything that it has written so far. */
export interface Child extends AsyncDisposable {
  readonly pid: number;
  readonly exited: Promise<Exit>;
  stdout(): string;
  stderr(): string;
  /** Whole lines of both streams, in the order of arrival. */
  lines(): readonly string[];
  /** The first line, of either stream, that fits. Rejects, with the end of the output, when the time is over or the program has ended. */
  line(fits: RegExp | ((line: string) => boolean), options?: WaitOptions): Promise<OutputLine>;
  write(text: string | Buffer): void;
  endInput(): void;
  signal(signal: NodeJS.Signals): void;
  /** Asks it to end (SIGTERM) and, when `withinMs` is over, ends it. */
  stop(options?: { readonly signal?: NodeJS.Signals; readonly withinMs?: number }): Promise<Exit>;
}

export interface Finished extends Exit {
  readonly stdout: string;
  readonly stderr: string;
}

/** They only say that it never happens: the machine may be busy with other things. */
const DEFAULT_WAIT_MS = 90_000;
const DEFAULT_STOP_MS = 60_000;
const DEFAULT_RUN_MS = 180_000;

const running = new Set<ChildProcess>();
// A test that ended early must not leave programs behind.
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** Starts a program. It has to be stopped: `await using`, or `stop` in `t.after`. */
export async function startChild(argv: readonly [string, ...string[]], options: ChildOptions = {}): Promise<Child> {
  const [command, ...args] = argv;
  const child = spawn(command, args, { cwd: options.cwd, env: options.env, stdio: ['pipe', 'pipe', 'pipe'] });
  const stdout: string[] = [];
  const stderr: string[] = [];
  const lines: string[] = [];
  const waiting = new Set<() => void>();
  const wake = (): void => {
    for (const look of waiting) look();
  };
  const collect = (chunks: string[]): ((chunk: string) => void) => {
    let rest = '';
    return (chunk) => {
      chunks.push(chunk);
      const parts = (rest + chunk).split('\n');
      rest = parts.pop() ?? '';
      lines.push(...parts);
      wake();
    };
  };
  child.stdout.setEncoding('utf8').on('data', collect(stdout));
  child.stderr.setEncoding('utf8').on('data', collect(stderr));
  // A program may end while something is on its way to it.
  child.stdin.on('error', () => undefined);
  if (options.input !== undefined) child.stdin.end(options.input);

  let exit: Exit | undefined;
  const exited = new Promise<Exit>((resolve) => {
    // `close`, not `exit`: by then all output has arrived.
    child.once('close', (code, signal) => {
      running.delete(child);
      exit = { code, signal };
      wake();
      resolve(exit);
    });
  });
  await new Promise<void>((resolve, reject) => child.once('spawn', resolve).once('error', reject));
  child.on('error', () => undefined);
  running.add(child);
  const { pid } = child;
  if (pid === undefined) throw new Error(`${command} has no process id`);

  const describe = (what: string): Error =>
    new Error(`${argv.join(' ')}: ${what}; its output ends with\n${lines.slice(-40).join('\n').slice(-6000)}`);

  const stop: Child['stop'] = async ({ signal = 'SIGTERM', withinMs = DEFAULT_STOP_MS } = {}) => {
    if (exit !== undefined) return exit;
    child.kill(signal);
    const timer = setTimeout(() => child.kill('SIGKILL'), withinMs);
    const ended = await exited;
    clearTimeout(timer);
    return ended;
  };

  return {
    pid,
    exited,
    stdout: () => stdout.join(''),
    stderr: () => stderr.join(''),
    lines: () => lines,
    line(fits, { withinMs = DEFAULT_WAIT_MS, after = 0 } = {}) {
      return new Promise((resolve, reject) => {
        let next = after;
        const done = (): void => {
          waiting.delete(look);
          clearTimeout(timer);
        };
        const look = (): void => {
          for (; next < lines.length; next += 1) {
            const text = lines[next] ?? '';
            if (!(typeof fits === 'function' ? fits(text) : fits.test(text))) continue;
            done();
            resolve({ text, next: next + 1 });
            return;
          }
          if (exit === undefined) return;
          done();
          reject(describe(`ended with ${exit.signal ?? exit.code} before a line like ${String(fits)}`));
        };
        const timer = setTimeout(() => {
          done();
          reject(describe(`no line like ${String(fits)} within ${withinMs} ms`));
        }, withinMs);
        waiting.add(look);
        look();
      });
    },
    write: (text) => void child.stdin.write(text),
    endInput: () => void child.stdin.end(),
    signal: (signal) => void child.kill(signal),
    stop,
    async [Symbol.asyncDispose]() {
      await stop();
    },
  };
}

/** The same program on a terminal of its own, which `script` makes: what is written to it is typed there, so `\u0003` is Ctrl-C. */
export function onTerminal(argv: readonly string[]): [string, ...string[]] {
  const words = argv.map((word) => `'${word.replaceAll("'", "'\\''")}'`);
  return ['script', '--quiet', '--return', '--command', `exec ${words.join(' ')}`, '/dev/null'];
}

/** Runs a program to its end, which must come within `withinMs`. Its exit code is for the caller to judge. */
export async function runChild(
  argv: readonly [string, ...string[]],
  options: ChildOptions & { readonly withinMs?: number } = {},
): Promise<Finished> {
  const { withinMs = DEFAULT_RUN_MS, ...rest } = options;
  const child = await startChild(argv, { input: '', ...rest });
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    child.signal('SIGKILL');
  }, withinMs);
  const exit = await child.exited;
  clearTimeout(timer);
  const finished = { ...exit, stdout: child.stdout(), stderr: child.stderr() };
  if (late)
    throw new Error(
      `${argv.join(' ')} did not end within ${withinMs} ms\n${finished.stdout.slice(-3000)}\n${finished.stderr.slice(-3000)}`,
    );
  return finished;
}
