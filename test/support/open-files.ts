import { readdirSync, readlinkSync } from 'node:fs';

/** How many sockets a process has open. */
export function openSockets(pid: number | 'self' = 'self'): number {
  let count = 0;
  for (const name of readdirSync(`/proc/${pid}/fd`)) {
    try {
      if (readlinkSync(`/proc/${pid}/fd/${name}`).startsWith('socket:')) count += 1;
    } catch {
      // Closed since the folder was read.
    }
  }
  return count;
}
