import { hash } from 'node:crypto';
import { err, ok, type Result } from '../lib/result.ts';
import type { IdentitySnapshot } from '../identity/snapshot.ts';
import { MAX_CHAIN_BYTES, verifyPeer, type AuthenticatedPeer, type PeerRefusal } from '../spiffe/verify.ts';
import { parseCertificate } from '../spiffe/certificate.ts';
import type { SecondJudge } from '../spiffe/path.ts';
import type { TrustBundle } from '../spiffe/trust-bundle.ts';
import type { TrustDomain } from '../spiffe/trust-domain.ts';
import type { PeerEvidence, SecureConnection } from '../transport/connection.ts';
import { createPathRecheck, mayBeWrongChoice } from './path-recheck.ts';

/** A peer that proved who it is, with what it sent: live connections are judged again from this. */
export interface ProvenPeer {
  readonly authenticated: AuthenticatedPeer;
  /** As sent with this leaf when it was proven: leaf first, the rest untrusted. */
  readonly chainDer: readonly Uint8Array[];
  /** What OpenSSL said of the chain before it was asked about the path that our walk found; undefined if it trusted the chain. */
  readonly objection: string | undefined;
}

export type PeerRole = 'client' | 'server';

export interface PeerJudge {
  /**
   * Who is at the other end of a finished handshake. Our own walk to an authority of the peer's own trust domain decides,
   * and OpenSSL must agree: with the chain, which it verified over the pool of all authorities, or, where its verdict can
   * come from the wrong choice of an issuer, with each step of the path that the walk found.
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
      if (snapshot.generation !== generation) {
        generation = snapshot.generation;
        proven.clear();
      }
      // Who is refused without a look at the chain has nothing that could be known of it.
      const mayBeKnown = leafDer !== undefined && (libraryProblem === undefined || mayBeWrongChoice(libraryProblem));
      if (!mayBeKnown) return judgeEvidence({ libraryProblem, leafDer, chainDer }, snapshot.bundles, nowMs);
      const key = `${role} ${hash('sha256', leafDer, 'hex')}`;
      const known = proven.get(key);
      if (known !== undefined && nowMs < known.authenticated.validUntilMs) {
        if (libraryProblem === undefined || isFlightOf(known, chainDer())) return ok(known);
      }
      const judged = judgeEvidence({ libraryProblem, leafDer, chainDer }, snapshot.bundles, nowMs);
      if (judged.ok) remember(proven, key, judged.value);
      return judged;
    },
  };
}

/** As `PeerJudge.authenticate`, for connections that are too few to remember who made them. */
export function authenticateOnce(
  connection: SecureConnection,
  bundles: ReadonlyMap<TrustDomain, TrustBundle>,
  nowMs: number,
): Result<ProvenPeer, PeerRefusal> {
  return judgeEvidence(connection.readPeerEvidence(), bundles, nowMs);
}

function judgeEvidence(
  { libraryProblem, leafDer, chainDer }: PeerEvidence,
  bundles: ReadonlyMap<TrustDomain, TrustBundle>,
  nowMs: number,
): Result<ProvenPeer, PeerRefusal> {
  if (leafDer === undefined) return err({ problem: 'no_certificate', detail: 'the peer sent no certificate', claimedId: undefined });
  const sent = chainDer();
  if (libraryProblem !== undefined && !mayBeWrongChoice(libraryProblem))
    return err(refusedByLibrary(libraryProblem, verifyPeer(sent, bundles, nowMs)));
  const judged = verifyPeer(sent, bundles, nowMs, secondJudge(libraryProblem));
  return judged.ok ? ok({ authenticated: judged.value, chainDer: sent, objection: libraryProblem }) : judged;
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

function remember(proven: Map<string, ProvenPeer>, key: string, peer: ProvenPeer): void {
  // A Map keeps insertion order: deleting first makes this entry the youngest.
  proven.delete(key);
  if (proven.size >= MAX_CACHED) {
    const oldest = proven.keys().next();
    if (oldest.done !== true) proven.delete(oldest.value);
  }
  proven.set(key, peer);
}

/** Final, whatever our own walk says; but where that finds the fault, it says more. */
function refusedByLibrary(code: string, walked: Result<AuthenticatedPeer, PeerRefusal>): PeerRefusal {
  if (!walked.ok) return walked.error;
  return { problem: 'untrusted_chain', detail: `OpenSSL does not trust the chain: ${code}`, claimedId: walked.value.id };
}

/**
 * Judges a peer of a live connection against a newer snapshot, with the second look if it needed that to be let in.
 * Certificates that merely expired since the handshake do not count: the question is whether the same chain would still be
 * trusted.
 */
export function authenticateAgain(
  { authenticated, chainDer, objection }: ProvenPeer,
  snapshot: IdentitySnapshot,
  nowMs: number,
): Result<AuthenticatedPeer, PeerRefusal> {
  const second = secondJudge(objection);
  const now = verifyPeer(chainDer, snapshot.bundles, nowMs, second);
  if (now.ok || now.error.problem !== 'expired') return now;
  // `expired` says that a path is there, good but for its dates. Was anything on it revoked?
  const then = verifyPeer(chainDer, snapshot.bundles, Math.min(nowMs, authenticated.validUntilMs - 1), second);
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
