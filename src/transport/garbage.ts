import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/**
 * Node gives each read from a TLS socket a buffer of its own, up to 16 KiB, outside V8's heap. V8 answers such growth with
 * full collections, eight a second at 400 MiB/s, each marking everything that the process holds; while a collection of
 * young objects alone, which takes a fraction of a millisecond, frees those buffers just as well. So one is asked for
 * whenever this much was read. It nearly doubles uploads a CPU-second; connections that move little never get here.
 */
const COLLECT_EVERY_BYTES = 4 * 1024 * 1024;

type Collect = (options: { readonly type: 'minor' | 'major'; readonly execution: 'sync' }) => void;

let collect: Collect | undefined;
let readBytes = 0;

/** Notes bytes that came in a buffer of their own. */
export function noteYoungBytes(bytes: number): void {
  readBytes += bytes;
  if (readBytes < COLLECT_EVERY_BYTES) return;
  readBytes = 0;
  collect ??= exposeCollect();
  collect({ type: 'minor', execution: 'sync' });
}

/** Collects everything, which stops the process for some ten milliseconds: for whoever paces it. */
export function collectAll(): void {
  collect ??= exposeCollect();
  collect({ type: 'major', execution: 'sync' });
}

/** The collector is not a global unless asked for at the start; a context made after this flag has it. */
function exposeCollect(): Collect {
  setFlagsFromString('--expose-gc');
  const found: unknown = runInNewContext('gc');
  return typeof found === 'function' ? (found as Collect) : () => undefined;
}
