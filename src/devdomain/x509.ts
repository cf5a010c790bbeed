/** Writes certificates and revocation lists. The one file that knows `@peculiar/x509`; in the bundle it stands apart, for commands that need it. */
import type { KeyObject, webcrypto } from 'node:crypto';
// What the package wants to find before it is loaded.
import 'reflect-metadata';
import { AsnConvert } from '@peculiar/asn1-schema';
import { CRLNumber, id_ce_cRLNumber } from '@peculiar/asn1-x509';
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  PublicKey,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509CertificateGenerator,
  X509CrlGenerator,
  X509CrlReason,
} from '@peculiar/x509';
import type { KeyPair, KeyType } from './key-pair.ts';

/** One attribute a part. Empty is allowed. */
export type DistinguishedName = readonly Readonly<Partial<Record<'O' | 'CN', string>>>[];

export interface CertificateIssuer {
  readonly name: DistinguishedName;
  readonly key: KeyPair;
}

/** What a certificate says. */
export interface CertificateSpec {
  /** Big-endian, positive. */
  readonly serial: Uint8Array;
  readonly subject: DistinguishedName;
  readonly publicKey: KeyObject;
  readonly issuer: CertificateIssuer;
  /** Wall time, milliseconds since 1970; written as whole seconds. */
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly uri: string;
  readonly dnsNames: readonly string[];
  /** Of an authority: how many others may stand below it. Undefined: a leaf, for both sides of TLS. */
  readonly authority: { readonly pathLength: number | undefined } | undefined;
}

/** A signed certificate, DER. */
export async function writeCertificate(spec: CertificateSpec): Promise<Uint8Array> {
  const { issuer, authority } = spec;
  const names = [{ type: 'url' as const, value: spec.uri }, ...spec.dnsNames.map((value) => ({ type: 'dns' as const, value }))];
  const usages =
    authority === undefined
      ? [
          new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
          new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth, ExtendedKeyUsage.clientAuth]),
        ]
      : [new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true)];
  const certificate = await X509CertificateGenerator.create({
    serialNumber: hexOf(spec.serial),
    subject: jsonOf(spec.subject),
    issuer: jsonOf(issuer.name),
    notBefore: new Date(spec.notBeforeMs),
    notAfter: new Date(spec.notAfterMs),
    publicKey: spkiOf(spec.publicKey),
    signingKey: signingKeyOf(issuer.key),
    extensions: [
      new BasicConstraintsExtension(authority !== undefined, authority?.pathLength, true),
      ...usages,
      new SubjectKeyIdentifierExtension(await keyIdentifier(spec.publicKey)),
      new AuthorityKeyIdentifierExtension(await keyIdentifier(issuer.key.publicKey)),
      // Critical if there is no subject (RFC 5280, section 4.2.1.6).
      new SubjectAlternativeNameExtension(names, spec.subject.length === 0),
    ],
  });
  return new Uint8Array(certificate.rawData);
}

export interface CrlSpec {
  readonly issuer: CertificateIssuer;
  readonly number: number;
  readonly thisUpdateMs: number;
  readonly nextUpdateMs: number;
  /** Big-endian serial numbers, each once. */
  readonly revoked: readonly { readonly serial: Uint8Array; readonly atMs: number }[];
}

/** A signed revocation list of version 2, DER. */
export async function writeCrl({ issuer, number, thisUpdateMs, nextUpdateMs, revoked }: CrlSpec): Promise<Uint8Array> {
  const crl = await X509CrlGenerator.create({
    issuer: jsonOf(issuer.name),
    thisUpdate: new Date(thisUpdateMs),
    nextUpdate: new Date(nextUpdateMs),
    entries: revoked.map(({ serial, atMs }) => ({
      serialNumber: hexOf(serial),
      revocationDate: new Date(atMs),
      // Without any, the package writes an empty list of extensions, which must not be (RFC 5280, section 5.1).
      reason: X509CrlReason.privilegeWithdrawn,
    })),
    signingKey: signingKeyOf(issuer.key),
    signingAlgorithm: SIGNATURES[issuer.key.type],
    extensions: [
      new AuthorityKeyIdentifierExtension(await keyIdentifier(issuer.key.publicKey)),
      new Extension(id_ce_cRLNumber, false, AsnConvert.serialize(new CRLNumber(number))),
    ],
  });
  return new Uint8Array(crl.rawData);
}

/** Key identifier for SKI and AKI, in hex: 160 bits of SHA-256 over the public key's bits (RFC 7093, section 2, method 1). */
export async function keyIdentifier(key: KeyObject): Promise<string> {
  return hexOf(new Uint8Array(await new PublicKey(spkiOf(key)).getKeyIdentifier('SHA-256'))).slice(0, 40);
}

const SIGNATURES: Readonly<Record<KeyType, { readonly name: string; readonly namedCurve?: string; readonly hash: string }>> = {
  'ec-p256': { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' },
  'ec-p384': { name: 'ECDSA', namedCurve: 'P-384', hash: 'SHA-384' },
  'rsa-2048': { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' },
  'rsa-3072': { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' },
  ed25519: { name: 'Ed25519', hash: 'SHA-512' },
};

function signingKeyOf({ type, privateKey }: KeyPair): webcrypto.CryptoKey {
  return privateKey.toCryptoKey(SIGNATURES[type], false, ['sign']);
}

function spkiOf(key: KeyObject): Uint8Array<ArrayBuffer> {
  return new Uint8Array(key.export({ type: 'spki', format: 'der' }));
}

function jsonOf(name: DistinguishedName): Record<string, string[]>[] {
  return name.map((part) => Object.fromEntries(Object.entries(part).map(([type, value]) => [type, [value]])));
}

function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
