/** Scute inside the soak: the application that `scute run` starts, and a way to ask for its memory. Started by soak.ts. */
import { createApp } from '../src/app.ts';
import { loadConfig } from '../src/config/load.ts';
import { formatIssues } from '../src/config/issue.ts';

export interface MemoryReport {
  /** After a forced collection, each in bytes. */
  readonly rss: number;
  readonly heapUsed: number;
  readonly external: number;
}

const loaded = await loadConfig({ file: process.argv[2], flags: {}, env: {} });
if (!loaded.ok) throw new Error(formatIssues(loaded.error));
const app = await createApp(loaded.value, { version: 'soak' });
await app.start(AbortSignal.timeout(30_000));

process.on('message', () => {
  if (globalThis.gc === undefined) throw new Error('the soak needs node --expose-gc');
  globalThis.gc();
  // Once more: what finalisers let go of in the first.
  globalThis.gc();
  const { rss, heapUsed, external } = process.memoryUsage();
  process.send?.({ rss, heapUsed, external } satisfies MemoryReport);
});
process.send?.('started');
// Whoever started it has gone.
process.once('disconnect', () => void app.stop('the soak is over', AbortSignal.abort()));
