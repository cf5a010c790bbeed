import { err, ok, type Result } from '../lib/result.ts';
import { fromPem } from '../spiffe/x509/pem.ts';
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
 * Where X-Forwarded-Client-Cert says which certificates came with the leaf, as Envoy does (`Chain`, of the last element); empty if it
 * does not. A caller may have had its say in that field, so they are as untrusted as what a peer sends in TLS, and no more of it
 * is looked at than this.
 */
export function chainIn(xfcc: string): string {
  const at = xfcc.lastIndexOf(CHAIN);
  if (at === -1 || (at > 0 && !/[;,]/.test(xfcc.charAt(at - 1)))) return '';
  const from = at + CHAIN.length;
  const to = xfcc.indexOf('"', from);
  return to === -1 ? '' : xfcc.slice(from, to);
}

const CHAIN = 'Chain="';

/** The certificates of such a chain: PEM, URL-encoded, leaf first. */
export function chainOf(encoded: string): Result<readonly Uint8Array[], string> {
  return decode(encoded, 'the chain in X-Forwarded-Client-Cert');
}

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
