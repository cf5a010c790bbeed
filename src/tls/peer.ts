import { hash } from 'node:crypto';
import { err, ok, type Result } from '../lib/result.ts';
import type { IdentitySnapshot } from '../identity/snapshot.ts';
import { EMPTY_DENY_LIST, type DenyList } from '../policy/deny-list.ts';
import { parseCertificate, type Certificate } from '../spiffe/x509/certificate.ts';
import type { SecondJudge } from '../spiffe/path.ts';
import { trustDomainOf, type SpiffeId } from '../spiffe/spiffe-id.ts';
import type { TrustBundle } from '../spiffe/trust-bundle.ts';
import type { TrustDomain } from '../spiffe/trust-domain.ts';
import {
  MAX_CHAIN_BYTES,
  MAX_CHAIN_LENGTH,
  readLeaf,
  verifyPeer,
  type AuthenticatedPeer,
  type ClaimedLeaf,
  type PeerRefusal,
} from '../spiffe/verify.ts';
import type { PeerEvidence, SecureConnection } from '../transport/connection.ts';
import { createPathRecheck, mayBeWrongChoice } from './path-recheck.ts';
import { Remembered } from '../lib/remembered.ts';

/**
 * What is kept of a peer for as long as it is connected or remembered: whatever else is read from certificates takes 15 times their own
 * bytes, and up to 90 if their issuer wants that.
 */
interface Kept extends Pick<AuthenticatedPeer, 'id' | 'authority' | 'expiresAtMs' | 'validUntilMs'> {
  readonly leaf: Pick<Certificate, 'sha256' | 'serial' | 'authorityKeyId' | 'notAfterMs' | 'der'> & {
    readonly subjectName: Pick<Certificate['subjectName'], 'commonName'>;
  };
  /** SHA-256 of those above the leaf on the path that was found, in hex: intermediates first, the authority last. */
  readonly issuers: readonly string[];
}

/** A peer that proved who it is, with what it sent: live connections are judged again from this. */
export interface ProvenPeer {
  readonly authenticated: Kept;
  /** As sent with this leaf when it was proven: leaf first, the rest untrusted. */
  readonly chainDer: readonly Uint8Array[];
  /** What OpenSSL said of the chain before it was asked about the path that our walk found; undefined if it trusted the chain. */
  readonly objection: string | undefined;
  /** The deny list that was asked about the path: what another says of it is not known. */
  readonly clearedBy: DenyList;
}

export type PeerRole = 'client' | 'server';

/** What a snapshot says of whom to trust, and which it is. */
export type Trust = Pick<IdentitySnapshot, 'generation' | 'bundles'>;

export interface PeerJudge {
  /**
   * Who is at the other end of a finished handshake. Our own walk to an authority of the peer's own trust domain decides,
   * and OpenSSL must agree: with the chain, which it verified over the pool of all authorities, or, where its verdict can
   * come from the wrong choice of an issuer, with each step of the path that the walk found. Then the deny list is asked.
   */
  authenticate(connection: SecureConnection, role: PeerRole, snapshot: Trust, nowMs: number): Result<ProvenPeer, PeerRefusal>;
}

/** Successful authentications only: refusals and policy verdicts are never remembered. */
const MAX_CACHED = 4096;
/** Of certificates as sent: room for as many peers with chains of RSA keys. */
const MAX_CACHED_BYTES = 16 * 1024 * 1024;
/** Issuers of a trust domain's peers that were proven, each with the intermediates on the path that was found from one of them. */
const MAX_ISSUERS = 64;
const MAX_ISSUER_BYTES = 512 * 1024;
/**
 * What nobody counted may stay unread if it is no more than this. OpenSSL keeps all of it for as long as the connection lives:
 * some 500 KiB, if whoever has an SVID wants that.
 */
const MAX_UNREAD_BYTES = 16_384;

/** `denyList` is the one in force. */
export function createPeerJudge(denyList: () => DenyList = () => EMPTY_DENY_LIST): PeerJudge {
  let generation = -1;
  const proven = new Remembered<ProvenPeer>(MAX_CACHED, MAX_CACHED_BYTES, ({ chainDer }) => bytesOf(chainDer));
  const intermediates = new LikelyIntermediates();
  return {
    authenticate(connection, role, snapshot, nowMs) {
      const { libraryProblem, leafDer, counted, sentBytes, chainDer } = connection.readPeerEvidence();
      if (leafDer === undefined) {
        return err({ problem: 'no_certificate', detail: 'the peer sent no certificate', claimedId: undefined });
      }
      if (leafDer === 'too_large' || leafDer === 'unreadable') {
        const what = leafDer === 'too_large' ? `has more than ${MAX_CHAIN_BYTES} bytes` : 'cannot be read by the TLS library';
        const detail = `the peer's certificate ${what}`;
        return err({ problem: 'bad_certificate', detail, claimedId: undefined });
      }
      if (snapshot.generation !== generation) {
        generation = snapshot.generation;
        proven.clear();
        intermediates.keepOnly(snapshot.bundles);
      }
      const key = `${role} ${hash('sha256', leafDer, 'hex')}`;
      const isWithinLimits =
        counted === undefined
          ? sentBytes <= MAX_UNREAD_BYTES
          : counted.certificates <= MAX_CHAIN_LENGTH && counted.bytes <= MAX_CHAIN_BYTES;
      const alone = libraryProblem === undefined ? undefined : readLeaf(leafDer, snapshot.bundles, nowMs);
      if (libraryProblem !== undefined && alone !== undefined) {
        // Of a stranger, the chain is only read if neither the leaf alone nor OpenSSL has said the last word.
        if (!alone.ok) return alone;
        if (!mayBeWrongChoice(libraryProblem)) return err(refusedByLibrary(libraryProblem, alone.value.id));
      }
      const list = denyList();
      const remembered = proven.get(key);
      const isInForce = remembered !== undefined && nowMs < remembered.authenticated.validUntilMs && remembered.clearedBy === list;
      const known = isInForce ? remembered : undefined;
      if (known !== undefined && libraryProblem === undefined && isWithinLimits) return ok(known);
      const read = chainDer();
      let sent = read;
      if (sent === undefined) {
        const claimed = alone ?? readLeaf(leafDer, snapshot.bundles, nowMs);
        if (!claimed.ok) return claimed;
        if (!isWithinLimits) return err(notRead(claimed.value.id));
        sent = [leafDer, ...intermediates.of(claimed.value)];
      }
      if (known !== undefined && libraryProblem !== undefined && isFlightOf(known, sent)) return ok(known);
      const judged = unlessDenied(verifyPeer(sent, snapshot.bundles, nowMs, secondJudge(libraryProblem)), list);
      if (!judged.ok) return read === undefined ? err(notRead(judged.error.claimedId)) : judged;
      const peer: ProvenPeer = { authenticated: keptOf(judged.value), chainDer: sent, objection: libraryProblem, clearedBy: list };
      proven.set(key, peer);
      if (read !== undefined) intermediates.learn(judged.value);
      return ok(peer);
    },
  };
}

/**
 * Who needed the second look is known by all that it sent, or the answer would depend on what others sent before. One flight
 * is kept a leaf: there is no end to what can be sent with it.
 */
function isFlightOf({ chainDer, objection }: ProvenPeer, sent: readonly Uint8Array[]): boolean {
  return (
    objection !== undefined &&
    sent.length === chainDer.length &&
    sent.every((der, index) => Buffer.compare(der, chainDer[index] ?? new Uint8Array()) === 0)
  );
}

/** Where OpenSSL objected to the chain, it must agree with the path. */
function secondJudge(objection: string | undefined): SecondJudge | undefined {
  return objection === undefined ? undefined : createPathRecheck(objection);
}

function keptOf({ id, leaf, path, authority, expiresAtMs, validUntilMs }: AuthenticatedPeer): Kept {
  const { sha256, serial, authorityKeyId, notAfterMs, der, subjectName } = leaf;
  const { commonName } = subjectName;
  const kept = { sha256, serial, authorityKeyId, notAfterMs, der, subjectName: { commonName } };
  const issuers = path.slice(1).map((issuer) => issuer.sha256);
  // The authority is the snapshot's own, which all its peers share.
  return Object.freeze({ id, leaf: kept, authority, issuers, expiresAtMs, validUntilMs });
}

function bytesOf(chainDer: readonly Uint8Array[]): number {
  return chainDer.reduce((sum, der) => sum + der.length, 0);
}

/**
 * For when there is no room to read what a peer sent (see `transport/peer-chains.ts`). Most likely it is what others of its
 * issuer sent; and a path through that is as good, whoever sent it and whenever: every step is verified, by OpenSSL too if it
 * objected, and it ends in this leaf. Only what a path was made of is kept, so that nobody can fill it with something else,
 * and each trust domain has its own, so that nobody can push out another's.
 */
class LikelyIntermediates {
  readonly #byDomain = new Map<TrustDomain, Remembered<readonly Uint8Array[]>>();

  of({ id, leaf }: ClaimedLeaf): readonly Uint8Array[] {
    return this.#byDomain.get(trustDomainOf(id))?.get(issuerKey(leaf)) ?? [];
  }

  learn({ id, leaf, path }: AuthenticatedPeer): void {
    if (path.length <= 2) return;
    const domain = trustDomainOf(id);
    const known = this.#byDomain.get(domain) ?? new Remembered(MAX_ISSUERS, MAX_ISSUER_BYTES, bytesOf);
    this.#byDomain.set(domain, known);
    const between = path.slice(1, -1);
    known.set(
      issuerKey(leaf),
      between.map((issuer) => issuer.der()),
    );
  }

  keepOnly(domains: { has(domain: TrustDomain): boolean }): void {
    for (const domain of this.#byDomain.keys()) if (!domains.has(domain)) this.#byDomain.delete(domain);
  }
}

function issuerKey({ issuerDer, authorityKeyId }: Certificate): string {
  return hash('sha256', `${issuerDer} ${authorityKeyId ?? ''}`, 'hex');
}

function notRead(claimedId: SpiffeId | undefined): PeerRefusal {
  const detail = 'the certificates that peers sent of late hold as much memory as they may, so those of this one were not read';
  return { problem: 'chain_not_read', detail, claimedId };
}

function parseLeaf(leafDer: Uint8Array): Certificate | undefined {
  const parsed = leafDer.length > MAX_CHAIN_BYTES ? undefined : parseCertificate(leafDer);
  return parsed?.ok === true ? parsed.value : undefined;
}

function refusedByLibrary(code: string, id: SpiffeId): PeerRefusal {
  return { problem: 'untrusted_chain', detail: `OpenSSL does not trust the chain: ${code}`, claimedId: id };
}

function unlessDenied(verified: Result<AuthenticatedPeer, PeerRefusal>, denyList: DenyList): Result<AuthenticatedPeer, PeerRefusal> {
  if (!verified.ok) return verified;
  const { id, path } = verified.value;
  const detail = denyList.refusal(id, path);
  return detail === undefined ? verified : err({ problem: 'revoked', detail, claimedId: id });
}

/**
 * Judges a peer of a live connection against a newer snapshot and deny list, with the second look if it needed that to be let in.
 * Certificates that merely expired since it was proven do not count: the question is whether there is a path that would still be
 * trusted. What had expired before then makes none, and what is revoked is so whatever its dates are.
 */
export function authenticateAgain(
  proven: ProvenPeer,
  snapshot: IdentitySnapshot,
  nowMs: number,
  denyList: DenyList = EMPTY_DENY_LIST,
): Result<AuthenticatedPeer, PeerRefusal> {
  return unlessDenied(verifyAgain(proven, snapshot, nowMs), denyList);
}

/**
 * Why a peer whose chain leads to no authority any more is revoked besides, by the lists of the snapshot or the deny list; undefined if it
 * is not. Asked along the path to the authority with which it was proven.
 */
export function revocationBesides(
  proven: ProvenPeer,
  snapshot: IdentitySnapshot,
  nowMs: number,
  denyList: DenyList = EMPTY_DENY_LIST,
): PeerRefusal | undefined {
  const { id, authority } = proven.authenticated;
  const domain = trustDomainOf(id);
  const bundle = snapshot.bundles.get(domain) ?? bundleOfNobody(domain, snapshot);
  const bundles = new Map([[domain, { ...bundle, authorities: [authority] }]]);
  const again = unlessDenied(verifyAgain(proven, { bundles }, nowMs), denyList);
  return !again.ok && again.error.problem === 'revoked' ? again.error : undefined;
}

/** Of a trust domain that is trusted no more. Each bundle has all lists of the message, as they bear on its own. */
function bundleOfNobody(trustDomain: TrustDomain, { bundles }: IdentitySnapshot): TrustBundle {
  const [any] = bundles.values();
  const unmatchedCrls = any === undefined ? [] : [...any.crls, ...any.unmatchedCrls];
  return { trustDomain, authorities: [], crls: [], unmatchedCrls, intermediates: [], notes: [] };
}

function verifyAgain(
  { authenticated, chainDer, objection }: ProvenPeer,
  { bundles }: Pick<IdentitySnapshot, 'bundles'>,
  nowMs: number,
): Result<AuthenticatedPeer, PeerRefusal> {
  return verifyPeer(chainDer, bundles, nowMs, secondJudge(objection), Math.min(nowMs, authenticated.validUntilMs - 1));
}

/** Twice what RFC 5280 4.1.2.2 allows a serial number. A stranger may send 100 KB of it. */
const MAX_DESCRIBED = 80;

/** The SPIFFE-free description of a leaf for log lines: issuer key id and serial, if it parses. */
export function describeLeaf(leafDer: PeerEvidence['leafDer']): { issuerKeyId: string | undefined; serial: string | undefined } {
  const leaf = typeof leafDer === 'object' ? parseLeaf(leafDer) : undefined;
  return { issuerKeyId: leaf?.authorityKeyId?.slice(0, MAX_DESCRIBED), serial: leaf?.serial.slice(0, MAX_DESCRIBED) };
}
