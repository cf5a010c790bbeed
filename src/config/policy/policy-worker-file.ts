import { Worker, type WorkerOptions } from 'node:worker_threads';

/** Starts `policy-worker.ts`. The bundle has it beside it, under another name, and the executable within. */
export function startPolicyWorker(options: WorkerOptions): Worker {
  return new Worker(new URL('./policy-worker.ts', import.meta.url), options);
}
