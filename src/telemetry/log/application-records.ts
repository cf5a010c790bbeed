/** What happens to the application that `scute exec` runs: the closed sets of reasons. */

/** Why it was started. */
export const START_REASONS = [
  'start',
  'rotation', // anew, with another identity
] as const;
export type StartReason = (typeof START_REASONS)[number];

/** Why Scute asked it to end. */
export type StopReason = 'rotation' | 'shutdown';

/** How it ended, or why it did not run. One closed set: the `result` label of the metric, and the log field. */
export const APPLICATION_ENDS = [
  'ok', // by itself, with exit code 0
  'exit_code', // by itself, with another
  'signal', // that Scute did not send
  'asked', // after it was asked to, with whatever code
  'not_ended', // it could not be, and runs on
  'not_started', // there is none such, or the system does not let us
  'not_ready', // what it needs did not come in time
] as const;
export type ApplicationEnd = (typeof APPLICATION_ENDS)[number];

/** Those that somebody must know of. */
export const BAD_ENDS: ReadonlySet<ApplicationEnd> = new Set(['exit_code', 'signal', 'not_ended', 'not_started', 'not_ready']);

/** As status pages show it. `sinceMs` is wall time: since when it is waited for, runs, or does no more. */
export type ApplicationStatus = { readonly program: string; readonly sinceMs: number } & (
  | { readonly state: 'waiting' }
  | { readonly state: 'running'; readonly pid: number }
  | { readonly state: 'ended'; readonly end: ApplicationEnd; readonly exitCode: number | undefined; readonly detail: string | undefined }
);

export interface UnsentSignal {
  readonly pid: number;
  /** What the system said. */
  readonly detail: string;
}

export interface StartedApplication {
  /** The program, without its arguments, which may be secrets. */
  readonly command: string;
  readonly pid: number;
  /** Undefined: the user of Scute. */
  readonly uid: number | undefined;
}
