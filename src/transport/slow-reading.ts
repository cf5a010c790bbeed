import { Socket, type SocketConstructorOpts } from 'node:net';
import { KEPT_BYTES, type WaitingHandler } from './connection.ts';
import { sharedOnRead } from './socket-connection.ts';

/** One read, at most. Node's own are of 64 KiB, each of which a connection that waits would then hold. */
const READ_BYTES = 1024;
const SMALLEST_BYTES = 256;

/** Of the one that is shared, so that whoever is handed a read knows that it is. */
const readBuffer = sharedOnRead.buffer.subarray(0, READ_BYTES);

const REFUSED = 'this Node gives no second socket to the handle of an accepted one';

/** Node's sockets have these, and their types do not. */
interface Native {
  _handle: unknown;
}

/**
 * Reads an accepted socket a little at a time, and stops before more than `KEPT_BYTES` are held. How much Node reads at once
 * is only asked when a socket is made, so this makes another one of the same handle; it costs nothing to those that never wait.
 * Throws on a Node that does not let it: what waits would be heard no more, and what it says would be lost.
 */
export class SlowReading {
  /** Instead of the one that was given, which is of no use any more. */
  readonly socket: Socket;
  #kept: Buffer | undefined;
  #length = 0;
  #handler: WaitingHandler | undefined;
  /** What becomes of a read. */
  #take: (chunk: Uint8Array) => boolean = (chunk) => this.#keep(chunk);
  #buffer: Buffer = readBuffer;

  constructor(accepted: Socket) {
    const { _handle: handle } = accepted as unknown as Native;
    if (typeof handle !== 'object' || handle === null) throw new Error(REFUSED);
    (accepted as unknown as Native)._handle = null;
    // It holds nothing any more, and is not counted among the connections of its server.
    accepted.destroy();
    const { allowHalfOpen, readableHighWaterMark: highWaterMark } = accepted;
    const onread = {
      buffer: (): Buffer => this.#buffer,
      callback: (count: number, buffer: Uint8Array): boolean => this.#take(buffer.subarray(0, count)),
    };
    this.socket = new Socket({ handle, allowHalfOpen, highWaterMark, onread } as SocketConstructorOpts);
    if ((this.socket as unknown as Native)._handle !== handle) throw new Error(REFUSED);
    this.socket.on('end', () => this.#handler?.ended());
    this.socket.on('close', () => this.#handler?.closed());
  }

  /** Tells this handler from now on, and at once what it has missed. */
  tell(handler: WaitingHandler): void {
    this.#handler = handler;
    if (this.#kept !== undefined) handler.kept(this.#kept.length);
    if (this.socket.closed) handler.closed();
    else if (this.socket.readableEnded) handler.ended();
  }

  /** Nobody is told any more. What was read, if anything: it is the caller's. Later reads are pushed into the socket. */
  stop(): Uint8Array | undefined {
    this.#handler = undefined;
    const kept = this.#kept?.subarray(0, this.#length);
    this.#kept = undefined;
    this.#take = (chunk) => this.socket.push(Buffer.from(chunk));
    return kept;
  }

  /** Reads go to the connection that is made of the socket, into the buffer that others share. */
  shareReads(): void {
    const { buffer, callback } = sharedOnRead;
    this.#buffer = buffer;
    this.#take = (chunk) => callback.call(this.socket as never, chunk.length, chunk);
  }

  #keep(chunk: Uint8Array): boolean {
    const needed = this.#length + chunk.length;
    const had = this.#kept;
    if (had === undefined || had.length < needed) {
      let size = had?.length ?? SMALLEST_BYTES;
      while (size < needed) size *= 2;
      // Exactly so much memory: not a piece of one that others hold too.
      this.#kept = Buffer.allocUnsafeSlow(size);
      had?.copy(this.#kept, 0, 0, this.#length);
    }
    this.#kept?.set(chunk, this.#length);
    this.#length = needed;
    if (this.#kept !== had && this.#kept !== undefined) this.#handler?.kept(this.#kept.length);
    return this.#length + READ_BYTES <= KEPT_BYTES;
  }
}
