import { Worker } from 'node:worker_threads';
import { messageOf } from '../lib/errors.ts';
import { err, type Result } from '../lib/result.ts';
import { inTurns } from './in-turns.ts';
import type { ConfigIssue } from './issue.ts';
import { unpackPolicy, type PolicyParcel } from './policy-parcel.ts';
import type { WrittenPolicy } from './policy-text.ts';
import { POLICY_WORKER } from './policy-worker-file.ts';
import { unread } from './whole-file.ts';

/** Far more than the largest policy file needs. */
const MAX_HEAP_MB = 1024;
const TIMEOUT_MS = 60_000;

type Read = Result<WrittenPolicy, readonly ConfigIssue[]>;

/** As `parsePolicyText`, in a thread of its own, which lives as long as that takes. */
export function parsePolicyApart(text: string, file: string): Promise<Read> {
  return new Promise((resolve) => {
    const fail = (why: string): void => {
      finish(err([unread(file, `cannot be parsed: ${why}`)]));
    };
    const worker = new Worker(POLICY_WORKER, {
      workerData: { text, file },
      env: {},
      execArgv: [],
      resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MB },
    });
    const timer = setTimeout(() => fail(`it took longer than ${TIMEOUT_MS} ms`), TIMEOUT_MS);
    const finish = (result: Read | Promise<Read>): void => {
      clearTimeout(timer);
      resolve(result);
      void worker.terminate();
    };
    worker.once('message', (parcel: PolicyParcel) => finish(inTurns(unpackPolicy(parcel))));
    worker.once('error', (error: unknown) => fail(messageOf(error)));
    worker.once('exit', () => fail('its thread ended'));
    // A process that stops does not wait for it.
    worker.unref();
    timer.unref();
  });
}
