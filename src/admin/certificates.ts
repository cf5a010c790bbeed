import { hash, type KeyObject } from 'node:crypto';
import { err, type Result } from '../lib/result.ts';
import { parseCertificate, type Certificate as X509 } from '../spiffe/x509/certificate.ts';
import { lint, type LintRole } from '../spiffe/lint.ts';
import { trustDomainOf } from '../spiffe/spiffe-id.ts';
import type { ListenerRef } from '../telemetry/log/records.ts';
import { strangersWords } from '../telemetry/log/scrub.ts';
import type { Certificate, Finding, ListenerName, PeerSeen } from './api-types.ts';
import { authorityId, type Held } from './held-book.ts';
import { isoTime } from './iso-time.ts';
import type { KnownPeer, SeenPeer } from './peer-book.ts';

/** Longer than any name that means something; a peer chooses them. */
const MAX_NAME = 512;
/** Twice what RFC 5280 4.1.2.2 allows a serial number; of key identifiers more than anybody has. */
const MAX_HEX = 80;
const MAX_FINDINGS = 20;
/** A certificate of a peer that is longer is not read for a page: one of 32 KB may take tens of milliseconds, if its issuer wants that. */
const MAX_READ_BYTES = 8192;

/** What of a description only the certificate itself says. */
type Facts = Pick<
  Certificate,
  | 'subject'
  | 'issuerName'
  | 'serial'
  | 'sha256'
  | 'subjectKeyId'
  | 'issuerKeyId'
  | 'keyType'
  | 'signatureAlgorithm'
  | 'notBefore'
  | 'notAfter'
  | 'validity'
  | 'remainingShare'
  | 'findings'
>;

type Use = Pick<Certificate, 'listeners' | 'sds' | 'sdsSubscribers' | 'files'>;

/** A certificate that we hold. */
export function describeHeld(held: Held, use: Use, nowMs: number): Certificate {
  const { id, kind, svid, certificate, trustDomain, issuer, receivedAtMs, generation, source } = held;
  return {
    id,
    kind,
    spiffeId: svid?.id ?? null,
    trustDomain,
    hint: svid === undefined ? null : strangersWords(svid.hint, MAX_NAME),
    ...factsOf(certificate, kind === 'svid' ? 'leaf' : kind, nowMs),
    issuer: issuer ?? null,
    receivedAt: isoTime(receivedAtMs),
    generation,
    source,
    ...use,
    rotations: kind === 'svid' ? held.rotations : null,
    issued: kind === 'authority' ? held.issued : null,
    peer: null,
  };
}

/** A certificate as it is by itself, wherever it came from. */
export type Described = Facts & Pick<Certificate, 'id' | 'kind' | 'spiffeId' | 'trustDomain' | 'issuer'>;

/** A certificate that no process holds. `known` is what is known of it beyond what it says. */
export function describeAlone(
  certificate: X509,
  known: Pick<Certificate, 'kind' | 'spiffeId' | 'trustDomain' | 'issuer'>,
  nowMs: number,
): Described {
  const { kind } = known;
  const role: LintRole = kind === 'authority' ? kind : kind === 'intermediate' || kind === 'peer_intermediate' ? 'intermediate' : 'leaf';
  return { id: aloneId(kind, certificate.sha256), ...known, ...factsOf(certificate, role, nowMs) };
}

/** The same of one that was not read, and why. */
export function describeUnread(
  sha256: string,
  why: string,
  known: Pick<Certificate, 'kind' | 'spiffeId' | 'trustDomain' | 'issuer'>,
): Described {
  const finding: Finding = { verdict: 'refused', clause: null, problem: strangersWords(why, MAX_NAME) };
  return { id: aloneId(known.kind, sha256), ...known, ...unreadable(sha256, finding) };
}

/** What such a certificate is called. */
export function aloneId(kind: Certificate['kind'], sha256: string): string {
  return `${kind}:${sha256}`;
}

/** The leaf of a peer. */
export function describePeer(seen: SeenPeer, nowMs: number): Certificate {
  const { known, strange, sha256 } = seen;
  const spiffeId = known?.authenticated.id ?? strange?.claimedId;
  const der = known?.authenticated.leaf.der() ?? strange?.leafDer ?? new Uint8Array();
  const parsed = readPeers(der);
  return {
    id: peerId(seen),
    kind: known === undefined ? 'refused' : 'peer',
    spiffeId: spiffeId ?? null,
    trustDomain: spiffeId === undefined ? null : trustDomainOf(spiffeId),
    ...(parsed.ok ? factsOf(parsed.value, 'leaf', nowMs) : unreadable(sha256, parsed.error)),
    issuer: known === undefined ? null : issuerOf(known, 0),
    ...shownBy(seen),
    peer: {
      verdict: seen.refused?.reason ?? 'allow',
      detail: seen.refused?.detail ?? null,
      handshakes: seen.handshakes,
      firstSeenAt: isoTime(seen.firstSeenMs),
      lastSeenAt: isoTime(seen.lastSeenMs),
      connections: seen.connections,
    } satisfies PeerSeen,
  };
}

/** A certificate between the leaf of a peer and its authority: the one at `index` of `issuers`. Undefined if the peer did not send it. */
export function describePeerIntermediate(
  seen: SeenPeer & { readonly known: KnownPeer },
  index: number,
  nowMs: number,
): Certificate | undefined {
  const { authenticated, chainDer } = seen.known;
  const sha256 = authenticated.issuers[index];
  for (const der of chainDer.slice(1)) {
    if (hash('sha256', der) !== sha256) continue;
    const parsed = readPeers(der);
    return {
      id: peerIntermediateId(sha256),
      kind: 'peer_intermediate',
      spiffeId: null,
      trustDomain: trustDomainOf(authenticated.id),
      ...(parsed.ok ? factsOf(parsed.value, 'intermediate', nowMs) : unreadable(sha256, parsed.error)),
      issuer: issuerOf(seen.known, index + 1),
      ...shownBy(seen),
      peer: null,
    };
  }
  return undefined;
}

/** What of a peer is shown, or why it is not: parsed anew each time, for that is rarely asked for. */
function readPeers(der: Uint8Array): Result<X509, Finding> {
  if (der.length > MAX_READ_BYTES) {
    const problem = `it has ${der.length} bytes, more than the ${MAX_READ_BYTES} that are read to be shown`;
    return err({ verdict: 'tolerated', clause: null, problem });
  }
  const parsed = parseCertificate(der);
  return parsed.ok ? parsed : err({ verdict: 'refused', clause: null, problem: strangersWords(parsed.error, MAX_NAME) });
}

/** What the leaf of a peer is called. */
export function peerId({ known, sha256 }: Pick<SeenPeer, 'known' | 'sha256'>): string {
  return `${known === undefined ? 'refused' : 'peer'}:${sha256}`;
}

/** By its SHA-256. */
export function peerIntermediateId(sha256 = ''): string {
  return `peer_intermediate:${sha256}`;
}

export function listenerName({ name, direction }: ListenerRef): ListenerName {
  return { name, direction };
}

/** The `id` of what stands at `index` of the path above the leaf. */
function issuerOf({ authenticated: { id, issuers } }: KnownPeer, index: number): string | null {
  const sha256 = issuers[index];
  if (sha256 === undefined) return null;
  return index === issuers.length - 1 ? authorityId(trustDomainOf(id), sha256) : peerIntermediateId(sha256);
}

function shownBy(seen: SeenPeer) {
  return {
    hint: null,
    receivedAt: isoTime(seen.firstSeenMs),
    generation: null,
    source: 'peer',
    listeners: seen.listeners.map(listenerName),
    sds: [],
    sdsSubscribers: 0,
    files: [],
    rotations: null,
    issued: null,
  } as const;
}

function factsOf(certificate: X509, role: LintRole, nowMs: number): Facts {
  const { notBeforeMs, notAfterMs } = certificate;
  const share = (notAfterMs - Math.max(nowMs, notBeforeMs)) / (notAfterMs - notBeforeMs);
  return {
    subject: strangersWords(certificate.subject, MAX_NAME),
    issuerName: strangersWords(certificate.issuer, MAX_NAME),
    serial: certificate.serial.slice(0, MAX_HEX),
    sha256: certificate.sha256,
    subjectKeyId: certificate.subjectKeyId?.slice(0, MAX_HEX) ?? null,
    issuerKeyId: certificate.authorityKeyId?.slice(0, MAX_HEX) ?? null,
    keyType: keyType(certificate.publicKey),
    signatureAlgorithm: ALGORITHMS[certificate.signatureOid] ?? strangersWords(certificate.signatureOid, MAX_HEX),
    notBefore: isoTime(notBeforeMs),
    notAfter: isoTime(notAfterMs),
    validity: validityOf(certificate, nowMs),
    // Of dates that are none, or in the wrong order, nothing is left.
    remainingShare: notAfterMs > notBeforeMs ? Math.round(Math.max(share, 0) * 10_000) / 10_000 : 0,
    findings: lint(certificate, role)
      .slice(0, MAX_FINDINGS)
      .map(({ verdict, clause, problem }): Finding => ({ verdict, clause: clause ?? null, problem: strangersWords(problem, MAX_NAME) })),
  };
}

function validityOf({ notBeforeMs, notAfterMs }: X509, nowMs: number): Certificate['validity'] {
  if (nowMs > notAfterMs) return 'expired';
  return nowMs < notBeforeMs ? 'not_yet_valid' : 'valid';
}

/** Of what is not read, or is no certificate to us, though the TLS library took it for one. */
function unreadable(sha256: string, finding: Finding): Facts {
  return {
    subject: '',
    issuerName: '',
    serial: '',
    sha256,
    subjectKeyId: null,
    issuerKeyId: null,
    keyType: 'unknown',
    signatureAlgorithm: 'unknown',
    notBefore: null,
    notAfter: null,
    validity: 'unknown',
    remainingShare: 0,
    findings: [finding],
  };
}

/** Such as `ec prime256v1`, `rsa 2048`, `ed25519`. */
export function keyType(key: KeyObject): string {
  const detail = key.asymmetricKeyDetails?.namedCurve ?? key.asymmetricKeyDetails?.modulusLength;
  return `${key.asymmetricKeyType ?? 'unknown'}${detail === undefined ? '' : ` ${detail}`}`;
}

/** As OpenSSL calls them. */
const ALGORITHMS: Readonly<Record<string, string>> = {
  '1.2.840.10045.4.1': 'ecdsa-with-SHA1',
  '1.2.840.10045.4.3.2': 'ecdsa-with-SHA256',
  '1.2.840.10045.4.3.3': 'ecdsa-with-SHA384',
  '1.2.840.10045.4.3.4': 'ecdsa-with-SHA512',
  '1.2.840.113549.1.1.4': 'md5WithRSAEncryption',
  '1.2.840.113549.1.1.5': 'sha1WithRSAEncryption',
  '1.2.840.113549.1.1.10': 'rsassaPss',
  '1.2.840.113549.1.1.11': 'sha256WithRSAEncryption',
  '1.2.840.113549.1.1.12': 'sha384WithRSAEncryption',
  '1.2.840.113549.1.1.13': 'sha512WithRSAEncryption',
  '1.3.101.112': 'ED25519',
};
