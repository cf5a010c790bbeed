import type { Environment } from '../config/policy/precedence.ts';

/** What a command sees of its process. */
export interface CommandEnvironment {
  readonly env: Environment;
  /** When it cannot be written, the signal of the command is aborted; without a reader the exit code is then `EXIT_READER_LEFT`. */
  readonly stdout: (text: string) => void;
  /** Opened when it is asked for. */
  readonly stdin?: () => AsyncIterable<Uint8Array> & { destroy(): unknown };
  /** Works without a reader, too. */
  readonly stderr: (text: string) => void;
  /** Standard output is a terminal, so somebody is watching. */
  readonly isTerminal: boolean;
  /** Of that terminal, at this moment; undefined if it does not say. */
  readonly terminalSize?: () => { readonly columns: number; readonly rows: number } | undefined;
  /** From now on the signals that can be sent on are for `listener`, and none ends the process. Returns the way to give them back. */
  takeSignals?(listener: (signal: NodeJS.Signals) => void): () => void;
  /** Calls `listener` at each SIGHUP. Returns the way to stop. */
  onHangup(listener: () => void): () => void;
}

/**
 * Exit codes: 0 done, and for `run` everything drained; 1 failed, or connections were cut, or the answer is not the good one; 64 wrong
 * usage or configuration (EX_USAGE of sysexits.h); 69 nobody to ask (EX_UNAVAILABLE).
 */
export const EXIT_OK = 0;
export const EXIT_FAILED = 1;
export const EXIT_USAGE = 64;
export const EXIT_UNAVAILABLE = 69;
/** Nobody reads standard output any more: 128 and the number of SIGPIPE, by which other programs end then. Node ignores that signal. */
export const EXIT_READER_LEFT = 141;
