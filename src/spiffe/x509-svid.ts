import type { KeyObject } from 'node:crypto';
import type { Certificate } from './certificate.ts';
import type { SpiffeId } from './spiffe-id.ts';

/** One of our own identities: a SPIFFE certificate with its chain and private key (X509-SVID standard). */
export interface X509Svid {
  readonly id: SpiffeId;
  /** What the Workload API says that this identity is for; empty if it does not say. For selection, never for security. */
  readonly hint: string;
  /** Leaf first, then its intermediates as sent; no root unless the agent sent one. */
  readonly chain: readonly Certificate[];
  /** Stays a KeyObject everywhere but where TLS contexts and SDS secrets are made. */
  readonly key: KeyObject;
  /** The authority that the chain ends in, found by verifying our own SVID as we would a peer's. */
  readonly authority: Certificate;
}
