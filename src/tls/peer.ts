import { hash } from 'node:crypto';
import { err, ok, type Result } from '../lib/result.ts';
import type { IdentitySnapshot } from '../identity/snapshot.ts';
import { MAX_CHAIN_BYTES, verifyPeer, type AuthenticatedPeer, type PeerRefusal } from '../spiffe/verify.ts';
import { parseCertificate, type Certificate } from '../spiffe/certificate.ts';
import type { SecondJudge } from '../spiffe/path.ts';
import type { SecureConnection } from '../transport/connection.ts';
import { createPathRecheck, mayBeWrongChoice } from './path-recheck.ts';

/**
 * What is kept of a peer for as long as it is connected or remembered: whatever else is read from certificates takes 15 times their own
 * bytes, and up to 90 if their issuer wants that.
 */
interface Kept extends Pick<AuthenticatedPeer, 'id' | 'validUntilMs'> {
  readonly leaf: Pick<Certificate, 'sha256' | 'serial' | 'authorityKeyId' | 'notAfterMs' | 'der'> & {
    readonly subjectName: Pick<Certificate['subjectName'], 'commonName'>;
  };
}

/** A peer that proved who it is, with what it sent: live connections are judged again from this. */
export interface ProvenPeer {
  readonly authenticated: Kept;
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
/** Of certificates as sent: room for as many peers with chains of RSA keys. */
const MAX_CACHED_BYTES = 16 * 1024 * 1024;

export function createPeerJudge(): PeerJudge {
  let generation = -1;
  const proven = new Remembered();
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
        if (libraryProblem === undefined || isFlightOf(known, chainDer())) return ok(known);
      }
      const sent = chainDer();
      const judged = verifyPeer(sent, snapshot.bundles, nowMs, secondJudge(libraryProblem));
      if (!judged.ok) return judged;
      const peer: ProvenPeer = { authenticated: keptOf(judged.value), chainDer: sent, objection: libraryProblem };
      proven.set(key, peer);
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

function keptOf({ id, validUntilMs, leaf }: AuthenticatedPeer): Kept {
  const { sha256, serial, authorityKeyId, notAfterMs, der, subjectName } = leaf;
  const { commonName } = subjectName;
  return Object.freeze({ id, validUntilMs, leaf: { sha256, serial, authorityKeyId, notAfterMs, der, subjectName: { commonName } } });
}

/** By key, the youngest of those that were set. */
class Remembered {
  readonly #peers = new Map<string, ProvenPeer>();
  #bytes = 0;

  get(key: string): ProvenPeer | undefined {
    return this.#peers.get(key);
  }

  set(key: string, peer: ProvenPeer): void {
    // A Map keeps insertion order: deleting first makes this entry the youngest.
    this.#forget(key);
    this.#peers.set(key, peer);
    this.#bytes += bytesOf(peer);
    for (const oldest of this.#peers.keys()) {
      if (this.#peers.size <= MAX_CACHED && this.#bytes <= MAX_CACHED_BYTES) return;
      this.#forget(oldest);
    }
  }

  clear(): void {
    this.#peers.clear();
    this.#bytes = 0;
  }

  #forget(key: string): void {
    const peer = this.#peers.get(key);
    if (peer === undefined) return;
    this.#peers.delete(key);
    this.#bytes -= bytesOf(peer);
  }
}

function bytesOf({ chainDer }: ProvenPeer): number {
  return chainDer.reduce((sum, der) => sum + der.length, 0);
}

/** Final, whatever our own walk says; but where that finds the fault, it says more. */
function refusedByLibrary(code: string, walked: Result<AuthenticatedPeer, PeerRefusal>): PeerRefusal {
  if (!walked.ok) return walked.error;
  return { problem: 'untrusted_chain', detail: `OpenSSL does not trust the chain: ${code}`, claimedId: walked.value.id };
}

/**
 * Judges a peer of a live connection against a newer snapshot, with the second look if it needed that to be let in.
 * Certificates that merely expired since it was proven do not count: the question is whether there is a path that would still be
 * trusted. What had expired before then makes none, and what is revoked is so whatever its dates are.
 */
export function authenticateAgain(
  { authenticated, chainDer, objection }: ProvenPeer,
  snapshot: IdentitySnapshot,
  nowMs: number,
): Result<AuthenticatedPeer, PeerRefusal> {
  return verifyPeer(chainDer, snapshot.bundles, nowMs, secondJudge(objection), Math.min(nowMs, authenticated.validUntilMs - 1));
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
