import type { CertificateKind } from '../admin/api-types.ts';

/** In the order in which they are shown. */
export const KINDS: Readonly<Record<CertificateKind, number>> = {
  svid: 0,
  intermediate: 1,
  authority: 2,
  peer: 3,
  peer_intermediate: 4,
  refused: 5,
};
export const CERTIFICATE_KINDS = Object.keys(KINDS) as readonly CertificateKind[];
