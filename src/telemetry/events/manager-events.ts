/** What a service manager such as systemd is told. */
import type { Logger } from '../log/logger.ts';
import type { ManagerMetrics } from '../metrics/manager-metrics.ts';

export interface ManagerEvents {
  told(): void;
  /** Rate-limited in the log, always counted. */
  notTold(detail: string): void;
}

export interface ManagerEventsOptions {
  readonly logger: Logger;
  readonly metrics: ManagerMetrics;
  /** Calls back at once for the first of a kind, then at times with the number of those that followed. */
  readonly repeated: (kind: string, log: (count: number) => void) => void;
}

export function createManagerEvents({ logger, metrics, repeated }: ManagerEventsOptions): ManagerEvents {
  return {
    told() {
      metrics.messages.ok += 1;
    },
    notTold(detail) {
      metrics.messages.failed += 1;
      repeated('systemd', (count) => logger.warn({ detail, count }, 'systemd cannot be told how Scute is'));
    },
  };
}
