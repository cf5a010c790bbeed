import { hash } from 'node:crypto';
import { err, ok, type Result } from '../lib/result.ts';
import type { IdentitySnapshot } from '../identity/snapshot.ts';
import { parseCertificate, type Certificate } from '../spiffe/certificate.ts';
import { claimedIdOf } from '../spiffe/leaf-profile.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import { MAX_CHAIN_BYTES, MAX_CHAIN_LENGTH, readLeaf, verifyPeer, type AuthenticatedPeer, type PeerRefusal } from '../spiffe/verify.ts';
import type { PeerEvidence, SecureConnection } from '../transport/connection.ts';

/** A peer that proved who it is, with what it sent: live connections are judged again from this. */
export interface ProvenPeer {
  readonly authenticated: AuthenticatedPeer;
  /** As sent with this leaf when it was proven: leaf first, the rest untrusted. */
  readonly chainDer: readonly Uint8Array[];
}

export type PeerRole = 'client' | 'server';

export interface PeerJudge {
  /**
   * Who is at the other end of a finished handshake. OpenSSL's verification over the pool of all authorities is the first
   * check, our own walk to an authority of the peer's own trust domain the second, and both must hold.
   */
  authenticate(connection: SecureConnection, role: PeerRole, snapshot: IdentitySnapshot, nowMs: number): Result<ProvenPeer, PeerRefusal>;
}

/** Successful authentications only: refusals and policy verdicts are never remembered. */
const MAX_CACHED = 4096;
/** Issuers of peers that were proven, each with what one of its peers sent beside its leaf: at most 32 KB. */
const MAX_ISSUERS = 64;
/**
 * What nobody counted may stay unread if it is no more than this. OpenSSL keeps all of it for as long as the connection lives:
 * some 400 KiB, if whoever has an SVID fills it with the smallest certificates.
 */
const MAX_UNREAD_BYTES = 16_384;

export function createPeerJudge(): PeerJudge {
  let generation = -1;
  const proven = new Map<string, ProvenPeer>();
  const issuers = new Map<string, readonly Uint8Array[]>();
  return {
    authenticate(connection, role, snapshot, nowMs) {
      const { libraryProblem, leafDer, certificates, sentBytes, chainDer } = connection.readPeerEvidence();
      if (leafDer === undefined) {
        return err({ problem: 'no_certificate', detail: 'the peer sent no certificate', claimedId: undefined });
      }
      if (leafDer === 'too_large') {
        const detail = `the peer's certificate has more than ${MAX_CHAIN_BYTES} bytes`;
        return err({ problem: 'bad_certificate', detail, claimedId: undefined });
      }
      if (snapshot.generation !== generation) {
        generation = snapshot.generation;
        proven.clear();
        issuers.clear();
      }
      const key = `${role} ${hash('sha256', leafDer, 'hex')}`;
      const isWithinLimits = certificates === undefined ? sentBytes <= MAX_UNREAD_BYTES : certificates <= MAX_CHAIN_LENGTH;
      if (libraryProblem === undefined) {
        const known = proven.get(key);
        if (known !== undefined && isWithinLimits && nowMs < known.authenticated.validUntilMs) return ok(known);
      } else {
        // Of a stranger, the chain is only read if neither the leaf alone nor OpenSSL has said the last word.
        const claimed = readLeaf(leafDer, snapshot.bundles, nowMs);
        if (!claimed.ok) return claimed;
        if (!MAY_BE_THE_WRONG_ISSUER.has(libraryProblem)) return err(refusedByLibrary(libraryProblem, claimed.value.id));
      }
      const read = chainDer();
      if (read === undefined && (libraryProblem !== undefined || !isWithinLimits)) return err(notRead(leafDer));
      const sent = read ?? likelyChain(leafDer, issuers);
      const walked = verifyPeer(sent, snapshot.bundles, nowMs);
      if (!walked.ok) return read === undefined ? err(notRead(leafDer)) : walked;
      // Our walk found a path where OpenSSL found none: one of the two is wrong, so nobody gets in.
      if (libraryProblem !== undefined) return err(refusedByLibrary(libraryProblem, walked.value.id));
      const peer: ProvenPeer = { authenticated: walked.value, chainDer: sent };
      remember(proven, key, peer, MAX_CACHED);
      if (read !== undefined) remember(issuers, issuerKey(walked.value.leaf), read.slice(1), MAX_ISSUERS);
      return ok(peer);
    },
  };
}

/** OpenSSL's answers that can come from its having picked another issuer than the one that signed. Every other "no" of it is final. */
const MAY_BE_THE_WRONG_ISSUER: ReadonlySet<string> = new Set([
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'CERT_SIGNATURE_FAILURE',
  'CERT_HAS_EXPIRED',
  'CERT_NOT_YET_VALID',
]);

function issuerKey({ issuerDer, authorityKeyId }: Certificate): string {
  return hash('sha256', `${issuerDer} ${authorityKeyId ?? ''}`, 'hex');
}

/**
 * There is no room to read what a peer sent whom OpenSSL trusts for it (see `transport/peer-chains.ts`). Most likely it is what
 * others of its issuer sent; and a path through that is as good, whoever sent it: every step is verified, and it ends in this leaf.
 */
function likelyChain(leafDer: Uint8Array, issuers: ReadonlyMap<string, readonly Uint8Array[]>): readonly Uint8Array[] {
  const leaf = parseLeaf(leafDer);
  const others = leaf === undefined ? undefined : issuers.get(issuerKey(leaf));
  return [leafDer, ...(others ?? [])];
}

function notRead(leafDer: Uint8Array): PeerRefusal {
  const leaf = parseLeaf(leafDer);
  const detail = 'the certificates that peers sent of late hold as much memory as they may, so those of this one were not read';
  return { problem: 'chain_not_read', detail, claimedId: leaf === undefined ? undefined : claimedIdOf(leaf) };
}

function parseLeaf(leafDer: Uint8Array): Certificate | undefined {
  const parsed = leafDer.length > MAX_CHAIN_BYTES ? undefined : parseCertificate(leafDer);
  return parsed?.ok === true ? parsed.value : undefined;
}

function remember<T>(known: Map<string, T>, key: string, value: T, max: number): void {
  // A Map keeps insertion order: deleting first makes this entry the youngest.
  known.delete(key);
  if (known.size >= max) {
    const oldest = known.keys().next();
    if (oldest.done !== true) known.delete(oldest.value);
  }
  known.set(key, value);
}

function refusedByLibrary(code: string, id: SpiffeId): PeerRefusal {
  const detail = `OpenSSL does not trust the chain: ${code}`;
  switch (code) {
    case 'CERT_HAS_EXPIRED':
      return { problem: 'expired', detail, claimedId: id };
    case 'CERT_NOT_YET_VALID':
      return { problem: 'not_yet_valid', detail, claimedId: id };
    default:
      return { problem: 'untrusted_chain', detail, claimedId: id };
  }
}

/**
 * Judges a peer of a live connection against a newer snapshot. Certificates that merely expired since the handshake do
 * not count: the question is whether the same chain would still be trusted.
 */
export function authenticateAgain(
  { authenticated, chainDer }: ProvenPeer,
  snapshot: IdentitySnapshot,
  nowMs: number,
): Result<AuthenticatedPeer, PeerRefusal> {
  const now = verifyPeer(chainDer, snapshot.bundles, nowMs);
  if (now.ok || now.error.problem !== 'expired') return now;
  // `expired` says that a path is there, good but for its dates. Was anything on it revoked?
  const then = verifyPeer(chainDer, snapshot.bundles, Math.min(nowMs, authenticated.validUntilMs - 1));
  // An authority that was issued anew after the handshake is not valid at that time: dates again.
  return !then.ok && (then.error.problem === 'expired' || then.error.problem === 'not_yet_valid') ? ok(authenticated) : then;
}

/** Twice what RFC 5280 4.1.2.2 allows a serial number. A stranger may send 100 KB of it. */
const MAX_DESCRIBED = 80;

/** The SPIFFE-free description of a leaf for log lines: issuer key id and serial, if it parses. */
export function describeLeaf(leafDer: PeerEvidence['leafDer']): { issuerKeyId: string | undefined; serial: string | undefined } {
  const leaf = typeof leafDer === 'object' ? parseLeaf(leafDer) : undefined;
  return { issuerKeyId: leaf?.authorityKeyId?.slice(0, MAX_DESCRIBED), serial: leaf?.serial.slice(0, MAX_DESCRIBED) };
}
