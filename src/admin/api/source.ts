import type { Clock } from '../../lib/clock.ts';
import type { PolicyReason } from '../../policy/verdict.ts';
import type { SpiffeId } from '../../spiffe/spiffe-id.ts';
import type { ListenerRef } from '../../telemetry/log/records.ts';
import type { SdsStatus } from '../../telemetry/log/sds-records.ts';
import type { HeldBook } from '../held-book.ts';
import type { StatusSource } from '../inventory.ts';
import type { KnownPeer, PeerBook } from '../peer-book.ts';
import type { Readiness } from '../checks/readiness.ts';

/** An open connection, as its listener keeps it. */
export interface LiveConnection {
  readonly id: number;
  readonly downstreamAddress: string;
  readonly via: string | undefined;
  readonly upstreamAddress: string;
  /** Of the monotonic clock. */
  readonly startedAtMs: number;
  readonly tlsVersion: string | undefined;
  readonly alpn: string | undefined;
  readonly proven: KnownPeer | undefined;
  readonly ownId: SpiffeId | undefined;
  readonly rule: string | undefined;
  readonly audited: PolicyReason | undefined;
  readonly denied: string | undefined;
  readonly bytesFromDownstream: number;
  readonly bytesToDownstream: number;
}

/** Everything that the API shows, read when somebody asks. */
export interface ApiSource {
  readonly status: StatusSource;
  readonly readiness: Readiness;
  readonly held: HeldBook;
  readonly peers: PeerBook;
  readonly clock: Pick<Clock, 'now' | 'monotonic'>;
  connections(): Iterable<{ readonly listener: ListenerRef; readonly sessions: Iterable<LiveConnection> }>;
  /** Undefined if SDS is not served. */
  sds(): SdsStatus | undefined;
}
