import type { KeyObject, X509Certificate } from 'node:crypto';

/** One parsed X.509 certificate: everything that Scute judges or shows, read once from the DER. Immutable. */
export interface Certificate {
  /** For signature checks with `verify`; never for its string renderings. */
  readonly x509: X509Certificate;
  readonly publicKey: KeyObject;
  /** SHA-256 of the DER, lower-case hex: the identity of this very certificate. */
  readonly sha256: string;
  /** Lower-case hex without leading zero bytes. */
  readonly serial: string;
  /** RFC 4514-like text, for logs and pages only. */
  readonly subject: string;
  readonly issuer: string;
  /** DER of the names as hex: chains are linked by these, byte for byte. */
  readonly subjectDer: string;
  readonly issuerDer: string;
  /** Lower-case hex. */
  readonly subjectKeyId: string | undefined;
  readonly authorityKeyId: string | undefined;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** A copy of the DER. */
  der(): Uint8Array;
  pem(): string;
}
