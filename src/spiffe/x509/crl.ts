import { hash } from 'node:crypto';
import { err, ok, type Result } from '../../lib/result.ts';
import { messageOf } from '../../lib/errors.ts';
import { decodeSignatureAlgorithm, signatureHolds } from './algorithms.ts';
import type { Certificate } from './certificate.ts';
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
import { decodeAuthorityCertificate, decodeAuthorityKeyId, decodeExtensionList } from './extensions.ts';
import { decodeGeneralNames, decodeName, type DistinguishedName } from './names.ts';

/**
 * One certificate revocation list (RFC 5280 5). Immutable. What it lists is revoked; that a certificate is not listed
 * proves nothing, since having lists at all is up to the agent. So a list past its nextUpdate, or one that covers only a
 * part (a delta, a distribution point), goes on revoking what it lists; `notes` and `nextUpdateMs` are there to be reported.
 */
export interface Crl {
  /** RFC 4514-like text, for sentences. */
  readonly issuer: string;
  readonly issuerDer: string;
  readonly issuerName: DistinguishedName;
  /** Lower-case hex. */
  readonly authorityKeyId: string | undefined;
  /** The authority's certificate by its issuer and serial number, where the list says that as well. */
  readonly authorityCertificate: ReturnType<typeof decodeAuthorityCertificate> | undefined;
  readonly thisUpdateMs: number;
  readonly nextUpdateMs: number | undefined;
  /** What is odd about it, for the log. */
  readonly notes: readonly string[];
  isRevoked(serial: string): boolean;
  /** Whether the signature is by the key of `issuer`, with an algorithm that we accept. */
  isSignedBy(issuer: Certificate): boolean;
  /** SHA-256 of the DER, lower-case hex. */
  readonly sha256: string;
  /** A copy of the DER. */
  der(): Uint8Array;
}

const OID_AUTHORITY_KEY_ID = '2.5.29.35';
const OID_ISSUING_DISTRIBUTION_POINT = '2.5.29.28';
const OID_REASON_CODE = '2.5.29.21';
const OID_CERTIFICATE_ISSUER = '2.5.29.29';
const REASON_REMOVE_FROM_CRL = 8;
/** Issuers for which a list remembers whether they signed it. */
const MAX_REMEMBERED = 1024;
const NOTHING = new Uint8Array();
const CRL_EXTENSIONS = contextTag(0, 'constructed');

/** Parses one CRL, which must be all of `der`. Its signature is not checked here. Never throws. */
export function parseCrl(der: Uint8Array): Result<Crl, string> {
  try {
    return ok(readCrl(Uint8Array.from(der)));
  } catch (thrown) {
    return err(`not a well-formed revocation list: ${messageOf(thrown)}`);
  }
}

function readCrl(der: Uint8Array): Crl {
  const outer = enterOnly(der, Tag.sequence);
  const signed = outer.read(Tag.sequence);
  const outerAlgorithm = outer.read(Tag.sequence);
  const signature = decodeOctetBits(outer.read(Tag.bitString));
  outer.finish();

  const tbs = new DerReader(signed.content);
  const version = tbs.optional(Tag.integer);
  if (version !== undefined && decodeSmallInteger(version) !== 1) throw new DerError('a version other than 2');
  const innerAlgorithm = tbs.read(Tag.sequence);
  if (Buffer.compare(innerAlgorithm.whole, outerAlgorithm.whole) !== 0) throw new DerError('two different signature algorithms');
  const issuer = decodeName(tbs.read(Tag.sequence));
  const thisUpdateMs = decodeTime(tbs.any());
  const nextUpdate = tbs.optional(Tag.utcTime) ?? tbs.optional(Tag.generalizedTime);
  const entries = tbs.optional(Tag.sequence);
  const extensionField = tbs.optional(CRL_EXTENSIONS);
  tbs.finish();

  const notes: string[] = [];
  const extensions = extensionField === undefined ? [] : decodeExtensionList(new DerReader(extensionField.content));
  for (const { oid, critical } of extensions) {
    // RFC 5280 5.2.5: it is critical, and where somebody left that out, it still says that this is a part.
    if (critical || oid === OID_ISSUING_DISTRIBUTION_POINT)
      notes.push(`has the ${critical ? 'critical ' : ''}extension ${oid}: it may not list all that is revoked`);
  }
  const keyId = extensions.find((extension) => extension.oid === OID_AUTHORITY_KEY_ID);
  const { serials, hasExtensions } = readEntries(new DerReader(entries?.content ?? NOTHING), issuer, notes);
  // RFC 5280 5.1.2.1: others may refuse to read such a list.
  if (version === undefined && (extensionField !== undefined || hasExtensions)) notes.push('has extensions, though it is of version 1');
  const { oid, algorithm } = decodeSignatureAlgorithm(outerAlgorithm);
  if (algorithm === undefined) notes.push(`is signed with the algorithm ${oid}, which is not accepted`);

  // A list may be asked about on every handshake; its signature needs checking once for each issuer. An issuer may be re-issued without end.
  const checked = new Map<string, boolean>();
  return Object.freeze({
    sha256: hash('sha256', der),
    der: () => Uint8Array.from(der),
    issuer: issuer.text,
    issuerDer: issuer.der,
    issuerName: issuer,
    authorityKeyId: keyId === undefined ? undefined : decodeAuthorityKeyId(keyId),
    authorityCertificate: keyId === undefined ? undefined : decodeAuthorityCertificate(keyId),
    thisUpdateMs,
    nextUpdateMs: nextUpdate === undefined ? undefined : decodeTime(nextUpdate),
    notes: Object.freeze(notes),
    isRevoked: (serial: string) => serials.has(serial),
    isSignedBy(certificate: Certificate) {
      const known = checked.get(certificate.sha256);
      if (known !== undefined) return known;
      const holds =
        algorithm !== undefined &&
        certificate.keyProblem === undefined &&
        signatureHolds(algorithm, signed.whole, signature, certificate.publicKey);
      if (checked.size >= MAX_REMEMBERED) checked.clear();
      checked.set(certificate.sha256, holds);
      return holds;
    },
  });
}

/** The serial numbers that are revoked. Entries that take back an earlier one, or speak for another issuer, are left out. */
function readEntries(
  entries: DerReader,
  issuer: DistinguishedName,
  notes: string[],
): { readonly serials: ReadonlySet<string>; readonly hasExtensions: boolean } {
  const serials = new Set<string>();
  const critical = new Set<string>();
  let hasExtensions = false;
  let isIndirect = false;
  // RFC 5280 5.3.3: whom an entry names as the issuer of what it revokes goes for those that follow, until another is named.
  let isForeign = false;
  while (!entries.done) {
    const entry = entries.enter(Tag.sequence);
    const serial = decodeIntegerHex(entry.read(Tag.integer));
    decodeTime(entry.any());
    let isTakenBack = false;
    if (!entry.done) {
      hasExtensions = true;
      for (const { oid, critical: isCritical, value } of decodeExtensionList(new DerReader(entry.read(Tag.sequence).whole))) {
        if (oid === OID_CERTIFICATE_ISSUER) {
          isIndirect = true;
          isForeign = !decodeGeneralNames(value).some((name) => name.type === 'directory' && name.value.folded === issuer.folded);
        } else if (isCritical) critical.add(oid);
        if (oid === OID_REASON_CODE) isTakenBack = readOnly(value, Tag.enumerated).content[0] === REASON_REMOVE_FROM_CRL;
      }
      entry.finish();
    }
    if (!isForeign && !isTakenBack) serials.add(serial);
  }
  // No list for SVIDs needs that.
  if (isIndirect) notes.push('is an indirect list: entries of other issuers are not read');
  // RFC 5280 5.3: who does not understand one may go by what the list has, and not by what it has not.
  for (const oid of critical) notes.push(`has entries with the critical extension ${oid}: it may mean more than it lists`);
  return { serials, hasExtensions };
}
