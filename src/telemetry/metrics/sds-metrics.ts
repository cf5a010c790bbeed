import { Histogram, type Registry } from 'prom-client';
import {
  SDS_MISSING_REASONS,
  SDS_REFUSAL_REASONS,
  type SdsMissingReason,
  type SdsProtocol,
  type SdsRefusalReason,
} from '../log/sds-records.ts';
import type { Collected, Define } from './text-format.ts';
import { zeroes } from './zeroes.ts';

/** Counted in plain integers, and read when somebody scrapes. */
export interface SdsMetrics {
  connections: number;
  calls: number;
  readonly streams: Record<SdsProtocol, number>;
  readonly opened: Record<SdsProtocol, number>;
  readonly sent: Record<'certificate' | 'bundle', number>;
  removed: number;
  bytes: number;
  readonly accepted: Record<SdsProtocol, number>;
  readonly rejected: Record<SdsProtocol, number>;
  readonly stale: Record<SdsProtocol, number>;
  readonly missing: Record<SdsMissingReason, number>;
  readonly refused: Record<SdsRefusalReason, number>;
  observePush(durationMs: number): void;
}

const PUSH_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5];

export function registerSdsMetrics(registry: Registry, counter: Define, gauge: Define): SdsMetrics {
  const pushSeconds = new Histogram({
    name: 'scute_sds_push_duration_seconds',
    help: 'Time from a new snapshot until the last client has been sent what changed for it',
    buckets: PUSH_SECONDS,
    registers: [registry],
  });
  const metrics: SdsMetrics = {
    connections: 0,
    calls: 0,
    streams: { sotw: 0, delta: 0 },
    opened: { sotw: 0, delta: 0 },
    sent: { certificate: 0, bundle: 0 },
    removed: 0,
    bytes: 0,
    accepted: { sotw: 0, delta: 0 },
    rejected: { sotw: 0, delta: 0 },
    stale: { sotw: 0, delta: 0 },
    missing: zeroes(SDS_MISSING_REASONS),
    refused: zeroes(SDS_REFUSAL_REASONS),
    observePush: (durationMs) => pushSeconds.observe(durationMs / 1000),
  };
  const by =
    (label: string, counts: () => Readonly<Record<string, number>>): Collected['collect'] =>
    (add) => {
      for (const [value, count] of Object.entries(counts())) add({ [label]: value }, count);
    };
  gauge('sds_connections', 'Connections of SDS clients', [], (add) => add({}, metrics.connections));
  gauge('sds_calls', 'FetchSecrets, health and reflection calls that are open', [], (add) => add({}, metrics.calls));
  gauge(
    'sds_streams',
    'SDS streams that are open',
    ['protocol'],
    by('protocol', () => metrics.streams),
  );
  counter(
    'sds_streams_opened_total',
    'SDS streams that were opened',
    ['protocol'],
    by('protocol', () => metrics.opened),
  );
  counter(
    'sds_pushes_total',
    'Secrets sent to SDS clients',
    ['kind'],
    by('kind', () => metrics.sent),
  );
  counter('sds_removals_total', 'Names that delta clients were told are not there', [], (add) => add({}, metrics.removed));
  counter('sds_sent_bytes_total', 'Bytes of responses to SDS clients', [], (add) => add({}, metrics.bytes));
  counter(
    'sds_acks_total',
    'Responses that clients accepted',
    ['protocol'],
    by('protocol', () => metrics.accepted),
  );
  counter(
    'sds_nacks_total',
    'Responses that clients rejected',
    ['protocol'],
    by('protocol', () => metrics.rejected),
  );
  counter(
    'sds_stale_requests_total',
    'Requests about a response that is not the last one',
    ['protocol'],
    by('protocol', () => metrics.stale),
  );
  counter(
    'sds_missing_total',
    'Names that clients asked for and that are not there, by reason',
    ['reason'],
    by('reason', () => metrics.missing),
  );
  counter(
    'sds_refused_total',
    'What SDS clients were refused, by reason',
    ['reason'],
    by('reason', () => metrics.refused),
  );
  return metrics;
}
