import type { IdentitySnapshot } from '../identity/snapshot.ts';
import type { DenyReason } from '../policy/verdict.ts';

export type Direction = 'inbound' | 'outbound';

/** Why a connection that had been admitted ended. One closed set: the `reason` label of `scute_tcp_close_total` and the log field. */
export const CLOSE_REASONS = [
  'finished', // both sides ended in order
  'downstream_reset',
  'upstream_reset',
  'upstream_refused', // nothing listens, or no route
  'upstream_timeout', // connect timeout
  'upstream_unresolved', // DNS
  'upstream_denied', // outbound: the server is not who it must be
  'upstream_tls_failed', // outbound: the TLS handshake failed
  'idle_timeout',
  'lifetime',
  'authority_removed',
  'revoked',
  'policy',
  'identity_withdrawn',
  'denied', // inbound: never admitted
  'handshake_failed', // inbound: never authenticated
  'shutdown', // drained to the deadline, then forced
  'internal_error',
] as const;
export type CloseReason = (typeof CLOSE_REASONS)[number];

/** Why a connection was dropped before anything was read from it. */
export const REFUSED_ACCEPT_REASONS = [
  'connection_limit',
  'handshake_limit',
  'file_limit',
  'accept_error',
  'draining',
  'identity_not_ready',
] as const;
export type RefusedAcceptReason = (typeof REFUSED_ACCEPT_REASONS)[number];

/** Counted on the data path in plain integers and read when metrics are scraped. One a listener; the listener is its only writer. */
export interface ListenerCounters {
  opened: number;
  open: number;
  /** TLS handshakes under way. */
  handshaking: number;
  /** Accepted, but waiting unread for a place. */
  waiting: number;
  /** Application bytes, as the downstream and the upstream side see them: read from, written to. */
  downstreamReadBytes: number;
  downstreamWrittenBytes: number;
  upstreamReadBytes: number;
  upstreamWrittenBytes: number;
}

export interface ListenerRef {
  readonly name: string;
  readonly direction: Direction;
}

/** What is said of one connection when it has ended: one log line. */
export interface ConnectionRecord {
  readonly id: number;
  readonly downstreamAddress: string;
  readonly upstreamAddress: string;
  /** Inbound: who connected. Outbound: whom we reached. Undefined if never authenticated. */
  readonly peerId: string | undefined;
  readonly issuerKeyId: string | undefined;
  readonly serial: string | undefined;
  readonly tlsVersion: string | undefined;
  readonly alpn: string | undefined;
  readonly verdict: 'allow' | 'deny' | 'none';
  /** The deny reason, or the close reason of an admitted connection. */
  readonly reason: DenyReason | CloseReason;
  readonly closeReason: CloseReason;
  /** A sentence: expected against offered, the TLS error, the errno. */
  readonly detail: string | undefined;
  readonly rule: string | undefined;
  readonly bytesFromDownstream: number;
  readonly bytesToDownstream: number;
  readonly durationMs: number;
  readonly handshakeMs: number | undefined;
}

/** One function for each thing that happens: the metric and the log line together, so that they cannot disagree. */
export interface Events {
  /** The counters of one listener; call once a listener, when it is made. */
  registerListener(listener: ListenerRef): ListenerCounters;
  listenerBound(listener: ListenerRef, address: string): void;
  /** Rate-limited in the log, always counted. */
  acceptRefused(listener: ListenerRef, reason: RefusedAcceptReason, detail: string): void;
  /** `reason` is `ok` or why the handshake or the authentication failed. */
  handshakeFinished(listener: ListenerRef, reason: 'ok' | DenyReason, durationMs: number): void;
  /** `rule` is the allow-list entry, empty when denied. */
  authorised(listener: ListenerRef, decision: 'allow' | 'deny', rule: string): void;
  connectionClosed(listener: ListenerRef, record: ConnectionRecord): void;
  /** The application can be reached around Scute at `addresses`; empty: no longer. */
  applicationExposed(listener: ListenerRef, addresses: readonly string[]): void;

  workloadApiConnected(endpoint: string): void;
  /** `code` is the gRPC status name, or `TRANSPORT`. */
  workloadApiStreamFailed(error: { readonly code: string; readonly message: string }, retryInMs: number): void;
  identityUpdated(snapshot: IdentitySnapshot): void;
  identityUpdateRejected(problem: { readonly code: string; readonly message: string }): void;

  configReloaded(differences: readonly string[], needRestart: readonly string[]): void;
  configReloadFailed(problems: readonly string[]): void;
  stopping(reason: string, openConnections: number): void;
  stopped(drained: boolean, forcedConnections: number): void;
}
