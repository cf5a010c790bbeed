import { constants, PerformanceObserver } from 'node:perf_hooks';
import { collectAll } from './garbage.ts';

/**
 * Node has no way to say how many certificates a peer sent before it has made an object of each, and each of those holds
 * the next one: a full collection frees one link of a chain. So a stranger with a thousand certificates of 70 bytes in one
 * handshake makes us hold them until a thousand collections have gone by. What is held that way is counted here, by what was
 * read and the collections since; and when it is at its limit, no further chain is read until some of it is gone.
 */
export interface PeerChains {
  /** Whether a chain may be read now, of a peer that sent `sentBytes` in all until its handshake was done. */
  hasRoom(kind: ChainKind, sentBytes: number): boolean;
  /** Whether there is so much room that it may be read although nobody needs it: it is the fastest way to the leaf. */
  hasPlentyOfRoom(kind: ChainKind, sentBytes: number): boolean;
  /** A chain was read: so many certificates, and so many bytes of DER in all of them. */
  hold(kind: ChainKind, certificates: number, derBytes: number): void;
}

/** Whether the TLS library trusts the peer. Strangers use up a limit of their own, and those whom it trusts another. */
export type ChainKind = 'trusted' | 'stranger';

/** What each kind may hold. */
export const MAX_HELD_BYTES = 24 * 1024 * 1024;
/** OpenSSL lets no more than this through, in all certificates of a peer (SSL_CTX_set_max_cert_list). */
const MAX_SENT_BYTES = 100 * 1024;
/** The least that OpenSSL reads as a certificate (71 bytes with its length and its extensions in TLS 1.3). */
const MIN_CERTIFICATE_BYTES = 64;
/** Measured (docs/performance.md): what the smallest certificate takes; and a byte of the worst one, a name of empty attributes of seven bytes. */
const HELD_BYTES_A_CERTIFICATE = 1536;
const HELD_BYTES_A_BYTE = 31;

/**
 * So many links of a chain are freed by collections of young objects, which come every few hundred handshakes; a third is
 * old by then. With no more bytes than this they are not counted: nearly all peers send one or two.
 */
const SHORT_LIVED = 2;
const SHORT_LIVED_BYTES = 4096;

function heldBytes(certificates: number, derBytes: number): number {
  return certificates * HELD_BYTES_A_CERTIFICATE + derBytes * HELD_BYTES_A_BYTE;
}

/** What chains of one kind hold. */
export class HeldChains {
  /** Bytes, at most. */
  bytes = 0;
  /** What the next collection frees: one link of each chain. */
  #linkBytes = 0;
  /** At `n`: the links of the chains that the collection after the next `n` ends. */
  readonly #ending: number[] = [];

  hold(certificates: number, derBytes: number): void {
    if (certificates <= SHORT_LIVED && derBytes <= SHORT_LIVED_BYTES) return;
    const bytes = heldBytes(certificates, derBytes);
    // The first collection frees what was handed to us, the next the second link, and one that was under way may have come too early.
    const links = certificates + 1;
    while (this.#ending.length < links) this.#ending.push(0);
    this.#ending[links - 1] = (this.#ending[links - 1] ?? 0) + bytes / links;
    this.#linkBytes += bytes / links;
    this.bytes += bytes;
  }

  /** A full collection has gone by. */
  collected(): void {
    this.bytes -= this.#linkBytes;
    this.#linkBytes -= this.#ending.shift() ?? 0;
    // Sums of fractions: nothing is nothing.
    if (this.#ending.length === 0) [this.bytes, this.#linkBytes] = [0, 0];
  }
}

/** From this much on collections are asked for: V8 sees only the smallest part of what they would free. */
const COLLECT_ABOVE_BYTES = MAX_HELD_BYTES / 2;
/** Between two of them; and so many times what the last one took, so that a large heap does not cost more of the time than a small one. */
const COLLECT_PAUSE_MS = 500;
const COLLECT_PAUSE_TIMES = 25;

/** For the one process whose memory it is: Node's certificates live in no smaller room. */
export const peerChains: PeerChains = createPeerChains();

function createPeerChains(): PeerChains {
  const held: Readonly<Record<ChainKind, HeldChains>> = { trusted: new HeldChains(), stranger: new HeldChains() };
  let observes = false;
  let pauseMs = 0;
  let timer: NodeJS.Timeout | undefined;

  const observer = new PerformanceObserver((list) => {
    // Node's types do not know the detail.
    for (const { detail } of list.getEntries() as readonly { readonly detail?: { readonly kind?: unknown } }[]) {
      if (detail?.kind !== constants.NODE_PERFORMANCE_GC_MAJOR) continue;
      held.trusted.collected();
      held.stranger.collected();
    }
    if (held.trusted.bytes === 0 && held.stranger.bytes === 0) {
      // Hearing of collections costs a little each.
      observer.disconnect();
      observes = false;
    } else pace();
  });

  const mayHold = (kind: ChainKind, sentBytes: number, limit: number): boolean => {
    const bytes = Math.min(sentBytes, MAX_SENT_BYTES);
    return held[kind].bytes + heldBytes(bytes / MIN_CERTIFICATE_BYTES, bytes) <= limit;
  };

  const pace = (): void => {
    if (timer !== undefined || Math.max(held.trusted.bytes, held.stranger.bytes) <= COLLECT_ABOVE_BYTES) return;
    timer = setTimeout(() => {
      timer = undefined;
      const startedAtMs = performance.now();
      collectAll();
      pauseMs = Math.max(COLLECT_PAUSE_MS, COLLECT_PAUSE_TIMES * (performance.now() - startedAtMs));
    }, pauseMs).unref();
  };

  return {
    hasRoom: (kind, sentBytes) => mayHold(kind, sentBytes, MAX_HELD_BYTES),
    hasPlentyOfRoom: (kind, sentBytes) => mayHold(kind, sentBytes, COLLECT_ABOVE_BYTES / 2),
    hold(kind, certificates, derBytes) {
      held[kind].hold(certificates, derBytes);
      if (held[kind].bytes === 0) return;
      if (!observes) observer.observe({ entryTypes: ['gc'] });
      observes = true;
      pace();
    },
  };
}
