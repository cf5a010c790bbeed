import assert from 'node:assert/strict';
import { eventually } from '../eventually.ts';
import type { Sidecar } from '../sidecar.ts';

/** Resolves when the sidecar has fetched a token: on a busy machine that may take longer than a request waits for one. */
export function tokenFetched(sidecar: Sidecar, count = 1): Promise<void> {
  return eventually(async () => assert.ok((await sidecar.metric('scute_token_fetches_total', { result: 'ok' })) >= count));
}
