/** What happened, as those who count it and those who write it down share it: the closed sets of reasons, and what is said of a connection and a request. */
import type { DenyReason, PolicyReason, VerdictFor } from '../../policy/verdict.ts';
import type { SpiffeId } from '../../spiffe/spiffe-id.ts';
import type { TokenRefusal } from './jwt-records.ts';

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
  'token_ended', // inbound: what its token had admitted was under way
  'identity_withdrawn',
  'peer_svid_expired',
  'own_svid_expired',
  'drain_requested', // over the admin listener
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

/** How the wait for our first SVID ended. One closed set: the `result` label of `scute_identity_waits_total`. */
export const IDENTITY_WAIT_RESULTS = [
  'came', // and it went on
  'timeout', // not within `identityWait`
  'limit', // as many waited as may
  'left', // whoever waited did not wait for it
  'withdrawn', // another identity came and went meanwhile
  'stopping',
] as const;
export type IdentityWaitResult = (typeof IDENTITY_WAIT_RESULTS)[number];

/** How a request over HTTP went. One closed set: the `result` label of `scute_http_requests_total` and the log field. */
export const HTTP_RESULTS = [
  'forwarded', // the application's response, whole
  'denied', // 403
  'token_refused', // 401, 400 or 503: for its token, or for want of one
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
  'token_unavailable', // 503, outbound: there is no valid token to attach
  'downstream_closed', // the caller left before it had the response
  'dropped', // the connection was closed for a reason of its own: its line says which
] as const;
export type HttpResult = (typeof HTTP_RESULTS)[number];

/** Why the admin or metrics listener did not do what a request asked. One closed set: the `reason` label of the metric, and `error` in answers of the API. */
export const STATUS_REFUSALS = [
  'bad_request', // 400: no HTTP, not exactly one Host, no path, a parameter that is not understood, a body that is not JSON
  'head_too_large', // 431
  'foreign_host', // 421: addressed to a name that is not ours (DNS rebinding)
  'foreign_origin', // 403: from a page of another origin
  'cross_site', // 403: from a page of another site
  'not_found', // 404
  'bad_method', // 405
  'bad_body', // 413 or 415
  'too_many_streams', // 503: as many pages listen as may
] as const;
export type StatusRefusal = (typeof STATUS_REFUSALS)[number];

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
  readonly verdict: VerdictFor<DenyReason | TokenRefusal> | undefined;
  /** Whose JWT-SVID it brought, verified. */
  readonly subject: SpiffeId | undefined;
  /** With heads; over HTTP/1 with framing, too. */
  readonly bytesFromDownstream: number;
  readonly bytesToDownstream: number;
  readonly durationMs: number;
  /** How often it was sent once more, since a connection was closed under it: 0 or 1. */
  readonly retries: number;
}

/** Whether the connection, or its stream, was switched to another protocol (RFC 9110, section 7.8; RFC 8441). */
export function isSwitched({ method, status }: Pick<RequestRecord, 'method' | 'status'>): boolean {
  return status === 101 || (method === 'CONNECT' && status >= 200 && status < 300);
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

/** Those of a listener that nobody has connected to. */
export function emptyCounters(): ListenerCounters {
  return {
    opened: 0,
    open: 0,
    handshaking: 0,
    waiting: 0,
    downstreamReadBytes: 0,
    downstreamWrittenBytes: 0,
    upstreamReadBytes: 0,
    upstreamWrittenBytes: 0,
  };
}

export interface ListenerRef {
  readonly name: string;
  readonly direction: Direction;
}

/** What is said of a connection to a server that was ended between requests, while the application's goes on. */
export interface DismissedServer {
  /** The number of the application's connection. */
  readonly connection: number;
  readonly peerId: string | undefined;
  readonly reason: CloseReason;
  readonly detail: string;
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
  /** The rule that decided. */
  readonly rule: string | undefined;
  /** Only audit let it in: what it would have been refused for. */
  readonly audited: PolicyReason | undefined;
  readonly bytesFromDownstream: number;
  readonly bytesToDownstream: number;
  readonly durationMs: number;
  readonly handshakeMs: number | undefined;
}
