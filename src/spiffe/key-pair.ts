import { createHash, generateKeyPair, type KeyObject, sign } from 'node:crypto';
import { promisify } from 'node:util';
import { type Der, nullValue, objectId, sequence } from './der-writer.ts';

export const KEY_TYPES = ['ec-p256', 'ec-p384', 'rsa-2048', 'rsa-3072', 'ed25519'] as const;
export type KeyType = (typeof KEY_TYPES)[number];

export interface KeyPair {
  readonly type: KeyType;
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
}

const generate = promisify(generateKeyPair);

/** A new key pair, made off the main thread. */
export async function createKeyPair(type: KeyType): Promise<KeyPair> {
  return { type, ...(await generateOf(type)) };
}

function generateOf(type: KeyType): Promise<{ privateKey: KeyObject; publicKey: KeyObject }> {
  switch (type) {
    case 'ec-p256':
      return generate('ec', { namedCurve: 'P-256' });
    case 'ec-p384':
      return generate('ec', { namedCurve: 'P-384' });
    case 'rsa-2048':
      return generate('rsa', { modulusLength: 2048 });
    case 'rsa-3072':
      return generate('rsa', { modulusLength: 3072 });
    case 'ed25519':
      return generate('ed25519');
  }
}

const ECDSA_SHA256 = { algorithm: () => sequence(objectId('1.2.840.10045.4.3.2')), hash: 'sha256' };
const ECDSA_SHA384 = { algorithm: () => sequence(objectId('1.2.840.10045.4.3.3')), hash: 'sha384' };
const RSA_SHA256 = { algorithm: () => sequence(objectId('1.2.840.113549.1.1.11'), nullValue()), hash: 'sha256' };
const ED25519 = { algorithm: () => sequence(objectId('1.3.101.112')), hash: undefined };

const SIGNATURES = {
  'ec-p256': ECDSA_SHA256,
  'ec-p384': ECDSA_SHA384,
  'rsa-2048': RSA_SHA256,
  'rsa-3072': RSA_SHA256,
  ed25519: ED25519,
} as const satisfies Record<KeyType, { algorithm: () => Der; hash: string | undefined }>;

/** The AlgorithmIdentifier of signatures made with a key of this type. */
export function signatureAlgorithm(type: KeyType): Der {
  return SIGNATURES[type].algorithm();
}

export function signDer(key: KeyPair, data: Der): Der {
  return sign(SIGNATURES[key.type].hash, data, key.privateKey);
}

/** SubjectPublicKeyInfo. */
export function publicKeyDer(key: KeyObject): Der {
  return key.export({ type: 'spki', format: 'der' });
}

/** Key identifier for SKI and AKI: 160 bits of SHA-256 over the public key's bits (RFC 7093, section 2, method 1). */
export function keyIdentifier(key: KeyObject): Uint8Array {
  return createHash('sha256').update(publicKeyBits(key)).digest().subarray(0, 20);
}

/** What the BIT STRING of SubjectPublicKeyInfo holds. */
function publicKeyBits(key: KeyObject): Uint8Array {
  const info = publicKeyDer(key);
  const algorithm = contentOf(info, 0).start;
  const bits = contentOf(info, contentOf(info, algorithm).end);
  // The first octet counts unused bits: none.
  return info.subarray(bits.start + 1, bits.end);
}

/** Where the content of the DER value at `offset` begins and ends. Only for what node:crypto wrote. */
function contentOf(der: Uint8Array, offset: number): { readonly start: number; readonly end: number } {
  const first = der[offset + 1] ?? 0;
  const octets = first < 0x80 ? 0 : first & 0x7f;
  const start = offset + 2 + octets;
  const length = octets === 0 ? first : der.subarray(offset + 2, start).reduce((sum, octet) => sum * 256 + octet, 0);
  return { start, end: start + length };
}
