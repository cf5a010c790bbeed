import { err, ok, type Result } from '../lib/result.ts';
import { parseCertificate, splitCertificates, type Certificate } from './x509/certificate.ts';
import { parseCrl, type Crl } from './x509/crl.ts';
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
 * What becomes of an authority that we cannot read, or that may have revoked somebody in a list that we cannot check. In our own bundle
 * it refuses the whole. In a partner's it is only not trusted: the agent passes on what the partner published, which may imitate ours,
 * and that must not keep our own SVIDs from rotating.
 */
export type AuthorityInDoubt = 'refuse' | 'leave_out';

export interface BundleProblem {
  readonly code: 'bad_authority' | 'bad_crl';
  /** A sentence with the offending value. */
  readonly message: string;
}

/** What is heeded of a bundle, by whose it is. */
interface Bounds {
  readonly authorities: number;
  readonly bytes: number;
  readonly bytesOfOne: number;
  /** Signature checks for its lists: authorities times lists of one name may be a million, of 0.1 ms (P-256) to 1 ms (P-521) and more. */
  readonly listChecks: number;
}

/**
 * A partner publishes what it likes, in the names of others too, and everybody waits while it is read, told to OpenSSL and compared
 * with lists. Of ours the agent alone decides.
 */
export const PARTNER_BOUNDS: Bounds = { authorities: 512, bytes: 524_288, bytesOfOne: 32_768, listChecks: 64 };
const BOUNDS: Readonly<Record<AuthorityInDoubt, Bounds>> = {
  refuse: { authorities: Infinity, bytes: Infinity, bytesOfOne: Infinity, listChecks: 1024 },
  leave_out: PARTNER_BOUNDS,
};

const NOBODY: readonly Certificate[] = Object.freeze([]);
const NOTHING = new Uint8Array();

/** `bundle`, and that these proven intermediates are known, which are below its authorities. */
export function withIntermediates(bundle: TrustBundle, more: readonly Certificate[]): TrustBundle {
  const all = new Map([...bundle.intermediates, ...more].map((certificate) => [certificate.sha256, certificate]));
  return Object.freeze({ ...bundle, intermediates: Object.freeze([...all.values()]) });
}

/**
 * Builds the bundle of `domain` from concatenated DER certificates; none is legal and means that nobody is trusted.
 * `crlsDer` are the lists of the whole message, of any trust domain. One that is not well-formed refuses the bundle: it may well
 * be the one that revokes somebody.
 * `readCrl` is for whoever builds many bundles with the same lists, which may be long.
 */
export function buildTrustBundle(
  domain: TrustDomain,
  concatenatedDer: Uint8Array,
  crlsDer: readonly Uint8Array[] = [],
  readCrl: (der: Uint8Array) => Result<Crl, string> = parseCrl,
  inDoubt: AuthorityInDoubt = 'refuse',
): Result<TrustBundle, BundleProblem> {
  const bounds = BOUNDS[inDoubt];
  const bytes = concatenatedDer.length;
  const parts = splitCertificates(bytes > bounds.bytes ? NOTHING : concatenatedDer);
  if (!parts.ok) return err({ code: 'bad_authority', message: `bundle of ${domain}: ${parts.error}` });
  const authorities = new Map<string, Certificate>();
  const notes: string[] = [];
  const isTooLong = bytes > bounds.bytes || parts.value.length > bounds.authorities;
  if (isTooLong)
    notes.push(
      `bundle of ${domain}: its ${bytes} bytes are more than ${bounds.bytes}, or more than ${bounds.authorities} authorities; none of them is trusted`,
    );
  for (const [index, der] of isTooLong ? [] : parts.value.entries()) {
    const parsed = der.length > bounds.bytesOfOne ? err(`${der.length} bytes, more than ${bounds.bytesOfOne}`) : parseCertificate(der);
    if (!parsed.ok) {
      const message = `bundle of ${domain}, authority ${index + 1}: ${parsed.error}`;
      if (inDoubt === 'refuse') return err({ code: 'bad_authority', message });
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
  const { sorted, doubts } = sortLists([...authorities.values()], lists, bounds.listChecks);
  for (const { authorities: doubtful, message } of doubts) {
    if (inDoubt === 'refuse') return err({ code: 'bad_crl', message });
    const removed = doubtful.filter(({ sha256 }) => authorities.delete(sha256)).length;
    if (removed > 0) notes.push(`bundle of ${domain}: ${message}; ${removed} of its authorities are not trusted`);
  }
  for (const crl of sorted.crls) notes.push(...crl.notes.map((note) => `revocation list of ${JSON.stringify(crl.issuer)}: ${note}`));
  return ok(
    Object.freeze({
      trustDomain: domain,
      authorities: Object.freeze([...authorities.values()]),
      ...sorted,
      intermediates: NOBODY,
      notes: Object.freeze(notes),
    }),
  );
}
