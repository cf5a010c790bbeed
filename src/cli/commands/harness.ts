import { runHarness as run } from '../../harness.ts';
import type { CommandEnvironment } from '../environment.ts';
import { VERSION } from './version.ts';

/** `scute harness`: standard output carries the contract's lines, standard error the log. */
export function runHarness({ env, stdout, stderr }: CommandEnvironment, signal: AbortSignal): Promise<number> {
  return run(
    {
      version: VERSION,
      endpoint: env['SPIFFE_ENDPOINT_SOCKET'],
      print: (line) => stdout(`${line}\n`),
      log: stderr,
    },
    signal,
  );
}
