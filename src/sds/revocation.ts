import type { Result } from '../lib/result.ts';
import { err, ok } from '../lib/result.ts';
import type { Certificate } from '../spiffe/x509/certificate.ts';
import type { Crl } from '../spiffe/x509/crl.ts';
import type { TrustBundle } from '../spiffe/trust-bundle.ts';

export interface UsableCrls {
  readonly crls: readonly Crl[];
  /** Sentences on those that make Envoy refuse all peers, and on those that it is not given though we go by them. */
  readonly notes: readonly string[];
  /** Wall times, milliseconds since 1970, that are ahead and from which the notes are others. */
  readonly boundariesMs: readonly number[];
}

/**
 * The revocation lists of a trust domain that Envoy can be given, or why it cannot, a sentence. Once it has one, it wants a list of every
 * authority in a chain, and refuses all peers below one that has none; so lists go out only where each authority, and each intermediate that we
 * know of, has one that covers it whole, is said to be of no other, and is not taken for that of another of its name. A list outside its time
 * goes out, though Envoy then refuses all peers: without it, who holds up the next one would have the revoked admitted again.
 */
export function usableCrls(bundle: TrustBundle, intermediates: readonly Certificate[], nowMs: number): Result<UsableCrls, string> {
  const lists = [...bundle.crls, ...bundle.unmatchedCrls];
  const used = new Set<Crl>();
  const notes: string[] = [];
  const without: string[] = [];
  const partial = new Set<string>();
  const authorities = new Map([...sentAuthorities(bundle), ...intermediates].map((authority) => [authority.sha256, authority]));
  for (const authority of authorities.values()) {
    const isAlone = [...authorities.values()].every((other) => other.subjectDer !== authority.subjectDer || isSameKey(other, authority));
    const signed = lists.filter((crl) => crl.issuerDer === authority.subjectDer && crl.isSignedBy(authority));
    const own = signed.filter(
      (crl) =>
        crl.notes.length === 0 &&
        // Envoy takes no list of who has key usages without that of signing lists.
        authority.extensions.keyUsage?.crlSign !== false &&
        isNamedBy(crl, authority, isAlone),
    );
    for (const crl of own) used.add(crl);
    if (own.length < signed.length) partial.add(authority.subject);
    if (own.length === 0) without.push(authority.subject);
    else if (!own.some((crl) => isInTime(crl, nowMs))) {
      const name = `${bundle.trustDomain}: the revocation list of ${JSON.stringify(authority.subject)}`;
      const isEarly = own.every(({ thisUpdateMs }) => nowMs < thisUpdateMs);
      notes.push(`${name} is ${isEarly ? 'not valid yet' : 'past its nextUpdate'}, so Envoy refuses all peers below it`);
    }
  }
  if (without.length === 0) {
    for (const subject of partial)
      notes.push(
        `${bundle.trustDomain}: one of the lists of ${JSON.stringify(subject)} cannot be used by Envoy, which admits whom it alone revokes`,
      );
    const boundaries = [...used].flatMap(({ thisUpdateMs, nextUpdateMs = 0 }) => [thisUpdateMs, nextUpdateMs]);
    return ok({ crls: [...used], notes, boundariesMs: boundaries.filter((boundary) => boundary > nowMs) });
  }
  const which = without.slice(0, 3).map((subject) => JSON.stringify(subject));
  return err(`${bundle.trustDomain}: ${which.join(', ')} has no revocation list that Envoy could use, so none of the trust domain is sent`);
}

/** The authorities of a bundle that Envoy is given: not what we do not rely on ourselves, and what Envoy's library might not read. */
export function sentAuthorities({ authorities }: TrustBundle): readonly Certificate[] {
  return authorities.filter(({ keyProblem }) => keyProblem === undefined);
}

/** Whether a list says that it is of `authority` in all that it says of that (RFC 5280 4.2.1.1); if it says no key, the name is enough `isAlone`. */
function isNamedBy({ authorityKeyId, authorityCertificate }: Crl, authority: Certificate, isAlone: boolean): boolean {
  const { issuerDer = authority.issuerDer, serial = authority.serial } = authorityCertificate ?? {};
  if (issuerDer !== authority.issuerDer || serial !== authority.serial) return false;
  if (authorityKeyId === undefined || authority.subjectKeyId === undefined) return isAlone;
  return authorityKeyId === authority.subjectKeyId;
}

function isSameKey(one: Certificate, other: Certificate): boolean {
  return one.publicKey.equals(other.publicKey);
}

function isInTime({ thisUpdateMs, nextUpdateMs }: Crl, nowMs: number): boolean {
  return thisUpdateMs <= nowMs && (nextUpdateMs === undefined || nowMs < nextUpdateMs);
}
