import { err, type Result } from '../lib/result.ts';
import type { Certificate } from './x509/certificate.ts';
import { CLIENT_AUTH, SERVER_AUTH } from './x509/extensions.ts';
import { parseSpiffeId, pathOf, type SpiffeId } from './spiffe-id.ts';

/** The SPIFFE ID that a certificate claims, proven or not: that of its only URI name. */
export function claimedIdOf(leaf: Certificate): SpiffeId | undefined {
  const id = idRule(leaf);
  return id.ok ? id.value : undefined;
}

/** A rule for a certificate, whoever issued it. */
export interface ProfileRule {
  /** Standard and section, such as `X509-SVID 4.3`; undefined where Scute alone asks for it. */
  readonly clause: string | undefined;
  /** How the certificate breaks it, as a phrase without the clause; undefined if it does not. */
  readonly broken: (certificate: Certificate) => string | undefined;
}

/**
 * The profile of a leaf SVID (X509-SVID standard, sections 2 to 4): its SPIFFE ID, or the first rule that it breaks.
 * Strict where the standard says MUST of the issuer as well: an issuer that breaks it is not one to rely on.
 */
export function checkLeafProfile(leaf: Certificate): Result<SpiffeId, string> {
  const id = idRule(leaf);
  if (!id.ok) return err(withClause(id.error, ID_CLAUSE));
  for (const { broken, clause } of LEAF_RULES) {
    const problem = broken(leaf);
    if (problem !== undefined) return err(`${id.value}: ${withClause(problem, clause)}`);
  }
  return id;
}

/** A broken rule as a sentence has it. */
export function withClause(problem: string, clause: string | undefined): string {
  return clause === undefined ? problem : `${problem} (${clause})`;
}

const ID_CLAUSE = 'X509-SVID 2';

/** Every rule for a leaf but that of its SPIFFE ID, in the order in which they are told. */
const LEAF_RULES: readonly ProfileRule[] = [
  // A leaf names a workload, not its trust domain.
  { clause: 'X509-SVID 3.1', broken: pathRule },
  { clause: 'X509-SVID 3.1', broken: subjectRule },
  { clause: 'X509-SVID 4.1', broken: ({ isCa }) => (isCa ? 'the leaf is a CA' : undefined) },
  { clause: 'X509-SVID 4.3', broken: keyUsageRule },
  {
    clause: 'X509-SVID 4.3',
    broken: ({ extensions: { keyUsage } }) => (keyUsage?.digitalSignature === true ? undefined : 'key usage lacks digitalSignature'),
  },
  {
    clause: 'X509-SVID 4.3',
    broken: ({ extensions: { keyUsage } }) => (keyUsage?.keyCertSign === true ? 'key usage has keyCertSign' : undefined),
  },
  {
    clause: 'X509-SVID 4.3',
    broken: ({ extensions: { keyUsage } }) => (keyUsage?.crlSign === true ? 'key usage has cRLSign' : undefined),
  },
  { clause: 'X509-SVID 4.4', broken: extendedKeyUsageRule },
  {
    clause: 'RFC 5280 4.2.1.10',
    broken: ({ extensions: { nameConstraints } }) => (nameConstraints === undefined ? undefined : 'the leaf has name constraints'),
  },
];

/** All rules for a leaf: whoever breaks one is refused. */
export const LEAF_PROFILE: readonly ProfileRule[] = [
  {
    clause: ID_CLAUSE,
    broken(leaf) {
      const id = idRule(leaf);
      return id.ok ? undefined : id.error;
    },
  },
  ...LEAF_RULES,
];

/** Exactly one URI name, which is a SPIFFE ID. Names of other kinds are free. */
function idRule({ uriSans }: Certificate): Result<SpiffeId, string> {
  const [uri] = uriSans;
  if (uri === undefined) return err('the certificate has no URI name');
  if (uriSans.length > 1) return err(`the certificate has ${uriSans.length} URI names`);
  const id = parseSpiffeId(uri);
  return id.ok ? id : err(`the URI name ${JSON.stringify(uri.slice(0, 2100))} is not a SPIFFE ID: ${id.error}`);
}

function pathRule({ uriSans: [uri = ''] }: Certificate): string | undefined {
  const id = parseSpiffeId(uri);
  return id.ok && pathOf(id.value) === '' ? 'the SPIFFE ID of a leaf has a path' : undefined;
}

/** By RFC 5280 4.2.1.6: without a subject, the alternative name is the only name, so it must be critical. */
function subjectRule({ subjectName, extensions }: Certificate): string | undefined {
  if (!subjectName.isEmpty || extensions.subjectAltName?.critical === true) return undefined;
  return 'the subject is empty and the alternative name is not critical';
}

function keyUsageRule({ extensions: { keyUsage } }: Certificate): string | undefined {
  if (keyUsage === undefined) return 'there is no key usage';
  return keyUsage.critical ? undefined : 'key usage is not critical';
}

/** It may be left out; if it is there it names both roles. */
function extendedKeyUsageRule({ extensions: { extendedKeyUsage: usages } }: Certificate): string | undefined {
  if (usages === undefined || (usages.includes(SERVER_AUTH) && usages.includes(CLIENT_AUTH))) return undefined;
  return 'extended key usage lacks serverAuth or clientAuth';
}
