import { NOTIFY_RESULTS, SET_RESULTS, type NotifyKind, type NotifyResult, type SetResult } from '../log/files-records.ts';
import type { Define } from './text-format.ts';
import { zeroes } from './zeroes.ts';

/** Counted in plain numbers, and read when somebody scrapes. Sets and targets are those of the configuration. */
export interface FilesMetrics {
  set(name: string): SetMetrics;
  target(set: string, kind: NotifyKind, target: string): TargetMetrics;
}

export interface SetMetrics {
  readonly results: Record<SetResult, number>;
  /** What is in force is what should be. */
  isCurrent: boolean;
  /** Seconds since 1970; 0 while nothing is in force. */
  writtenAt: number;
  notAfter: number;
}

export interface TargetMetrics {
  readonly results: Record<NotifyResult, number>;
  isPending: boolean;
}

export function registerFilesMetrics(counter: Define, gauge: Define): FilesMetrics {
  const sets = new Map<string, SetMetrics>();
  const targets = new Map<
    string,
    TargetMetrics & { readonly labels: { readonly set: string; readonly kind: string; readonly target: string } }
  >();
  counter('files_replacements_total', 'Replacements of sets of files, by how they went', ['set', 'result'], (add) => {
    for (const [set, { results }] of sets) for (const result of SET_RESULTS) add({ set, result }, results[result]);
  });
  gauge('files_current', '1 while the files of a set are those of the identity in force', ['set'], (add) => {
    for (const [set, { isCurrent }] of sets) add({ set }, isCurrent ? 1 : 0);
  });
  gauge('files_written_timestamp_seconds', 'When the files of a set were written; 0 before the first time', ['set'], (add) => {
    for (const [set, { writtenAt }] of sets) add({ set }, writtenAt);
  });
  gauge(
    'files_not_after_timestamp_seconds',
    'When the first SVID in the files of a set expires, X.509 or JWT; 0 while there is none',
    ['set'],
    (add) => {
      for (const [set, { notAfter }] of sets) add({ set }, notAfter);
    },
  );
  const labelsOfTarget = ['set', 'kind', 'target'];
  counter(
    'files_notifications_total',
    'Attempts to tell somebody of a replacement, by how they went',
    [...labelsOfTarget, 'result'],
    (add) => {
      for (const { labels, results } of targets.values()) for (const result of NOTIFY_RESULTS) add({ ...labels, result }, results[result]);
    },
  );
  gauge('files_notify_pending', '1 while somebody has not been told of the files in force', labelsOfTarget, (add) => {
    for (const { labels, isPending } of targets.values()) add(labels, isPending ? 1 : 0);
  });
  return {
    set(name) {
      const known = sets.get(name);
      if (known !== undefined) return known;
      const made = { results: zeroes(SET_RESULTS), isCurrent: false, writtenAt: 0, notAfter: 0 };
      sets.set(name, made);
      return made;
    },
    target(set, kind, target) {
      const key = JSON.stringify([set, kind, target]);
      const known = targets.get(key);
      if (known !== undefined) return known;
      const made = { labels: { set, kind, target }, results: zeroes(NOTIFY_RESULTS), isPending: false };
      targets.set(key, made);
      return made;
    },
  };
}
