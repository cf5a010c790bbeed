import type { DenyReason } from '../policy/verdict.ts';
import type { CloseReason, Direction, HttpResult } from '../telemetry/events.ts';
import type { OwnStatus } from './http-answer.ts';
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
    default:
      return 'protocol_error';
  }
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

/** What a request is answered whose application could not be connected to, from the system's code. */
export function connectStatus(code: string): { readonly status: OwnStatus; readonly result: HttpResult } {
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
