import { setTimeout as delay } from 'node:timers/promises';

const RETRY_MS = 15;
/** It only says that it never happens: the machine may be busy with other things. */
const DEFAULT_WITHIN_MS = 60_000;

/** Tries `attempt` again and again until it does not throw, and gives what it returned. When the time is over, throws its last error. */
export async function eventually<T>(
  attempt: () => T | Promise<T>,
  { withinMs = DEFAULT_WITHIN_MS }: { readonly withinMs?: number } = {},
): Promise<T> {
  const deadline = performance.now() + withinMs;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (performance.now() >= deadline) throw error;
    }
    await delay(RETRY_MS);
  }
}
