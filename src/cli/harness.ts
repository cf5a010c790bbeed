import { runHarness as run } from '../harness.ts';
import { VERSION } from './version.ts';

/** `scute harness`: standard output carries the contract's lines, standard error the log. */
export function runHarness(signal: AbortSignal): Promise<number> {
  return run(
    {
      version: VERSION,
      endpoint: process.env['SPIFFE_ENDPOINT_SOCKET'],
      print: (line) => process.stdout.write(`${line}\n`),
      log: (line) => process.stderr.write(line),
    },
    signal,
  );
}
