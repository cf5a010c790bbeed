import { err, ok, type Result } from '../lib/result.ts';
import { fromPem } from '../spiffe/pem.ts';
import { MAX_CHAIN_BYTES } from '../spiffe/verify.ts';

/** PEM is a third longer than DER, and each of its "+", "/" and line ends becomes three characters. */
const MAX_TEXT = 3 * MAX_CHAIN_BYTES;

/** The one certificate of `attributes.source.certificate`, which is PEM, URL-encoded. The error is a sentence. */
export function leafOf(encoded: string): Result<Uint8Array, string> {
  const decoded = decode(encoded, 'the certificate of the check');
  if (!decoded.ok) return decoded;
  const [leaf, ...more] = decoded.value;
  if (leaf === undefined || more.length > 0) return err(`the certificate of the check is ${decoded.value.length} certificates in PEM`);
  return ok(leaf);
}

/**
 * The certificates that came with the leaf, as Envoy says them in X-Forwarded-Client-Cert (`Chain`, of the last element): PEM,
 * URL-encoded, leaf first. A caller may have had its say in that field, so they are as untrusted as what a peer sends in TLS.
 */
export function chainOf(xfcc: string): Result<readonly Uint8Array[], string> {
  const encoded = [...xfcc.matchAll(CHAIN)].at(-1)?.[1];
  return encoded === undefined ? ok([]) : decode(encoded, 'the chain in X-Forwarded-Client-Cert');
}

const CHAIN = /(?:^|[;,])Chain="([^"]*)"/gi;

function decode(encoded: string, what: string): Result<Uint8Array[], string> {
  if (encoded.length > MAX_TEXT) return err(`${what} has ${encoded.length} characters, more than ${MAX_TEXT}`);
  let pem: string;
  try {
    pem = decodeURIComponent(encoded);
  } catch {
    return err(`${what} is not URL-encoded`);
  }
  const ders: Uint8Array[] = [];
  for (const der of fromPem(pem)) {
    if (der === undefined) return err(`${what} is not PEM`);
    ders.push(der);
  }
  return ok(ders);
}
