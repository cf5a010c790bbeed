import { readFileSync } from 'node:fs';

/** Where there is no /proc: what systems that have none commonly allow. */
const ASSUMED = 1024;

/** How many files this process may have open (the soft limit of RLIMIT_NOFILE, which Node raises to the hard one). */
export function openFileLimit(): number {
  try {
    const soft = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1];
    return soft === undefined ? ASSUMED : Number(soft);
  } catch {
    return ASSUMED;
  }
}
