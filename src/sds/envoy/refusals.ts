import type { KeyObject } from 'node:crypto';
import type { X509Svid } from '../../spiffe/x509-svid.ts';

/** Why Envoy would refuse an SVID that is good to us, a sentence; undefined if it would not. What it refuses is never sent. */
export function envoyRefusal({ id, chain: [leaf], key }: X509Svid): string | undefined {
  if (leaf?.extensions.mustStaple === true) return `${id} must be shown with an OCSP response (RFC 7633), which there is none of`;
  if (key.asymmetricKeyType === 'rsa' && !isConsistentRsa(key))
    return `the RSA key of ${id} is not of two primes, or its numbers do not fit`;
  return undefined;
}

/** BoringSSL reads keys of two primes alone, and checks all their numbers; OpenSSL signs with others as well (RFC 8017 3.2). */
function isConsistentRsa(key: KeyObject): boolean {
  const jwk = key.export({ format: 'jwk' });
  const [n, e, d, p, q, dp, dq, qi] = [jwk.n, jwk.e, jwk.d, jwk.p, jwk.q, jwk.dp, jwk.dq, jwk.qi].map(integerOf);
  if (n === undefined || e === undefined || d === undefined || p === undefined || q === undefined) return false;
  if (dp === undefined || dq === undefined || qi === undefined) return false;
  const [p1, q1] = [p - 1n, q - 1n];
  if (p1 <= 0n || q1 <= 0n || p * q !== n || d >= n) return false;
  return (d * e) % p1 === 1n && (d * e) % q1 === 1n && d % p1 === dp && d % q1 === dq && (q * qi) % p === 1n;
}

function integerOf(text: string | undefined): bigint | undefined {
  return text === undefined || text === '' ? undefined : BigInt(`0x${Buffer.from(text, 'base64url').toString('hex')}`);
}
