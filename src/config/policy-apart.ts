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
export async function parsePolicyApart(text: string, file: string): Promise<Read> {
  try {
    return await inTurns(unpackPolicy(await parcelOf(text, file)));
  } catch (cause) {
    return err([unread(file, `cannot be parsed: ${messageOf(cause)}`)]);
  }
}

async function parcelOf(text: string, file: string): Promise<PolicyParcel> {
  const worker = new Worker(POLICY_WORKER, {
    workerData: { text, file },
    env: {},
    execArgv: [],
    resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MB },
  });
  // A process that stops does not wait for it.
  worker.unref();
  const late = AbortSignal.timeout(TIMEOUT_MS);
  try {
    return await new Promise((resolve, reject) => {
      worker.once('message', resolve);
      worker.once('error', reject);
      worker.once('exit', () => reject(new Error('its thread ended')));
      late.addEventListener('abort', () => reject(new Error(`it took longer than ${TIMEOUT_MS} ms`)));
    });
  } finally {
    await worker.terminate();
  }
}
