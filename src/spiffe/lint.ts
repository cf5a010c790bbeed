import type { Certificate } from './x509/certificate.ts';
import { CERTIFICATE_PROFILE, ISSUER_PROFILES, type IssuerRole } from './issuer-profile.ts';
import { LEAF_PROFILE, type ProfileRule } from './leaf-profile.ts';

/** What a certificate is to us: the rules differ. */
export type LintRole = 'leaf' | IssuerRole;

/** One thing that a standard, or Scute, would have otherwise in a certificate. */
export interface Finding {
  /** `refused`: who shows it is not let in, or nobody is by it. `tolerated`: that makes no difference to us, though the standard asks for it. */
  readonly verdict: 'refused' | 'tolerated';
  /** Standard and section, such as `X509-SVID 4.3`; undefined where Scute alone asks for it. */
  readonly clause: string | undefined;
  /** A phrase about the certificate; it may quote what is in it. */
  readonly problem: string;
}

const REFUSED: Readonly<Record<LintRole, readonly ProfileRule[]>> = {
  leaf: [...CERTIFICATE_PROFILE, ...LEAF_PROFILE],
  ...ISSUER_PROFILES,
};

const KEY_USAGE_CRITICAL: ProfileRule = {
  clause: 'X509-SVID 4.3',
  broken: ({ extensions: { keyUsage } }) => (keyUsage === undefined || keyUsage.critical ? undefined : 'key usage is not critical'),
};
const SIGNS_ONLY: ProfileRule = {
  clause: 'X509-SVID appendix A',
  broken: ({ extensions: { keyUsage } }) =>
    keyUsage?.keyCertSign === true && keyUsage.digitalSignature
      ? 'key usage has digitalSignature beside keyCertSign: a signing certificate is for signing certificates alone'
      : undefined,
};

/** What the standards ask for or advise, and we do without. Dates are not looked at: they are no matter of form. */
const TOLERATED: Readonly<Record<LintRole, readonly ProfileRule[]>> = {
  leaf: [
    {
      clause: 'X509-SVID 4.4',
      broken: ({ extensions: { extendedKeyUsage } }) =>
        extendedKeyUsage === undefined ? 'there is no extended key usage; serverAuth and clientAuth should be there' : undefined,
    },
  ],
  intermediate: [KEY_USAGE_CRITICAL, SIGNS_ONLY],
  authority: [
    {
      clause: 'X509-SVID 4.3',
      broken: ({ extensions: { keyUsage } }) => (keyUsage === undefined ? 'there is no key usage with keyCertSign' : undefined),
    },
    KEY_USAGE_CRITICAL,
    SIGNS_ONLY,
    {
      clause: 'X509-SVID 6.1',
      broken: ({ subjectDer, issuerDer }) =>
        subjectDer === issuerDer ? undefined : 'is not self-signed; an authority of a bundle should be',
    },
  ],
};

/** Everything that is to be said of a certificate by its form, by the very rules that judge peers, and then by those that only advise. Pure. */
export function lint(certificate: Certificate, role: LintRole): readonly Finding[] {
  return [...findings(REFUSED[role], 'refused', certificate), ...findings(TOLERATED[role], 'tolerated', certificate)];
}

function findings(rules: readonly ProfileRule[], verdict: Finding['verdict'], certificate: Certificate): readonly Finding[] {
  return rules.flatMap(({ clause, broken }) => {
    const problem = broken(certificate);
    return problem === undefined ? [] : [{ verdict, clause, problem }];
  });
}
