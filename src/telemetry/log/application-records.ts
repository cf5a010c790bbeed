/** What happens to the application that `scute exec` runs: the closed sets of reasons. */

/** Why it was started. */
export const START_REASONS = [
  'start',
  'rotation', // anew, with another identity
] as const;
export type StartReason = (typeof START_REASONS)[number];

/** Why Scute asked it to end. */
export type StopReason = 'rotation' | 'shutdown';

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
