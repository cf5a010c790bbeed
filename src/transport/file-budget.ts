/**
 * File descriptors that connections may use, over all listeners. When they run out, the kernel's accept would fail, and
 * libuv then drops connections without telling anybody; so we stop short of it, and count what we refuse.
 */
export interface FileBudget {
  /** True, and `count` are taken; or false, and none. */
  take(count: number): boolean;
  give(count: number): void;
}

/** What the process needs besides connections: log, listeners, Workload API, metrics and admin requests, name resolution. */
const RESERVED = 64;

/** `processLimit` is the soft limit of open files (RLIMIT_NOFILE). */
export function createFileBudget(processLimit: number): FileBudget {
  let free = Math.max(processLimit - RESERVED, 2);
  return {
    take(count) {
      if (free < count) return false;
      free -= count;
      return true;
    },
    give(count) {
      free += count;
    },
  };
}
