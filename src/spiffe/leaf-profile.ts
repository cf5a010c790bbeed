import { err, type Result } from '../lib/result.ts';
import type { Certificate } from './certificate.ts';
import { CLIENT_AUTH, SERVER_AUTH } from './extensions.ts';
import { parseSpiffeId, pathOf, type SpiffeId } from './spiffe-id.ts';

/** The SPIFFE ID that a certificate claims, proven or not: that of its only URI name. */
export function claimedIdOf(leaf: Certificate): SpiffeId | undefined {
  const id = idRule(leaf);
  return id.ok ? id.value : undefined;
}

/**
 * The profile of a leaf SVID (X509-SVID standard, sections 2 to 4): its SPIFFE ID, or the first rule that it breaks.
 * Strict where the standard says MUST of the issuer as well: an issuer that breaks it is not one to rely on.
 */
export function checkLeafProfile(leaf: Certificate): Result<SpiffeId, string> {
  const id = idRule(leaf);
  if (!id.ok) return id;
  for (const rule of LEAF_RULES) {
    const problem = rule(leaf);
    if (problem !== undefined) return err(`${id.value}: ${problem}`);
  }
  return id;
}

const LEAF_RULES: readonly ((leaf: Certificate) => string | undefined)[] = [
  pathRule,
  subjectRule,
  caRule,
  keyUsageRule,
  digitalSignatureRule,
  certSignRule,
  crlSignRule,
  extendedKeyUsageRule,
  nameConstraintsRule,
];

/** Section 2: exactly one URI name, which is a SPIFFE ID. Names of other kinds are free. */
function idRule({ uriSans }: Certificate): Result<SpiffeId, string> {
  const [uri] = uriSans;
  if (uri === undefined) return err('the certificate has no URI name (X509-SVID 2)');
  if (uriSans.length > 1) return err(`the certificate has ${uriSans.length} URI names (X509-SVID 2)`);
  const id = parseSpiffeId(uri);
  return id.ok ? id : err(`the URI name ${JSON.stringify(uri.slice(0, 2100))} is not a SPIFFE ID: ${id.error} (X509-SVID 2)`);
}

/** Section 3.1: a leaf names a workload, not its trust domain. */
function pathRule({ uriSans: [uri = ''] }: Certificate): string | undefined {
  const id = parseSpiffeId(uri);
  return id.ok && pathOf(id.value) !== '' ? undefined : 'the SPIFFE ID of a leaf has a path (X509-SVID 3.1)';
}

/** Section 3.1 by RFC 5280 4.2.1.6: without a subject, the alternative name is the only name, so it must be critical. */
function subjectRule({ subjectName, extensions }: Certificate): string | undefined {
  if (!subjectName.isEmpty || extensions.subjectAltName?.critical === true) return undefined;
  return 'the subject is empty and the alternative name is not critical (X509-SVID 3.1)';
}

/** Section 4.1. */
function caRule({ isCa }: Certificate): string | undefined {
  return isCa ? 'the leaf is a CA (X509-SVID 4.1)' : undefined;
}

/** Section 4.3. */
function keyUsageRule({ extensions: { keyUsage } }: Certificate): string | undefined {
  if (keyUsage === undefined) return 'there is no key usage (X509-SVID 4.3)';
  return keyUsage.critical ? undefined : 'key usage is not critical (X509-SVID 4.3)';
}

/** Section 4.3. */
function digitalSignatureRule({ extensions: { keyUsage } }: Certificate): string | undefined {
  return keyUsage?.digitalSignature === true ? undefined : 'key usage lacks digitalSignature (X509-SVID 4.3)';
}

/** Section 4.3. */
function certSignRule({ extensions: { keyUsage } }: Certificate): string | undefined {
  return keyUsage?.keyCertSign === true ? 'key usage has keyCertSign (X509-SVID 4.3)' : undefined;
}

/** Section 4.3. */
function crlSignRule({ extensions: { keyUsage } }: Certificate): string | undefined {
  return keyUsage?.crlSign === true ? 'key usage has cRLSign (X509-SVID 4.3)' : undefined;
}

/** Section 4.4: it may be left out; if it is there it names both roles. */
function extendedKeyUsageRule({ extensions: { extendedKeyUsage: usages } }: Certificate): string | undefined {
  if (usages === undefined || (usages.includes(SERVER_AUTH) && usages.includes(CLIENT_AUTH))) return undefined;
  return 'extended key usage lacks serverAuth or clientAuth (X509-SVID 4.4)';
}

/** RFC 5280 4.2.1.10: only in a CA certificate. */
function nameConstraintsRule({ extensions: { nameConstraints } }: Certificate): string | undefined {
  return nameConstraints === undefined ? undefined : 'the leaf has name constraints (RFC 5280 4.2.1.10)';
}
