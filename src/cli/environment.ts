import type { Environment } from '../config/precedence.ts';

/** What a command sees of its process. */
export interface CommandEnvironment {
  readonly env: Environment;
  readonly stdout: (text: string) => void;
  readonly stderr: (text: string) => void;
  /** Calls `listener` at each SIGHUP. Returns the way to stop. */
  onHangup(listener: () => void): () => void;
}

/** Exit codes: 0 done, and for `run` everything drained; 1 failed, or connections were cut; 64 wrong usage or configuration (EX_USAGE of sysexits.h). */
export const EXIT_OK = 0;
export const EXIT_FAILED = 1;
export const EXIT_USAGE = 64;
