import { err, ok, type Result } from '../lib/result.ts';
import type { JwtAuthority } from '../spiffe/bundle-document.ts';
import type { JwtBundles } from '../spiffe/jwt-bundle.ts';
import { claimsProblem, keysFor, readToken, type Algorithm, type Expectation, type ReadToken, type TokenProblem } from './token.ts';

/** A JWT-SVID whose signature holds. Its time, its key and its subject are to be asked again each time that it is used. */
export interface VerifiedToken extends ReadToken {
  /** The key that it was verified with. */
  readonly authority: JwtAuthority;
}

/** What is to be asked again of one, without what was asked once and for all. */
export type ProvenToken = Pick<VerifiedToken, 'subject' | 'expiresMs' | 'notBeforeMs' | 'issuedMs' | 'authority'>;

/**
 * Verifies a JWT-SVID to the letter of the standard: its form and claims by `readToken`, its signature by the key of the trust domain in its
 * own `sub`. The cheap comes first. Never rejects.
 */
export async function verifyToken(token: string, expected: Expectation, bundles: JwtBundles): Promise<Result<VerifiedToken, TokenProblem>> {
  const read = readToken(token);
  if (!read.ok) return read;
  const problem = claimsProblem(read.value, expected);
  if (problem !== undefined) return err(problem);
  const keys = keysFor(read.value, bundles);
  if (!keys.ok) return keys;
  for (const authority of keys.value)
    if (await signatureHolds(token, read.value.algorithm, authority)) return ok(Object.freeze({ ...read.value, authority }));
  return err({ code: 'token_signature', message: 'the signature of the token is by none of the keys that it may be by' });
}

/** `jose` is loaded when the first token comes: it is not for every start to pay for. */
async function signatureHolds(token: string, algorithm: Algorithm, { key }: JwtAuthority): Promise<boolean> {
  const { compactVerify } = await import('jose/jws/compact/verify');
  try {
    await compactVerify(token, key, { algorithms: [algorithm] });
    return true;
  } catch {
    // Whatever it objects to: of a token of which we cannot say that it is signed, nothing else matters.
    return false;
  }
}
