import type { Certificate } from './x509/certificate.ts';
import { CERTIFICATE_PROFILE, ISSUER_PROFILES, type IssuerRole } from './issuer-profile.ts';
import { withClause, type ProfileRule } from './leaf-profile.ts';
import { allowedComparisons, nameConstraintProblem, type Comparisons } from './name-constraints.ts';
import type { TrustBundle } from './trust-bundle.ts';
import { err, ok, type Result } from '../lib/result.ts';

/** Signature checks for one chain. An honest chain of eight needs seven, and a few more for twins. */
const MAX_SIGNATURE_CHECKS = 64;
/** Steps for one chain. Keys can be made up under which a given signature holds, so that seven certificates all sign one another: 13,700 paths. */
const MAX_STEPS = 512;

type Role = IssuerRole;

export type PathProblem = 'untrusted_chain' | 'expired' | 'not_yet_valid';

export interface PathRefusal {
  readonly problem: PathProblem;
  readonly detail: string;
}

/** Another judge of a whole path, leaf first and authority last, on which every step holds by the same dates as `findPath` has: its objection, if it has one. */
export type SecondJudge = (path: readonly Certificate[], nowMs: number, sinceMs: number) => PathRefusal | undefined;

/**
 * Walks from `leaf` to an authority of `bundle` through `pool`, the certificates that the peer sent: untrusted and in any
 * order. Returns the first path on which every step holds, and to which `second` does not object, leaf first. Names are
 * compared byte for byte; key identifiers only say what to try first, since nothing binds them to the key. When no path
 * holds, an objection of `second` is what is reported, or else a path that fails by its dates alone. What expired since `sinceMs`, which
 * is no later than `nowMs`, is taken for valid.
 */
export function findPath(
  leaf: Certificate,
  pool: readonly Certificate[],
  bundle: TrustBundle,
  nowMs: number,
  second?: SecondJudge,
  sinceMs = nowMs,
): Result<readonly Certificate[], PathRefusal> {
  const leafProblem = certificateProblem(leaf);
  if (leafProblem !== undefined) return err(untrusted(`${nameOf(leaf)} ${leafProblem}`));

  const signatures = new Map<string, boolean>();
  const comparisons = allowedComparisons();
  let steps = 0;
  let exhausted = false;
  let objection: PathRefusal | undefined;
  let timeRefusal: PathRefusal | undefined;
  let stepRefusal: PathRefusal | undefined;

  const isSigned = (subject: Certificate, issuer: Certificate): boolean => {
    const key = `${subject.sha256}${issuer.sha256}`;
    const known = signatures.get(key);
    if (known !== undefined) return known;
    if (signatures.size >= MAX_SIGNATURE_CHECKS) {
      exhausted = true;
      return false;
    }
    const holds = subject.isSignedBy(issuer);
    signatures.set(key, holds);
    return holds;
  };

  /** Asked before any signature is checked with the key: a stranger may have made it so large that one check is slow. */
  const hasUsableKey = (issuer: Certificate, role: Role): boolean => {
    if (issuer.keyProblem === undefined) return true;
    stepRefusal ??= untrusted(`${role} ${nameOf(issuer)} ${issuer.keyProblem}`);
    return false;
  };

  /** The rest of a path whose last certificate so far is `path.at(-1)`, every step of which holds but perhaps for its dates. */
  const walk = (path: readonly Certificate[], subject: Certificate): readonly Certificate[] | undefined => {
    steps += 1;
    if (steps > MAX_STEPS) exhausted = true;
    if (exhausted) return undefined;
    for (const authority of candidates(bundle.authorities, subject, nowMs, sinceMs)) {
      if (!hasUsableKey(authority, 'authority') || !isSigned(subject, authority)) continue;
      const whole = [...path, authority];
      const problem = issuerProblem(authority, path.length, 'authority') ?? constraintsProblem(whole, comparisons);
      if (problem !== undefined) {
        stepRefusal ??= untrusted(problem);
        continue;
      }
      const dates = datesProblem(whole, nowMs, sinceMs);
      if (dates !== undefined) {
        timeRefusal ??= dates;
        continue;
      }
      const objected = second?.(whole, nowMs, sinceMs);
      if (objected === undefined) return whole;
      objection ??= objected;
    }
    for (const issuer of candidates(pool, subject, nowMs, sinceMs)) {
      // A path never holds one key under one name twice: that is a loop, however often it was re-issued.
      if (path.some((other) => other.subjectDer === issuer.subjectDer && other.publicKey.equals(issuer.publicKey))) continue;
      if (!hasUsableKey(issuer, 'intermediate') || !isSigned(subject, issuer)) continue;
      const problem = issuerProblem(issuer, path.length, 'intermediate');
      if (problem !== undefined) {
        stepRefusal ??= untrusted(problem);
        continue;
      }
      const whole = walk([...path, issuer], issuer);
      if (whole !== undefined) return whole;
    }
    return undefined;
  };

  const found = walk([leaf], leaf);
  if (found !== undefined) return ok(found);
  if (exhausted) return err(untrusted(`the chain of ${nameOf(leaf)} takes too many checks`));
  return err(
    objection ??
      timeRefusal ??
      stepRefusal ??
      untrusted(
        `no path from ${nameOf(leaf)}, issued by ${JSON.stringify(leaf.issuer)}, to one of the ${bundle.authorities.length} authorities of ${bundle.trustDomain}`,
      ),
  );
}

/** Those named as the issuer of `subject`, the likeliest first: valid now, then with the key identifier that it names. */
function candidates(from: readonly Certificate[], subject: Certificate, nowMs: number, sinceMs: number): readonly Certificate[] {
  const named = from.filter((candidate) => candidate.subjectDer === subject.issuerDer);
  if (named.length < 2) return named;
  const rank = (candidate: Certificate): number =>
    (datesProblem([candidate], nowMs, sinceMs) === undefined ? 0 : 2) + (candidate.subjectKeyId === subject.authorityKeyId ? 0 : 1);
  return named.toSorted((one, other) => rank(one) - rank(other));
}

/** Rules for every certificate of a path, whatever its place. */
function certificateProblem(certificate: Certificate): string | undefined {
  return firstBroken(CERTIFICATE_PROFILE, certificate);
}

function firstBroken(rules: readonly ProfileRule[], certificate: Certificate): string | undefined {
  for (const { broken, clause } of rules) {
    const problem = broken(certificate);
    if (problem !== undefined) return withClause(problem, clause);
  }
  return undefined;
}

/** Rules for a certificate that issued the one at `position - 1` of a path (the leaf is at 0). `role` is where it came from. */
function issuerProblem(issuer: Certificate, position: number, role: Role): string | undefined {
  const { basicConstraints } = issuer.extensions;
  const say = (problem: string): string => `${role} ${nameOf(issuer)} ${problem}`;
  const problem = firstBroken(ISSUER_PROFILES[role], issuer);
  if (problem !== undefined) return say(problem);
  // Certificates between this one and the leaf. Self-issued ones count too, which is stricter than RFC 5280 4.2.1.9.
  const below = position - 1;
  if (basicConstraints?.pathLength !== undefined && below > basicConstraints.pathLength)
    return say(`allows ${basicConstraints.pathLength} intermediates below it, and has ${below}`);
  return undefined;
}

/** Name constraints of every issuer, over everything below it. Judged last, when all signatures are known to hold: it costs most. */
function constraintsProblem(path: readonly Certificate[], comparisons: Comparisons): string | undefined {
  for (const [index, certificate] of path.entries()) {
    const constraints = certificate.extensions.nameConstraints;
    if (constraints === undefined || index === 0) continue;
    const problem = nameConstraintProblem(constraints, path.slice(0, index), comparisons);
    if (problem !== undefined) return `${nameOf(certificate)} ${problem}`;
  }
  return undefined;
}

/** The first certificate that is not valid, unless it expired after `sinceMs`: both ends of validity included (RFC 5280 4.1.2.5). */
export function datesProblem(path: readonly Certificate[], nowMs: number, sinceMs = nowMs): PathRefusal | undefined {
  for (const certificate of path) {
    // Written so that a time that is no number is outside of every validity.
    if (!(sinceMs <= certificate.notAfterMs))
      return { problem: 'expired', detail: `${nameOf(certificate)} expired at ${new Date(certificate.notAfterMs).toISOString()}` };
    if (!(nowMs >= certificate.notBeforeMs))
      return {
        problem: 'not_yet_valid',
        detail: `${nameOf(certificate)} is not valid before ${new Date(certificate.notBeforeMs).toISOString()}`,
      };
  }
  return undefined;
}

function untrusted(detail: string): PathRefusal {
  return { problem: 'untrusted_chain', detail };
}

/** A certificate in a sentence, however long its names are. */
export function nameOf(certificate: Certificate): string {
  const name = certificate.subjectName.isEmpty ? (certificate.uriSans[0] ?? '') : certificate.subject;
  return `${JSON.stringify(name.slice(0, 200))} (serial ${certificate.serial.slice(0, 48)})`;
}
