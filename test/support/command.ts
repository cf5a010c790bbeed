import { runCommandLine } from '../../src/cli/program.ts';

/** What a command did. */
export interface Said {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A command in this process, without an environment and a terminal. */
export async function scute(...args: readonly string[]): Promise<Said> {
  let stdout = '';
  let stderr = '';
  const io = {
    env: {},
    isTerminal: false,
    stdout: (text: string) => (stdout += text),
    stderr: (text: string) => (stderr += text),
    onHangup: () => () => undefined,
  };
  return { code: await runCommandLine(args, io, new AbortController().signal), stdout, stderr };
}
