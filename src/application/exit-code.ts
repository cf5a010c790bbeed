import { constants } from 'node:os';
import { codeOf } from '../lib/errors.ts';

/** As shells have it: a command that is not there, and one that cannot be started. */
export const EXIT_NOT_FOUND = 127;
export const EXIT_NOT_STARTED = 126;
/** It belongs to another user by now, and runs on without us. */
export const EXIT_NOT_ENDED = 1;

/** What a program that was ended by a signal is said to have ended with. */
export function exitCodeOfSignal(signal: NodeJS.Signals): number {
  return 128 + constants.signals[signal];
}

/** The exit code of a child, of which Node tells either the code or the signal. */
export function exitCodeOf(code: number | null, signal: NodeJS.Signals | null): number {
  return signal === null ? (code ?? EXIT_NOT_STARTED) : exitCodeOfSignal(signal);
}

/** Of a command that was not started, for what the system said. */
export function exitCodeOfFailure(cause: unknown): number {
  return codeOf(cause) === 'ENOENT' ? EXIT_NOT_FOUND : EXIT_NOT_STARTED;
}
