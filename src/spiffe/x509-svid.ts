import { createPrivateKey, createPublicKey, sign, verify, type KeyObject } from 'node:crypto';
import { err, ok, type Result } from '../lib/result.ts';
import { splitCertificates, type Certificate } from './x509/certificate.ts';
import { readOnly, Tag } from './x509/der.ts';
import type { PeerProblem } from './peer-problems.ts';
import type { SpiffeId } from './spiffe-id.ts';
import type { TrustBundle } from './trust-bundle.ts';
import { verifyPeer } from './verify.ts';

/** One of our own identities: a SPIFFE certificate with its chain and private key (X509-SVID standard). */
export interface X509Svid {
  readonly id: SpiffeId;
  /** What the Workload API says that this identity is for; empty if it does not say. For selection, never for security. */
  readonly hint: string;
  /** Leaf first, then its intermediates as sent; no root unless the agent sent one. */
  readonly chain: readonly Certificate[];
  /** Stays a KeyObject everywhere but where TLS contexts and SDS secrets are made. */
  readonly key: KeyObject;
  /** Those of the chain that are between the leaf and its authority. */
  readonly intermediates: readonly Certificate[];
  /** The authority that the chain ends in, found by verifying our own SVID as we would a peer's. */
  readonly authority: Certificate;
}

/** What the Workload API's X509SVID message says. */
export interface X509SvidMaterial {
  readonly spiffeId: string;
  /** Leaf first, concatenated. */
  readonly chainDer: Uint8Array;
  /** PKCS #8. */
  readonly keyDer: Uint8Array;
  readonly hint: string;
}

export interface SvidProblem {
  readonly code: PeerProblem | 'bad_private_key' | 'key_mismatch' | 'wrong_spiffe_id';
  /** A sentence; never key material. */
  readonly message: string;
}

/** Builds an identity of ours, verified against the bundle of its own trust domain by the very code that judges peers. */
export function buildX509Svid(material: X509SvidMaterial, bundle: TrustBundle, nowMs: number): Result<X509Svid, SvidProblem> {
  const { spiffeId, chainDer, keyDer, hint } = material;
  const parts = splitCertificates(chainDer);
  if (!parts.ok) return err({ code: 'bad_certificate', message: `${JSON.stringify(spiffeId)}: ${parts.error}` });
  const verified = verifyPeer(parts.value, new Map([[bundle.trustDomain, bundle]]), nowMs);
  if (!verified.ok) return err({ code: verified.error.problem, message: `${JSON.stringify(spiffeId)}: ${verified.error.detail}` });
  const { id, leaf, authority, chain, path } = verified.value;
  if (id !== spiffeId)
    return err({ code: 'wrong_spiffe_id', message: `the agent says ${JSON.stringify(spiffeId)}, the certificate ${JSON.stringify(id)}` });

  const key = parsePrivateKey(keyDer);
  if (key === undefined) return err({ code: 'bad_private_key', message: `the private key of ${id} is not a PKCS #8 key` });
  if (!createPublicKey(key).equals(leaf.publicKey) || !signsFor(key, leaf.publicKey))
    return err({ code: 'key_mismatch', message: `the private key of ${id} is not that of its certificate` });
  return ok(Object.freeze({ id, hint, chain, key, intermediates: Object.freeze(path.slice(1, -1)), authority }));
}

/** A PKCS #8 key states its public key as well, and OpenSSL takes its word for it. */
function signsFor(key: KeyObject, publicKey: KeyObject): boolean {
  const hash = key.asymmetricKeyType === 'ed25519' ? undefined : 'sha256';
  try {
    return verify(hash, PROOF, publicKey, sign(hash, PROOF, key));
  } catch {
    // The cause is dropped on purpose: nothing about key bytes goes into a message.
    return false;
  }
}

const PROOF = Buffer.from('a private key and its certificate belong together');

function parsePrivateKey(keyDer: Uint8Array): KeyObject | undefined {
  try {
    readOnly(keyDer, Tag.sequence);
    return createPrivateKey({ key: Buffer.from(keyDer), format: 'der', type: 'pkcs8' });
  } catch {
    // As above.
    return undefined;
  }
}
