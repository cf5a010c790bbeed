/** What is shown of a file of certificates. */
import { aloneId, describeAlone, keyType, type Described } from '../admin/certificates.ts';
import { isoTime, timeOf } from '../admin/iso-time.ts';
import type { Certificate } from '../spiffe/x509/certificate.ts';
import { claimedIdOf } from '../spiffe/leaf-profile.ts';
import { parseSpiffeId, trustDomainOf } from '../spiffe/spiffe-id.ts';
import { strangersWords } from '../telemetry/log/scrub.ts';
import { readMaterial, type Material } from './material.ts';

/** As `--json` prints it. */
export interface FileReport {
  readonly form: Material['form'];
  readonly certificates: readonly Described[];
  readonly revocationLists: readonly ListReport[];
  /** Of a bundle: by its `kid`. */
  readonly jwtKeys: readonly { readonly keyId: string; readonly keyType: string }[];
  /** Of a bundle. A whole number of 64 bits, so as text. */
  readonly sequence: string | null;
  /** Of a bundle, in seconds. */
  readonly refreshHint: number | null;
  /** How many there are; nothing of them is shown. */
  readonly privateKeys: number;
  readonly notes: readonly string[];
  /** What is wrong with it. */
  readonly problems: readonly string[];
}

interface ListReport {
  readonly issuerName: string;
  readonly sha256: string;
  readonly thisUpdate: string | null;
  readonly nextUpdate: string | null;
  readonly notes: readonly string[];
}

/** Longer than any name that means something. */
const MAX_WORDS = 512;
/** Signatures that are checked to find who signed what. */
const MAX_CHECKS = 512;

/** `bytes` is a whole file. */
export function inspectFile(bytes: Uint8Array, nowMs: number): FileReport {
  const { form, certificates, lists, jwtAuthorities, sequence, refreshHintMs, privateKeys, notes, problems } = readMaterial(bytes);
  const kindOf = kinds(certificates, form);
  const issuerOf = issuers(certificates);
  return {
    form,
    certificates: certificates.map((certificate) => {
      const kind = kindOf(certificate);
      const issuer = issuerOf(certificate);
      const id = kind === 'svid' ? claimedIdOf(certificate) : undefined;
      return describeAlone(
        certificate,
        {
          kind,
          spiffeId: id ?? null,
          trustDomain: id === undefined ? domainOf(certificate) : trustDomainOf(id),
          issuer: issuer === undefined ? null : aloneId(kindOf(issuer), issuer.sha256),
        },
        nowMs,
      );
    }),
    revocationLists: lists.map(({ issuer, sha256, thisUpdateMs, nextUpdateMs, notes: odd }) => ({
      issuerName: words(issuer),
      sha256,
      thisUpdate: isoTime(thisUpdateMs),
      nextUpdate: timeOf(nextUpdateMs),
      notes: odd.map(words),
    })),
    jwtKeys: jwtAuthorities.map(({ keyId, key }) => ({ keyId: words(keyId), keyType: keyType(key) })),
    sequence: sequence?.toString() ?? null,
    refreshHint: refreshHintMs === undefined ? null : refreshHintMs / 1000,
    privateKeys,
    notes: notes.map(words),
    problems: problems.map(words),
  };
}

/** A file does not say what a certificate is for: what is a CA issues, and beside a leaf only what signs itself is an authority. */
function kinds(
  certificates: readonly Certificate[],
  form: Material['form'],
): (certificate: Certificate) => 'svid' | 'intermediate' | 'authority' {
  const hasLeaf = certificates.some(({ isCa }) => !isCa);
  return ({ isCa, subjectDer, issuerDer }) => {
    if (form === 'bundle') return 'authority';
    if (!isCa) return 'svid';
    return hasLeaf && subjectDer !== issuerDer ? 'intermediate' : 'authority';
  };
}

/** Which of them signed it, by name and signature; none signed itself. */
function issuers(certificates: readonly Certificate[]): (subject: Certificate) => Certificate | undefined {
  const byName = Map.groupBy(certificates, ({ subjectDer }) => subjectDer);
  let checks = 0;
  return (subject) =>
    byName.get(subject.issuerDer)?.find((issuer) => {
      if (issuer.sha256 === subject.sha256 || issuer.keyProblem !== undefined) return false;
      checks += 1;
      return checks <= MAX_CHECKS && subject.isSignedBy(issuer);
    });
}

/** That of the SPIFFE ID of an issuer, which says of itself whose it is. */
function domainOf({ uriSans }: Certificate): string | null {
  const [uri] = uriSans;
  const id = uri === undefined ? undefined : parseSpiffeId(uri);
  return id?.ok === true ? trustDomainOf(id.value) : null;
}

function words(text: string): string {
  return strangersWords(text, MAX_WORDS);
}
