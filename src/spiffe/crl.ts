/** One certificate revocation list, its signature already checked against the authority named by its issuer. Immutable. */
export interface Crl {
  readonly issuerDer: string;
  readonly thisUpdateMs: number;
  readonly nextUpdateMs: number | undefined;
  isRevoked(serial: string): boolean;
}
