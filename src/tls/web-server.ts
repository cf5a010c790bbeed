/** Whether a server of the public web is who it must be, by the rules of the web alone. */
import { X509Certificate } from 'node:crypto';
import { isIpAddress } from '../config/units.ts';
import { err, ok, type Result } from '../lib/result.ts';
import type { DenyReason } from '../policy/verdict.ts';
import type { SecureConnection } from '../transport/connection.ts';

export interface WebServer {
  /** Wall time at which its certificate expires. */
  readonly expiresAtMs: number;
}

export interface WebRefusal {
  readonly reason: DenyReason;
  readonly detail: string;
}

/**
 * Judges the server of a finished handshake: an authority of its TLS context vouches for its certificate, which is for `host` (RFC 9525). `host`
 * is a name or an IP address, without brackets; nothing that the certificate says of a subject counts for it.
 */
export function judgeWebServer(connection: SecureConnection, host: string): Result<WebServer, WebRefusal> {
  const { libraryProblem, leafDer } = connection.readPeerEvidence();
  if (leafDer === undefined) return refuse('no_certificate', 'the server sent no certificate');
  if (libraryProblem !== undefined) return refuse(reasonOf(libraryProblem), `OpenSSL does not trust the chain: ${libraryProblem}`);
  if (leafDer === 'too_large' || leafDer === 'unreadable') return refuse('bad_certificate', 'the certificate is not worth reading');
  const certificate = new X509Certificate(leafDer);
  const vouched = isIpAddress(host)
    ? certificate.checkIP(host)
    : certificate.checkHost(host, { subject: 'never', partialWildcards: false });
  if (vouched === undefined) return refuse('wrong_name', `the certificate is not for ${JSON.stringify(host)}`);
  return ok({ expiresAtMs: certificate.validToDate.getTime() });
}

function reasonOf(libraryProblem: string): DenyReason {
  switch (libraryProblem) {
    case 'CERT_HAS_EXPIRED':
      return 'expired';
    case 'CERT_NOT_YET_VALID':
      return 'not_yet_valid';
    // Not of an authority that was sent with the chain, which is merely a foreign one.
    case 'DEPTH_ZERO_SELF_SIGNED_CERT':
      return 'self_signed';
    case 'CERT_SIGNATURE_FAILURE':
      return 'bad_certificate';
    default:
      return 'untrusted_chain';
  }
}

function refuse(reason: DenyReason, detail: string): Result<never, WebRefusal> {
  return err({ reason, detail });
}
