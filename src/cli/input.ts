import { messageOf } from '../lib/errors.ts';
import { err, ok, type Result } from '../lib/result.ts';
import type { CommandEnvironment } from './environment.ts';

/** All of standard input, if that is no more than `mostBytes`. */
export async function readInput(
  { stdin }: CommandEnvironment,
  mostBytes: number,
  stopped: AbortSignal,
): Promise<Result<Uint8Array, string>> {
  if (stdin === undefined) return err('there is no standard input');
  const input = stdin();
  const stop = (): void => void input.destroy();
  stopped.addEventListener('abort', stop, { once: true });
  try {
    const chunks: Uint8Array[] = [];
    let length = 0;
    for await (const chunk of input) {
      chunks.push(chunk);
      length += chunk.length;
      if (length > mostBytes) return err(`standard input is larger than ${mostBytes} bytes`);
    }
    return ok(Buffer.concat(chunks));
  } catch (cause) {
    return err(stopped.aborted ? 'stopped' : `standard input cannot be read: ${messageOf(cause)}`);
  } finally {
    stopped.removeEventListener('abort', stop);
    input.destroy();
  }
}
