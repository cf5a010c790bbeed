import { type KeyObject, randomBytes } from 'node:crypto';
import {
  bitString,
  boolean,
  context,
  contextPrimitive,
  type Der,
  integer,
  namedBits,
  objectId,
  octetString,
  sequence,
  set,
  time,
  utf8String,
} from './der-writer.ts';
import { keyIdentifier, type KeyPair, publicKeyDer, signatureAlgorithm, signDer } from './key-pair.ts';

/** Positions in the keyUsage bit string (RFC 5280, section 4.2.1.3). */
export const KEY_USAGE = { digitalSignature: 0, keyEncipherment: 2, keyAgreement: 4, keyCertSign: 5, cRLSign: 6 } as const;
export type KeyUsage = keyof typeof KEY_USAGE;

const EXTENDED_KEY_USAGE = { serverAuth: '1.3.6.1.5.5.7.3.1', clientAuth: '1.3.6.1.5.5.7.3.2', codeSigning: '1.3.6.1.5.5.7.3.3' } as const;
export type ExtendedKeyUsage = keyof typeof EXTENDED_KEY_USAGE;

const NAME_ATTRIBUTE = { O: '2.5.4.10', CN: '2.5.4.3' } as const;

/** A distinguished name, one attribute a part. Empty is allowed. */
export type DistinguishedName = readonly { readonly type: keyof typeof NAME_ATTRIBUTE; readonly value: string }[];

/** Everything in a certificate. Nothing is checked, so that tests can write what nobody should issue. */
export interface CertificateSpec {
  readonly subject: DistinguishedName;
  readonly publicKey: KeyObject;
  readonly issuer: DistinguishedName;
  readonly issuerKey: KeyPair;
  /** Wall time, milliseconds since 1970; written as whole seconds. */
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** Big-endian, positive; by default 128 random bits. */
  readonly serial?: Uint8Array | undefined;
  readonly uris: readonly string[];
  readonly dnsNames?: readonly string[] | undefined;
  readonly basicConstraints: { readonly ca: boolean; readonly pathLength?: number | undefined } | undefined;
  readonly keyUsage: readonly KeyUsage[];
  readonly extendedKeyUsage?: readonly ExtendedKeyUsage[] | undefined;
  /** Key identifiers by default come from the keys. */
  readonly subjectKeyId?: Uint8Array | undefined;
  readonly authorityKeyId?: Uint8Array | undefined;
  /** Written after the others: any extension that there is no field for. */
  readonly moreExtensions?: readonly ExtensionSpec[] | undefined;
}

export interface ExtensionSpec {
  readonly oid: string;
  readonly critical: boolean;
  readonly value: Der;
}

/** A signed certificate, DER. */
export function writeCertificate(spec: CertificateSpec): Uint8Array {
  const algorithm = signatureAlgorithm(spec.issuerKey.type);
  const body = sequence(
    context(0, integer(2)),
    integer(spec.serial ?? randomSerial()),
    algorithm,
    writeName(spec.issuer),
    sequence(time(spec.notBeforeMs), time(spec.notAfterMs)),
    writeName(spec.subject),
    publicKeyDer(spec.publicKey),
    context(3, sequence(...extensionsOf(spec).map(writeExtension))),
  );
  return sequence(body, algorithm, bitString(signDer(spec.issuerKey, body)));
}

export interface CrlSpec {
  readonly issuer: DistinguishedName;
  readonly issuerKey: KeyPair;
  readonly number: number;
  readonly thisUpdateMs: number;
  readonly nextUpdateMs: number;
  /** Big-endian serial numbers. */
  readonly revoked: readonly { readonly serial: Uint8Array; readonly atMs: number }[];
}

/** A signed revocation list of version 2, DER. */
export function writeCrl(spec: CrlSpec): Uint8Array {
  const algorithm = signatureAlgorithm(spec.issuerKey.type);
  const revoked = spec.revoked.map(({ serial, atMs }) => sequence(integer(serial), time(atMs)));
  const body = sequence(
    integer(1),
    algorithm,
    writeName(spec.issuer),
    time(spec.thisUpdateMs),
    time(spec.nextUpdateMs),
    // An empty list must be absent (RFC 5280, section 5.1.2.6).
    ...(revoked.length === 0 ? [] : [sequence(...revoked)]),
    context(
      0,
      sequence(
        writeExtension(authorityKeyIdExtension(keyIdentifier(spec.issuerKey.publicKey))),
        writeExtension({ oid: '2.5.29.20', critical: false, value: integer(spec.number) }),
      ),
    ),
  );
  return sequence(body, algorithm, bitString(signDer(spec.issuerKey, body)));
}

/** Positive, with 128 random bits after a first byte that keeps all serial numbers of one length. */
export function randomSerial(): Uint8Array {
  return Buffer.concat([Buffer.from([1]), randomBytes(16)]);
}

export function toPem(der: Uint8Array, label: 'CERTIFICATE' | 'X509 CRL' = 'CERTIFICATE'): string {
  const lines =
    Buffer.from(der)
      .toString('base64')
      .match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`;
}

function extensionsOf(spec: CertificateSpec): ExtensionSpec[] {
  const extensions: ExtensionSpec[] = [];
  const constraints = spec.basicConstraints;
  if (constraints !== undefined) {
    const value = [
      // FALSE is the default, which DER leaves out.
      ...(constraints.ca ? [boolean(true)] : []),
      ...(constraints.pathLength === undefined ? [] : [integer(constraints.pathLength)]),
    ];
    extensions.push({ oid: '2.5.29.19', critical: true, value: sequence(...value) });
  }
  if (spec.keyUsage.length > 0) {
    extensions.push({ oid: '2.5.29.15', critical: true, value: namedBits(spec.keyUsage.map((usage) => KEY_USAGE[usage])) });
  }
  if (spec.extendedKeyUsage !== undefined) {
    const usages = spec.extendedKeyUsage.map((usage) => objectId(EXTENDED_KEY_USAGE[usage]));
    extensions.push({ oid: '2.5.29.37', critical: false, value: sequence(...usages) });
  }
  extensions.push({ oid: '2.5.29.14', critical: false, value: octetString(spec.subjectKeyId ?? keyIdentifier(spec.publicKey)) });
  extensions.push(authorityKeyIdExtension(spec.authorityKeyId ?? keyIdentifier(spec.issuerKey.publicKey)));
  const names = [
    ...spec.uris.map((uri) => contextPrimitive(6, Buffer.from(uri, 'utf8'))),
    ...(spec.dnsNames ?? []).map((name) => contextPrimitive(2, Buffer.from(name, 'latin1'))),
  ];
  // Critical if there is no subject (RFC 5280, section 4.2.1.6).
  if (names.length > 0) extensions.push({ oid: '2.5.29.17', critical: spec.subject.length === 0, value: sequence(...names) });
  return [...extensions, ...(spec.moreExtensions ?? [])];
}

function authorityKeyIdExtension(keyId: Uint8Array): ExtensionSpec {
  return { oid: '2.5.29.35', critical: false, value: sequence(contextPrimitive(0, keyId)) };
}

function writeExtension({ oid, critical, value }: ExtensionSpec): Der {
  return sequence(objectId(oid), ...(critical ? [boolean(true)] : []), octetString(value));
}

function writeName(name: DistinguishedName): Der {
  return sequence(...name.map(({ type, value }) => set(sequence(objectId(NAME_ATTRIBUTE[type]), utf8String(value)))));
}
