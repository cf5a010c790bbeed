import { Readable } from 'node:stream';
import { runCommandLine } from '../../src/cli/program.ts';

/** What a command did. */
export interface Said {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A command in this process, without an environment and a terminal. */
export function scute(...args: readonly string[]): Promise<Said> {
  return scuteIn({}, ...args);
}

export interface Surroundings {
  readonly env?: Readonly<Record<string, string>>;
  /** Standard output is a terminal of so many columns. */
  readonly columns?: number;
  readonly stopped?: AbortSignal;
  /** On standard input. */
  readonly input?: string;
  /** Told of each text that is printed. */
  readonly printed?: (text: string) => void;
}

/** The same with an environment, or a terminal. */
export async function scuteIn({ env = {}, columns, stopped, input, printed }: Surroundings, ...args: readonly string[]): Promise<Said> {
  let stdout = '';
  let stderr = '';
  const io = {
    env,
    isTerminal: columns !== undefined,
    terminalSize: () => (columns === undefined ? undefined : { columns, rows: 40 }),
    stdout(text: string) {
      stdout += text;
      printed?.(text);
    },
    stderr: (text: string) => (stderr += text),
    onHangup: () => () => undefined,
    ...(input !== undefined && { stdin: () => Readable.from([Buffer.from(input)]) }),
  };
  return { code: await runCommandLine(args, io, stopped ?? new AbortController().signal), stdout, stderr };
}
