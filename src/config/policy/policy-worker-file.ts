/** Where `policy-worker.ts` is. The bundle has it beside it, under another name. */
export const POLICY_WORKER = new URL('./policy-worker.ts', import.meta.url);
