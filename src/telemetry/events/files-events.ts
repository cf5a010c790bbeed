/** What happens to sets of files, and how it is told. */
import type { Clock } from '../../lib/clock.ts';
import type { FilesMetrics } from '../metrics/files-metrics.ts';
import type { FileSetInForce, NotifyFailure, NotifyKind, NotifyProblem, SetFailure, SetProblem } from '../log/files-records.ts';
import type { Logger } from '../log/logger.ts';

export interface FilesEvents {
  /** A set of the configuration, and one who is told of it: their series are there from the start. */
  set(name: string): void;
  target(set: string, target: Target): void;
  /** A set is in force, in place of the one before. `notes`: what of it is not written. */
  replaced(set: string, inForce: FileSetInForce, durationMs: number, notes: readonly string[]): void;
  /** What is in force is what should be, and nothing had to be written. */
  unchanged(set: string): void;
  /** What is in force was changed by somebody else, or is gone. */
  damaged(set: string, directory: string): void;
  /** Told once, until there is another reason or a success. */
  failed(set: string, failure: SetFailure): void;
  /** There is no identity yet, and so nothing to write. */
  waiting(set: string): void;
  pending(set: string, target: Target): void;
  notified(set: string, target: Target, durationMs: number): void;
  /** Told once, until there is another reason or a success. */
  notifyFailed(set: string, target: Target, failure: NotifyFailure, retryInMs: number): void;
  /** What a command wrote. */
  commandOutput(set: string, program: string, output: string): void;
}

interface Target {
  readonly kind: NotifyKind;
  readonly target: string;
}

export interface FilesEventsOptions {
  readonly logger: Logger;
  readonly metrics: FilesMetrics;
  readonly clock: Clock;
}

export function createFilesEvents({ logger, metrics, clock }: FilesEventsOptions): FilesEvents {
  /** The reason that was told last and still holds. */
  const failing = new Map<string, SetProblem>();
  const unheard = new Map<string, NotifyProblem>();
  const keyOf = (set: string, { kind, target }: Target): string => JSON.stringify([set, kind, target]);
  return {
    set: (name) => void metrics.set(name),
    target: (set, { kind, target }) => void metrics.target(set, kind, target),
    replaced(set, { spiffeId, expires, files }, durationMs, notes) {
      const numbers = metrics.set(set);
      numbers.results.replaced += 1;
      numbers.isCurrent = true;
      numbers.writtenAt = clock.now() / 1000;
      numbers.notAfter = Number.isFinite(expires.atMs) ? expires.atMs / 1000 : 0;
      failing.delete(set);
      logger.info({ set, spiffe_id: spiffeId, files: files.length, duration_ms: Math.round(durationMs) }, 'files replaced');
      if (notes.length > 0)
        logger.warn({ set, notes: notes.slice(0, MAX_NOTES), count: notes.length }, 'not every trust bundle is in a file of its own');
    },
    unchanged(set) {
      metrics.set(set).isCurrent = true;
      if (failing.delete(set)) logger.info({ set }, 'files are as they should be again');
    },
    damaged(set, directory) {
      logger.warn({ set, directory }, 'files were changed or removed by somebody else, and are written again');
    },
    failed(set, { reason, detail }) {
      const numbers = metrics.set(set);
      numbers.results[reason] += 1;
      numbers.isCurrent = false;
      if (failing.get(set) === reason) return;
      failing.set(set, reason);
      logger.error({ set, reason, detail }, 'files not replaced; those of before stay in force');
    },
    waiting(set) {
      metrics.set(set).isCurrent = false;
    },
    pending(set, { kind, target }) {
      metrics.target(set, kind, target).isPending = true;
    },
    notified(set, { kind, target }, durationMs) {
      const numbers = metrics.target(set, kind, target);
      numbers.results.ok += 1;
      numbers.isPending = false;
      unheard.delete(keyOf(set, { kind, target }));
      logger.info({ set, kind, target, duration_ms: Math.round(durationMs) }, 'told of new files');
    },
    notifyFailed(set, { kind, target }, { reason, detail }, retryInMs) {
      metrics.target(set, kind, target).results[reason] += 1;
      const key = keyOf(set, { kind, target });
      if (unheard.get(key) === reason) return;
      unheard.set(key, reason);
      logger.warn({ set, kind, target, reason, detail, retry_in_ms: Math.round(retryInMs) }, 'not told of new files; it is tried again');
    },
    commandOutput(set, program, output) {
      logger.info({ set, target: program, output }, 'output of a command');
    },
  };
}

/** A partner decides how many there are. */
const MAX_NOTES = 20;
