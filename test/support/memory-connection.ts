import type { Connection, ConnectionHandler } from '../../src/transport/connection.ts';

/** One end of a connection that is only memory: the test plays the other side, and says at which bytes it is cut. */
export class MemoryConnection implements Connection {
  readonly remoteAddress: string;
  readonly written: Buffer[] = [];
  handler: ConnectionHandler | undefined;
  isPaused = false;
  hasEnded = false;
  isAborted = false;
  /** The other side takes nothing more: each write asks for a pause that does not end. */
  isStuck = false;
  /** What was said while nobody listened. */
  readonly #waiting: Buffer[] = [];
  readonly #isSlow: boolean;
  #isDraining = false;
  #theirEnd = false;
  #closed = false;

  /** `slow`: each write asks for a pause. `remoteAddress`: `unix` for one that cannot be reset. */
  constructor({ slow = false, remoteAddress = 'memory' }: { readonly slow?: boolean; readonly remoteAddress?: string } = {}) {
    this.#isSlow = slow;
    this.remoteAddress = remoteAddress;
  }

  start(handler: ConnectionHandler): void {
    this.handler = handler;
    this.#deliver();
  }

  write(chunk: Uint8Array): boolean {
    // As a socket: what is written is gone before the caller's buffer is used again.
    if (!this.isAborted && !this.hasEnded) this.written.push(Buffer.from(chunk));
    if (this.isStuck) return false;
    if (!this.#isSlow) return true;
    if (!this.#isDraining) {
      this.#isDraining = true;
      setImmediate(() => {
        this.#isDraining = false;
        if (!this.#closed) this.handler?.drained();
      });
    }
    return false;
  }

  endWrite(): void {
    this.hasEnded = true;
    this.#closeIfOver();
  }

  pause(): void {
    this.isPaused = true;
  }

  resume(): void {
    this.isPaused = false;
    this.#deliver();
  }

  abort(): void {
    this.isAborted = true;
    this.#close();
  }

  /** The other side breaks off: what it said before and nobody read is lost. */
  break(code = 'ECONNRESET'): void {
    this.#close(Object.assign(new Error('broken'), { code }));
  }

  /** The other side says these bytes, in one piece. The buffer is scribbled over afterwards, as a transport's may be. */
  say(bytes: Buffer): void {
    this.#waiting.push(Buffer.from(bytes));
    this.#deliver();
  }

  /** The other side has said all. */
  finish(): void {
    this.#theirEnd = true;
    this.#deliver();
  }

  text(): string {
    return Buffer.concat(this.written).toString('latin1');
  }

  #deliver(): void {
    while (this.handler !== undefined && !this.isPaused && !this.#closed) {
      const chunk = this.#waiting.shift();
      if (chunk !== undefined) {
        this.handler.data(chunk);
        chunk.fill('#');
        continue;
      }
      if (!this.#theirEnd) return;
      this.#theirEnd = false;
      this.handler.ended();
      this.#closeIfOver(true);
      return;
    }
  }

  #theyEnded = false;
  #closeIfOver(theyEnded = false): void {
    this.#theyEnded ||= theyEnded;
    if (this.hasEnded && this.#theyEnded) this.#close();
  }

  #close(error?: Error): void {
    if (this.#closed) return;
    this.#closed = true;
    queueMicrotask(() => this.handler?.closed(error));
  }
}
