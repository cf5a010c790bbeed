import type { TrustBundle } from '../spiffe/trust-bundle.ts';

/**
 * Why the revocation lists of a trust domain cannot be given to Envoy, a sentence; or undefined if they can. Envoy then wants a list of every
 * authority in a chain, and refuses all peers of one that has none; so the lists go out only where each authority has one that covers it whole.
 */
export function revocationProblem(bundle: TrustBundle): string | undefined {
  if (bundle.authorities.length === 0) return undefined;
  const without = bundle.authorities.filter(
    (authority) =>
      !bundle.crls.some((crl) => crl.issuerDer === authority.subjectDer && crl.notes.length === 0 && crl.isSignedBy(authority)),
  );
  if (without.length === 0) return undefined;
  return `${bundle.trustDomain}: ${without.length} of ${bundle.authorities.length} authorities have no revocation list that Envoy could use: none is sent`;
}
