/** Probes of the application that come by the metrics listener. */
import type { Logger } from '../log/logger.ts';
import type { ProbeResult } from '../log/probe-records.ts';
import type { ProbeMetrics } from '../metrics/probe-metrics.ts';

/** What of a probe is told. */
export interface ProbeRef {
  readonly path: string;
  readonly target: string;
}

export interface ProbeEvents {
  /** Its series begin at 0. */
  registerProbe(probe: ProbeRef): void;
  /** Always counted; in the log, rate-limited, if it failed, and when it no longer does. */
  probed(probe: ProbeRef, result: ProbeResult, detail: string | undefined): void;
}

export interface ProbeEventsOptions {
  readonly logger: Logger;
  readonly metrics: ProbeMetrics;
  /** Calls back at once for the first of a kind, then at times with the number of those that followed. */
  readonly repeated: (kind: string, log: (count: number) => void) => void;
}

export function createProbeEvents({ logger, metrics, repeated }: ProbeEventsOptions): ProbeEvents {
  const failing = new Set<string>();
  return {
    registerProbe: ({ path }) => void metrics.probe(path),
    probed({ path, target }, result, detail) {
      metrics.probe(path)[result] += 1;
      const kind = `probe ${path} ${result}`;
      if (result !== 'answered') {
        failing.add(path);
        repeated(kind, (count) =>
          logger.warn({ path, target, reason: result, detail, count }, 'the application does not answer its probe'),
        );
      } else if (failing.delete(path)) repeated(kind, (count) => logger.info({ path, target, count }, 'the application answers its probe'));
    },
  };
}
