import type { DenyReason } from '../policy/verdict.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import type { ListenerRef } from '../telemetry/log/records.ts';
import type { ProvenPeer } from '../tls/peer.ts';
import type { PeerEvidence } from '../transport/connection.ts';

/** What a peer showed in a handshake: it proved who it is, or it proved nothing. */
export type ShownPeer =
  | { readonly proven: ProvenPeer }
  | { readonly proven: undefined; readonly leafDer: PeerEvidence['leafDer']; readonly claimedId: SpiffeId | undefined };

/** Why a peer was refused. */
export interface PeerRefused {
  readonly reason: DenyReason;
  /** A sentence, in which the peer may have a say. */
  readonly detail: string;
  /** The rule that denied. */
  readonly rule: string | undefined;
}

/** Which connection it is about. */
export interface WitnessedConnection {
  readonly id: number;
  readonly downstreamAddress: string;
}

/** Is told of every peer that was judged after a handshake, and of those that have connections. Must be quick: it is part of each handshake. */
export interface PeerWitness {
  /** `refused` is undefined if the peer is allowed. */
  judged(listener: ListenerRef, connection: WitnessedConnection, shown: ShownPeer, refused: PeerRefused | undefined): void;
  /** A connection with this peer is open from here on. */
  joined(listener: ListenerRef, proven: ProvenPeer): void;
  /** As often as `joined` was called for this very object. */
  left(proven: ProvenPeer): void;
}
