import { err, ok, type Result } from '../lib/result.ts';

declare const trustDomainBrand: unique symbol;
/** A valid trust domain name, without `spiffe://` (SPIFFE-ID standard, section 2.1). Compare with ===. */
export type TrustDomain = string & { readonly [trustDomainBrand]: true };

export type TrustDomainProblem = 'empty_trust_domain' | 'trust_domain_too_long' | 'bad_trust_domain_character';

/** SPIFFE-ID, section 2.3. */
const MAX_TRUST_DOMAIN_LENGTH = 255;

/** Parses a bare trust domain name, such as `example.org`. Upper case is refused rather than folded: names compare byte by byte everywhere. */
export function parseTrustDomain(text: string): Result<TrustDomain, TrustDomainProblem> {
  if (text === '') return err('empty_trust_domain');
  if (text.length > MAX_TRUST_DOMAIN_LENGTH) return err('trust_domain_too_long');
  if (!/^[a-z0-9._-]+$/.test(text)) return err('bad_trust_domain_character');
  return ok(text as TrustDomain);
}
