/** What Envoy asks whether it may, and how it is told. */
import type { CheckMetrics } from '../metrics/ext-authz-metrics.ts';
import { DENIES_ALL, type CheckRecord, type CheckRefusal } from '../log/ext-authz-records.ts';
import type { Logger } from '../log/logger.ts';
import { strangersWords } from '../log/scrub.ts';
import { checkMembers } from '../log/traffic-lines.ts';

export interface CheckEvents {
  opened(): void;
  ended(): void;
  /** `near` says which rule nearly allowed what none did. It is called only for a line that is written. */
  checked(record: CheckRecord, near: () => string | undefined): void;
  /** Rate-limited in the log, always counted. */
  refused(reason: CheckRefusal, detail: string): void;
}

export interface CheckEventsOptions {
  readonly logger: Logger;
  readonly metrics: CheckMetrics;
  /** Calls back at once for the first of a kind, then at times with the number of those that followed. */
  readonly repeated: (kind: string, log: (count: number) => void) => void;
}

const MAX_DETAIL = 1000;

export function createCheckEvents({ logger, metrics, repeated }: CheckEventsOptions): CheckEvents {
  return {
    opened() {
      metrics.open += 1;
    },
    ended() {
      metrics.open -= 1;
    },
    checked(record, near) {
      const { answer, listener = '', durationMs } = record;
      const numbers = metrics.listener(listener);
      metrics.durations.observe(durationMs);
      if (!answer.allowed) {
        const { reason, rule = '', detail } = answer;
        numbers.denied.add(rule);
        numbers.denials.add(reason);
        if (DENIES_ALL.has(reason)) {
          // One of each kind says it all: every request to that listener would have one.
          const fields = { listener, reason, detail: strangersWords(detail, MAX_DETAIL) };
          repeated(`check ${listener} ${reason}`, (count) => logger.warn({ ...fields, count }, 'checks of Envoy denied, whoever asks'));
          return;
        }
      } else if (answer.audited === undefined) numbers.allowed.add(answer.rule);
      else {
        numbers.allowedInAudit.add(answer.rule);
        numbers.audited.add(answer.audited);
      }
      if (logger.isLevelEnabled('info')) logger.members('info', checkMembers(record, near), 'check answered');
    },
    refused(reason, detail) {
      metrics.refused[reason] += 1;
      const fields = { reason, detail: strangersWords(detail, MAX_DETAIL) };
      repeated(`check refused ${reason}`, (count) => logger.warn({ ...fields, count }, 'check of Envoy refused'));
    },
  };
}
