import { hash } from 'node:crypto';
import { Remembered } from '../lib/remembered.ts';
import type { DenyReason } from '../policy/verdict.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import type { ListenerRef } from '../telemetry/log/records.ts';
import { strangersWords } from '../telemetry/log/scrub.ts';

/** What is kept anyway of a peer that proved who it is. */
export interface KnownPeer {
  readonly authenticated: {
    readonly id: SpiffeId;
    readonly leaf: { readonly sha256: string; readonly notAfterMs: number; readonly der: () => Uint8Array };
    /** SHA-256 of those above the leaf on the path that was found, the authority last. */
    readonly issuers: readonly string[];
  };
  /** As sent: leaf first. */
  readonly chainDer: readonly Uint8Array[];
}

type Shown =
  | { readonly proven: KnownPeer }
  | {
      readonly proven: undefined;
      readonly leafDer: Uint8Array | 'too_large' | 'unreadable' | undefined;
      readonly claimedId: SpiffeId | undefined;
    };

interface Refused {
  readonly reason: DenyReason;
  readonly detail: string;
  readonly rule: string | undefined;
}

/** A certificate that was shown to us, and what became of it. */
export interface SeenPeer {
  /** Grows with each handshake of anybody: newest first is by this. */
  seq: number;
  readonly sha256: string;
  /** The newest, for it has the newest path; undefined if it proved nothing. */
  known: KnownPeer | undefined;
  /** Of what proved nothing. */
  readonly strange: { readonly leafDer: Uint8Array; readonly claimedId: SpiffeId | undefined } | undefined;
  /** Why it was refused last; undefined if it is allowed. */
  refused: { readonly reason: DenyReason; readonly detail: string } | undefined;
  /** On which it was shown, each once. */
  listeners: readonly ListenerRef[];
  readonly firstSeenMs: number;
  lastSeenMs: number;
  handshakes: number;
  /** Open now. */
  connections: number;
}

/** A connection that was refused for its peer. */
export interface SeenRefusal {
  readonly seq: number;
  readonly atMs: number;
  readonly listener: ListenerRef;
  readonly connection: number;
  readonly downstreamAddress: string;
  readonly peer: SpiffeId | undefined;
  /** Undefined if no certificate was shown, or none that can be read. */
  readonly sha256: string | undefined;
  readonly reason: DenyReason;
  readonly detail: string;
  readonly rule: string | undefined;
}

/** Certificates of each kind that are remembered without a connection, and bytes of what was sent of them: strangers push out strangers alone. */
const MOST_REMEMBERED = 1024;
const MOST_BYTES = 2 << 20;
const MOST_REFUSALS = 256;
/** A peer chooses what is quoted in it. */
const MAX_DETAIL = 500;

/**
 * Every certificate that peers showed: those with open connections, and the last of those that were let in, that proved who they are and are
 * not allowed, and that proved nothing, each kind bounded by itself. Told by each handshake: it parses nothing.
 */
export class PeerBook {
  readonly #now: () => number;
  /** By SHA-256. As many as there are connections at most. */
  readonly #live = new Map<string, SeenPeer>();
  readonly #allowed = remembered();
  readonly #denied = remembered();
  readonly #strangers = remembered();
  readonly #refusals = new Remembered<SeenRefusal>(MOST_REFUSALS, Infinity, () => 0);
  #seq = 0;
  #refusalCount = 0;

  /** `now` is wall time, milliseconds since 1970. */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** Of a handshake: `refused` is undefined if the peer is allowed. */
  judged(
    listener: ListenerRef,
    connection: { readonly id: number; readonly downstreamAddress: string },
    shown: Shown,
    refused: Refused | undefined,
  ): void {
    const seen = shown.proven === undefined ? this.#stranger(shown) : this.#known(shown.proven);
    const detail = refused === undefined ? '' : strangersWords(refused.detail, MAX_DETAIL);
    this.#seq += 1;
    if (seen !== undefined) {
      seen.seq = this.#seq;
      seen.lastSeenMs = this.#now();
      seen.handshakes += 1;
      addListener(seen, listener);
      seen.refused = refused && { reason: refused.reason, detail };
      if (seen.connections === 0) this.#remember(seen);
    }
    if (refused === undefined) return;
    this.#refusalCount += 1;
    this.#refusals.set(String(this.#seq), {
      seq: this.#seq,
      atMs: this.#now(),
      listener,
      connection: connection.id,
      downstreamAddress: connection.downstreamAddress,
      peer: shown.proven?.authenticated.id,
      sha256: seen?.sha256,
      reason: refused.reason,
      detail,
      rule: refused.rule,
    });
  }

  /** A connection with this peer is open from here on. */
  joined(listener: ListenerRef, proven: KnownPeer): void {
    const seen = this.#known(proven);
    addListener(seen, listener);
    seen.connections += 1;
    this.#live.set(seen.sha256, seen);
  }

  /** It is not any more. */
  left(proven: KnownPeer): void {
    const seen = this.#live.get(proven.authenticated.leaf.sha256);
    if (seen === undefined) return;
    seen.connections -= 1;
    if (seen.connections > 0) return;
    this.#live.delete(seen.sha256);
    this.#remember(seen);
  }

  /** Those that proved who they are, in no order. */
  *proven(): Generator<SeenPeer & { readonly known: KnownPeer }> {
    for (const source of [this.#live.values(), this.#allowed.values(), this.#denied.values()])
      for (const seen of source) if (hasProof(seen)) yield seen;
  }

  /** Those that proved nothing, in no order. */
  strangers(): Iterable<SeenPeer> {
    return this.#strangers.values();
  }

  /** The last ones, in no order. */
  refusals(): Iterable<SeenRefusal> {
    return this.#refusals.values();
  }

  get counts(): { readonly proven: number; readonly strangers: number; readonly refusals: number } {
    return {
      proven: this.#live.size + this.#allowed.size + this.#denied.size,
      strangers: this.#strangers.size,
      // Since the start.
      refusals: this.#refusalCount,
    };
  }

  /** The entry of a peer that has open connections, or one that is in no list for the moment. */
  #known(proven: KnownPeer): SeenPeer {
    const { sha256 } = proven.authenticated.leaf;
    const seen =
      this.#live.get(sha256) ?? this.#allowed.take(sha256) ?? this.#denied.take(sha256) ?? this.#begin(sha256, proven, undefined);
    seen.known = proven;
    return seen;
  }

  #stranger({ leafDer, claimedId }: Shown & { readonly proven: undefined }): SeenPeer | undefined {
    if (typeof leafDer !== 'object') return undefined;
    const sha256 = hash('sha256', leafDer);
    // A copy: what the TLS library gave may be a part of something larger.
    return this.#strangers.take(sha256) ?? this.#begin(sha256, undefined, { leafDer: Uint8Array.from(leafDer), claimedId });
  }

  #begin(sha256: string, known: KnownPeer | undefined, strange: SeenPeer['strange']): SeenPeer {
    const nowMs = this.#now();
    return {
      seq: this.#seq,
      sha256,
      known,
      strange,
      refused: undefined,
      listeners: [],
      firstSeenMs: nowMs,
      lastSeenMs: nowMs,
      handshakes: 0,
      connections: 0,
    };
  }

  #remember(seen: SeenPeer): void {
    const list = seen.known === undefined ? this.#strangers : seen.refused === undefined ? this.#allowed : this.#denied;
    list.set(seen.sha256, seen);
  }
}

/** Most peers are shown on one: no set, which takes more than all the rest of an entry. */
function addListener(seen: SeenPeer, listener: ListenerRef): void {
  if (!seen.listeners.includes(listener)) seen.listeners = [...seen.listeners, listener];
}

function remembered(): Remembered<SeenPeer> {
  return new Remembered(MOST_REMEMBERED, MOST_BYTES, bytesOf);
}

function bytesOf({ known, strange }: SeenPeer): number {
  return known?.chainDer.reduce((sum, der) => sum + der.length, 0) ?? strange?.leafDer.length ?? 0;
}

function hasProof(seen: SeenPeer): seen is SeenPeer & { readonly known: KnownPeer } {
  return seen.known !== undefined;
}
