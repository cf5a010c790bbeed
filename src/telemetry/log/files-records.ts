/** What happens to sets of files, as those who count it and those who write it down share it. */
import type { SvidChoice } from '../../identity/snapshot.ts';

/** Why a set was not replaced. One closed set: the `result` label of the metric, beside those of success, and the log field. */
export const SET_PROBLEMS = [
  'no_svid', // there is none, or not the one that the set is to have
  'no_token', // no valid JWT-SVID, so that one would be missing, or expired
  'no_jwt_bundle', // none of our trust domain
  'key_format', // the key has no such form
  'bad_password', // the password of the stores cannot be read, or is none
  'bad_directory', // not ours, writable by others, on a disk, or no directory
  'foreign_file', // something stands there that we did not write
  'full', // no space, no inodes, or a quota
  'read_only',
  'denied', // the system does not let us
  'failed', // anything else
] as const;
export type SetProblem = (typeof SET_PROBLEMS)[number];

const OF_OTHERS: ReadonlySet<SetProblem> = new Set(['no_svid', 'no_token', 'no_jwt_bundle']);

/** Whether it goes when the agent has something for us, which is told then: nothing has failed to be written, and nobody need try again. */
export function isToldLater(reason: SetProblem): boolean {
  return OF_OTHERS.has(reason);
}

export const SET_RESULTS = ['replaced', ...SET_PROBLEMS] as const;
export type SetResult = (typeof SET_RESULTS)[number];

export const NOTIFY_KINDS = ['signal', 'command', 'http', 'child'] as const;
export type NotifyKind = (typeof NOTIFY_KINDS)[number];

/** Why somebody was not told. One closed set: the `result` label of the metric, beside `ok`, and the log field. */
export const NOTIFY_PROBLEMS = [
  'no_pid_file', // it is not there, or cannot be read
  'bad_pid_file', // not a regular file of ours, writable by others, or no process ID in it
  'no_process', // there is no process with that ID, or it began after the file was written
  'foreign_process', // it belongs to somebody else
  'unhandled_signal', // it would be ended by the signal, or ignores it
  'not_started', // the command
  'exit_code', // other than 0, or a signal ended it
  'timeout',
  'unreachable', // no answer over HTTP
  'bad_status', // other than 2xx
  'failed', // anything else
] as const;
export type NotifyProblem = (typeof NOTIFY_PROBLEMS)[number];

export const NOTIFY_RESULTS = ['ok', ...NOTIFY_PROBLEMS] as const;
export type NotifyResult = (typeof NOTIFY_RESULTS)[number];

export interface SetFailure {
  readonly reason: SetProblem;
  /** A sentence with the offending value; never key material. */
  readonly detail: string;
}

export interface NotifyFailure {
  readonly reason: NotifyProblem;
  /** A sentence; may quote what a program said. */
  readonly detail: string;
}

/** One set as status pages show it. Times are wall time, milliseconds since 1970. */
export interface FileSetStatus {
  readonly name: string;
  readonly directory: string;
  readonly identity: SvidChoice;
  /** What is in force, as far as this process wrote it or found it. */
  readonly inForce: FileSetInForce | undefined;
  /** Why what is in force is not what it should be; undefined if it is. */
  readonly problem: SetFailure | undefined;
  readonly notify: readonly NotifyStatus[];
}

export interface FileSetInForce {
  readonly spiffeId: string;
  readonly trustDomain: string;
  /** SHA-256 of the leaf; undefined where no X.509-SVID is written. */
  readonly leaf: string | undefined;
  /** SHA-256 of the leaf, of its intermediates, and of all authorities in the bundles. */
  readonly certificates: ReadonlySet<string>;
  /** What expires first, an SVID of either kind, and when; Infinity if nothing does. */
  readonly expires: { readonly name: string; readonly atMs: number };
  readonly writtenAtMs: number;
  readonly files: readonly string[];
}

export interface NotifyStatus {
  readonly kind: NotifyKind;
  /** The pid file, the program, or the URL. */
  readonly target: string;
  /** What is in force has not been told yet. */
  readonly isPending: boolean;
  readonly lastSuccessMs: number | undefined;
  /** Why the last attempt failed; undefined if it did not. */
  readonly problem: NotifyFailure | undefined;
}
