import { constants, hash, verify, type KeyObject } from 'node:crypto';
import {
  contextTag,
  decodeOctetBits,
  decodeOid,
  decodeSmallInteger,
  DerError,
  DerReader,
  enterOnly,
  readOnly,
  Tag,
  toHex,
  type DerElement,
} from './der.ts';

/** A signature algorithm that we accept: no MD5, SHA-1 or SHA-224. */
export interface SignatureAlgorithm {
  readonly keyType: 'ec' | 'rsa' | 'ed25519';
  /** Undefined for Ed25519, which hashes by itself. */
  readonly hash: 'sha256' | 'sha384' | 'sha512' | undefined;
  /** Set for RSASSA-PSS. */
  readonly pssSaltLength: number | undefined;
}

const SIMPLE: Readonly<Record<string, SignatureAlgorithm>> = {
  '1.2.840.10045.4.3.2': { keyType: 'ec', hash: 'sha256', pssSaltLength: undefined },
  '1.2.840.10045.4.3.3': { keyType: 'ec', hash: 'sha384', pssSaltLength: undefined },
  '1.2.840.10045.4.3.4': { keyType: 'ec', hash: 'sha512', pssSaltLength: undefined },
  '1.2.840.113549.1.1.11': { keyType: 'rsa', hash: 'sha256', pssSaltLength: undefined },
  '1.2.840.113549.1.1.12': { keyType: 'rsa', hash: 'sha384', pssSaltLength: undefined },
  '1.2.840.113549.1.1.13': { keyType: 'rsa', hash: 'sha512', pssSaltLength: undefined },
  '1.3.101.112': { keyType: 'ed25519', hash: undefined, pssSaltLength: undefined },
};
const RSASSA_PSS = '1.2.840.113549.1.1.10';
const MGF1 = '1.2.840.113549.1.1.8';
const HASHES: Readonly<Record<string, 'sha256' | 'sha384' | 'sha512'>> = {
  '2.16.840.1.101.3.4.2.1': 'sha256',
  '2.16.840.1.101.3.4.2.2': 'sha384',
  '2.16.840.1.101.3.4.2.3': 'sha512',
};
const CURVES: readonly (string | undefined)[] = ['prime256v1', 'secp384r1', 'secp521r1'];

const MIN_RSA_BITS = 2048;
/** A signature check costs with the square of the modulus and with the length of the exponent, and a stranger chooses both. */
const MAX_RSA_BITS = 8192;
/** With an exponent of 1 anybody can sign. */
const MIN_RSA_EXPONENT = 3n;
const MAX_RSA_EXPONENT = 0xffff_ffffn;

/**
 * AlgorithmIdentifier. `oid` is for sentences and always there; `algorithm` is undefined for one that we do not accept, or that has
 * parameters which it must not have. Throws DerError.
 */
export function decodeSignatureAlgorithm(element: DerElement): { oid: string; algorithm: SignatureAlgorithm | undefined } {
  if (element.tag !== Tag.sequence) throw new DerError('an algorithm that is not a sequence');
  const reader = new DerReader(element.content);
  const oid = decodeOid(reader.read(Tag.oid));
  const parameters = reader.done ? undefined : reader.any();
  reader.finish();
  if (oid === RSASSA_PSS)
    return { oid, algorithm: parameters?.tag === Tag.sequence ? decodePss(new DerReader(parameters.content)) : undefined };
  const algorithm = SIMPLE[oid];
  // RFC 5758 3.2, RFC 8410 3: none. RFC 4055 5: NULL, or none.
  const isBare = parameters === undefined || (algorithm?.keyType === 'rsa' && isNull(parameters));
  return isBare || algorithm === undefined ? { oid, algorithm } : { oid: `${oid} with parameters`, algorithm: undefined };
}

function isNull({ tag, content }: DerElement): boolean {
  return tag === Tag.null && content.length === 0;
}

/** Whether `signature` over `signed` is by `key`. False for anything malformed; never throws. */
export function signatureHolds(algorithm: SignatureAlgorithm, signed: Uint8Array, signature: Uint8Array, key: KeyObject): boolean {
  if (key.asymmetricKeyType !== algorithm.keyType) return false;
  try {
    if (algorithm.pssSaltLength === undefined) return verify(algorithm.hash, signed, key, signature);
    const padding = constants.RSA_PKCS1_PSS_PADDING;
    return verify(algorithm.hash, signed, { key, padding, saltLength: algorithm.pssSaltLength }, signature);
  } catch {
    // OpenSSL throws on some signatures that cannot even be decoded.
    return false;
  }
}

/** What is wrong with a public key, whoever holds it: RSA of 2048 to 8192 bits, P-256, P-384, P-521 and Ed25519 are accepted. */
export function keyProblem(key: KeyObject): string | undefined {
  const details = key.asymmetricKeyDetails ?? {};
  switch (key.asymmetricKeyType) {
    case 'rsa': {
      const bits = details.modulusLength ?? 0;
      if (bits < MIN_RSA_BITS) return `has an RSA key of ${bits} bits, fewer than ${MIN_RSA_BITS}`;
      if (bits > MAX_RSA_BITS) return `has an RSA key of ${bits} bits, more than ${MAX_RSA_BITS}`;
      const exponent = details.publicExponent ?? 0n;
      if (exponent < MIN_RSA_EXPONENT || exponent > MAX_RSA_EXPONENT) return `has an RSA key with the exponent ${shortened(exponent)}`;
      return undefined;
    }
    case 'ec':
      return CURVES.includes(details.namedCurve) ? undefined : `has a key on the curve ${details.namedCurve ?? 'without a name'}`;
    case 'ed25519':
      return undefined;
    default:
      return `has a key of the kind ${key.asymmetricKeyType ?? 'unknown'}`;
  }
}

/** A partner chose it, and it may have thousands of digits. */
function shortened(number: bigint): string {
  const text = String(number);
  return text.length > 20 ? `${text.slice(0, 20)}…` : text;
}

/** AlgorithmIdentifiers of public keys as they must be written (RFC 3279 2.3.1, RFC 5480 2.1.1, RFC 8410 3), by kind or curve. */
const KEY_ALGORITHMS: Readonly<Record<string, string>> = {
  rsa: '300d06092a864886f70d0101010500',
  prime256v1: '301306072a8648ce3d020106082a8648ce3d030107',
  secp384r1: '301006072a8648ce3d020106052b81040022',
  secp521r1: '301006072a8648ce3d020106052b81040023',
  ed25519: '300506032b6570',
};

/**
 * What is wrong with how a public key of an accepted kind is written. OpenSSL reads more than may be written, such as a curve spelt out
 * in numbers; others, Go and Envoy among them, do not. Throws DerError.
 */
export function keyEncodingProblem(key: KeyObject, subjectPublicKeyInfo: Uint8Array): string | undefined {
  const reader = enterOnly(subjectPublicKeyInfo, Tag.sequence);
  const algorithm = reader.read(Tag.sequence).whole;
  const bits = decodeOctetBits(reader.read(Tag.bitString));
  reader.finish();
  const kind = key.asymmetricKeyDetails?.namedCurve ?? key.asymmetricKeyType ?? '';
  if (toHex(algorithm) !== KEY_ALGORITHMS[kind]) return `has a key of the kind ${kind} that is not written as such a key must be`;
  // RFC 5480 2.2: a point is whole or compressed, and never both at once.
  if (key.asymmetricKeyType === 'ec' && bits[0] !== 4 && bits[0] !== 2 && bits[0] !== 3) return 'has a key with its point in hybrid form';
  if (key.asymmetricKeyType === 'rsa' && Buffer.compare(bits, key.export({ type: 'pkcs1', format: 'der' })) !== 0)
    return 'has an RSA key that is not written as such a key must be';
  return undefined;
}

/** Of an identifier that shortens a digest, in hexadecimal digits: eight bytes, as the shortest that RFC 5280 knows. */
const MIN_KEY_ID_DIGITS = 16;

/** Whether an identifier, lower-case hex, is one of the usual digests of `key` (RFC 5280 4.2.1.2, RFC 7093 2), shortened or not. */
export function isDigestOfKey(keyId: string, key: KeyObject): boolean {
  if (keyId.length < MIN_KEY_ID_DIGITS) return false;
  const info = key.export({ type: 'spki', format: 'der' });
  const reader = enterOnly(info, Tag.sequence);
  reader.read(Tag.sequence);
  const bits = decodeOctetBits(reader.read(Tag.bitString));
  // RFC 5280's second method: 0100, and the last 60 bits of the SHA-1.
  if (keyId === `4${hash('sha1', bits).slice(-15)}`) return true;
  return ['sha1', 'sha256', 'sha384', 'sha512'].some((algorithm) => [bits, info].some((bytes) => hash(algorithm, bytes).startsWith(keyId)));
}

/** RSASSA-PSS-params (RFC 4055 3.1). Every default is SHA-1, so a missing field is not accepted; MGF1 must use the same hash. */
function decodePss(reader: DerReader): SignatureAlgorithm | undefined {
  const digest = reader.optional(contextTag(0, 'constructed'));
  const mask = reader.optional(contextTag(1, 'constructed'));
  const salt = reader.optional(contextTag(2, 'constructed'));
  const trailer = reader.optional(contextTag(3, 'constructed'));
  reader.finish();
  if (digest === undefined || mask === undefined || salt === undefined || trailer !== undefined) return undefined;
  const hashName = decodeHash(readOnly(digest.content, Tag.sequence));
  const generator = enterOnly(mask.content, Tag.sequence);
  if (decodeOid(generator.read(Tag.oid)) !== MGF1) return undefined;
  const maskHash = decodeHash(generator.read(Tag.sequence));
  generator.finish();
  const pssSaltLength = decodeSmallInteger(readOnly(salt.content, Tag.integer));
  if (hashName === undefined || maskHash !== hashName || pssSaltLength > 64) return undefined;
  return { keyType: 'rsa', hash: hashName, pssSaltLength };
}

/** The AlgorithmIdentifier of a hash: with NULL, or nothing (RFC 4055 2.1). */
function decodeHash({ content }: DerElement): (typeof HASHES)[string] | undefined {
  const reader = new DerReader(content);
  const oid = decodeOid(reader.read(Tag.oid));
  const isBare = reader.done || isNull(reader.any());
  reader.finish();
  return isBare ? HASHES[oid] : undefined;
}
