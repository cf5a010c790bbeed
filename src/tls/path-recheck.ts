import { nameOf, type SecondJudge } from '../spiffe/path.ts';
import type { Certificate } from '../spiffe/x509/certificate.ts';

/**
 * The verdicts of OpenSSL that can come from a wrong choice among issuers of one name: it takes the first that fits by name
 * and key identifier, from a pool of all trust domains' authorities before what the peer sent, and never turns back. All
 * others are final.
 */
const WRONG_CHOICE: ReadonlySet<string> = new Set([
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'CERT_SIGNATURE_FAILURE',
  'CERT_HAS_EXPIRED',
  'CERT_NOT_YET_VALID',
]);

/** Whether OpenSSL, which said `code` of a chain, may say otherwise of the path that our own walk finds in it. */
export function mayBeWrongChoice(code: string): boolean {
  return WRONG_CHOICE.has(code);
}

/**
 * OpenSSL as the second judge of exactly the path that our own walk found, which it did not find itself: `code` is what it
 * said instead. Each step must hold for it as well (names, key identifiers, CA flag, key usage, signature), and each
 * certificate be valid now as it reads the dates. It is not asked for rules that reach over more than one step: name
 * constraints, path length, extended key usage. Throws nothing that a certificate could provoke.
 */
export function createPathRecheck(code: string): SecondJudge {
  // Many paths may share few steps, and a signature is slow to check.
  const steps = new Map<string, string | undefined>();
  const stepProblem = (subject: Certificate, issuer: Certificate): string | undefined => {
    const key = `${subject.sha256}${issuer.sha256}`;
    if (!steps.has(key)) steps.set(key, judgeStep(subject, issuer));
    return steps.get(key);
  };
  const say = (problem: string): string => `OpenSSL does not trust the chain: ${code}, nor the path that was found: ${problem}`;
  return (path, nowMs, sinceMs) => {
    for (const [index, issuer] of path.entries()) {
      const subject = path[index - 1];
      const problem = subject === undefined ? undefined : stepProblem(subject, issuer);
      if (problem !== undefined) return { problem: 'untrusted_chain', detail: say(problem) };
    }
    for (const certificate of path) {
      const { validFromDate, validToDate } = certificate.x509;
      // As OpenSSL has it: at the very end of its validity a certificate is expired. A date that is none is outside of it.
      if (!(sinceMs < validToDate.getTime())) return { problem: 'expired', detail: say(`${nameOf(certificate)} is expired`) };
      if (!(nowMs >= validFromDate.getTime())) return { problem: 'not_yet_valid', detail: say(`${nameOf(certificate)} is not yet valid`) };
    }
    return undefined;
  };
}

function judgeStep(subject: Certificate, issuer: Certificate): string | undefined {
  if (!subject.x509.checkIssued(issuer.x509))
    return `by names, key identifiers and key usage ${nameOf(subject)} is not issued by ${nameOf(issuer)}`;
  if (!issuer.x509.ca) return `${nameOf(issuer)} is no CA`;
  if (!subject.x509.verify(issuer.publicKey)) return `the signature of ${nameOf(subject)} is not by ${nameOf(issuer)}`;
  return undefined;
}
