import type { Certificate } from './certificate.ts';
import type { PeerProblem } from './peer-problems.ts';
import type { Result } from '../lib/result.ts';
import type { SpiffeId } from './spiffe-id.ts';
import type { TrustBundle } from './trust-bundle.ts';
import type { TrustDomain } from './trust-domain.ts';

/** A peer whose chain was verified. Who it is, not what it may do. */
export interface AuthenticatedPeer {
  readonly id: SpiffeId;
  readonly leaf: Certificate;
  /** Leaf first, authority last: the path that our own walk found. */
  readonly path: readonly Certificate[];
  /** The X.509 authority of the peer's own trust domain that the path ends in. */
  readonly authority: Certificate;
  /** Earliest end of validity in the path, and of the lists consulted: this answer must not be used after it. */
  readonly validUntilMs: number;
}

export interface PeerRefusal {
  readonly problem: PeerProblem;
  /** A sentence with the offending value, for logs. */
  readonly detail: string;
  /** The SPIFFE ID that the leaf claims, if it has a valid one: unproven. */
  readonly claimedId: SpiffeId | undefined;
}

export declare function verifyPeer(
  chainDer: readonly Uint8Array[],
  bundles: ReadonlyMap<TrustDomain, TrustBundle>,
  nowMs: number,
): Result<AuthenticatedPeer, PeerRefusal>;
