import { err, ok, type Result } from '../lib/result.ts';
import { parseCertificate, splitCertificates, type Certificate } from './certificate.ts';
import { parseCrl, type Crl } from './crl.ts';
import { sortLists, type RevocationLists } from './revocation.ts';
import type { TrustDomain } from './trust-domain.ts';

/** The X.509 authorities of one trust domain, and the revocation lists for it. No authorities means that nobody of it is trusted. */
export interface TrustBundle extends RevocationLists {
  readonly trustDomain: TrustDomain;
  /** Need not be self-signed. */
  readonly authorities: readonly Certificate[];
  /** Sentences for the log: what of the bundle is not used, and what its revocation lists may leave unsaid. */
  readonly notes: readonly string[];
}

/**
 * What becomes of an authority that we cannot read. In our own bundle it refuses the whole. In a partner's it is only not
 * trusted: the agent passes on what the partner published, and that must not keep our own SVIDs from rotating.
 */
export type UnreadableAuthority = 'refuse' | 'leave_out';

export interface BundleProblem {
  readonly code: 'bad_authority' | 'bad_crl';
  /** A sentence with the offending value. */
  readonly message: string;
}

/**
 * Builds the bundle of `domain` from concatenated DER certificates; none is legal and means that nobody is trusted.
 * `crlsDer` are the lists of the whole message, of any trust domain. A list that is not well-formed, or that may be of an
 * authority and has no good signature of it, refuses the bundle: it may well be the one that revokes somebody.
 * `readCrl` is for whoever builds many bundles with the same lists, which may be long.
 */
export function buildTrustBundle(
  domain: TrustDomain,
  concatenatedDer: Uint8Array,
  crlsDer: readonly Uint8Array[] = [],
  readCrl: (der: Uint8Array) => Result<Crl, string> = parseCrl,
  unreadable: UnreadableAuthority = 'refuse',
): Result<TrustBundle, BundleProblem> {
  const parts = splitCertificates(concatenatedDer);
  if (!parts.ok) return err({ code: 'bad_authority', message: `bundle of ${domain}: ${parts.error}` });
  const authorities = new Map<string, Certificate>();
  const notes: string[] = [];
  for (const [index, der] of parts.value.entries()) {
    const parsed = parseCertificate(der);
    if (!parsed.ok) {
      const message = `bundle of ${domain}, authority ${index + 1}: ${parsed.error}`;
      if (unreadable === 'refuse') return err({ code: 'bad_authority', message });
      notes.push(`${message}; it is not trusted`);
      continue;
    }
    const { sha256, subject, keyProblem } = parsed.value;
    if (keyProblem !== undefined && !authorities.has(sha256))
      notes.push(`bundle of ${domain}: authority ${JSON.stringify(subject)} ${keyProblem}; it is not relied on`);
    authorities.set(sha256, parsed.value);
  }

  const lists: Crl[] = [];
  for (const [index, der] of crlsDer.entries()) {
    const parsed = readCrl(der);
    if (!parsed.ok) return err({ code: 'bad_crl', message: `revocation list ${index + 1}: ${parsed.error}` });
    lists.push(parsed.value);
  }
  const sorted = sortLists([...authorities.values()], lists);
  if (!sorted.ok) return err({ code: 'bad_crl', message: sorted.error });
  for (const crl of sorted.value.crls) notes.push(...crl.notes.map((note) => `revocation list of ${JSON.stringify(crl.issuer)}: ${note}`));
  return ok(
    Object.freeze({
      trustDomain: domain,
      authorities: Object.freeze([...authorities.values()]),
      ...sorted.value,
      notes: Object.freeze(notes),
    }),
  );
}
