/** A thread of its own for one policy text: whatever its parser does, stops nobody. */
import { parentPort, workerData } from 'node:worker_threads';
import { packPolicy } from './policy-parcel.ts';
import { parsePolicyText } from './policy-text.ts';

const { text, file } = workerData as { readonly text: string; readonly file: string };
// oxlint-disable-next-line unicorn/require-post-message-target-origin -- that is for windows
parentPort?.postMessage(packPolicy(parsePolicyText(text, file)));
