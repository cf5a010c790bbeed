import type { LogLevel } from '../config/config.ts';
import type { IdentitySnapshot } from '../identity/snapshot.ts';
import type { Clock } from '../lib/clock.ts';
import type { DenyReason, Verdict } from '../policy/verdict.ts';
import type { LogFields, Logger } from './logger.ts';
import { countRequest, type ListenerMetrics, type Metrics } from './metrics.ts';
import { connectionMembers, requestMembers } from './traffic-lines.ts';
import { createSdsEvents, type SdsEvents } from './sds-events.ts';

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
  'svid_expired', // http: the peer's or ours; ended between requests
  'waiting_limit', // it waited for a place for too long, or too much was kept of those that wait
  'denied', // inbound: never admitted
  'handshake_failed', // inbound: never authenticated
  'shutdown', // drained to the deadline, then forced
  'protocol_error', // inbound: broke the rules of HTTP/2, or flooded it
  'internal_error',
] as const;
export type CloseReason = (typeof CLOSE_REASONS)[number];

/** Why a connection was dropped before anything was read from it. */
export const REFUSED_ACCEPT_REASONS = [
  'connection_limit',
  'handshake_limit',
  'waiting_limit',
  'file_limit',
  'accept_error',
  'draining',
  'identity_not_ready',
] as const;
export type RefusedAcceptReason = (typeof REFUSED_ACCEPT_REASONS)[number];

/** How a request over HTTP went. One closed set: the `result` label of `scute_http_requests_total` and the log field. */
export const HTTP_RESULTS = [
  'forwarded', // the application's response, whole
  'denied', // 403
  'bad_request', // 400
  'head_too_large', // 431
  'too_large', // 413
  'timeout', // 408: the caller was too slow
  'upstream_refused', // 502: nothing listens, or no route
  'upstream_timeout', // 504: no connection or no response in time
  'upstream_failed', // 502, or a reset if the response had begun
  'upstream_denied', // 502, outbound: the server is not who it must be
  'overloaded', // 503: no descriptors or memory for a connection
  'identity_not_ready', // 503, outbound: there is no SVID to present to the server
  'downstream_closed', // the caller left before it had the response
  'dropped', // the connection was closed for a reason of its own: its line says which
] as const;
export type HttpResult = (typeof HTTP_RESULTS)[number];

/** What is said of one request when it is over: one log line. */
export interface RequestRecord {
  /** The number of the connection's own line. */
  readonly connection: number;
  readonly peerId: string | undefined;
  /** Of HTTP, as the caller spoke it. */
  readonly version: '1.0' | '1.1' | '2';
  /** Empty if the head could not be read. */
  readonly method: string;
  readonly target: string;
  readonly host: string;
  /** What the caller was sent; 0 if nothing. */
  readonly status: number;
  readonly result: HttpResult;
  /** Why it failed. */
  readonly detail: string | undefined;
  /** Undefined if there was nothing to judge. */
  readonly verdict: Verdict | undefined;
  /** With heads; over HTTP/1 with framing, too. */
  readonly bytesFromDownstream: number;
  readonly bytesToDownstream: number;
  readonly durationMs: number;
}

/** Counted on the data path in plain integers and read when metrics are scraped. One a listener; the listener is its only writer. */
export interface ListenerCounters {
  opened: number;
  open: number;
  /** TLS handshakes under way. */
  handshaking: number;
  /** Accepted, but waiting for a place. */
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
  /** The load balancer that announced the downstream address, if one did. */
  readonly via: string | undefined;
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
  started(version: string): void;
  /** The counters of one listener; call once a listener, when it is made. */
  registerListener(listener: ListenerRef): ListenerCounters;
  listenerBound(listener: ListenerRef, address: string): void;
  /** `metrics`, `admin` or `sds` is bound. */
  statusListenerBound(name: string, address: string): void;
  /** Rate-limited in the log, always counted. */
  acceptRefused(listener: ListenerRef, reason: RefusedAcceptReason, detail: string): void;
  /** `reason` is `ok` or why the handshake or the authentication failed. */
  handshakeFinished(listener: ListenerRef, reason: 'ok' | DenyReason, durationMs: number): void;
  /** `rule` is the allow-list entry, empty when denied. */
  authorised(listener: ListenerRef, decision: 'allow' | 'deny', rule: string): void;
  connectionClosed(listener: ListenerRef, record: ConnectionRecord): void;
  requestFinished(listener: ListenerRef, record: RequestRecord): void;
  /** The application can be reached around Scute at `addresses`; empty: no longer. */
  applicationExposed(listener: ListenerRef, addresses: readonly string[]): void;

  workloadApiConnected(endpoint: string): void;
  /** `code` is the gRPC status name, or `TRANSPORT`. */
  workloadApiStreamFailed(error: { readonly code: string; readonly message: string }, retryInMs: number): void;
  identityUpdated(snapshot: IdentitySnapshot): void;
  identityUpdateRejected(problem: { readonly code: string; readonly message: string }): void;

  /** What happens on the SDS socket. */
  readonly sds: SdsEvents;

  logLevelChanged(from: LogLevel, to: LogLevel): void;
  configReloaded(differences: readonly string[], needRestart: readonly string[]): void;
  configReloadFailed(problems: readonly string[]): void;
  stopping(reason: string, openConnections: number): void;
  stopped(drained: boolean, forcedConnections: number): void;
}

export interface EventsOptions {
  readonly logger: Logger;
  readonly metrics: Metrics;
  readonly clock: Clock;
}

/** Of lines that an attacker or a broken agent could repeat at will, one of each kind is written in this time. */
const REPEAT_LOG_MS = 5000;

type LineLevel = 'debug' | 'info' | 'warn' | 'error';

/** How loud the line of an ended connection is. What a stranger can cause is never louder than `info`. */
const CLOSE_LEVELS: Readonly<Record<CloseReason, LineLevel>> = {
  finished: 'info',
  downstream_reset: 'info',
  upstream_reset: 'info',
  upstream_refused: 'warn',
  upstream_timeout: 'warn',
  upstream_unresolved: 'warn',
  upstream_denied: 'warn',
  upstream_tls_failed: 'warn',
  idle_timeout: 'info',
  lifetime: 'info',
  authority_removed: 'info',
  revoked: 'info',
  policy: 'info',
  identity_withdrawn: 'info',
  svid_expired: 'info',
  waiting_limit: 'info',
  denied: 'info',
  handshake_failed: 'info',
  shutdown: 'info',
  protocol_error: 'info',
  internal_error: 'error',
};

/** A partner decides how many there are. */
const MAX_NOTES = 20;

/** The one place where metrics are counted and lines are written. */
export function createEvents({ logger, metrics, clock }: EventsOptions): Events {
  // A WeakMap look-up by the listener object itself is all that a hot call pays to find its numbers.
  const known = new WeakMap<ListenerRef, ListenerMetrics>();
  const numbersOf = (listener: ListenerRef): ListenerMetrics => {
    let numbers = known.get(listener);
    if (numbers === undefined) {
      numbers = metrics.listener(listener);
      known.set(listener, numbers);
    }
    return numbers;
  };
  const repeated = createRepeatFilter(clock);
  const exposed = new Set<string>();

  return {
    started(version) {
      logger.info({ version, node: process.versions.node, openssl: process.versions.openssl, pid: process.pid }, 'started');
    },
    registerListener: (listener) => numbersOf(listener).counters,
    listenerBound(listener, address) {
      logger.info({ direction: listener.direction, listener: listener.name, address }, 'listening');
    },
    statusListenerBound(name, address) {
      logger.info({ listener: name, address }, 'listening');
    },
    acceptRefused(listener, reason, detail) {
      numbersOf(listener).refusedAccepts[reason] += 1;
      repeated(`accept ${listener.direction} ${listener.name} ${reason}`, (count) =>
        logger.warn({ direction: listener.direction, listener: listener.name, reason, detail, count }, 'connections refused unread'),
      );
    },
    handshakeFinished(listener, reason, durationMs) {
      const numbers = numbersOf(listener);
      numbers.handshakes[reason] += 1;
      numbers.handshakeDurations.observe(durationMs);
    },
    authorised(listener, decision, rule) {
      const numbers = numbersOf(listener);
      if (decision === 'allow') numbers.allowed.add(rule);
      else numbers.denied += 1;
    },
    connectionClosed(listener, record) {
      numbersOf(listener).closes[record.closeReason] += 1;
      // A load balancer's probe connects and hangs up; nobody wants a line for each.
      const isProbe = record.closeReason === 'downstream_reset' && record.verdict === 'none';
      const level = isProbe ? 'debug' : CLOSE_LEVELS[record.closeReason];
      if (logger.isLevelEnabled(level)) logger.members(level, connectionMembers(listener, record), 'connection closed');
    },
    requestFinished(listener, record) {
      const numbers = numbersOf(listener);
      countRequest(numbers.requests, record.status, record.result);
      // A WebSocket lasts as long as it is wanted.
      if (record.status !== 101) numbers.requestDurations.observe(record.durationMs);
      if (logger.isLevelEnabled('info')) logger.members('info', requestMembers(listener, record), 'request finished');
    },
    applicationExposed(listener, addresses) {
      metrics.setApplicationExposed(listener, addresses.length > 0);
      if (addresses.length > 0) {
        exposed.add(listener.name);
        logger.warn({ direction: listener.direction, listener: listener.name, addresses }, 'the application can be reached around Scute');
      } else if (exposed.delete(listener.name)) {
        logger.info({ direction: listener.direction, listener: listener.name }, 'the application can no longer be reached around Scute');
      }
    },

    workloadApiConnected(endpoint) {
      metrics.setWorkloadApiConnected(true);
      logger.info({ endpoint }, 'Workload API connected');
    },
    workloadApiStreamFailed(error, retryInMs) {
      metrics.setWorkloadApiConnected(false);
      metrics.workloadApiErrors.add(error.code);
      repeated(`workload-api ${error.code}`, (count) =>
        logger.warn({ code: error.code, detail: error.message, retry_in_ms: Math.round(retryInMs), count }, 'Workload API stream failed'),
      );
    },
    identityUpdated(snapshot) {
      metrics.setIdentity(snapshot);
      metrics.identityUpdates.ok.add(snapshot.kind === 'held' ? 'ok' : 'no_identity');
      if (snapshot.kind === 'held') logger.info(identityFields(snapshot), 'identity updated');
      else logger.warn({ generation: snapshot.generation, reason: snapshot.reason }, 'identity withdrawn');
      const notes = [...snapshot.bundles.values()].flatMap((bundle) => bundle.notes);
      if (notes.length > 0)
        logger.warn({ notes: notes.slice(0, MAX_NOTES), count: notes.length }, 'not everything in the trust bundles is used');
    },
    identityUpdateRejected(problem) {
      metrics.identityUpdates.rejected.add(problem.code);
      repeated(`update ${problem.code}`, (count) =>
        logger.warn({ code: problem.code, detail: problem.message, count }, 'identity update rejected; the last good one stays in force'),
      );
    },

    sds: createSdsEvents({ logger, metrics: metrics.sds, repeated }),

    logLevelChanged(from, to) {
      logger.warn({ from, to }, 'log level changed');
    },
    configReloaded(differences, needRestart) {
      metrics.configReloads.ok += 1;
      logger.info({ differences }, 'configuration reloaded');
      if (needRestart.length > 0) logger.warn({ settings: needRestart }, 'some settings take effect only after a restart');
    },
    configReloadFailed(problems) {
      metrics.configReloads.failed += 1;
      logger.error({ problems }, 'configuration not reloaded; the old one stays in force');
    },
    stopping(reason, openConnections) {
      logger.info({ reason, open_connections: openConnections }, 'stopping');
    },
    stopped(drained, forcedConnections) {
      logger.info({ drained, forced_connections: forcedConnections }, 'stopped');
    },
  };
}

function identityFields(snapshot: IdentitySnapshot & { readonly kind: 'held' }): LogFields {
  return {
    generation: snapshot.generation,
    svids: snapshot.svids.map((svid) => {
      const [leaf] = svid.chain;
      return {
        spiffe_id: svid.id,
        hint: svid.hint,
        serial: leaf?.serial,
        issuer_key_id: leaf?.authorityKeyId,
        expires_at: leaf === undefined ? undefined : isoTime(leaf.notAfterMs),
      };
    }),
    trust_domains: [...snapshot.bundles.keys()],
  };
}

/** Certificates may carry dates that JavaScript cannot write. */
function isoTime(ms: number): string {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? 'unknown' : date.toISOString();
}

/** Calls `log(1)` for the first of a kind; those that follow are gathered, and told with their number each time the window is over. */
function createRepeatFilter(clock: Clock): (kind: string, log: (count: number) => void) => void {
  const windows = new Map<string, { count: number; log: (count: number) => void }>();
  const open = (kind: string): void => {
    clock.after(REPEAT_LOG_MS, () => {
      const window = windows.get(kind);
      if (window === undefined) return;
      if (window.count === 0) {
        windows.delete(kind);
        return;
      }
      const { count, log } = window;
      window.count = 0;
      log(count);
      open(kind);
    });
  };
  return (kind, log) => {
    const window = windows.get(kind);
    if (window !== undefined) {
      window.count += 1;
      window.log = log;
      return;
    }
    windows.set(kind, { count: 0, log });
    log(1);
    open(kind);
  };
}
