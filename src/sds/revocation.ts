import type { Result } from '../lib/result.ts';
import { err, ok } from '../lib/result.ts';
import type { Certificate } from '../spiffe/certificate.ts';
import type { Crl } from '../spiffe/crl.ts';
import type { TrustBundle } from '../spiffe/trust-bundle.ts';

/**
 * The revocation lists of a trust domain that Envoy can be given, or why it cannot, a sentence. Once it has one, it wants a list of every
 * authority in a chain, and refuses all peers below one that has none; so lists go out only where each authority, and each intermediate that we
 * know of, has one that covers it whole.
 */
export function usableCrls(bundle: TrustBundle, intermediates: readonly Certificate[]): Result<readonly Crl[], string> {
  const lists = [...bundle.crls, ...bundle.unmatchedCrls];
  const used = new Set<Crl>();
  const without: string[] = [];
  const authorities = new Map([...bundle.authorities, ...intermediates].map((authority) => [authority.sha256, authority]));
  for (const authority of authorities.values()) {
    const own = lists.filter((crl) => crl.issuerDer === authority.subjectDer && crl.notes.length === 0 && crl.isSignedBy(authority));
    for (const crl of own) used.add(crl);
    if (own.length === 0) without.push(authority.subject);
  }
  if (without.length === 0) return ok([...used]);
  const which = without.slice(0, 3).map((subject) => JSON.stringify(subject));
  return err(`${bundle.trustDomain}: ${which.join(', ')} has no revocation list that Envoy could use, so none of the trust domain is sent`);
}
