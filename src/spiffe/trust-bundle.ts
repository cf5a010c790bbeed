import type { Certificate } from './certificate.ts';
import type { Crl } from './crl.ts';
import type { TrustDomain } from './trust-domain.ts';

/** The X.509 authorities of one trust domain, and the revocation lists that they signed. Empty means that nobody of it is trusted. */
export interface TrustBundle {
  readonly trustDomain: TrustDomain;
  readonly authorities: readonly Certificate[];
  /** Those of the Workload API's lists whose issuer and signature match an authority above, or an intermediate that one of them signed (spec C.5). */
  readonly crls: readonly Crl[];
}
