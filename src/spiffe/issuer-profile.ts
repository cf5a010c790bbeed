import { CLIENT_AUTH, SERVER_AUTH } from './x509/extensions.ts';
import type { ProfileRule } from './leaf-profile.ts';
import { parseSpiffeId, pathOf } from './spiffe-id.ts';

/** Where an issuer came from: a trust bundle, or a peer's or our own chain. */
export type IssuerRole = 'authority' | 'intermediate';

const KEY: ProfileRule = { clause: undefined, broken: ({ keyProblem }) => keyProblem };
const CRITICAL: ProfileRule = {
  clause: 'RFC 5280 4.2',
  broken({ extensions: { unknownCritical } }) {
    const [unknown] = unknownCritical;
    return unknown === undefined ? undefined : `has the critical extension ${unknown}, which is not understood`;
  },
};
const SIGNATURE: ProfileRule = { clause: undefined, broken: ({ signatureProblem }) => signatureProblem };

/** Rules for every certificate of a path, whatever its place. */
export const CERTIFICATE_PROFILE: readonly ProfileRule[] = [KEY, CRITICAL, SIGNATURE];

const IS_CA: ProfileRule = {
  clause: 'X509-SVID 4.1',
  broken: ({ extensions: { basicConstraints } }) => (basicConstraints?.isCa === true ? undefined : 'is no CA'),
};

function mayNotSign(role: IssuerRole): ProfileRule {
  return {
    clause: 'keyCertSign, X509-SVID 4.3',
    broken({ extensions: { keyUsage } }) {
      return (keyUsage === undefined ? role === 'intermediate' : !keyUsage.keyCertSign) ? 'may not sign certificates' : undefined;
    },
  };
}

const BOTH_ROLES: ProfileRule = {
  clause: 'extended key usage, RFC 5280 4.2.1.12',
  broken: ({ extensions: { extendedKeyUsage: usages } }) =>
    usages === undefined || (usages.includes(SERVER_AUTH) && usages.includes(CLIENT_AUTH))
      ? undefined
      : 'may not issue for both TLS servers and clients',
};

/** It needs no SPIFFE ID, and may have that of another trust domain than it issues for, but none with a path. */
const NO_PATH: ProfileRule = {
  clause: 'X509-SVID 3.2',
  broken({ uriSans }) {
    const wrong = uriSans.find((uri) => /^spiffe:/i.test(uri) && !isTrustDomainId(uri));
    return wrong === undefined ? undefined : `has the SPIFFE ID ${JSON.stringify(wrong)}, which is not that of a trust domain`;
  },
};

/**
 * Rules for who issues, by where it came from. An authority's own signature means nothing (RFC 5280 6.1: an anchor is a name and a key), so
 * its algorithm is not judged, and it may lack keyUsage, which RFC 5280 does not ask of an anchor; what it has must allow signing.
 */
export const ISSUER_PROFILES: Readonly<Record<IssuerRole, readonly ProfileRule[]>> = {
  authority: [KEY, CRITICAL, IS_CA, mayNotSign('authority'), BOTH_ROLES, NO_PATH],
  intermediate: [...CERTIFICATE_PROFILE, IS_CA, mayNotSign('intermediate'), BOTH_ROLES, NO_PATH],
};

function isTrustDomainId(uri: string): boolean {
  const id = parseSpiffeId(uri);
  return id.ok && pathOf(id.value) === '';
}
