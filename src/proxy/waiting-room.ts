import type { AcceptedConnection } from '../transport/connection.ts';

/** What is kept of all that wait, in each direction: half of 16 MiB, so that strangers crowd out no application. */
export const MAX_KEPT_BYTES = 8 * 1024 * 1024;

/** What is told of a connection that waits. */
export interface Visitor {
  /** It has said something. */
  spoke?(): void;
  /** It has ended its side, and may still read. */
  ended?(): void;
  /** It is gone. */
  closed(): void;
  /** Too much is kept of all that wait, and of it for the longest time. It has left the room already. */
  crowdedOut(detail: string): void;
}

interface Entry {
  readonly visitor: Visitor;
  bytes: number;
}

/** Those that wait unread, at all listeners of one direction: who leaves is heard, and what they say ahead is bounded. */
export class WaitingRoom {
  readonly #maxBytes: number;
  readonly #entries = new Map<AcceptedConnection, Entry>();
  /** Those of whom something is kept, the one first of whom it is for the longest time. */
  readonly #holders = new Set<AcceptedConnection>();
  #bytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Memory that is held for what they have said. */
  get bytes(): number {
    return this.#bytes;
  }

  /** What it missed since it waited last, it is told within this call. */
  enter(accepted: AcceptedConnection, visitor: Visitor): void {
    this.leave(accepted);
    const entry: Entry = { visitor, bytes: 0 };
    const isHere = (): boolean => this.#entries.get(accepted) === entry;
    this.#entries.set(accepted, entry);
    accepted.wait({
      kept: (bytes) => {
        if (isHere()) this.#kept(accepted, entry, bytes);
      },
      ended: () => {
        if (isHere()) visitor.ended?.();
      },
      closed: () => {
        if (isHere()) visitor.closed();
      },
    });
  }

  /** It is used, or dropped. Nothing more is told of it. */
  leave(accepted: AcceptedConnection): void {
    const entry = this.#entries.get(accepted);
    if (entry === undefined) return;
    this.#bytes -= entry.bytes;
    this.#entries.delete(accepted);
    this.#holders.delete(accepted);
  }

  #kept(accepted: AcceptedConnection, entry: Entry, bytes: number): void {
    this.#bytes += bytes - entry.bytes;
    entry.bytes = bytes;
    this.#holders.add(accepted);
    for (const longest of this.#holders) {
      if (this.#bytes <= this.#maxBytes) break;
      const crowded = this.#entries.get(longest)?.visitor;
      this.leave(longest);
      crowded?.crowdedOut(`more than ${this.#maxBytes} bytes are kept of connections that wait`);
    }
    if (this.#entries.get(accepted) === entry) entry.visitor.spoke?.();
  }
}
