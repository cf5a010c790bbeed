import type { NotifyFailure, NotifyKind } from '../telemetry/log/files-records.ts';

/** What is told of a replacement. */
export interface NotifyContext {
  /** The name of the set. */
  readonly set: string;
  readonly directory: string;
  readonly spiffeId: string;
  /** Monotonic: from then on the files could be read. */
  readonly replacedAtMs: number;
}

/** Somebody who is told that a set was replaced. It need not remember anything but whom it told last. */
export interface NotifyTarget {
  readonly kind: NotifyKind;
  /** A pid file, a program, a URL: for logs and status pages. */
  readonly target: string;
  /** Resolves to why it did not work; undefined if it did. When `signal` aborts it gives up, and leaves nothing running. */
  tell(context: NotifyContext, signal: AbortSignal): Promise<NotifyFailure | undefined>;
  /** Whether another is there by now in the place of the one that was told last: it may have begun with files from before. */
  isAnother?(): Promise<boolean>;
}
