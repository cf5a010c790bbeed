import { createHash, generateKeyPair, type KeyObject, sign } from 'node:crypto';
import { promisify } from 'node:util';
import { type Der, nullValue, objectId, sequence } from './der.ts';

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

/** Key identifier for SKI and AKI: 160 bits of SHA-256 over SubjectPublicKeyInfo. Any unique value will do (RFC 5280, section 4.2.1.2). */
export function keyIdentifier(key: KeyObject): Uint8Array {
  return createHash('sha256').update(publicKeyDer(key)).digest().subarray(0, 20);
}
