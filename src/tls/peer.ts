import { hash } from 'node:crypto';
import { err, ok, type Result } from '../lib/result.ts';
import type { IdentitySnapshot } from '../identity/snapshot.ts';
import { MAX_CHAIN_BYTES, verifyPeer, type AuthenticatedPeer, type PeerRefusal } from '../spiffe/verify.ts';
import { EMPTY_DENY_LIST, type DenyList } from '../policy/deny-list.ts';
import { parseCertificate } from '../spiffe/certificate.ts';
import type { SecondJudge } from '../spiffe/path.ts';
import type { SecureConnection } from '../transport/connection.ts';
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
   * come from the wrong choice of an issuer, with each step of the path that the walk found. Then the deny list is asked, each time.
   */
  authenticate(connection: SecureConnection, role: PeerRole, snapshot: IdentitySnapshot, nowMs: number): Result<ProvenPeer, PeerRefusal>;
}

/** Successful authentications only: refusals and policy verdicts are never remembered. */
const MAX_CACHED = 4096;

/** `denyList` is the one in force. */
export function createPeerJudge(denyList: () => DenyList = () => EMPTY_DENY_LIST): PeerJudge {
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
      if (libraryProblem !== undefined && !mayBeWrongChoice(libraryProblem)) {
        return err(refusedByLibrary(libraryProblem, verifyPeer(chainDer(), snapshot.bundles, nowMs)));
      }
      const key = `${role} ${hash('sha256', leafDer, 'hex')}`;
      const known = proven.get(key);
      if (known !== undefined && nowMs < known.authenticated.validUntilMs) {
        const isSame = libraryProblem === undefined || isFlightOf(known, chainDer());
        // Whose path is refused may have sent another one this time.
        if (isSame && denyList().refusal(known.authenticated.id, known.authenticated.path) === undefined) return ok(known);
      }
      const sent = chainDer();
      const judged = unlessDenied(verifyPeer(sent, snapshot.bundles, nowMs, secondJudge(libraryProblem)), denyList());
      if (!judged.ok) return judged;
      const peer: ProvenPeer = { authenticated: judged.value, chainDer: sent, objection: libraryProblem };
      remember(proven, key, peer);
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

function unlessDenied(verified: Result<AuthenticatedPeer, PeerRefusal>, denyList: DenyList): Result<AuthenticatedPeer, PeerRefusal> {
  if (!verified.ok) return verified;
  const { id, path } = verified.value;
  const detail = denyList.refusal(id, path);
  return detail === undefined ? verified : err({ problem: 'revoked', detail, claimedId: id });
}

/**
 * Judges a peer of a live connection against a newer snapshot and deny list, with the second look if it needed that to be let in.
 * Certificates that merely expired since the handshake do not count: the question is whether the same chain would still be
 * trusted.
 */
export function authenticateAgain(
  proven: ProvenPeer,
  snapshot: IdentitySnapshot,
  nowMs: number,
  denyList: DenyList = EMPTY_DENY_LIST,
): Result<AuthenticatedPeer, PeerRefusal> {
  return unlessDenied(verifyAgain(proven, snapshot, nowMs), denyList);
}

function verifyAgain(
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
