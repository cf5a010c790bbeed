import { hash, X509Certificate, type KeyObject } from 'node:crypto';
import { messageOf } from '../../lib/errors.ts';
import { err, ok, type Result } from '../../lib/result.ts';
import { decodeSignatureAlgorithm, keyEncodingProblem, keyProblem, signatureHolds, type SignatureAlgorithm } from './algorithms.ts';
import {
  contextTag,
  decodeIntegerHex,
  decodeOctetBits,
  decodeSmallInteger,
  decodeTime,
  DerError,
  DerReader,
  enterOnly,
  readOnly,
  Tag,
} from './der.ts';
import { decodeExtensionList, decodeExtensions, NO_EXTENSIONS, type Extensions } from './extensions.ts';
import { decodeName, type DistinguishedName } from './names.ts';
import { toPem } from './pem.ts';

/** One parsed X.509 certificate: everything that Scute judges or shows, read once from the DER. Immutable. */
export interface Certificate {
  /** For what OpenSSL can tell of it (`checkIssued`, `verify`); never for its string renderings. */
  readonly x509: X509Certificate;
  readonly publicKey: KeyObject;
  /** SHA-256 of the DER, lower-case hex: the identity of this very certificate. */
  readonly sha256: string;
  /** Lower-case hex without leading zero bytes. */
  readonly serial: string;
  /** RFC 4514-like text, for logs and pages only. */
  readonly subject: string;
  readonly issuer: string;
  /** DER of the names as hex: chains are linked by these, byte for byte. */
  readonly subjectDer: string;
  readonly issuerDer: string;
  /** Lower-case hex. */
  readonly subjectKeyId: string | undefined;
  readonly authorityKeyId: string | undefined;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** The CA flag of basicConstraints; false without the extension. */
  readonly isCa: boolean;
  /** URI subject alternative names, as in the DER, unchecked. */
  readonly uriSans: readonly string[];
  readonly subjectName: DistinguishedName;
  readonly extensions: Extensions;
  /** The signature algorithm, for sentences. */
  readonly signatureOid: string;
  /** What keeps the key from being relied on (kind, size, curve, encoding), or undefined. */
  readonly keyProblem: string | undefined;
  /** What keeps the signature from being relied on, whoever made it: MD5, SHA-1 and the like; or undefined. */
  readonly signatureProblem: string | undefined;
  /** Whether the signature is by the key of `issuer`. Names, dates and flags are not looked at. False for weak algorithms. */
  isSignedBy(issuer: Certificate): boolean;
  /** A copy of the DER. Keeps nothing else of the certificate. */
  readonly der: () => Uint8Array;
  pem(): string;
}

const TBS_VERSION = contextTag(0, 'constructed');
const TBS_ISSUER_UNIQUE_ID = contextTag(1, 'primitive');
const TBS_SUBJECT_UNIQUE_ID = contextTag(2, 'primitive');
const TBS_EXTENSIONS = contextTag(3, 'constructed');

/** Parses one certificate, which must be all of `der`. Never throws; the error is a phrase without the bytes. */
export function parseCertificate(der: Uint8Array): Result<Certificate, string> {
  try {
    return ok(readCertificate(Uint8Array.from(der)));
  } catch (thrown) {
    // Not DerError alone: strangers send these bytes, and whatever they trip over must end as a refusal.
    return err(`not a well-formed certificate: ${messageOf(thrown)}`);
  }
}

/** Cuts certificates that stand one after another, as the Workload API sends them. Nothing at all is no certificates; anything left over is an error. */
export function splitCertificates(concatenatedDer: Uint8Array): Result<Uint8Array[], string> {
  try {
    const reader = new DerReader(concatenatedDer);
    const parts: Uint8Array[] = [];
    while (!reader.done) parts.push(Uint8Array.from(reader.read(Tag.sequence).whole));
    return ok(parts);
  } catch (thrown) {
    return err(`not a row of certificates: ${messageOf(thrown)}`);
  }
}

function readCertificate(der: Uint8Array): Certificate {
  const outer = enterOnly(der, Tag.sequence);
  const signed = outer.read(Tag.sequence);
  const outerAlgorithm = outer.read(Tag.sequence);
  const signature = decodeOctetBits(outer.read(Tag.bitString));
  outer.finish();

  const tbs = new DerReader(signed.content);
  const versionField = tbs.optional(TBS_VERSION);
  const version = versionField === undefined ? 1 : 1 + decodeSmallInteger(readOnly(versionField.content, Tag.integer));
  const serial = decodeIntegerHex(tbs.read(Tag.integer));
  const innerAlgorithm = tbs.read(Tag.sequence);
  const issuer = decodeName(tbs.read(Tag.sequence));
  const validity = tbs.enter(Tag.sequence);
  const notBeforeMs = decodeTime(validity.any());
  const notAfterMs = decodeTime(validity.any());
  validity.finish();
  const subject = decodeName(tbs.read(Tag.sequence));
  const subjectPublicKeyInfo = tbs.read(Tag.sequence);
  tbs.optional(TBS_ISSUER_UNIQUE_ID);
  tbs.optional(TBS_SUBJECT_UNIQUE_ID);
  const extensionField = tbs.optional(TBS_EXTENSIONS);
  tbs.finish();

  if (version > 3) throw new DerError(`version ${version}`);
  if (extensionField !== undefined && version !== 3) throw new DerError('extensions in a certificate of an old version');
  // RFC 5280 4.1.1.2: what names the algorithm inside the signature and outside of it must be the same.
  if (!sameBytes(innerAlgorithm.whole, outerAlgorithm.whole)) throw new DerError('two different signature algorithms');
  const extensions =
    extensionField === undefined ? NO_EXTENSIONS : decodeExtensions(decodeExtensionList(new DerReader(extensionField.content)));
  const { oid: signatureOid, algorithm } = decodeSignatureAlgorithm(outerAlgorithm);
  const { x509, publicKey } = readWithOpenSsl(der);
  const names = extensions.subjectAltName?.names ?? [];

  return Object.freeze({
    x509,
    publicKey,
    sha256: hash('sha256', der),
    serial,
    subject: subject.text,
    issuer: issuer.text,
    subjectDer: subject.der,
    issuerDer: issuer.der,
    subjectKeyId: extensions.subjectKeyId,
    authorityKeyId: extensions.authorityKeyId,
    notBeforeMs,
    notAfterMs,
    isCa: extensions.basicConstraints?.isCa ?? false,
    uriSans: Object.freeze(names.flatMap((name) => (name.type === 'uri' ? [name.value] : []))),
    subjectName: subject,
    extensions,
    signatureOid,
    keyProblem: keyProblem(publicKey) ?? keyEncodingProblem(publicKey, subjectPublicKeyInfo.whole),
    signatureProblem: algorithm === undefined ? `is signed with the algorithm ${signatureOid}, which is not accepted` : undefined,
    isSignedBy: (other: Certificate) => isSignedBy(algorithm, signed.whole, signature, other),
    der: () => Uint8Array.from(der),
    pem: () => toPem(der),
  });
}

function isSignedBy(algorithm: SignatureAlgorithm | undefined, signed: Uint8Array, signature: Uint8Array, issuer: Certificate): boolean {
  return algorithm !== undefined && signatureHolds(algorithm, signed, signature, issuer.publicKey);
}

/** OpenSSL must be able to read the certificate as well: two readers have to agree that it is one. */
function readWithOpenSsl(der: Uint8Array): { x509: X509Certificate; publicKey: KeyObject } {
  try {
    const x509 = new X509Certificate(der);
    return { x509, publicKey: x509.publicKey };
  } catch {
    throw new DerError('OpenSSL cannot read it or its public key');
  }
}

function sameBytes(one: Uint8Array, other: Uint8Array): boolean {
  return Buffer.compare(one, other) === 0;
}
