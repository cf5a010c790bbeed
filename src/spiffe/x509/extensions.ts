import {
  contextTag,
  decodeBoolean,
  decodeIntegerHex,
  decodeNamedBits,
  decodeOid,
  decodeSmallInteger,
  DerError,
  DerReader,
  enterOnly,
  readOnly,
  Tag,
  toHex,
} from './der.ts';
import { decodeGeneralName, decodeGeneralNames, type GeneralName } from './names.ts';

/** The extensions of a certificate that path validation and the X.509-SVID rules look at (RFC 5280 4.2). */
export interface Extensions {
  readonly basicConstraints: { readonly isCa: boolean; readonly pathLength: number | undefined } | undefined;
  readonly keyUsage: KeyUsage | undefined;
  /** OIDs. */
  readonly extendedKeyUsage: readonly string[] | undefined;
  readonly subjectAltName: { readonly critical: boolean; readonly names: readonly GeneralName[] } | undefined;
  readonly nameConstraints: NameConstraints | undefined;
  /** Lower-case hex. */
  readonly subjectKeyId: string | undefined;
  readonly authorityKeyId: string | undefined;
  /** Promises to show an OCSP response (RFC 7633), and nothing else. */
  readonly mustStaple: boolean;
  /** OIDs of critical extensions that are not understood here. A certificate that has one must not be relied on. */
  readonly unknownCritical: readonly string[];
}

export interface KeyUsage {
  readonly critical: boolean;
  readonly digitalSignature: boolean;
  readonly keyCertSign: boolean;
  readonly crlSign: boolean;
}

export interface NameConstraints {
  readonly critical: boolean;
  readonly permitted: readonly GeneralName[];
  readonly excluded: readonly GeneralName[];
}

export const SERVER_AUTH = '1.3.6.1.5.5.7.3.1';
export const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2';

const OID = {
  subjectKeyId: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  nameConstraints: '2.5.29.30',
  certificatePolicies: '2.5.29.32',
  authorityKeyId: '2.5.29.35',
  extendedKeyUsage: '2.5.29.37',
} as const;

/** Not among those that are understood: we have no OCSP response to show. */
const TLS_FEATURE = '1.3.6.1.5.5.7.1.24';
/** DER of the one feature 5, status_request. */
const MUST_STAPLE = '3003020105';

export interface RawExtension {
  readonly oid: string;
  readonly critical: boolean;
  /** The DER inside the OCTET STRING. */
  readonly value: Uint8Array;
}

/** Extensions ::= SEQUENCE SIZE (1..MAX) OF Extension. A second one of the same OID is an error (RFC 5280 4.2). Throws DerError. */
export function decodeExtensionList(reader: DerReader): readonly RawExtension[] {
  const list = reader.enter(Tag.sequence);
  reader.finish();
  const found: RawExtension[] = [];
  const seen = new Set<string>();
  do {
    const extension = list.enter(Tag.sequence);
    const oid = decodeOid(extension.read(Tag.oid));
    const criticality = extension.optional(Tag.boolean);
    const value = extension.read(Tag.octetString).content;
    extension.finish();
    if (seen.has(oid)) throw new DerError(`two extensions ${oid}`);
    seen.add(oid);
    found.push({ oid, critical: criticality !== undefined && decodeBoolean(criticality), value });
  } while (!list.done);
  return found;
}

const KNOWN: ReadonlySet<string> = new Set(Object.values(OID));
/** RFC 5280 4.2.1.1 and 4.2.1.2: never critical. OpenSSL and Go trust nobody who has them so. */
const NEVER_CRITICAL: ReadonlySet<string> = new Set([OID.authorityKeyId, OID.subjectKeyId]);

/** Whether an extension may be critical. Policies forbid nothing, since we ask for none (RFC 5280 6.1); but who marks them as critical wants them read, qualifiers and all (4.2.1.4). */
function isUnderstood({ oid, value }: RawExtension): boolean {
  return oid === OID.certificatePolicies ? hasKnownPolicies(value) : KNOWN.has(oid) && !NEVER_CRITICAL.has(oid);
}

/** Throws DerError if a known extension is malformed: it is not known then what it would have forbidden. */
export function decodeExtensions(raw: readonly RawExtension[]): Extensions {
  const byOid = new Map(raw.map((extension) => [extension.oid, extension]));
  const read = <T>(oid: string, decode: (extension: RawExtension) => T): T | undefined => {
    const extension = byOid.get(oid);
    return extension === undefined ? undefined : decode(extension);
  };
  return {
    basicConstraints: read(OID.basicConstraints, decodeBasicConstraints),
    keyUsage: read(OID.keyUsage, decodeKeyUsage),
    extendedKeyUsage: read(OID.extendedKeyUsage, decodeExtendedKeyUsage),
    subjectAltName: read(OID.subjectAltName, ({ critical, value }) => ({ critical, names: decodeGeneralNames(value) })),
    nameConstraints: read(OID.nameConstraints, decodeNameConstraints),
    subjectKeyId: read(OID.subjectKeyId, ({ value }) => toHex(readOnly(value, Tag.octetString).content)),
    authorityKeyId: read(OID.authorityKeyId, decodeAuthorityKeyId),
    mustStaple: read(TLS_FEATURE, ({ value }) => toHex(value) === MUST_STAPLE) ?? false,
    unknownCritical: raw.filter((extension) => extension.critical && !isUnderstood(extension)).map((extension) => extension.oid),
  };
}

export const NO_EXTENSIONS: Extensions = {
  basicConstraints: undefined,
  keyUsage: undefined,
  extendedKeyUsage: undefined,
  subjectAltName: undefined,
  nameConstraints: undefined,
  subjectKeyId: undefined,
  authorityKeyId: undefined,
  mustStaple: false,
  unknownCritical: [],
};

function decodeBasicConstraints({ value }: RawExtension): { isCa: boolean; pathLength: number | undefined } {
  const reader = enterOnly(value, Tag.sequence);
  const ca = reader.optional(Tag.boolean);
  const length = reader.optional(Tag.integer);
  reader.finish();
  const isCa = ca !== undefined && decodeBoolean(ca);
  if (length !== undefined && !isCa) throw new DerError('a path length without the CA flag');
  return { isCa, pathLength: length === undefined ? undefined : decodeSmallInteger(length) };
}

function decodeKeyUsage({ critical, value }: RawExtension): KeyUsage {
  const bits = decodeNamedBits(readOnly(value, Tag.bitString));
  return { critical, digitalSignature: bits.has(0), keyCertSign: bits.has(5), crlSign: bits.has(6) };
}

function decodeExtendedKeyUsage({ value }: RawExtension): readonly string[] {
  const reader = enterOnly(value, Tag.sequence);
  const usages: string[] = [];
  do usages.push(decodeOid(reader.read(Tag.oid)));
  while (!reader.done);
  return usages;
}

/** The key identifier alone; issuer name and serial number, rarely there, identify nothing that names and signatures do not. */
export function decodeAuthorityKeyId({ value }: RawExtension): string | undefined {
  const reader = enterOnly(value, Tag.sequence);
  const keyId = reader.optional(contextTag(0, 'primitive'));
  reader.optional(contextTag(1, 'constructed'));
  reader.optional(contextTag(2, 'primitive'));
  reader.finish();
  return keyId === undefined ? undefined : toHex(keyId.content);
}

/** Of an authority key identifier, the certificate of that key: its issuer's name as DER in hex, if it is one, and its serial number. */
export function decodeAuthorityCertificate({ value }: RawExtension): {
  readonly issuerDer: string | undefined;
  readonly serial: string | undefined;
} {
  const reader = enterOnly(value, Tag.sequence);
  reader.optional(contextTag(0, 'primitive'));
  const issuer = reader.optional(contextTag(1, 'constructed'));
  const serial = reader.optional(contextTag(2, 'primitive'));
  const names = new DerReader(issuer?.content ?? new Uint8Array());
  let issuerDer: string | undefined;
  while (!names.done) {
    const name = decodeGeneralName(names.any());
    if (name.type === 'directory') issuerDer ??= name.value.der;
  }
  return { issuerDer, serial: serial === undefined ? undefined : decodeIntegerHex(serial) };
}

function decodeNameConstraints({ critical, value }: RawExtension): NameConstraints {
  const reader = enterOnly(value, Tag.sequence);
  const permitted = reader.optional(contextTag(0, 'constructed'));
  const excluded = reader.optional(contextTag(1, 'constructed'));
  reader.finish();
  if (permitted === undefined && excluded === undefined) throw new DerError('an empty list of name constraints');
  return { critical, permitted: decodeSubtrees(permitted?.content), excluded: decodeSubtrees(excluded?.content) };
}

const CPS_POINTER = '1.3.6.1.5.5.7.2.1';
const USER_NOTICE = '1.3.6.1.5.5.7.2.2';

/** Whether these are certificatePolicies, each of them once, and with no qualifiers but those of RFC 5280 4.2.1.4. */
function hasKnownPolicies(value: Uint8Array): boolean {
  try {
    const policies = enterOnly(value, Tag.sequence);
    const seen = new Set<string>();
    do {
      const policy = policies.enter(Tag.sequence);
      const oid = decodeOid(policy.read(Tag.oid));
      if (seen.has(oid)) return false;
      seen.add(oid);
      if (policy.done) continue;
      const qualifiers = policy.enter(Tag.sequence);
      policy.finish();
      do {
        const qualifier = qualifiers.enter(Tag.sequence);
        const kind = decodeOid(qualifier.read(Tag.oid));
        if (kind === CPS_POINTER) qualifier.read(Tag.ia5String);
        else if (kind === USER_NOTICE) readUserNotice(qualifier.enter(Tag.sequence));
        else return false;
        qualifier.finish();
      } while (!qualifiers.done);
    } while (!policies.done);
    return true;
  } catch {
    return false;
  }
}

function readUserNotice(notice: DerReader): void {
  const reference = notice.optional(Tag.sequence);
  if (reference !== undefined) {
    const parts = new DerReader(reference.content);
    readDisplayText(parts);
    const numbers = parts.enter(Tag.sequence);
    parts.finish();
    while (!numbers.done) numbers.read(Tag.integer);
  }
  if (!notice.done) readDisplayText(notice);
  notice.finish();
}

function readDisplayText(reader: DerReader): void {
  const { tag } = reader.any();
  if (![Tag.ia5String, Tag.visibleString, Tag.bmpString, Tag.utf8String].some((text) => text === tag))
    throw new DerError('a text of an odd kind');
}

/** GeneralSubtrees; minimum and maximum are never used in RFC 5280, so a subtree that has one is not understood. */
function decodeSubtrees(content: Uint8Array | undefined): readonly GeneralName[] {
  if (content === undefined) return [];
  const reader = new DerReader(content);
  const bases: GeneralName[] = [];
  do {
    const subtree = reader.enter(Tag.sequence);
    bases.push(decodeGeneralName(subtree.any()));
    subtree.finish();
  } while (!reader.done);
  return bases;
}
