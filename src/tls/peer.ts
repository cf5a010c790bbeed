import { hash } from 'node:crypto';
import { err, ok, type Result } from '../lib/result.ts';
import type { IdentitySnapshot } from '../identity/snapshot.ts';
import { MAX_CHAIN_BYTES, verifyPeer, type AuthenticatedPeer, type PeerRefusal } from '../spiffe/verify.ts';
import { parseCertificate } from '../spiffe/certificate.ts';
import type { SecureConnection } from '../transport/connection.ts';

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

export function createPeerJudge(): PeerJudge {
  let generation = -1;
  const proven = new Map<string, ProvenPeer>();
  return {
    authenticate(connection, role, snapshot, nowMs) {
      const { libraryProblem, leafDer, chainDer } = connection.readPeerEvidence();
      if (leafDer === undefined) {
        return err({ problem: 'no_certificate', detail: 'the peer sent no certificate', claimedId: undefined });
      }
      if (snapshot.generation !== generation) {
        generation = snapshot.generation;
        proven.clear();
      }
      const key = `${role} ${hash('sha256', leafDer, 'hex')}`;
      if (libraryProblem === undefined) {
        const known = proven.get(key);
        if (known !== undefined && nowMs < known.authenticated.validUntilMs) return ok(known);
      }
      const sent = chainDer();
      const walked = verifyPeer(sent, snapshot.bundles, nowMs);
      if (!walked.ok) return walked;
      // Our walk found a path where OpenSSL found none: one of the two is wrong, so nobody gets in.
      if (libraryProblem !== undefined) return err(refusedByLibrary(libraryProblem, walked.value));
      const peer: ProvenPeer = { authenticated: walked.value, chainDer: sent };
      remember(proven, key, peer);
      return ok(peer);
    },
  };
}

function remember(proven: Map<string, ProvenPeer>, key: string, peer: ProvenPeer): void {
  // A Map keeps insertion order: deleting first makes this entry the youngest.
  proven.delete(key);
  if (proven.size >= MAX_CACHED) {
    const oldest = proven.keys().next();
    if (oldest.done !== true) proven.delete(oldest.value);
  }
  proven.set(key, peer);
}

function refusedByLibrary(code: string, { id }: AuthenticatedPeer): PeerRefusal {
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
export function describeLeaf(leafDer: Uint8Array | undefined): { issuerKeyId: string | undefined; serial: string | undefined } {
  const parsed = leafDer === undefined || leafDer.length > MAX_CHAIN_BYTES ? undefined : parseCertificate(leafDer);
  return parsed?.ok === true
    ? { issuerKeyId: parsed.value.authorityKeyId?.slice(0, MAX_DESCRIBED), serial: parsed.value.serial.slice(0, MAX_DESCRIBED) }
    : { issuerKeyId: undefined, serial: undefined };
}
