import { isatty, WriteStream } from 'node:tty';
import { codeOf } from '../lib/errors.ts';
import { EXIT_FAILED, EXIT_READER_LEFT, type CommandEnvironment } from './environment.ts';

/** What is kept for a reader that stalls. */
const MAX_WAITING_BYTES = 4 << 20;

/**
 * What commands print to. Calls `failed` with the exit code, perhaps more than once and after the command is done, when standard output
 * takes no more. Its stream is opened when there is something to print; the log of `run` has a way of its own, and a proxy does
 * not end for want of readers.
 */
export function processOutput(
  failed: (exitCode: number) => void,
): Pick<CommandEnvironment, 'stdout' | 'stderr' | 'isTerminal' | 'terminalSize'> {
  let hasStdout = false;
  let hasStderr = false;
  const stderr = (text: string): void => {
    // The exit code tells enough to those who do not read this.
    if (!hasStderr) process.stderr.on('error', () => {});
    hasStderr = true;
    process.stderr.write(text);
  };
  const stdoutFailed = (error: Error): void => {
    const readerLeft = codeOf(error) === 'EPIPE';
    if (!readerLeft) stderr(`scute: cannot write to standard output: ${error.message}\n`);
    failed(readerLeft ? EXIT_READER_LEFT : EXIT_FAILED);
  };
  return {
    stdout(text) {
      if (!hasStdout) process.stdout.on('error', stdoutFailed);
      hasStdout = true;
      // A demonstration whose log nobody reads must not grow for ever.
      if (process.stdout.writableLength < MAX_WAITING_BYTES) process.stdout.write(text);
    },
    stderr,
    isTerminal: isatty(1),
    terminalSize() {
      if (!(process.stdout instanceof WriteStream)) return undefined;
      const { columns, rows } = process.stdout;
      // A terminal that nobody has told its size says that it has none.
      return columns > 0 && rows > 0 ? { columns, rows } : undefined;
    },
  };
}
