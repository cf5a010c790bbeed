import { isDigestOfKey } from './x509/algorithms.ts';
import type { Certificate } from './x509/certificate.ts';
import type { Crl } from './x509/crl.ts';

/** The revocation lists of one message of the Workload API, as they bear on one trust domain. */
export interface RevocationLists {
  /** Those that an authority of the trust domain signed under its own name (spec C.5). */
  readonly crls: readonly Crl[];
  /** The others: of another trust domain, or of an intermediate, most of which are known only when a peer shows them. */
  readonly unmatchedCrls: readonly Crl[];
  /** Those above our own SVIDs: whose key theirs is, is known without a peer's word. */
  readonly intermediates: readonly Certificate[];
}

/** Signature checks for one path. What was found out is remembered for the next. */
const MAX_CHECKS_OF_PATH = 256;

/** Authorities of which a list may be that cannot be told to be theirs: nobody knows whom it would have revoked. */
export interface Doubt {
  readonly authorities: readonly Certificate[];
  /** A sentence. */
  readonly message: string;
}

/**
 * Sorts `lists` by whether one of `authorities` signed them. A list counts for whoever's key signed it, under that one's name: key
 * identifiers bind nothing, and only say what a list means that does not verify. One that may be of an authority then leaves that one in
 * doubt; more lists and authorities of one name than `maxChecks` signatures can tell apart leave all of them in doubt.
 */
export function sortLists(
  authorities: readonly Certificate[],
  lists: readonly Crl[],
  maxChecks: number,
): { readonly sorted: Omit<RevocationLists, 'intermediates'>; readonly doubts: readonly Doubt[] } {
  const byName = Map.groupBy(authorities, ({ subjectName }) => subjectName.folded);
  const crls: Crl[] = [];
  const unmatchedCrls: Crl[] = [];
  const doubts: Doubt[] = [];
  let checks = 0;
  for (const [index, crl] of lists.entries()) {
    const named = byName.get(crl.issuerName.folded) ?? [];
    const what = `revocation list ${index + 1} of ${JSON.stringify(crl.issuer)}`;
    let isCutShort = false;
    const isSigned = likeliestFirst(named, crl).some((authority) => {
      isCutShort ||= checks >= maxChecks;
      if (isCutShort) return false;
      checks += 1;
      return crl.isSignedBy(authority);
    });
    if (isSigned) {
      crls.push(crl);
      continue;
    }
    unmatchedCrls.push(crl);
    // Once for the lists of one name.
    if (isCutShort) byName.delete(crl.issuerName.folded);
    const claimed = isCutShort ? named : named.filter((authority) => mayBeOf(crl, authority));
    if (claimed.length === 0) continue;
    const why = isCutShort
      ? `would take more than ${maxChecks} signature checks, with all lists and authorities`
      : 'has no good signature of that authority';
    doubts.push({ authorities: claimed, message: `${what} ${why}` });
  }
  return { sorted: { crls: Object.freeze(crls), unmatchedCrls: Object.freeze(unmatchedCrls) }, doubts };
}

export type Revocation =
  | { readonly revoked: true; readonly detail: string }
  /** `validUntilMs`: the earliest nextUpdate of the lists consulted that is still ahead; Infinity if there is none. */
  | { readonly revoked: false; readonly validUntilMs: number };

/**
 * Judges every certificate of `path` (leaf first, authority last, linked by names and signatures). A list counts for a certificate if it
 * has the name of its issuer and is signed by an authority of that name, by one of that name that is above it on the path or, if its
 * issuer is an intermediate, by one of that name that is known. So whoever changed its key revokes with the new one what it issued with
 * the old, as far as both are known; and whichever certificate of its issuer a peer shows, the key is the same. Nor is it asked whether
 * that certificate allows to sign lists: the key did.
 */
export function revocationOf(path: readonly Certificate[], lists: RevocationLists, nowMs: number): Revocation {
  let validUntilMs = Infinity;
  let checks = 0;
  for (const [index, certificate] of path.entries()) {
    const issuer = path[index + 1];
    if (issuer === undefined) break;
    const name = issuer.subjectName.folded;
    const known = issuer === path.at(-1) ? [] : lists.intermediates;
    const signers = [...path.slice(index + 1), ...known].filter(({ subjectName }) => subjectName.folded === name);
    const consulted = lists.crls.filter((crl) => crl.issuerName.folded === name);
    for (const crl of lists.unmatchedCrls) {
      if (crl.issuerName.folded !== name) continue;
      checks += signers.length;
      if (checks > MAX_CHECKS_OF_PATH)
        return { revoked: true, detail: `there are more revocation lists of ${JSON.stringify(crl.issuer)} than can be checked` };
      if (signers.some((signer) => crl.isSignedBy(signer))) consulted.push(crl);
      // It claims to be this issuer's: if that cannot be shown, it cannot be known what it would have revoked.
      else if (mayBeOf(crl, issuer))
        return { revoked: true, detail: `the revocation list of ${JSON.stringify(crl.issuer)} has a bad signature` };
    }
    for (const crl of consulted) {
      if (crl.isRevoked(certificate.serial))
        return { revoked: true, detail: `serial ${certificate.serial} is on the revocation list of ${JSON.stringify(crl.issuer)}` };
      if (crl.nextUpdateMs !== undefined && crl.nextUpdateMs > nowMs) validUntilMs = Math.min(validUntilMs, crl.nextUpdateMs);
    }
  }
  return { revoked: false, validUntilMs };
}

function likeliestFirst(authorities: readonly Certificate[], { authorityKeyId }: Crl): readonly Certificate[] {
  const isNamed = ({ subjectKeyId }: Certificate): boolean => subjectKeyId === authorityKeyId;
  return [...authorities.filter(isNamed), ...authorities.filter((authority) => !isNamed(authority))];
}

/** Whether a list of this issuer's name, which it did not sign, may still be meant to be its own: one that names another key is another's. */
function mayBeOf({ authorityKeyId }: Crl, issuer: Certificate): boolean {
  if (authorityKeyId === undefined || issuer.subjectKeyId === undefined || authorityKeyId === issuer.subjectKeyId) return true;
  // A peer chooses which certificate of its issuer it shows, and so the identifier in it; what is made of the key stays the same.
  return isDigestOfKey(authorityKeyId, issuer.publicKey);
}
