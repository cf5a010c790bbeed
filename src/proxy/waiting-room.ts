import type { WaitingHandler } from '../transport/connection.ts';

/** What is kept of all that wait, in each direction: half of 16 MiB, so that strangers crowd out no application. */
export const MAX_KEPT_BYTES = 8 * 1024 * 1024;

/** A connection that can wait. */
export interface Waiter {
  wait(handler: WaitingHandler): void;
}

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

/** Those that wait, at all listeners of one direction: who leaves is heard, and what they say ahead is bounded. */
export class WaitingRoom {
  readonly #maxBytes: number;
  readonly #entries = new Map<Waiter, Entry>();
  /** Those of whom something is kept, the one first of whom it is for the longest time. */
  readonly #holders = new Set<Waiter>();
  #bytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Memory that is held for what they have said. */
  get bytes(): number {
    return this.#bytes;
  }

  /** What it missed since it waited last, it is told within this call. */
  enter(waiter: Waiter, visitor: Visitor): void {
    this.leave(waiter);
    const entry: Entry = { visitor, bytes: 0 };
    const isHere = (): boolean => this.#entries.get(waiter) === entry;
    this.#entries.set(waiter, entry);
    waiter.wait({
      kept: (bytes) => {
        if (isHere()) this.#kept(waiter, entry, bytes);
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
  leave(waiter: Waiter): void {
    const entry = this.#entries.get(waiter);
    if (entry === undefined) return;
    this.#bytes -= entry.bytes;
    this.#entries.delete(waiter);
    this.#holders.delete(waiter);
  }

  #kept(waiter: Waiter, entry: Entry, bytes: number): void {
    this.#bytes += bytes - entry.bytes;
    entry.bytes = bytes;
    this.#holders.add(waiter);
    for (const longest of this.#holders) {
      if (this.#bytes <= this.#maxBytes) break;
      const crowded = this.#entries.get(longest)?.visitor;
      this.leave(longest);
      crowded?.crowdedOut(`more than ${this.#maxBytes} bytes are kept of connections that wait`);
    }
    if (this.#entries.get(waiter) === entry) entry.visitor.spoke?.();
  }
}
