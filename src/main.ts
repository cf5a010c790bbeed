/** The process: its arguments, its environment, its signals and its exit code. */
import { constants } from 'node:os';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { EXIT_FAILED } from './cli/environment.ts';
import { refusals } from './cli/guard.ts';
import { processOutput } from './cli/output.ts';

// Node opens its inspector, through which keys can be read, when it gets SIGUSR1. A handler takes that away, where
// --disable-sigusr1 has not already; the guard below sees an inspector that was opened before this line.
process.on('SIGUSR1', () => {});

/** Besides SIGINT and SIGTERM: those that have no meaning of their own for whoever runs another program. */
const SENT_ON = ['SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'] as const;

/** How long what was left open may hold the process back, once its work is done. */
const LAST_RESORT_MS = 2000;

const stop = new AbortController();
/** Who runs an application sends all of them on to it. */
let takesSignals: ((signal: NodeJS.Signals) => void) | undefined;
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.on(name, () => {
    if (takesSignals !== undefined) {
      takesSignals(name);
      return;
    }
    // The second signal ends the process even where it is PID 1, for which signals have no default action.
    // oxlint-disable-next-line unicorn/no-process-exit -- asked for by the user, and nothing is waited for
    if (stop.signal.aborted) process.exit(128 + constants.signals[name]);
    stop.abort(name);
  });
}

const output = processOutput((exitCode) => {
  // It counts more than what was done, and may come to light before or after that.
  process.exitCode = exitCode;
  if (!stop.signal.aborted) stop.abort('standard output cannot be written');
});

async function main(): Promise<number> {
  // A SIGUSR1 that came before the handler takes effect in the next turn of the event loop.
  await nextTurn();
  const { env, execArgv, version } = process;
  const inspectorUrl = process.getBuiltinModule('node:inspector').url();
  const problems = refusals({ env, execArgv, nodeVersion: version, inspectorUrl });
  if (problems.length > 0) {
    output.stderr(problems.map((problem) => `scute: will not start: ${problem}\n`).join(''));
    return EXIT_FAILED;
  }
  const { runCommandLine } = await import('./cli/program.ts');
  return runCommandLine(
    process.argv.slice(2),
    {
      env,
      ...output,
      stdin: () => process.stdin,
      takeSignals(listener) {
        takesSignals = listener;
        for (const name of SENT_ON) process.on(name, listener);
        return () => {
          takesSignals = undefined;
          for (const name of SENT_ON) process.off(name, listener);
        };
      },
      onHangup(listener) {
        process.on('SIGHUP', listener);
        return () => process.off('SIGHUP', listener);
      },
    },
    stop.signal,
  );
}

// Nothing is left to do, and yet `main` has not ended: that is no success.
process.once('exit', () => {
  process.exitCode ??= EXIT_FAILED;
});
// No top-level await: as a script, which has none, the program can be compiled ahead.
async function run(): Promise<void> {
  const exitCode = await main();
  process.exitCode ??= exitCode;
  // oxlint-disable-next-line unicorn/no-process-exit -- the last resort: the exit code is set, and the event loop should have emptied
  setTimeout(() => process.exit(), LAST_RESORT_MS).unref();
}
void run();
