import type { DenyReason } from '../policy/verdict.ts';
import type { CloseReason, Direction, HttpResult } from '../telemetry/log/records.ts';
import { TOO_MUCH_SENT } from '../transport/handshake-bytes.ts';
import type { OwnStatus } from '../http1/own-answer.ts';
import type { Side } from './tcp-forwarder.ts';

/** Why a TLS handshake did not finish, from OpenSSL's or the system's code. */
export function handshakeProblem(code: string): DenyReason {
  switch (code) {
    case 'ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE':
      return 'no_certificate';
    case 'ERR_SSL_CERTIFICATE_VERIFY_FAILED':
    case 'ERR_SSL_BAD_SIGNATURE':
    case 'ERR_SSL_WRONG_CERTIFICATE_TYPE':
    case 'ERR_SSL_UNSUPPORTED_SIGNATURE_TYPE':
      return 'bad_certificate';
    case TOO_MUCH_SENT:
      return 'chain_not_read';
    default:
      return 'protocol_error';
  }
}

/** Identity may come any moment, and may never: whoever asks again soon costs little. */
const AWAITED_RETRY_S = 1;

/** Why there is no connection to send to: what a request is answered, and what is said of the connection. */
export interface UpstreamFailure {
  readonly status: OwnStatus;
  readonly result: HttpResult;
  readonly closeReason: CloseReason;
  /** For whoever asked: words of ours alone. */
  readonly detail: string;
  /** For the log. */
  readonly message: string;
  /** In how many seconds it may be otherwise, if that can be said. */
  readonly retryAfterS?: number | undefined;
}

/** Whom a text means: inbound, the application beside us; outbound, the server, which may have a sidecar of its own. */
export type Who = 'the application' | 'the server';

/** The other side could not be reached, for what the system's code says. */
export function connectFailure(who: Who, code: string, message: string): UpstreamFailure {
  return { ...connectStatus(code), closeReason: connectProblem(code), detail: whyUnreached(who, code), message };
}

function whyUnreached(who: Who, code: string): string {
  if (connectProblem(code) === 'upstream_unresolved') return `the name of ${who} has no address`;
  if (code === 'ETIMEDOUT') return `${who} did not accept the connection in time`;
  if (code === 'ECONNRESET') return whyReset(who, 'at once');
  return `${who} cannot be reached`;
}

/** A sidecar that has no identity yet closes what it accepts. */
function whyReset(who: Who, when: string): string {
  return `${who} closed the connection ${when}${who === 'the server' ? ': its sidecar may not be ready' : ''}`;
}

/** The server was reached, but there was no TLS with it. `code` is that of the TLS library or the system, if one of them said why. */
export function handshakeFailure(reason: DenyReason, code: string | undefined, message: string): UpstreamFailure {
  const closeReason = 'upstream_tls_failed';
  if (reason === 'handshake_timeout')
    return { status: 504, result: 'upstream_timeout', closeReason, detail: 'the server did not finish the TLS handshake in time', message };
  if (code === 'ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL') return notHttp2Failure(message);
  const detail =
    code === 'ECONNRESET' ? whyReset('the server', 'within the TLS handshake') : `the TLS handshake with the server failed: ${reason}`;
  return { status: 502, result: 'upstream_failed', closeReason, detail, message };
}

/** The server was found to be who it must be, or said so before that: it does not speak what is offered, which is HTTP/2 alone. */
export function notHttp2Failure(message: string): UpstreamFailure {
  const detail = 'the server does not speak HTTP/2';
  return { status: 502, result: 'upstream_failed', closeReason: 'upstream_tls_failed', detail, message };
}

/** The server is not who it must be. */
export function deniedFailure(reason: DenyReason, message: string): UpstreamFailure {
  const detail = `the server is not who it must be: ${reason}`;
  return { status: 502, result: 'upstream_denied', closeReason: 'upstream_denied', detail, message };
}

/** Scute itself has nothing to present; `isAwaited`: not yet. */
export function notReadyFailure(message: string, isAwaited = false): UpstreamFailure {
  return {
    status: 503,
    result: 'identity_not_ready',
    closeReason: 'identity_withdrawn',
    detail: isAwaited ? 'there is no SVID to present yet' : 'there is no SVID to present',
    message,
    retryAfterS: isAwaited ? AWAITED_RETRY_S : undefined,
  };
}

/** Why the upstream could not be reached, from the system's code. */
export function connectProblem(code: string): CloseReason {
  switch (code) {
    case 'ETIMEDOUT':
      return 'upstream_timeout';
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
    case 'EAI_FAIL':
    case 'EAI_NODATA':
    case 'EAI_NONAME':
      return 'upstream_unresolved';
    default:
      return 'upstream_refused';
  }
}

/** What a request is answered for which there was no connection, from the system's code. */
function connectStatus(code: string): { readonly status: OwnStatus; readonly result: HttpResult } {
  switch (code) {
    case 'ETIMEDOUT':
      return { status: 504, result: 'upstream_timeout' };
    case 'EMFILE':
    case 'ENFILE':
    case 'ENOBUFS':
    case 'ENOMEM':
    case 'EADDRNOTAVAIL':
      return { status: 503, result: 'overloaded' };
    default:
      return { status: 502, result: 'upstream_refused' };
  }
}

/** Why an open connection broke. A server that refuses our certificate says so only after a TLS 1.3 handshake. */
export function brokenProblem(direction: Direction, side: Side, code: string | undefined): CloseReason {
  if (side === 'downstream') return 'downstream_reset';
  return direction === 'outbound' && code?.startsWith('ERR_SSL_') === true ? 'upstream_tls_failed' : 'upstream_reset';
}
