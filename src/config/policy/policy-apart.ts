import { codeOf, messageOf } from '../../lib/errors.ts';
import { err, type Result } from '../../lib/result.ts';
import { inTurns } from '../in-turns.ts';
import type { ConfigIssue } from '../issue.ts';
import { unpackPolicy, type PolicyParcel } from './policy-parcel.ts';
import type { WrittenPolicy } from './policy-text.ts';
import { startPolicyWorker } from './policy-worker-file.ts';
import { unread } from '../whole-file.ts';

/** Far more than the largest policy file needs. */
const MAX_HEAP_MB = 1024;
const TIMEOUT_MS = 60_000;

type Read = Result<WrittenPolicy, readonly ConfigIssue[]>;

/** As `parsePolicyText`, in a thread of its own, which lives as long as that takes, or until `stop` is aborted. */
export async function parsePolicyApart(text: string, file: string, stop?: AbortSignal): Promise<Read> {
  try {
    return await inTurns(unpackPolicy(await parcelOf(text, file, stop)));
  } catch (cause) {
    const problem = unread(file, `cannot be parsed: ${messageOf(cause)}`);
    // No thread could be had.
    return err([codeOf(cause) === 'ERR_WORKER_INIT_FAILED' ? { ...problem, mayPass: true } : problem]);
  }
}

async function parcelOf(text: string, file: string, stop?: AbortSignal): Promise<PolicyParcel> {
  stop?.throwIfAborted();
  const worker = startPolicyWorker({
    workerData: { text, file },
    env: {},
    execArgv: [],
    resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MB },
  });
  // A process that stops does not wait for it.
  worker.unref();
  const late = AbortSignal.timeout(TIMEOUT_MS);
  let stopped: (() => void) | undefined;
  try {
    return await new Promise((resolve, reject) => {
      worker.once('message', resolve);
      worker.once('error', reject);
      worker.once('exit', () => reject(new Error('its thread ended')));
      late.addEventListener('abort', () => reject(new Error(`it took longer than ${TIMEOUT_MS} ms`)));
      stopped = () => reject(new Error('nobody waits for it any more'));
      stop?.addEventListener('abort', stopped);
    });
  } finally {
    if (stopped !== undefined) stop?.removeEventListener('abort', stopped);
    await worker.terminate();
  }
}
