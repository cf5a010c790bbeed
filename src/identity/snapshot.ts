import type { BundleDocument } from '../spiffe/bundle-document.ts';
import type { JwtBundles } from '../spiffe/jwt-bundle.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import type { TrustBundle } from '../spiffe/trust-bundle.ts';
import type { TrustDomain } from '../spiffe/trust-domain.ts';
import type { X509Svid } from '../spiffe/x509-svid.ts';

/** Everything that we know about identity at one moment. Frozen: readers may keep it and compare it by generation, never change it. */
export type IdentitySnapshot = HeldIdentity | NoIdentity;

interface Common {
  /** Grows by one with each accepted update. TLS contexts, caches and SDS versions are kept by it. */
  readonly generation: number;
  /** Wall time of the update, milliseconds since 1970. */
  readonly receivedAtMs: number;
  /** Ours and the federated ones. A peer is verified against the bundle of *its own* trust domain only. */
  readonly bundles: ReadonlyMap<TrustDomain, TrustBundle>;
  /**
   * For JWT-SVIDs alone: a token is verified with the bundle of the trust domain in its own `sub`. Undefined: nobody asked for them, or they
   * have not come yet. A profile of its own of the Workload API, so it may be held without an SVID, and the reverse.
   */
  readonly jwtBundles?: JwtBundles | undefined;
}

/** By trust domain, as the configuration binds it to an endpoint: a document does not say whose it is. */
export type EndpointBundles = ReadonlyMap<TrustDomain, BundleDocument>;

export interface HeldIdentity extends Common {
  readonly kind: 'held';
  /** In the Workload API's order, never empty; the first is the default. */
  readonly svids: readonly [X509Svid, ...X509Svid[]];
  /** Those of `bundles` that bundle endpoints gave, as they gave them, with what is not for X.509. The others are the Workload API's. */
  readonly endpointBundles: EndpointBundles;
}

/** The agent says that we hold no identity (PermissionDenied): everything held before is withdrawn. */
export interface NoIdentity extends Common {
  readonly kind: 'none';
  /** A sentence for logs and status pages. */
  readonly reason: string;
}

/** Which of several SVIDs a listener presents: the default one, or one named by SPIFFE ID or by hint. */
export type SvidChoice =
  | { readonly by: 'default' }
  | { readonly by: 'id'; readonly id: SpiffeId }
  | { readonly by: 'hint'; readonly hint: string };

/** The SVID that `choice` names, or undefined if the snapshot has none such, or none is asked for. Never falls back to another identity. */
export function chooseSvid(snapshot: IdentitySnapshot | undefined, choice: SvidChoice | undefined): X509Svid | undefined {
  if (snapshot?.kind !== 'held' || choice === undefined) return undefined;
  switch (choice.by) {
    case 'default':
      return snapshot.svids[0];
    case 'id':
      return snapshot.svids.find((svid) => svid.id === choice.id);
    case 'hint':
      return snapshot.svids.find((svid) => svid.hint === choice.hint);
  }
}
