/**
 * A certificate authority for tests, able to make any certificate, however broken. Everything is synchronous, and each
 * key pair is new unless one is given (RSA ones, which take long to make, are kept for the life of the process).
 */
import { createPublicKey, generateKeyPairSync, hash, randomBytes, sign, type KeyObject } from 'node:crypto';
import {
  bitString,
  boolean,
  element,
  explicit,
  implicit,
  integer,
  namedBits,
  octetString,
  oid,
  sequence,
  set,
  time,
  utf8,
} from './der-writer.ts';

export type KeyKind = 'p256' | 'p384' | 'p521' | 'secp256k1' | 'rsa1024' | 'rsa2048' | 'rsa3072' | 'rsa4096' | 'ed25519';
export type KeyUsageName = keyof typeof KEY_USAGE_BITS;

export interface KeyPair {
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
}

export interface Extension {
  readonly oid: string;
  readonly critical?: boolean;
  /** The DER inside the OCTET STRING. */
  readonly value: Uint8Array;
}

export interface NameConstraintLists {
  /** GeneralNames: see `uriName`, `dnsName`, `directoryName`, `ipName`, `emailName`. */
  readonly permitted?: readonly Uint8Array[];
  readonly excluded?: readonly Uint8Array[];
  readonly critical?: boolean;
}

/** What a certificate says. Everything has a default; null leaves an extension out. */
export interface CertificateOptions {
  /** The SPIFFE ID; short for `uriSans` of one. */
  readonly id?: string;
  readonly uriSans?: readonly string[];
  readonly dnsSans?: readonly string[];
  /** GeneralNames that stand beside those. */
  readonly otherSans?: readonly Uint8Array[];
  readonly sanCritical?: boolean;
  /** Common name and organisation, or the DER of a whole name. Empty text is the empty name. */
  readonly subject?: string | Uint8Array;
  /** Replaces the issuer's name. */
  readonly issuerName?: Uint8Array;
  /** Milliseconds since 1970. */
  readonly notBefore?: number;
  readonly notAfter?: number;
  readonly serial?: string;
  readonly key?: KeyKind | KeyPair;
  readonly isCa?: boolean | null;
  readonly pathLength?: number;
  readonly keyUsage?: readonly KeyUsageName[] | null;
  readonly keyUsageCritical?: boolean;
  /** `serverAuth`, `clientAuth`, `any`, or OIDs. */
  readonly eku?: readonly string[] | null;
  readonly nameConstraints?: NameConstraintLists;
  readonly subjectKeyId?: Uint8Array | null;
  readonly authorityKeyId?: Uint8Array | null;
  readonly extensions?: readonly Extension[];
  /** How the issuer signs; by default as its key kind has it. */
  readonly signature?: SignatureName;
  /** Flips a bit of the signature. */
  readonly badSignature?: boolean;
}

export interface TestCertificate {
  readonly der: Buffer;
  readonly pem: string;
  readonly keys: KeyPair;
  /** PKCS #8. */
  readonly keyDer: Buffer;
  readonly keyPem: string;
  readonly serial: string;
  /** DER of the subject. */
  readonly name: Buffer;
  /** This certificate, then the intermediates between it and its root: what a peer sends. */
  readonly chain: readonly Buffer[];
  /** `chain` as the Workload API sends it. */
  readonly chainDer: Buffer;
  readonly chainPem: string;
}

export interface TestAuthority extends TestCertificate {
  readonly trustDomain: string;
  /** A leaf SVID; by default of `spiffe://<trust domain>/workload`, for an hour. */
  issue(options?: CertificateOptions): TestCertificate;
  /** A CA under this one. */
  intermediate(options?: CertificateOptions): TestAuthority;
  /** A certificate by this authority for the name and key of `other`; what is issued with the result carries it in its chain. */
  crossSign(other: TestAuthority, options?: CertificateOptions): TestAuthority;
  /** A revocation list by this authority. */
  crl(options?: CrlOptions): Buffer;
}

export interface CrlOptions {
  /** Serial numbers in hex, or entries with extensions. */
  readonly revoked?: readonly (string | { readonly serial: string; readonly extensions: readonly Extension[] })[];
  readonly thisUpdate?: number;
  readonly nextUpdate?: number | null;
  readonly extensions?: readonly Extension[];
  readonly authorityKeyId?: Uint8Array | null;
  /** Null leaves the version out, which is version 1. */
  readonly version?: null;
  readonly signature?: SignatureName;
  readonly badSignature?: boolean;
}

export interface AuthorityOptions extends CertificateOptions {
  readonly trustDomain?: string;
}

export type SignatureName = keyof typeof SIGNATURES;

const HOUR_MS = 3_600_000;
const KEY_USAGE_BITS = { digitalSignature: 0, keyEncipherment: 2, keyAgreement: 4, keyCertSign: 5, crlSign: 6 } as const;
const USAGES: Readonly<Record<string, string>> = {
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
  any: '2.5.29.37.0',
};

const pssParameters = (hashOid: string, saltLength: number): Buffer =>
  sequence(
    explicit(0, sequence(oid(hashOid), element(0x05))),
    explicit(1, sequence(oid('1.2.840.113549.1.1.8'), sequence(oid(hashOid), element(0x05)))),
    explicit(2, integer(saltLength)),
  );
const SIGNATURES = {
  'ecdsa-sha1': { hash: 'sha1', algorithm: sequence(oid('1.2.840.10045.4.1')), padding: undefined },
  'ecdsa-sha256': { hash: 'sha256', algorithm: sequence(oid('1.2.840.10045.4.3.2')), padding: undefined },
  'ecdsa-sha384': { hash: 'sha384', algorithm: sequence(oid('1.2.840.10045.4.3.3')), padding: undefined },
  'ecdsa-sha512': { hash: 'sha512', algorithm: sequence(oid('1.2.840.10045.4.3.4')), padding: undefined },
  'rsa-md5': { hash: 'md5', algorithm: sequence(oid('1.2.840.113549.1.1.4'), element(0x05)), padding: undefined },
  'rsa-sha1': { hash: 'sha1', algorithm: sequence(oid('1.2.840.113549.1.1.5'), element(0x05)), padding: undefined },
  'rsa-sha256': { hash: 'sha256', algorithm: sequence(oid('1.2.840.113549.1.1.11'), element(0x05)), padding: undefined },
  'rsa-pss-sha256': {
    hash: 'sha256',
    algorithm: sequence(oid('1.2.840.113549.1.1.10'), pssParameters('2.16.840.1.101.3.4.2.1', 32)),
    padding: { padding: 6, saltLength: 32 },
  },
  ed25519: { hash: null, algorithm: sequence(oid('1.3.101.112')), padding: undefined },
  // As they must not be written, or as RFC 4055 lets them be.
  'ed25519-null': { hash: null, algorithm: sequence(oid('1.3.101.112'), element(0x05)), padding: undefined },
  'ecdsa-sha256-null': { hash: 'sha256', algorithm: sequence(oid('1.2.840.10045.4.3.2'), element(0x05)), padding: undefined },
  'rsa-sha256-bare': { hash: 'sha256', algorithm: sequence(oid('1.2.840.113549.1.1.11')), padding: undefined },
} as const;

/** A self-signed root of a trust domain; by default `example.org`. */
export function createTestAuthority(options: AuthorityOptions = {}): TestAuthority {
  const { trustDomain = 'example.org' } = options;
  const keys = keyPairOf(options.key);
  const settings = { ...caDefaults(trustDomain, 'Root'), ...options, key: keys };
  const root = makeCertificate(settings, {
    name: nameOf(settings.subject),
    keys,
    keyId: options.subjectKeyId ?? keyIdOf(keys.publicKey),
    chain: [],
  });
  return authority(trustDomain, { ...root, chain: [] }, options.subjectKeyId);
}

/** A key pair of `kind`. RSA ones are made once each. */
export function createKeyPair(kind: KeyKind = 'p256'): KeyPair {
  const curves = { p256: 'prime256v1', p384: 'secp384r1', p521: 'secp521r1', secp256k1: 'secp256k1' } as const;
  switch (kind) {
    case 'ed25519':
      return generateKeyPairSync('ed25519');
    case 'p256':
    case 'p384':
    case 'p521':
    case 'secp256k1':
      return generateKeyPairSync('ec', { namedCurve: curves[kind] });
    default: {
      const known = rsaKeys.get(kind) ?? generateKeyPairSync('rsa', { modulusLength: Number(kind.slice(3)) });
      rsaKeys.set(kind, known);
      return known;
    }
  }
}
const rsaKeys = new Map<KeyKind, KeyPair>();

export const uriName = (uri: string): Buffer => implicit(6, Buffer.from(uri, 'latin1'));
export const dnsName = (name: string): Buffer => implicit(2, Buffer.from(name, 'latin1'));
export const emailName = (mailbox: string): Buffer => implicit(1, Buffer.from(mailbox, 'latin1'));
export const ipName = (bytes: readonly number[]): Buffer => implicit(7, Buffer.from(bytes));
export const directoryName = (name: Uint8Array): Buffer => explicit(4, name);
export const registeredIdName = (dotted: string): Buffer => implicit(8, oid(dotted).subarray(2));

/** DER of a distinguished name: attributes by OID, in order; a bare text is a common name under the organisation "Scute test". */
export function distinguishedName(...attributes: readonly (readonly [string, string])[]): Buffer {
  return sequence(...attributes.map(([type, value]) => set(sequence(oid(type), utf8(value)))));
}

export const COMMON_NAME = '2.5.4.3';
export const ORGANISATION = '2.5.4.10';

/** `certificate` in PEM. */
export function pemOf(label: string, der: Uint8Array): string {
  return `-----BEGIN ${label}-----\n${(
    Buffer.from(der)
      .toString('base64')
      .match(/.{1,64}/g) ?? []
  ).join('\n')}\n-----END ${label}-----\n`;
}

interface Issuer {
  readonly name: Buffer;
  readonly keys: KeyPair;
  readonly keyId: Uint8Array;
  /** What stands between it and the root, itself first; empty for a root. */
  readonly chain: readonly Buffer[];
}

function authority(trustDomain: string, certificate: TestCertificate, subjectKeyId?: Uint8Array | null): TestAuthority {
  const { keys, name } = certificate;
  const keyId = subjectKeyId ?? keyIdOf(keys.publicKey);
  const issuer: Issuer = { name, keys, keyId, chain: certificate.chain };
  return {
    ...certificate,
    trustDomain,
    issue(options = {}) {
      return makeCertificate({ id: `spiffe://${trustDomain}/workload`, ...leafDefaults(), ...options }, issuer);
    },
    intermediate(options = {}) {
      return authority(
        trustDomain,
        makeCertificate({ ...caDefaults(trustDomain, 'Intermediate'), ...options }, issuer),
        options.subjectKeyId,
      );
    },
    crossSign(other, options = {}) {
      const settings = { ...caDefaults(trustDomain, ''), subject: other.name, key: other.keys, ...options };
      return authority(other.trustDomain, makeCertificate(settings, issuer), options.subjectKeyId);
    },
    crl: (options = {}) => makeCrl(options, issuer),
  };
}

function leafDefaults(): CertificateOptions {
  return { subject: 'Workload', isCa: false, keyUsage: ['digitalSignature'], eku: ['serverAuth', 'clientAuth'] };
}

function caDefaults(trustDomain: string, subject: string): CertificateOptions {
  return {
    subject: `${subject} ${trustDomain}`,
    id: `spiffe://${trustDomain}`,
    isCa: true,
    keyUsage: ['keyCertSign', 'crlSign'],
    eku: null,
  };
}

function makeCertificate(options: CertificateOptions, issuer: Issuer): TestCertificate {
  const nowMs = Date.now();
  const keys = keyPairOf(options.key);
  const name = nameOf(options.subject);
  const serial = options.serial ?? `4${randomBytes(15).toString('hex').slice(1)}`;
  const { algorithm, apply } = signer(options, issuer.keys);
  const tbs = sequence(
    explicit(0, integer(2)),
    integer(serial),
    algorithm,
    options.issuerName ?? issuer.name,
    sequence(time(options.notBefore ?? nowMs - 60_000), time(options.notAfter ?? nowMs + HOUR_MS)),
    name,
    keys.publicKey.export({ format: 'der', type: 'spki' }),
    explicit(3, sequence(...extensionsOf(options, keys, name, issuer).map(encodeExtension))),
  );
  const der = sequence(tbs, algorithm, bitString(apply(tbs)));
  const chain = [der, ...issuer.chain];
  const keyDer = keys.privateKey.export({ format: 'der', type: 'pkcs8' });
  return {
    der,
    pem: pemOf('CERTIFICATE', der),
    keys,
    keyDer,
    keyPem: pemOf('PRIVATE KEY', keyDer),
    serial,
    name,
    chain,
    chainDer: Buffer.concat(chain),
    chainPem: chain.map((each) => pemOf('CERTIFICATE', each)).join(''),
  };
}

function extensionsOf(options: CertificateOptions, keys: KeyPair, name: Buffer, issuer: Issuer): Extension[] {
  const found: Extension[] = [];
  const { isCa = false, keyUsage = null, eku = null, nameConstraints, subjectKeyId, authorityKeyId } = options;
  if (isCa !== null) {
    const content = [...(isCa ? [boolean(true)] : []), ...(options.pathLength === undefined ? [] : [integer(options.pathLength)])];
    found.push({ oid: '2.5.29.19', critical: true, value: sequence(...content) });
  }
  if (keyUsage !== null) {
    const bits = keyUsage.map((usage) => KEY_USAGE_BITS[usage]);
    found.push({ oid: '2.5.29.15', critical: options.keyUsageCritical ?? true, value: namedBits(bits) });
  }
  if (eku !== null) found.push({ oid: '2.5.29.37', value: sequence(...eku.map((usage) => oid(USAGES[usage] ?? usage))) });
  const uris = options.uriSans ?? (options.id === undefined ? [] : [options.id]);
  const names = [...uris.map(uriName), ...(options.dnsSans ?? []).map(dnsName), ...(options.otherSans ?? [])];
  if (names.length > 0) found.push({ oid: '2.5.29.17', critical: options.sanCritical ?? name.length === 2, value: sequence(...names) });
  if (nameConstraints !== undefined) {
    const { permitted = [], excluded = [], critical = true } = nameConstraints;
    const lists = [permitted, excluded].map((bases, index) =>
      bases.length === 0 ? Buffer.alloc(0) : explicit(index, ...bases.map((base) => sequence(base))),
    );
    found.push({ oid: '2.5.29.30', critical, value: sequence(...lists) });
  }
  if (subjectKeyId !== null) found.push({ oid: '2.5.29.14', value: octetString(subjectKeyId ?? keyIdOf(keys.publicKey)) });
  if (authorityKeyId !== null) found.push({ oid: '2.5.29.35', value: sequence(implicit(0, authorityKeyId ?? issuer.keyId)) });
  return [...found, ...(options.extensions ?? [])];
}

function makeCrl(options: CrlOptions, issuer: Issuer): Buffer {
  const nowMs = Date.now();
  const { algorithm, apply } = signer(options, issuer.keys);
  const { revoked = [], extensions = [], nextUpdate = nowMs + HOUR_MS, authorityKeyId = issuer.keyId } = options;
  const entries = revoked.map((entry) => {
    const { serial, extensions: own } = typeof entry === 'string' ? { serial: entry, extensions: [] } : entry;
    return sequence(integer(serial), time(nowMs - 60_000), ...(own.length === 0 ? [] : [sequence(...own.map(encodeExtension))]));
  });
  const all = [
    ...(authorityKeyId === null ? [] : [{ oid: '2.5.29.35', value: sequence(implicit(0, authorityKeyId)) }]),
    { oid: '2.5.29.20', value: integer(1) },
    ...extensions,
  ];
  const tbs = sequence(
    ...(options.version === null ? [] : [integer(1)]),
    algorithm,
    issuer.name,
    time(options.thisUpdate ?? nowMs - 60_000),
    ...(nextUpdate === null ? [] : [time(nextUpdate)]),
    ...(entries.length === 0 ? [] : [sequence(...entries)]),
    explicit(0, sequence(...all.map(encodeExtension))),
  );
  return sequence(tbs, algorithm, bitString(apply(tbs)));
}

function signer(
  { signature, badSignature = false }: { signature?: SignatureName; badSignature?: boolean },
  { privateKey }: KeyPair,
): { algorithm: Buffer; apply: (tbs: Uint8Array) => Buffer } {
  const { hash: digest, algorithm, padding } = SIGNATURES[signature ?? defaultSignature(privateKey)];
  return {
    algorithm,
    apply(tbs) {
      const made = sign(digest, tbs, { key: privateKey, ...padding });
      if (badSignature) made[made.length - 1] = (made.at(-1) ?? 0) ^ 1;
      return made;
    },
  };
}

function defaultSignature(key: KeyObject): SignatureName {
  if (key.asymmetricKeyType === 'ed25519') return 'ed25519';
  return key.asymmetricKeyType === 'rsa' ? 'rsa-sha256' : 'ecdsa-sha256';
}

function encodeExtension({ oid: type, critical = false, value }: Extension): Buffer {
  return sequence(oid(type), ...(critical ? [boolean(true)] : []), octetString(value));
}

function nameOf(subject: string | Uint8Array = ''): Buffer {
  if (typeof subject !== 'string') return Buffer.from(subject);
  return subject === '' ? sequence() : distinguishedName([ORGANISATION, 'Scute test'], [COMMON_NAME, subject]);
}

function keyPairOf(key: KeyKind | KeyPair = 'p256'): KeyPair {
  return typeof key === 'string' ? createKeyPair(key) : key;
}

/** What certificates say of a key unless told otherwise. */
export function keyIdOf(key: KeyObject): Buffer {
  const spki = (key.type === 'private' ? createPublicKey(key) : key).export({ format: 'der', type: 'spki' });
  return Buffer.from(hash('sha256', spki), 'hex').subarray(0, 20);
}
