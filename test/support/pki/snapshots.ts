import type { HeldIdentity } from '../../../src/identity/snapshot.ts';
import { parseTrustDomain } from '../../../src/spiffe/trust-domain.ts';
import { buildTrustBundle, type TrustBundle } from '../../../src/spiffe/trust-bundle.ts';
import { buildX509Svid, type X509Svid } from '../../../src/spiffe/x509-svid.ts';
import type { CertificateOptions, TestAuthority } from './pki.ts';

/** The bundle of a test authority's trust domain, with the revocation lists of the message. */
export function bundleOf(authority: TestAuthority, crls: readonly Uint8Array[] = []): TrustBundle {
  const domain = parseTrustDomain(authority.trustDomain);
  if (!domain.ok) throw new Error(domain.error);
  const bundle = buildTrustBundle(domain.value, authority.der, crls);
  if (!bundle.ok) throw new Error(bundle.error.message);
  return bundle.value;
}

/** An SVID of ours under `authority`, as it is after the Workload API source has accepted it. */
export function svidOf(authority: TestAuthority, id: string, options: CertificateOptions & { readonly hint?: string } = {}): X509Svid {
  const leaf = authority.issue({ ...options, id });
  const material = { spiffeId: id, chainDer: leaf.chainDer, keyDer: leaf.keyDer, hint: options.hint ?? '' };
  // Made at a moment when it is valid, even if the test then looks at it before or after.
  const nowMs = Math.min(Math.max(Date.now(), options.notBefore ?? 0), options.notAfter ?? Number.POSITIVE_INFINITY);
  const svid = buildX509Svid(material, bundleOf(authority), nowMs);
  if (!svid.ok) throw new Error(svid.error.message);
  return svid.value;
}

/** A snapshot of these SVIDs and of the bundles of these authorities. */
export function heldSnapshot(
  svids: readonly [X509Svid, ...X509Svid[]],
  authorities: readonly TestAuthority[] = [],
  generation = 1,
): HeldIdentity {
  const bundles = new Map(authorities.map((authority) => bundleOf(authority)).map((bundle) => [bundle.trustDomain, bundle]));
  return Object.freeze({ kind: 'held', generation, receivedAtMs: Date.now(), svids, bundles, endpointBundles: new Map() });
}
